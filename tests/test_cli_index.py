"""The command `notata index`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from notata import Experiment
from notata.cli import main


def notata(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def exp(base: Path) -> Experiment:
    exp = Experiment("sweep", base)
    for k in range(3):
        log = exp.add(k=k)
        assert log is not None
        log.json("metrics", {"m": k})
        log.mark_complete() if k else log.mark_failed("diverged")
    return exp


@pytest.mark.parametrize("damage", ["gone", "cut", "half", "foreign", "whole"])
def test_the_table_is_made_anew(exp: Experiment, damage: str) -> None:
    before = exp.rows()
    data = exp.index_file.read_bytes()
    if damage == "gone":
        exp.index_file.unlink()
    else:
        as_found = {"cut": data[:60], "half": b"#" + data[1:], "foreign": b"a,b\n", "whole": data}
        exp.index_file.write_bytes(as_found[damage])
    result = notata("index", str(exp.exp_dir))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{exp.index_file}: 2 complete, 1 failed\n"
    assert exp.rows() == before


def test_json(exp: Experiment) -> None:
    result = notata("index", "--json", str(exp.exp_dir))
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "index": str(exp.index_file),
        "rows": 3,
        "statuses": {"complete": 2, "failed": 1},
        "damaged": {},
    }


def test_damaged_runs_are_named(exp: Experiment) -> None:
    (exp.runs_dir / "log_sweep_k_1" / "metadata.json").write_text("{")
    (exp.runs_dir / "log_sweep_k_2" / "artifacts" / "metrics.json").write_text("[")
    result = notata("index", str(exp.exp_dir))
    assert result.exit_code == 1
    assert result.stdout == f"{exp.index_file}: 1 complete, 1 damaged, 1 failed\n"
    assert "run sweep_k_1:" in result.stderr
    assert "metadata.json is damaged" in result.stderr
    assert "run sweep_k_2: metrics.json is damaged" in result.stderr
    told = json.loads(notata("index", "--json", str(exp.exp_dir)).stdout)
    assert sorted(told["damaged"]) == ["sweep_k_1", "sweep_k_2"]


def test_damaged_parameters_are_named(exp: Experiment) -> None:
    (exp.runs_dir / "log_sweep_k_0" / "params.yaml").write_text("a: [")
    (exp.runs_dir / "log_sweep_k_1" / "params.yaml").write_text("a: [")
    (exp.runs_dir / "log_sweep_k_1" / "artifacts" / "metrics.json").write_text("[")
    result = notata("index", str(exp.exp_dir))
    assert result.exit_code == 1
    assert result.stdout == f"{exp.index_file}: 2 complete, 1 failed\n"
    first, second = result.stderr.splitlines()
    assert "run sweep_k_0:" in first
    assert "params.yaml is damaged" in first
    assert "params.yaml is damaged" in second
    assert "metrics.json is damaged" in second
    rows = {row["run_id"]: (row["status"], row["m"]) for row in exp.rows()}
    assert rows == {
        "sweep_k_0": ("error", 0),
        "sweep_k_1": ("error", None),
        "sweep_k_2": ("complete", 2),
    }
    (line,) = json.loads(notata("ls", "--json", "--where", "m == 0", str(exp.exp_dir)).stdout)
    assert line["run_id"] == "sweep_k_0"


def test_an_experiment_without_runs(base: Path) -> None:
    exp = Experiment("empty", base)
    result = notata("index", str(exp.exp_dir))
    assert (result.exit_code, result.stdout) == (0, f"{exp.index_file}: no run has ended yet\n")


def test_what_is_no_experiment(base: Path) -> None:
    base.mkdir()
    for path, why in ((base, "is no experiment"), (base / "none", "no such experiment")):
        result = notata("index", str(path))
        assert result.exit_code == 2
        assert why in result.stderr
    assert list(base.iterdir()) == []
