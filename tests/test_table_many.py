"""Many processes that add runs of different columns at once: the benchmark's counts, in small."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from notata import Experiment

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_every_row_of_8_processes_is_there(bench: Any, tmp_path: Path) -> None:
    found = bench.go(tmp_path, ROOT, 8, 60)
    assert (found["runs"], found["rows"], found["broken_rows"]) == (480, 480, 0)


@pytest.mark.slow
def test_the_benchmark_tells_its_figures(bench: Any, tmp_path: Path) -> None:
    """And sees that the table of notata 0.3.0 is broken, which wrote no row for new columns."""
    file = tmp_path / "figures.json"
    sizes = ["--processes", "2", "--runs", "30", "--rebuild", "50", "--goes", "1", "--rest", "0"]
    bench.main([*sizes, "--json", str(file)])
    figures = json.loads(file.read_text())
    assert figures["notata"]["rows"] == 60
    assert figures["notata 0.3.0"]["rows"] < 60
    assert figures["notata 0.3.0"]["broken_rows"] > 0
    assert figures["notata"]["runs_per_second"] > 0
    assert figures["rebuild"]["rows"] == figures["rebuild"]["runs"] == 50


def test_runs_that_were_open_while_the_table_was_made_anew_are_appended(base: Path) -> None:
    """Each by itself: to write a long table anew for each would take hours for a thousand."""
    exp = Experiment("s", base)
    names = ["1", "10", "a,b", 'a"b', "c"]
    logs = [exp.add(k=name) for name in names]
    for log in logs:
        assert log is not None
        log.json("metrics", {"m": 1, "note": "two\rlines"})
    done = exp.add(k="done")
    assert done is not None
    done.json("metrics", {"m": 1, "note": "one"})
    done.mark_complete()
    exp.rebuild_index()
    with exp.index_file.open("ab") as file:  # a second row, which writing anew would leave out
        file.write(exp.index_file.read_bytes().splitlines(keepends=True)[1])
    for count, log in enumerate(logs, start=1):
        before = exp.index_file.read_bytes()
        assert log is not None
        log.mark_complete()
        assert exp.index_file.read_bytes().startswith(before)
        assert len(exp.rows()) == count + 1


def test_a_run_that_the_table_has_since_it_was_made_anew_is_not_there_twice(base: Path) -> None:
    exp = Experiment("s", base)
    logs = [exp.add(k=name) for name in ("1", "10", "a,b")]
    for log in logs:
        assert log is not None
        file = log.path / "metadata.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "failed"}))
    assert exp.rebuild_index() == 3
    for log in logs:
        assert log is not None
        log.mark_complete()
    assert len(exp.index_file.read_bytes().splitlines()) == 4
    assert [row["run_status"] for row in exp.rows()] == ["complete"] * 3


def test_after_any_loss_the_rebuilt_table_has_every_run(base: Path) -> None:
    exp = Experiment("s", base)
    for k in range(20):
        log = exp.add(k=k)
        assert log is not None
        log.json("metrics", {f"m{k % 3}": k})
        log.mark_complete()
    expected = {row["run_id"]: row for row in exp.rows()}
    whole = exp.index_file.read_bytes()
    for size in range(0, len(whole), 97):
        for head in (whole[:1], b"#"):
            exp.index_file.write_bytes(head + whole[1:size])
            assert exp.rebuild_index() == 20
            assert {row["run_id"]: row for row in exp.rows()} == expected
