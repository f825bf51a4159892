"""What all commands have in common: how runs are named, tables that fit, colour on terminals."""

from __future__ import annotations

import re
from pathlib import Path

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
