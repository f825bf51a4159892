"""What all commands have in common: how runs are named, tables that fit, colour on terminals."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from calling import notata, run_of
from click.testing import Result

from notata import Experiment, Logbook

# Each command that takes runs or experiments, with what else it needs.
CALLS = {
    "diff": "heat heat --no-data",
    "export": "heat --to hdf5 --out T.h5",
    "failed": "sweep",
    "follow": "sweep",
    "index": "sweep",
    "log": "heat",
    "ls": "sweep",
    "merge": "heat --dry-run",
    "plot": "heat T",
    "reconcile": "sweep",
    "show": "heat",
    "status": "sweep",
    "stuck": "heat",
}


LONG = "omega_2.0_" + "integrator_velocity-verlet_" * 4
REASON = "the pressure equation diverged in cell seven of /" + "scratch" * 12 + " as it did before"


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where commands look, with a run of two ranks and an experiment."""
    monkeypatch.chdir(tmp_path)
    run_of(2, Path("outputs"), lambda log: log.array("T", [1.0, log.rank]))
    for k in range(2):
        log = Experiment("sweep").add(k=k)
        assert log is not None
        log.mark_complete() if k else log.mark_failed("diverged")
    return Path("outputs")


def test_none_is_forgotten() -> None:
    listed = re.findall(r"^  (\w+)  ", notata("--help").stdout, re.MULTILINE)
    assert set(listed) == {*CALLS, "doctor"}


@pytest.mark.parametrize("command", CALLS)
def test_a_name_below_outputs_will_do(outputs: Path, command: str) -> None:
    words = CALLS[command].split()
    bare = ["log_heat" if word == "heat" else word for word in words]
    full = [f"outputs/{word}" if word in ("log_heat", "sweep") else word for word in bare]
    by_path = notata(command, *full)
    assert by_path.exit_code in (0, 1), by_path.stderr
    Path("T.h5").unlink(missing_ok=True)
    by_name = notata(command, *bare)
    assert (by_name.exit_code, untimed(by_name)) == (by_path.exit_code, untimed(by_path))
    assert "below outputs/" in " ".join(notata(command, "--help").stdout.split())


def untimed(result: Result) -> str:
    return re.sub(r"\d+:\d\d:\d\d|[\d.]+ m?s\b", "", result.stdout)


@pytest.mark.parametrize("command", ["merge", "stuck", "index", "ls"])
def test_what_is_here_comes_before_what_is_below_outputs(outputs: Path, command: str) -> None:
    with Logbook("heat", "."):
        pass
    Experiment("sweep", ".")
    name = "sweep" if command in ("index", "ls") else "log_heat"
    printed = notata(command, name).stdout
    assert name in printed
    assert "outputs" not in printed


# ----- tables -----

STACK = """\
[2026-11-25T22:00:01] rank 0 on n1, process 7: no sign of life for 600.4 s; main thread 0x01
Thread 0x01 (most recent call first):
  File "/home/{name}.py", line 7 in {name}
"""
RUNS = f"outputs/sweep/runs/log_{LONG}"


@pytest.fixture
def long_names(outputs: Path) -> None:
    """The same, with names and reasons that no line of a table has room for."""
    exp = Experiment("sweep")
    for k in range(2):
        log = Logbook(LONG + "xy"[k], exp.runs_dir, params={"scheme": LONG})
        log.array(LONG, np.arange(k + 3))
        log.mark_failed(REASON)
    stacks = outputs / "log_heat" / "ranks" / "rank_00000" / "stacks.txt"
    stacks.write_text(STACK.format(name=LONG))


def columns_of(table: list[str]) -> list[str]:
    """What each column of a table holds, without blanks: names go on in the lines below."""
    at = next(number for number, line in enumerate(table) if line.startswith("─"))
    starts = [found.start() for found in re.finditer(r"\S+( \S+)*", table[at - 1])]
    ends = [*starts[1:], None]
    cut = [[line[a:b] for line in table[at + 1 :]] for a, b in zip(starts, ends, strict=True)]
    return ["".join("".join(column).split()) for column in cut]


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("status sweep", (LONG, REASON)),
        ("failed sweep", (LONG, REASON)),
        ("ls sweep", (LONG,)),
        ("stuck log_heat", (LONG,)),
        (f"diff {RUNS}x {RUNS}y", (LONG,)),
        ("merge --dry-run log_heat", ("log.txt",)),
    ],
)
def test_tables_fit_and_tell_all(
    long_names: None, call: str, told: tuple[str, ...], width: int
) -> None:
    lines = notata(*call.split(), width=width).stdout.splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("─")]
    assert rules
    assert max(len(lines[number]) for number in rules) <= width
    held = columns_of(lines[rules[-1] - 1 :])
    for text in told:
        assert any(text.replace(" ", "") in column for column in held), text


# ----- colour -----

COLOURED = {"follow", "log", "ls", "show", "status"}  # those that show how a run ended, or levels


@pytest.mark.parametrize("command", CALLS)
def test_colour_on_a_terminal_alone_and_where_it_is_wanted(
    outputs: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (outputs / "log_heat" / "log.txt").open("a") as log:
        log.write("[2026-11-25T22:00:01.000000] ERROR [rank 0] too hot\n")
    words = ["log_heat" if word == "heat" else word for word in CALLS[command].split()]
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b" not in notata(command, *words).output
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes a terminal of whatever it is, for Rich
    monkeypatch.setenv("TERM", "xterm-256color")
    Path("T.h5").unlink(missing_ok=True)
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]")
    assert bool(colour.search(notata(command, *words).output)) == (command in COLOURED)
    monkeypatch.setenv("NO_COLOR", "1")
    Path("T.h5").unlink(missing_ok=True)
    assert not colour.search(notata(command, *words).output)


def test_the_commands_are_summed_up_whole() -> None:
    for width in (80, 140):
        printed = notata("--help", width=width).stdout.partition("Commands:\n")[2]
        lines = [line for line in printed.splitlines() if line.strip()]
        assert len(lines) == 14
        assert all(line.endswith(".") and not line.endswith("...") for line in lines), printed
