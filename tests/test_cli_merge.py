"""`notata merge`: plans, verdicts, folders of runs, and what is printed where."""

from __future__ import annotations

import csv
import json
import math
import os
import pty
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from richrun import rich, tree_of
from simulated import ROOT, open_as, write_as

import notata
from notata import Experiment, Logbook, LogReader
from notata.cli import main
from notata.cli.progress import Progress
from notata.topology import hostname


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def merge(*args: object, width: int = 80) -> Result:
    words = ["merge", *map(str, args)]
    return CliRunner().invoke(main, words, env={"COLUMNS": f"{width}"}, catch_exceptions=False)


def two_ranks(run_id: str, base: str = "outputs") -> Path:
    return write_as(2, base, lambda log: log.array("x", [log.rank]), run_id)


def going(run_id: str, base: str = "outputs") -> Path:
    logs = [open_as(rank, 2, base, run_id) for rank in range(2)]
    for log in logs:
        log.array("x", [log.rank])
    return Path(base, f"log_{run_id}")


def broken(run_id: str, base: str = "outputs") -> Path:
    run = two_ranks(run_id, base)
    (run / "ranks/rank_00001/data/x.npy").unlink()
    return run


# ----- the plan -----


@pytest.mark.parametrize("width", [80, 140])
def test_a_dry_run_shows_the_plan_and_writes_nothing(width: int) -> None:
    run = rich(Path("outputs"))
    before = tree_of(run)
    result = merge("--dry-run", run, width=width)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{run}: would join 10 of 10, ")
    assert max(map(len, lines)) <= width
    assert [line.split()[:5] for line in lines if line.startswith(("T ", "z:k "))] == [
        ["T", "array", "0-1,3", "6", "×"],
        ["z:k", "bundle", "0-1,3", "150", "1.2"],
    ]
    assert tree_of(run) == before
    merge(run)
    assert "would join 0 of 10" in merge("--dry-run", run).stdout


def test_a_dry_run_says_what_is_wrong() -> None:
    run = broken("bad")
    before = tree_of(run)
    gone = run / "ranks/rank_00001/data/x.npy"
    result = merge("--dry-run", run)
    assert result.exit_code == 2
    assert f"{run}: can't be merged as it is\n" in result.stdout
    assert result.stderr.splitlines() == [
        f"notata: error: {run}: rank 1's piece of 'x' is missing: {gone}",
        "notata: nothing was written; --allow-missing would go on",
    ]
    allowed = merge("--dry-run", "--allow-missing", run)
    assert allowed.exit_code == 0
    assert "hole: rank 1's piece of 'x' is missing" in allowed.stdout
    assert tree_of(run) == before


# ----- pieces that make no whole -----


def sound(log: Logbook) -> None:
    """A run without any fault."""
    log.array("good", [log.rank])
    log.array("T", np.full((2, 3), float(log.rank)))
    log.array("P", np.full((2, 3), float(log.rank)), start=(2 * log.rank, 0), shape=(6, 3))
    log.arrays("b", u=np.full(2, float(log.rank)), v=[1.0])
    log.info(f"here is {log.rank}")


def faulty(fault: str) -> Callable[[Logbook], None]:
    """The same run, where one rank or all wrote something that fits no other rank's pieces."""

    def work(log: Logbook) -> None:
        sound(log)
        odd = log.rank == 1
        place = {"start": (2 * log.rank, 0), "shape": (6, 3)}
        if fault == "overlap":
            log.array("P", np.ones((3 if odd else 2, 3)), **place)
        elif fault == "overlap of all":
            log.array("P", np.ones((6, 3)), start=(0, 0), shape=(6, 3))
        elif fault == "gap":
            log.array("P", np.ones((1 if odd else 2, 3)), **place)
        elif fault == "types, joined":
            log.array("T", np.ones((2, 3), "f4" if odd else "f8"))
        elif fault == "types, placed":
            log.array("P", np.ones((2, 3), "i8" if odd else "f8"), **place)
        elif fault == "types, of a key":
            log.arrays("b", u=np.ones(2, "c16" if odd else "f8"), v=[1.0])
        else:
            assert fault == "shapes"
            log.array("T", np.ones((2, 4 if odd else 3)))

    return work


FAULTS = {
    "overlap": "array 'P' of shape (6, 3): ranks 1-2 overlap at [4:5, 0:3]",
    "overlap of all": "array 'P' of shape (6, 3): ranks 0-2 overlap at [0:6, 0:3]",
    "gap": "array 'P' of shape (6, 3): nothing covers [3:4, 0:3]",
    "types, joined": "array 'T' has type <f8 on ranks 0, 2, <f4 on rank 1",
    "types, placed": "array 'P' has type <f8 on ranks 0, 2, <i8 on rank 1",
    "types, of a key": "array 'b:u' has type <f8 on ranks 0, 2, <c16 on rank 1",
    "shapes": "array 'T' beyond axis 0 has shape (3,) on ranks 0, 2, (4,) on rank 1",
}


def files_of(run: Path) -> dict[str, tuple[int, int, bytes]]:
    """What each file holds, which file it is, and when it was last written."""
    stats = {name: (run / name).stat() for name in tree_of(run)}
    return {n: (stats[n].st_ino, stats[n].st_mtime_ns, data) for n, data in tree_of(run).items()}


@pytest.mark.parametrize("merged", [False, True], ids=["never merged", "merged before"])
@pytest.mark.parametrize("fault", FAULTS)
def test_pieces_that_make_no_whole_are_named_and_nothing_is_written(
    fault: str, merged: bool
) -> None:
    run = write_as(3, "outputs", faulty(fault))
    if merged:  # as it was, and then ranks wrote other pieces
        written = run.rename("outputs/written")
        write_as(3, "outputs", sound)
        assert merge(run).exit_code == 0
        shutil.rmtree(run / "ranks")
        (written / "ranks").rename(run / "ranks")
    before = files_of(run)
    assert ({"data/good.npy", "data/P.npy", "merge.json"} <= before.keys()) is merged
    result = merge(run)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"notata: error: {run}: {FAULTS[fault]}",
        "notata: nothing was written; --allow-missing would go on",
    ]
    assert files_of(run) == before
    assert merged or not (run / "data").exists()
    assert merge("--allow-missing", run).exit_code == 0  # as was promised
    assert np.load(run / "data/good.npy").tolist() == [0, 1, 2]


# ----- holes, metrics, pruning, verdicts -----


def test_holes_are_in_the_summary() -> None:
    run = broken("bad")
    result = merge("--allow-missing", run)
    assert result.exit_code == 0
    assert f"{run}: joined 3 of 3, with 1 hole\n" in result.stdout  # array, mask and log
    assert "hole: rank 1's piece of 'x' is missing" in result.stdout
    assert "hole: rank 1's piece of 'x' is missing" in merge("--allow-missing", run).stdout


def test_metrics_across_ranks_are_in_the_summary() -> None:
    run = write_as(4, "outputs", lambda log: log.json("times", {"solve": 1 + log.rank, "io": 2}))
    result = merge(run)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["times:", "solve", "4", "1", "2.5", "4", "1.60"] in lines
    assert ["times:", "io", "4", "2", "2", "2", "1.00"] in lines
    table = (run / "artifacts/times.ranks.csv").read_text().splitlines()
    assert table == ["rank,io,solve", "0,2,1", "1,2,2", "2,2,3", "3,2,4"]
    assert json.loads((run / "artifacts/times.json").read_text()) == {"solve": 1, "io": 2}


def of_each(rank: int) -> dict[str, object]:
    """What one of four ranks measured: numbers, some on some ranks alone, and other values."""
    told: dict[str, object] = {"solve": rank + 0.5, "zero": rank - 1.5, "less": -rank}
    told |= {"residual": [1.0, float("nan"), float("inf"), 2.0][rank]}
    told |= {"solver": "cg", "ok": True, "none": None, "io": {"read": 1}, "list": [1, 2]}
    if rank in (1, 2):
        told["late"] = 5 / rank
    if rank > 1:
        told["odd"] = 3 if rank == 2 else "text"
    return told


def test_metrics_that_are_not_all_numbers_have_a_table_of_those_that_are() -> None:
    run = write_as(4, "outputs", lambda log: log.json("m", of_each(log.rank)))
    said = (
        "artifacts/m.ranks.csv has numbers alone: values of 'io', 'list', 'none', 'odd', 'ok' and "
        "1 more that are none are in artifacts/m.ranks.json"
    )
    assert said in merge("--dry-run", run).stdout
    result = merge(run, width=120)
    assert result.stdout.splitlines()[0] == f"{run}: joined 3 of 3; {said}"
    told = [line.split() for line in result.stdout.splitlines() if line.startswith("m: ")]
    assert told == [
        ["m:", "less", "4", "-3", "-1.5", "0", "-"],
        ["m:", "residual", "4", "nan", "nan", "nan", "-"],
        ["m:", "solve", "4", "0.5", "2", "3.5", "1.75"],
        ["m:", "zero", "4", "-1.5", "0", "1.5", "-"],
        ["m:", "late", "2", "2.5", "3.75", "5", "1.33"],
        ["m:", "odd", "1", "3", "3", "3", "1.00"],
    ]
    with (run / "artifacts/m.ranks.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["rank", "less", "residual", "solve", "zero", "late", "odd"],
        ["0", "0", "1.0", "0.5", "-1.5", "", ""],
        ["1", "-1", "nan", "1.5", "-0.5", "5.0", ""],
        ["2", "-2", "inf", "2.5", "0.5", "2.5", "3"],
        ["3", "-3", "2.0", "3.5", "1.5", "", ""],
    ]
    assert json.loads((run / "artifacts/m.ranks.json").read_text())["3"]["odd"] == "text"
    assert merge(run).stdout == f"{run}: nothing to do: merged before\n"


def test_a_rank_that_wrote_no_object_has_a_row_without_numbers() -> None:
    values: list[object] = [{"a": 1}, [1, 2], {}]
    run = write_as(3, "outputs", lambda log: log.json("m", values[log.rank]))
    assert merge(run).exit_code == 0
    assert (run / "artifacts/m.ranks.csv").read_text() == "rank,a\n0,1\n1,\n2,\n"


def test_what_rank_0_alone_wrote_anew_is_merged_anew() -> None:
    logs = []

    def work(log: Logbook) -> None:
        logs.append(log)
        log.json("m", {"a": log.rank})
        if log.rank:
            log.json("n", {"b": log.rank})

    run = write_as(3, "outputs", work)
    notata.merge(run)
    assert notata.merge(run).nothing_to_do
    logs[0].json("m", {"a": 10})  # which it says in the log, too
    assert notata.merge(run).note == "joined 3 of 5"
    assert json.loads((run / "artifacts/m.ranks.json").read_text())["0"] == {"a": 10}
    (run / "artifacts/n.json").write_text('{"b": 20}')
    assert notata.merge(run).note == "joined 2 of 5"
    table = (run / "artifacts/n.ranks.csv").read_text().splitlines()
    assert table == ["rank,b", "0,20", "1,1", "2,2"]
    assert notata.merge(run).nothing_to_do


@pytest.mark.parametrize("largest", [sys.float_info.max, 10**400])
def test_numbers_as_large_as_there_are_can_be_summed_up(largest: float) -> None:
    def work(log: Logbook) -> None:
        log.json("m", {"a": largest, "b": 1.0})

    run = write_as(3, "outputs", work)
    report = notata.merge(run)
    means = {metric.key: metric.mean for metric in report.metrics}
    assert means["b"] == 1.0
    assert means["a"] == largest if isinstance(largest, float) else math.isnan(means["a"])
    assert merge(run).exit_code == 0
    assert notata.merge(run).nothing_to_do


def test_verify_has_a_status_for_each_verdict() -> None:
    run = rich(Path("outputs"))
    assert merge("--verify", run).exit_code == 1  # never merged
    merge(run)
    result = merge("--verify", run)
    assert result.exit_code == 0
    assert result.stdout.endswith("files are as merged\n")
    with (run / "ranks/rank_00001/log.txt").open("a") as file:
        file.write("late\n")
    changed = merge("--verify", run)
    assert changed.exit_code == 1
    assert "ranks/rank_00001/log.txt has" in changed.stderr
    (run / "data/T.npy").write_bytes(b"x")
    damaged = merge("--verify", run)
    assert damaged.exit_code == 2
    assert f"{run}: data/T.npy has 1 bytes, and had " in damaged.stderr


def test_prune_says_what_it_did() -> None:
    run = two_ranks("a")
    result = merge("--prune", run)
    assert result.exit_code == 0
    assert f"{run}: joined 2 of 2; pruned 7 files, 4 are in ranks.zip\n" in result.stdout
    assert not (run / "ranks").exists()


@pytest.mark.parametrize("args", [("--dry-run", "--prune"), ("--verify", "--prune")])
def test_what_excludes_one_another_is_wrong_use(args: tuple[str, ...]) -> None:
    assert merge(*args, two_ranks("a")).exit_code == 2


# ----- many runs -----


def test_a_folder_of_runs_and_experiments() -> None:
    good, bad, alive = two_ranks("good"), broken("bad"), going("alive")
    sweep = Experiment("sweep", "outputs")
    with sweep.add(a=1) as log:  # type: ignore[union-attr]
        log.json("metrics", {"e": 1.5})
    in_sweep = two_ranks("sweep_b", "outputs/sweep/runs")
    Path("outputs/sweep/index.csv").unlink()
    result = merge("outputs")
    assert result.exit_code == 2
    assert (good / "data/x.npy").exists()
    assert (in_sweep / "data/x.npy").exists()
    assert not (bad / "data").exists()
    assert not (alive / "data").exists()
    told = result.stderr.splitlines()
    assert f"notata: left out {alive}: it is still going, or was killed (initialized)" in told
    assert any(line.startswith(f"notata: error: {bad}: rank 1's piece") for line in told)
    table = Path("outputs/sweep/index.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["run_id", "sweep_a_1", "sweep_b"]
    assert "outputs/sweep: index.csv made again, 2 rows" in result.stdout
    shutil.rmtree(bad)
    assert merge("outputs").exit_code == 1  # what is left is still going
    shutil.rmtree(alive)
    assert merge("outputs").exit_code == 0


def test_a_run_that_is_named_itself_must_have_ended() -> None:
    run = going("alive")
    assert merge(run).exit_code == 2
    assert not (run / "merge.json").exists()
    assert merge("--unfinished", run).exit_code == 0


# ----- for scripts, and for nobody -----


def test_json_for_scripts() -> None:
    good, bad = two_ranks("good"), broken("bad")
    result = merge("--json", good, bad)
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert found["status"] == 2
    one, two = found["runs"]
    assert (one["run"], one["status"], one["problems"]) == (str(good), 0, [])
    assert [(row["name"], row["ranks"], row["action"]) for row in one["outputs"]] == [
        ("x", "0-1", "joined"),
        ("log.txt", "0-1", "joined"),
    ]
    assert (two["status"], len(two["problems"])) == (2, 1)
    plan = json.loads(merge("--json", "--dry-run", bad).stdout)["runs"][0]
    assert [(row["name"], row["shape"]) for row in plan["outputs"]] == [
        ("x", [2]),
        ("log.txt", None),
    ]


def test_quiet_prints_errors_alone() -> None:
    good, bad = two_ranks("good"), broken("bad")
    assert merge("--quiet", good).output == ""
    result = merge("-q", bad)
    assert result.stdout == ""
    assert "rank 1's piece" in result.stderr


# ----- two at once -----


def test_an_unfinished_run_of_many_is_left_out_as_long_as_it_gives_signs_of_life() -> None:
    log = open_as(0, 2, "outputs", "going")
    log.array("x", [0])
    run = log.path
    result = merge("--unfinished", "outputs")
    assert result.exit_code == 1
    assert f"left out {run}: it still gives signs of life" in result.stderr
    assert not (run / "merge.json").exists()
    os.utime(run / "metadata.json", (0, 0))
    os.utime(run / "log.txt", (0, 0))
    assert merge("--unfinished", "outputs").exit_code == 0
    assert (run / "merge.json").exists()
    log.mark_complete()


HOLD = """
import sys
from notata.lock import locked

with locked(sys.argv[1], 60):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_merge_that_can_t_wait_says_who_holds_the_run() -> None:
    run = two_ranks("a")
    command = [sys.executable, "-c", HOLD, os.fspath(run / ".merge.lock")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        result = merge("--timeout", 0.2, run)
        holder.communicate("")
    assert result.exit_code == 2
    assert f"at last by process {holder.pid} on {hostname()}, since " in result.stderr
    assert not (run / "data").exists()
    assert merge(run).exit_code == 0


def test_a_second_merge_waits_for_the_first() -> None:
    run = two_ranks("a")
    with FileLock(run / ".merge.lock"):
        result = merge("--timeout", 0.2, run)
        assert result.exit_code == 2
        assert ".merge.lock" in result.stderr
        command = [sys.executable, "-m", "notata", "merge", "--timeout", "60", os.fspath(run)]
        waiting = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        assert not (run / "data").exists()
    assert waiting.communicate(timeout=60)[0].startswith(f"{run}: joined 2 of 2")
    assert waiting.returncode == 0


def test_the_same_bytes_for_any_number_of_processes() -> None:
    run = rich(Path("outputs"))
    trees = []
    for jobs in (1, 3):
        copy = Path(f"copy-{jobs}/log_run")
        shutil.copytree(run, copy)
        assert merge("--jobs", jobs, copy).exit_code == 0
        trees.append(tree_of(copy))
        del trees[-1]["merge.json"]
    assert trees[0] == trees[1]


@pytest.mark.mpi
def test_the_ranks_of_a_job_share_the_work() -> None:
    run = rich(Path("outputs"))
    shutil.copytree(run, "alone/log_run")
    merge("alone/log_run")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [mpiexec, "-n", "3", sys.executable, "-m", "notata", "merge", "outputs/log_run"]
    environment = os.environ | {"PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("outputs/log_run: joined 10 of 10") == 1  # rank 0 alone says so
    one, two = tree_of(run), tree_of(Path("alone/log_run"))
    for made in (one, two):
        del made["merge.json"]
    assert one == two


def of_many(log: Logbook) -> None:
    """A little of all that a merge reads of each rank: rows and columns, a bundle, JSON, a log."""
    rank, size = log.rank, log.size
    log.array("rows", np.full((2, 3), rank), start=(2 * rank, 0), shape=(2 * size, 3))
    log.array("columns", np.full((3, 2), rank), start=(0, 2 * rank), shape=(3, 2 * size))
    log.arrays("b", u=[rank])
    log.array("kept", [rank], join="none")
    log.json("metrics", {"solve": rank})
    log.info(f"hello from {rank}")


def test_few_files_are_open_at_once_whatever_the_number_of_ranks() -> None:
    size = 200
    run = write_as(size, "outputs", of_many)
    expected = list(LogReader(run).messages())

    def limited(*options: str) -> str:
        program = [sys.executable, "-m", "notata", "merge", *options, os.fspath(run)]
        done = subprocess.run(
            program,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": os.fspath(ROOT)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80)),
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout.splitlines()[0].removeprefix(f"{run}: ")

    assert limited("--dry-run").startswith("would join 6 of 6, ")
    assert limited("--jobs", "1") == "joined 6 of 6"
    assert limited() == "nothing to do: merged before"
    assert re.fullmatch(r"\d+ files are as merged", limited("--verify"))
    pruned = limited("--prune")
    assert pruned.startswith("nothing to do: merged before; pruned "), pruned
    assert re.fullmatch(r"\d+ files are as merged", limited("--verify"))
    reader = LogReader(run)
    assert list(reader.messages()) == expected
    assert reader.load_array("rows")[::2, 0].tolist() == list(range(size))
    assert reader.load_array("columns")[0, ::2].tolist() == list(range(size))
    assert reader.load_array("b:u").tolist() == list(range(size))
    table = (run / "artifacts/metrics.ranks.csv").read_text().splitlines()
    assert table == ["rank,solve", *(f"{rank},{rank}" for rank in range(size))]


# ----- how far it is -----


def test_lines_now_and_then_in_a_batch_log(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 0.0, 10.0, 40.0, 41.0, 80.0, 90.0])
    with Progress("outputs/log_a", clock=lambda: next(now)) as progress:
        for done in (0, 10, 250_000, 260_000, 500_000, 1_000_000):
            progress(done, 1_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "notata: outputs/log_a: 250 kB of 1.0 MB, 2 min 00 s to go",
        "notata: outputs/log_a: 500 kB of 1.0 MB, 1 min 20 s to go",
    ]
    with Progress("a", quiet=True) as progress:
        progress(0, 10)
        progress.also("verifying")(0, 10)
    assert capsys.readouterr().err == ""


def test_what_comes_after_has_lines_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 0.0, 40.0, 50.0, 50.0, 90.0])
    with Progress("outputs/log_a", clock=lambda: next(now)) as progress:
        for tell in (progress, progress.also("verifying")):
            for done in (0, 250_000, 1_000_000)[: 3 if tell is progress else 2]:
                tell(done, 1_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "notata: outputs/log_a: 250 kB of 1.0 MB, 2 min 00 s to go",
        "notata: verifying outputs/log_a: 250 kB of 1.0 MB, 2 min 00 s to go",
    ]


@pytest.mark.parametrize("option", ["--allow-missing", "--prune", "--verify"])
def test_a_bar_on_a_terminal(option: str) -> None:
    run = two_ranks("a")
    if option == "--verify":
        notata.merge(run)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "notata", "merge", option, os.fspath(run)]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    done = subprocess.run(command, stderr=theirs, stdout=subprocess.PIPE, env=environment)
    os.close(theirs)
    printed = b""
    with suppress(OSError):  # Linux says EIO where all of it is read
        while block := os.read(ours, 65536):
            printed += block
    os.close(ours)
    assert done.returncode == 0
    assert re.search(rb"([\d.]+)/\1 (bytes|kB)", printed)
    assert re.search(rb"\d:\d\d:\d\d", printed)  # to go
    assert b"outputs/log_a" in printed
    assert (b"verifying outputs/log_a" in printed) == (option != "--allow-missing")


@pytest.mark.parametrize("option", ["--jobs=1", "--prune", "--verify"])
def test_nothing_is_printed_with_quiet_on_a_terminal_either(option: str) -> None:
    run = two_ranks("a")
    if option == "--verify":
        notata.merge(run)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "notata", "merge", "--quiet", option, os.fspath(run)]
    done = subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    with pytest.raises(OSError, match="Input/output error"):  # of Linux, where there is nothing
        os.read(ours, 1)
    os.close(ours)
    assert done.returncode == 0
    assert (run / "ranks.zip").exists() == (option == "--prune")
    assert LogReader(run).load_array("x").tolist() == [0, 1]


def test_merge_tells_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    run = rich(Path("outputs"))
    notata.merge(run, progress=lambda done, total: told.append((done, total)))
    assert told[0][0] == 0
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len({total for _, total in told}) == 1
    assert told[-1][0] > 0.5 * told[-1][1]


def _goes_up_to_its_total(told: list[tuple[int, int]]) -> bool:
    (total,) = {total for _, total in told}
    counts = [done for done, _ in told]
    return counts == sorted(counts) and (counts[0], counts[-1]) == (0, total)


@pytest.mark.parametrize("prune", [False, True])
def test_what_is_verified_is_counted_within_files_too(prune: bool) -> None:
    joined: list[tuple[int, int]] = []
    told: list[tuple[int, int]] = []

    def work(log: Logbook) -> None:
        log.array("T", np.zeros(100_000))
        log.array("kept", np.zeros(100_000), join="none")
        log.bytes("raw", bytes(1_000_000))
        for number in range(5):  # heads in the archive, for as much as its text is compressed
            log.bytes(f"empty{number}", b"")

    run = write_as(2, "outputs", work)
    notata.merge(run, progress=lambda *now: joined.append(now))
    assert _goes_up_to_its_total(joined)
    if prune:
        notata.merge(run, prune=True, verifying=lambda *now: told.append(now))
    else:
        notata.merging.verify(run, progress=lambda *now: told.append(now))
    assert _goes_up_to_its_total(told)
    # 1.6 MB of the whole array, and 1 MB of rank 1's bytes with 1.6 MB of pieces: those that are
    # joined are compared once, those that are not are put into the archive.
    least = 1_600_000 + (3 * 2_600_000 if prune else 2_600_000)
    assert least < told[-1][1] < least + 10_000
    assert len(told) > told[-1][1] / (1 << 18)


# ----- names that somebody took -----


@pytest.mark.parametrize("name", ["m.ranks.json", "m.ranks.csv"])
def test_a_file_that_no_merge_made_is_never_replaced(name: str) -> None:
    def work(log: Logbook) -> None:
        log.json("m", {"a": 1})
        log.root.bytes(name, b"mine")

    run = write_as(2, "outputs", work)
    before = tree_of(run)
    result = merge("--allow-missing", run)
    assert result.exit_code == 2
    assert f"artifacts/{name} is there already, and no merge made it: move it" in result.stderr
    assert tree_of(run) == before
    (run / "artifacts" / name).unlink()
    assert merge(run).exit_code == 0


def test_json_that_one_rank_wrote_or_that_is_none_stays_where_it_is() -> None:
    def work(log: Logbook) -> None:
        log.bytes("no.json", b"{")
        log.json("mixed", {"a": "text"} if log.rank else {"a": 1})
        if log.rank == 1:
            log.json("mine", {"a": 1})

    run = write_as(3, "outputs", work)
    assert merge(run).exit_code == 0
    names = ["mixed.json", "mixed.ranks.csv", "mixed.ranks.json", "no.json"]
    assert sorted(os.listdir(run / "artifacts")) == names
    found = json.loads((run / "artifacts/mixed.ranks.json").read_text())
    assert found == {"0": {"a": 1}, "1": {"a": "text"}, "2": {"a": "text"}}
    (run / "ranks/rank_00001/artifacts/mixed.json").write_text("{")
    result = merge(run)
    assert result.exit_code == 2
    assert "rank 1's" in result.stderr
    assert "mixed.json is damaged" in result.stderr
    assert merge("--allow-missing", run).exit_code == 0
    found = json.loads((run / "artifacts/mixed.ranks.json").read_text())
    assert found == {"0": {"a": 1}, "2": {"a": "text"}}


# ----- what has changed -----


def test_a_copy_without_its_times_is_merged_already(tmp_path: Path) -> None:
    run = rich(Path("outputs"))
    merge(run)
    for path in run.rglob("*"):
        os.utime(path)
    before = {name: data for name, data in tree_of(run).items() if name != "merge.json"}
    result = merge(run)
    assert "nothing to do: merged before" in result.stdout
    assert {name: d for name, d in tree_of(run).items() if name != "merge.json"} == before
    record = (run / "merge.json").read_bytes()
    merge(run)
    assert (run / "merge.json").read_bytes() == record


def test_just_what_has_changed_is_joined_again() -> None:
    run = rich(Path("outputs"))
    merge(run)
    with (run / "ranks/rank_00001/log.txt").open("a") as file:
        file.write("[2096-11-23T03:00:00.000005] INFO [rank 1] late\n")
    times = {path: path.stat().st_mtime_ns for path in (run / "data").rglob("*.np*")}
    result = merge(run)
    assert "joined 1 of 10" in result.stdout
    assert [line.split()[0] for line in result.stdout.splitlines()[3:]] == ["log.txt"]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert (run / "log.txt").read_text().endswith("INFO [rank 1] late\n")


def test_the_same_of_many_ranks_is_said_once(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.array("x", np.full(2, log.rank), start=2 * log.rank, shape=40)

    run = write_as(20, base, work)
    for rank in range(20):
        if rank not in (0, 7, 12):
            (run / f"ranks/rank_{rank:05d}/data/x.npy").unlink()
    refused = merge(run)
    assert refused.exit_code == 2
    (line,) = [line for line in refused.stderr.splitlines() if "x.npy" in line or "rank" in line]
    assert line.startswith(f"notata: error: {run}: rank 1's piece of 'x' is missing")
    assert line.endswith("(the same of ranks 2-6, 8-11, 13-19)")
    told = json.loads(merge("--json", run).stdout)["runs"][0]["problems"]
    assert len(told) == 17
    merged = merge("--allow-missing", run)
    holes = [line for line in merged.stdout.splitlines() if line.startswith("hole: rank 1's ")]
    assert len(holes) == 1
    assert holes[0].endswith("(the same of ranks 2-6, 8-11, 13-19)")
    assert len(LogReader(run).load_array("x")) == 40
