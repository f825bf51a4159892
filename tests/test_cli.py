"""The program `notata`: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from notata import Experiment, Logbook, LogReader, __version__
from notata.cli import main
from notata.cli.printing import ATTENTION
from notata.phrases import duration_text, printable, size_text

COMMANDS = main.list_commands(click.Context(main))
PLACES = ("NOTATA_RANK", "NOTATA_SIZE", "NOTATA_LAUNCH")
Launch = Callable[..., Path]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts in a folder of its own, on a process that is no rank."""
    monkeypatch.chdir(tmp_path)
    for name in (*PLACES, "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Make a run of several ranks, opened one after another in this process."""

    def run(run_id: str, size: int = 3, base: str = "outputs", *, close: bool = True) -> Path:
        logs = []
        for rank in range(size):
            for name, value in zip(PLACES, (rank, size, run_id), strict=True):
                monkeypatch.setenv(name, str(value))
            logs.append(Logbook(run_id, base))
        for name in PLACES:
            monkeypatch.delenv(name)
        for rank, log in enumerate(logs):
            log.info(f"greetings from {rank}")
            log.array("T", np.full((2, 4), float(rank)), start=(2 * rank, 0), shape=(2 * size, 4))
            log.array("states/step1", np.arange(500 * rank))
            log.arrays("fields", u=np.full(rank + 1, rank))
        for log in reversed(logs) if close else ():
            log.mark_complete()
        return logs[0].path

    return run


@pytest.fixture
def serial() -> Path:
    with Logbook("serial") as log:
        log.array("x", np.ones(3))
    return log.path


@pytest.fixture
def sweep(launch: Launch) -> Path:
    """An experiment: two runs complete, one failed, one of them of two ranks."""
    sweep = Experiment("sweep")
    for omega in (1, 2):
        log = sweep.add(omega=omega)
        assert log is not None
        log.mark_complete() if omega == 1 else log.mark_failed("NaN")
    launch("sweep_big", 2, "outputs/sweep/runs")
    return Path("outputs/sweep")


def notata(*args: object, width: int = 80) -> Result:
    """Call the program in this process; an error that it doesn't handle is raised."""
    words = [str(arg) for arg in args]
    return CliRunner().invoke(main, words, env={"COLUMNS": f"{width}"}, catch_exceptions=False)


def program(*args: object, **more: object) -> subprocess.CompletedProcess[str]:
    """Call the program in a process of its own."""
    command = [sys.executable, "-m", "notata", *map(str, args)]
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.run(command, text=True, check=False, **settings)  # type: ignore[call-overload]


def on_terminal(*args: object, **environment: str) -> str:
    """What the program prints on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    terminal = {"TERM": "xterm-256color", "COLUMNS": "100"}
    done = program(*args, stdout=theirs, env=os.environ | terminal | environment)
    os.close(theirs)
    printed = b""
    with suppress(OSError):  # Linux says EIO where all of it is read
        while block := os.read(ours, 65536):
            printed += block
    os.close(ours)
    assert done.returncode == 0, done.stderr
    return printed.decode()


def rows(result: Result) -> dict[str, list[str]]:
    """The rows of a table, from the first cell to the others."""
    lines = result.stdout.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("─"))
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines[start + 1 :]]
    return {first: others for first, *others in cells}


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files of a folder, with the time of their last change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


# ----- the program -----


def test_version() -> None:
    assert notata("--version").stdout == f"notata {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_in_the_help(command: str) -> None:
    assert re.search(rf"^  {command} +[A-Z]", notata("--help").stdout, re.MULTILINE)


def examples(*command: str) -> Iterator[str]:
    """The lines below `Example:` in a command's help that call notata."""
    paragraph = notata(*command, "--help").stdout.partition("  Example:\n")[2].partition("\n\n")[0]
    return (line.strip() for line in paragraph.splitlines() if line.startswith("    notata "))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_of_the_command(command: str) -> None:
    calls = list(examples(command))
    assert calls
    assert all(shlex.split(call)[1] == command for call in calls)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_examples_of_the_help_run(command: tuple[str, ...], launch: Launch, sweep: Path) -> None:
    launch("heat")
    launch("killed", close=False)
    calls = list(examples(*command))
    # All of them, in one paragraph: none is passed over because it stands elsewhere.
    told = notata(*command, "--help").stdout.splitlines()
    assert calls == [line.strip() for line in told if line.startswith("    notata ")]
    assert calls
    for call in calls:
        result = notata(*shlex.split(call)[1:])
        assert result.exit_code in (0, ATTENTION), f"{call}: {result.stderr}"  # a run of it failed
        assert result.stdout


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_fits_80_columns(command: tuple[str, ...]) -> None:
    assert max(map(len, notata(*command, "--help").stdout.splitlines())) <= 80


@pytest.mark.parametrize("args", [("merge",), ("ls", "a", "b"), ("ls", "--colour"), ("melt",)])
def test_wrong_use_is_status_2(args: tuple[str, ...]) -> None:
    result = notata(*args)
    assert result.exit_code == 2
    assert "Error:" in result.stderr
    assert not result.stdout


def test_an_error_is_one_line_without_a_stack_trace() -> None:
    done = program("ls", "nowhere")
    assert done.returncode == 2
    told = "no such folder: nowhere, here or below outputs, nor a run of that id"
    assert done.stderr == f"notata: error: {told}\n"
    assert done.stdout == ""


def test_an_os_error_is_one_line_too(monkeypatch: pytest.MonkeyPatch, serial: Path) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.listdir", refuse)
    result = notata("ls", "outputs")
    assert result.exit_code == 2
    assert result.stderr == "notata: error: outputs: Permission denied\n"


def test_a_reader_that_went_away_is_no_error(serial: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = program("ls", stdout=writing)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


def test_help_loads_neither_rich_nor_numpy() -> None:
    code = (
        "import sys; from notata.cli import main; main(['--help'], standalone_mode=False)\n"
        "print(*sorted({'click', 'rich', 'numpy', 'yaml'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "click\n"


def test_colour_on_a_terminal_only(serial: Path) -> None:
    assert "\x1b[32mcomplete" in on_terminal("ls")
    assert "\x1b" not in program("ls").stdout


def test_no_colour_where_nobody_wants_it(serial: Path) -> None:
    printed = on_terminal("ls", NO_COLOR="1")
    assert "complete" in printed
    assert not re.search(r"\x1b\[[0-9;]*3\d", printed)


def test_a_terminal_that_knows_only_ascii(launch: Launch) -> None:
    path = launch("heat")
    path.rename("outputs/log_wärme")
    plain = os.environ | {"PYTHONIOENCODING": "ascii"}
    listed = program("ls", env=plain)
    merged = program("merge", "outputs/log_wärme", env=plain)
    assert (listed.returncode, merged.returncode) == (0, 0), listed.stderr + merged.stderr
    assert "log_w\\xe4rme" in listed.stdout
    assert "6 \\xd7 4" in merged.stdout


# ----- ls -----


def test_ls_of_runs_and_experiments(serial: Path, launch: Launch, sweep: Path) -> None:
    launch("heat")
    launch("going", 4, close=False)
    with suppress(FloatingPointError), Logbook("broken"):
        raise FloatingPointError("NaN")
    (serial.parent / "notes.txt").write_text("not a run")
    (serial.parent / "log_").mkdir()
    (serial.parent / "log_loop").symlink_to("log_loop")
    result = notata("ls")
    assert result.exit_code == 0, result.stderr
    assert {name: cells[:3] for name, cells in rows(result).items()} == {
        "log_broken": ["run", "failed", "1"],
        "log_going": ["run", "running", "4"],
        "log_heat": ["run", "complete", "3"],
        "log_serial": ["run", "complete", "1"],
        "sweep": ["experiment", "2 complete, 1 failed", "1-2"],
    }
    took = {name: cells[3] for name, cells in rows(result).items()}
    assert took.pop("log_going") == "-"  # it has not ended
    assert all(re.fullmatch(r"\d+(\.\d)? s", cell) for cell in took.values())


def test_ls_of_an_experiment_lists_its_runs(sweep: Path) -> None:
    found = rows(notata("ls", sweep))
    assert {name: cells[:3] for name, cells in found.items()} == {
        "log_sweep_big": ["run", "complete", "2"],
        "log_sweep_omega_1": ["run", "complete", "1"],
        "log_sweep_omega_2": ["run", "failed", "1"],
    }


def test_ls_of_one_run(serial: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(rows(notata("ls", serial))) == ["log_serial"]
    monkeypatch.chdir(serial)
    assert list(rows(notata("ls", "."))) == ["log_serial"]


def test_ls_says_how_long_and_how_long_ago(serial: Path) -> None:
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() - 3 * 3600 - 60))
    (serial / "metadata.json").write_text(
        json.dumps({"status": "complete", "start_time": began, "runtime_sec": 7384.2})
    )
    assert rows(notata("ls"))["log_serial"] == ["run", "complete", "1", "2 h 03 min", "3 h"]


@pytest.mark.parametrize("damaged", ["", '{"status": "compl', "[1]", "\xff", None])
def test_ls_shows_damaged_runs(serial: Path, launch: Launch, damaged: str | None) -> None:
    launch("heat")
    metadata = Path("outputs/log_heat/metadata.json")
    if damaged is None:
        metadata.unlink()  # rank 0 never came, other ranks wrote
    else:
        metadata.write_bytes(damaged.encode("latin-1"))
    result = notata("ls")
    assert result.exit_code == 1
    assert rows(result)["log_heat"] == ["run", "damaged", "-", "-", "-"]
    assert rows(result)["log_serial"][1] == "complete"
    assert "outputs/log_heat/metadata.json: " in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_ls_counts_damaged_runs_of_an_experiment(sweep: Path) -> None:
    (sweep / "runs" / "log_sweep_omega_1" / "metadata.json").write_text("{")
    result = notata("ls")
    assert result.exit_code == 1
    assert rows(result)["sweep"][1] == "1 complete, 1 damaged, 1 failed"


def test_ls_of_metadata_with_strange_values(serial: Path) -> None:
    (serial / "metadata.json").write_text(
        '{"status": null, "start_time": 5, "runtime_sec": NaN, "parallel": {"size": "x"}}'
    )
    result = notata("ls")
    assert result.exit_code == 0
    assert rows(result)["log_serial"] == ["run", "unknown", "1", "-", "-"]


@pytest.mark.parametrize("stamp", ["2026-11-23", "2026-11-23T03:00:00.1e999", "03:00", ""])
def test_ls_of_stamps_that_no_log_has(serial: Path, stamp: str) -> None:
    metadata = serial / "metadata.json"
    meta = json.loads(metadata.read_text()) | {"start_time": stamp}
    del meta["start_epoch"]
    metadata.write_text(json.dumps(meta))
    result = notata("ls")
    assert result.exit_code == 0
    assert rows(result)["log_serial"][-1] == "-"


def test_ls_and_merge_leave_out_what_is_no_run(sweep: Path) -> None:
    (sweep / "runs" / ".DS_Store").write_bytes(b"Bud1")
    (sweep / "runs" / "log_notes").write_text("a file")
    (sweep / "runs" / "log_empty").mkdir()
    shutil.copytree(sweep / "runs" / "log_sweep_omega_1", sweep / "runs" / "copy of it")
    assert list(rows(notata("ls", sweep))) == [
        "log_sweep_big",
        "log_sweep_omega_1",
        "log_sweep_omega_2",
    ]
    assert f"{sweep}: 2 runs: one rank: nothing to merge\n" in notata("merge", sweep).stdout


def test_ls_of_nothing() -> None:
    Path("outputs/deeper").mkdir(parents=True)
    result = notata("ls")
    assert result.exit_code == 0
    assert result.stdout == "no runs or experiments in outputs\n"


def test_ls_says_where_there_are_some_instead(serial: Path) -> None:
    assert notata("ls", ".").stdout == ("no runs or experiments in .\nthere are some in outputs\n")


def test_ls_of_an_experiment_without_runs() -> None:
    Experiment("sweep")
    assert rows(notata("ls"))["sweep"][1] == "no runs"
    assert notata("ls", "outputs/sweep").stdout == "no runs in experiment outputs/sweep\n"


def test_ls_of_a_file(serial: Path) -> None:
    result = notata("ls", serial / "log.txt")
    assert result.exit_code == 2
    assert result.stderr == f"notata: error: {serial}/log.txt is a file, not a folder of runs\n"


def test_names_are_printed_as_they_are(serial: Path) -> None:
    serial.rename("outputs/log_[bold]x[red] y")
    Path("outputs/log_\x1b[31m\nz").mkdir()
    Path("outputs/log_\x1b[31m\nz/metadata.json").write_text('{"status": "[i]\\u001b[1m"}')
    result = notata("ls")
    assert list(rows(result)) == ["log_\\x1b[31m\\nz", "log_[bold]x[red] y"]
    assert "[i]\\x1b[1m" in result.stdout
    assert "\x1b" not in result.stdout
    merged = notata("merge", "outputs/log_[bold]x[red] y")
    assert merged.stdout.startswith("outputs/log_[bold]x[red] y: ")


@pytest.mark.parametrize("width", [80, 140])
def test_tables_fit_and_show_names_whole(launch: Launch, width: int) -> None:
    name = "omega_2.0_dt_0.001_" + "integrator_velocity-verlet_" * 4
    path = launch(name)
    for result in (notata("ls", width=width), notata("merge", path, width=width)):
        table = result.stdout.splitlines()
        assert result.exit_code == 0
        assert max(len(line) for line in table if str(path) not in line) <= width
    first = "".join(line.split("  ")[0].strip() for line in notata("ls").stdout.splitlines())
    assert f"log_{name}" in first


# ----- merge -----


def test_merge_shows_what_was_joined(launch: Launch) -> None:
    path = launch("heat")
    result = notata("merge", path)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{path}: ")
    log_size = size_text((path / "log.txt").stat().st_size)
    assert rows(result) == {
        "T": ["3", "6 × 4", "192 B"],
        "fields:u": ["3", "6", "48 B"],
        "log.txt": ["3", log_size],
        "states/step1": ["3", "1500", "12.0 kB"],
    }
    merged = np.load(path / "data" / "T.npy")
    assert np.array_equal(merged, np.repeat([0.0, 1.0, 2.0], 2)[:, None] * np.ones(4))
    assert not result.stderr


def test_merge_in_a_process_of_its_own(launch: Launch) -> None:
    path = launch("heat")
    done = program("merge", path)
    assert done.returncode == 0, done.stderr
    assert (path / "data" / "T.npy").exists()


def test_second_merge_has_nothing_to_do(launch: Launch) -> None:
    path = launch("heat")
    notata("merge", path)
    before = tree(path)
    result = notata("merge", path)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{path}: nothing to do: ")
    assert len(result.stdout.splitlines()) == 1
    assert tree(path) == before


def test_merge_of_a_serial_run_says_that_it_is_one_rank(serial: Path) -> None:
    before = tree(serial)
    result = notata("merge", serial)
    assert result.exit_code == 0
    assert result.stdout == f"{serial}: one rank: nothing to merge\n"
    assert tree(serial) == before


def test_merge_of_an_experiment_merges_its_runs(sweep: Path) -> None:
    result = notata("merge", sweep)
    assert result.exit_code == 0
    assert f"{sweep}/runs/log_sweep_big: " in result.stdout
    assert f"{sweep}: 2 runs: one rank: nothing to merge\n" in result.stdout
    whole = LogReader(sweep / "runs" / "log_sweep_big").load_array("T")
    assert np.array_equal(np.load(sweep / "runs" / "log_sweep_big" / "data" / "T.npy"), whole)


def test_merge_of_an_experiment_without_runs() -> None:
    Experiment("sweep")
    result = notata("merge", "outputs/sweep")
    assert result.exit_code == 0
    assert result.stdout == "outputs/sweep: no runs: nothing to merge\n"


def test_problems_are_told_and_nothing_is_written(launch: Launch) -> None:
    path = launch("heat")
    (path / "ranks" / "rank_00001" / "data" / "T.npy").unlink()
    short = path / "ranks" / "rank_00002" / "data" / "states" / "step1.npy"
    short.write_bytes(short.read_bytes()[:-8])
    before = tree(path)
    result = notata("merge", path)
    assert result.exit_code == 2
    assert result.stdout == ""
    *problems, hint = result.stderr.splitlines()
    assert hint == "notata: nothing was written; --allow-missing would go on"
    assert len(problems) == 2
    assert all(line.startswith(f"notata: error: {path}: rank ") for line in problems)
    assert any("rank 1" in line and "'T'" in line for line in problems)
    assert any("rank 2" in line and "'states/step1'" in line for line in problems)
    assert tree(path) == before


def test_other_runs_are_merged_where_some_cannot_be(launch: Launch, serial: Path) -> None:
    good, bad, torn = launch("good"), launch("bad"), launch("torn")
    (bad / "ranks" / "rank_00001" / "data" / "T.npy").unlink()
    (torn / "metadata.json").write_text("{")
    Path("empty").mkdir()
    result = notata("merge", bad, torn, "outputs/none", "empty", good)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    named = [line.removeprefix("notata: error: ") for line in lines if "error: " in line]
    assert [line.split(": ")[0] for line in named] == [
        str(bad),
        f"{torn}/metadata.json is damaged",
        "no such run",
        "empty is no run",
    ]
    assert (good / "data" / "T.npy").exists()
    assert not (bad / "data").exists()
    assert not (torn / "data").exists()


def test_a_broken_run_of_an_experiment_leaves_the_others(launch: Launch, sweep: Path) -> None:
    bad = launch("sweep_aaa", 3, "outputs/sweep/runs")
    (bad / "ranks" / "rank_00001" / "data" / "T.npy").unlink()
    result = notata("merge", sweep)
    assert result.exit_code == 2
    assert str(bad) in result.stderr
    assert (sweep / "runs" / "log_sweep_big" / "data" / "T.npy").exists()


def test_a_disk_error_is_a_problem_of_that_run(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, fine = launch("full"), launch("fine")
    makedirs = os.makedirs

    def refuse(path: str, *args: object, **kwargs: object) -> None:
        if str(full) in str(path):
            raise OSError(28, "No space left on device", str(path))
        makedirs(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("os.makedirs", refuse)
    result = notata("merge", full, fine)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"notata: error: {full}: ")
    assert "No space left on device" in result.stderr
    assert (fine / "data" / "T.npy").exists()


def test_a_run_that_never_closed_is_merged_when_asked(launch: Launch) -> None:
    path = launch("killed", close=False)
    refused = notata("merge", path)
    assert refused.exit_code == 2
    assert "--unfinished" in refused.stderr
    assert not (path / "data").exists()
    result = notata("merge", "--unfinished", path)
    assert result.exit_code == 0, result.stderr
    assert rows(result)["T"] == ["3", "6 × 4", "192 B"]


# ----- phrases -----


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_940, "99.9 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (50 * 10**9, "50.0 GB"),
        (3 * 10**15, "3000.0 TB"),
    ],
)
def test_sizes(count: int, told: str) -> None:
    assert size_text(count) == told


@pytest.mark.parametrize(
    ("seconds", "told", "coarsely"),
    [
        (0.04, "0.0 s", "0 s"),
        (9.94, "9.9 s", "10 s"),
        (9.96, "10 s", "10 s"),
        (59.4, "59 s", "59 s"),
        (59.6, "1 min 00 s", "1 min"),
        (3599.7, "1 h 00 min", "1 h"),
        (90_061, "1 d 01 h", "1 d"),
    ],
)
def test_durations(seconds: float, told: str, coarsely: str) -> None:
    assert duration_text(seconds) == told
    assert duration_text(seconds, coarse=True) == coarsely


def test_nothing_printed_commands_the_terminal() -> None:
    assert printable("a\x1b[2Jb\r\n\udcff") == "a\\x1b[2Jb\\r\\n\\udcff"
    assert printable("wärme [x] × 2") == "wärme [x] × 2"
