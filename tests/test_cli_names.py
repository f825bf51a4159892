"""What commands take as the name of a run, and what they say where it is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from calling import notata, run_of

from notata import Experiment, Logbook, LogReader, overview
from notata.errors import NotARunError


@pytest.fixture
def outputs(base: Path) -> Path:
    """Runs below `outputs` of the working directory, and in an experiment there."""
    with Logbook("heat") as log:
        log.array("T", [1.0, 2.0])
    log = Experiment("sweep").add(k=1)
    assert log is not None
    log.mark_complete()
    return Path("outputs")


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ("log_heat", "outputs/log_heat"),
        ("heat", "outputs/log_heat"),
        ("outputs/heat", "outputs/log_heat"),
        ("sweep_k_1", "outputs/sweep/runs/log_sweep_k_1"),
        ("log_sweep_k_1", "outputs/sweep/runs/log_sweep_k_1"),
        ("sweep/sweep_k_1", "outputs/sweep/runs/log_sweep_k_1"),
        ("outputs/sweep/log_sweep_k_1", "outputs/sweep/runs/log_sweep_k_1"),
    ],
)
def test_a_run_by_its_id(outputs: Path, named: str, path: str) -> None:
    result = notata("show", named)
    assert result.exit_code == 0, result.stderr
    assert f" {path} " in result.stdout


def test_a_folder_of_that_very_name_goes_first(outputs: Path) -> None:
    run_of(1, outputs, lambda log: log.info("another"), "log_heat")  # outputs/log_log_heat
    assert " outputs/log_heat " in notata("show", "log_heat").stdout
    os.rename(outputs / "log_log_heat", "heat")
    assert " heat " in notata("show", "heat").stdout


@pytest.mark.parametrize(("named", "near"), [("haet", "log_heat"), ("swep", "sweep"), ("zz", None)])
def test_a_name_that_is_nowhere(outputs: Path, named: str, near: str | None) -> None:
    result = notata("show", named)
    assert result.exit_code == 2
    hint = f"; did you mean {near!r}?" if near else ""
    assert result.stderr == (
        f"notata: error: no such run: {named}, here or below outputs, nor a run of that id{hint}\n"
    )


@pytest.mark.parametrize("call", ["show sweep", "log sweep", "diff sweep heat", "plot sweep T"])
def test_an_experiment_where_a_run_is_wanted(outputs: Path, call: str) -> None:
    result = notata(*call.split())
    assert result.exit_code == 2
    assert "outputs/sweep is an experiment of 1 run, and no run: `notata ls" in result.stderr
    with pytest.raises(NotARunError, match="experiment of 1 run"):
        LogReader(outputs / "sweep")


@pytest.mark.parametrize("command", ["merge", "show", "log", "status", "failed", "ls"])
def test_a_file_is_told_as_one(base: Path, command: str) -> None:
    Path("afile").write_text("x")
    result = notata(command, "afile")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("notata: error: afile is a file, ")
    assert len(result.stderr.splitlines()) == 1


def test_a_file_that_may_not_be_read_is_named_first(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*args: object) -> None:  # root would be let in
        raise PermissionError(13, "Permission denied", "T.npy")

    monkeypatch.setattr(overview.contents, "arrays", refusing)
    result = notata("show", "heat")
    assert result.exit_code == 1
    assert result.stderr == "notata: error: T.npy: Permission denied\n"
