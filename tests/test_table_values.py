"""Values on their way through the table: what was saved comes back, equal and of the same type."""

from __future__ import annotations

import csv
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notata import Experiment, Logbook
from notata.cells import decode, encode
from notata.columns import Row
from notata.errors import DamagedError, KeyNotFoundError
from notata.index import Index

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LIKE_OTHERS = ["", "1", "1.0", "-0", "1e5", "nan", "inf", "True", "None", "[1]", '{"a": 1}', "007"]
QUOTED = ['"', '""', '"a"', "a,b", 'say "x"', "two\nlines", "two\r\nlines", "\r", "#", "ü·€", "٣"]
ODD = st.sampled_from([*LIKE_OTHERS, *QUOTED, "1_0", " 1"])
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | ODD
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
NAME = TEXT.filter(bool) | st.sampled_from(["status", "run_id", "params.x", "metrics.x", "x"])


def alike(left: Any, right: Any) -> bool:
    """Equal, with equal types all the way down, and NaN equal to itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(alike, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(alike(left[k], right[k]) for k in left)
    if isinstance(left, float):
        return math.isnan(left) == math.isnan(right) and (math.isnan(left) or left == right)
    return bool(left == right)


@given(VALUE)
@example(10**5000)
@example(-0.0)
@example("-nan")
def test_any_value_comes_back_from_a_cell(value: Any) -> None:
    if isinstance(value, int) and abs(value) >= 10**4000:
        with pytest.raises(ValueError, match="digits"):  # Python itself refuses to print it
            encode(value)
        return
    assert alike(decode(encode(value)), value)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.dictionaries(NAME, VALUE), st.dictionaries(NAME, VALUE)), max_size=5))
def test_any_rows_come_back_from_the_table(
    runs: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    """However columns come and go, each run's values are in its row, and nothing else is."""
    with tempfile.TemporaryDirectory() as folder:
        index = Index(folder)
        for number, (params, metrics) in enumerate(runs):
            row = Row(f"r{number}", params, "complete", metrics, {"run_status": "complete"})
            index.add(row, since=index.epoch() or None)
        found = index.rows()
    # The first row of a table makes it from the runs, of which there are none here but that one.
    assert [row["run_id"] for row in found] == [f"r{number}" for number in range(len(runs))]
    for row, (params, metrics) in zip(found, runs, strict=True):
        ours = {"run_id", "status", "run_status", "failure_reason", "start_time", "runtime_sec"}
        told = [value for name, value in row.items() if name not in ours and value is not None]
        saved = [v for v in (*params.values(), *metrics.values()) if v is not None]
        assert sorted(map(json.dumps, told)) == sorted(
            json.dumps(value, sort_keys=True) for value in saved
        )


@settings(max_examples=25, deadline=None)
@given(VALUE, VALUE)
def test_parameters_and_metrics_come_back_through_rows(param: Any, metric: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        exp = Experiment("sweep", folder)
        log = exp.add(p=param)
        assert isinstance(log, Logbook)
        with log:
            log.json("metrics", {"m": metric})
        (row,) = exp.rows()
        assert alike(row["p"], param)
        assert alike(row["m"], metric)
        assert exp.rebuild_index() == 1
        assert exp.rows() == [row] or not alike(row, row)
        assert len(exp.select(p=param, m=metric)) == 1


def sweep(base: Path) -> Experiment:
    exp = Experiment("sweep", base)
    metrics: list[dict[str, Any]] = [
        {"n": 1, "ok": True, "mixed": 1, "text": "1.10", "some": 1.5},
        {"n": 2, "ok": False, "mixed": "a", "text": "b", "few": 7, "flag": True},
        {"n": 3, "ok": True, "mixed": None, "text": "c", "some": 2},
    ]
    for k, values in enumerate(metrics):
        log = exp.add(omega=float(k), scheme="rk4")
        assert isinstance(log, Logbook)
        log.json("metrics", values)
        log.mark_complete() if k < 2 else log.mark_failed("no, 'really'\nnot")
    return exp


def test_rows_have_types(base: Path) -> None:
    first, second, third = sweep(base).rows()
    assert (first["omega"], first["n"], first["ok"], first["text"]) == (0.0, 1, True, "1.10")
    assert type(first["omega"]) is float
    assert type(first["n"]) is int
    assert (second["some"], second["few"], second["flag"], second["mixed"]) == (None, 7, True, "a")
    assert (first["mixed"], third["mixed"], third["few"]) == (1, None, None)
    assert (third["run_status"], third["failure_reason"]) == ("failed", "no, 'really'\nnot")
    assert type(first["runtime_sec"]) is float
    assert list(first) == list(second) == list(third)


def test_a_dataframe_has_the_same_values_and_a_type_a_column(base: Path) -> None:
    exp = sweep(base)
    frame = exp.to_dataframe()
    types = {name: str(frame[name].dtype) for name in frame.columns}
    assert {name: types[name] for name in ("omega", "n", "ok", "some", "few", "flag", "mixed")} == {
        "omega": "float64",
        "n": "int64",
        "ok": "bool",
        "some": "float64",
        "few": "Int64",
        "flag": "boolean",
        "mixed": "object",
    }
    for told, row in zip(frame.to_dict("records"), exp.rows(), strict=True):
        for name, value in row.items():
            assert told[name] == value or (value is None and frame[name].isna().any()), name
    assert frame["mixed"].tolist() == [1, "a", None]


def test_select_compares_with_types(base: Path) -> None:
    exp = sweep(base)
    ids = exp.to_dataframe()["run_id"].tolist()

    def chosen(**filters: Any) -> list[int]:
        return [ids.index(name) for name in exp.select(**filters)["run_id"]]

    assert chosen(omega=1) == chosen(omega=1.0) == [1]
    assert chosen(ok=True) == [0, 2]
    assert chosen(n=True) == []
    assert chosen(n=1) == chosen(mixed=1) == [0]
    assert chosen(ok=1) == []
    assert chosen(few=7) == chosen(flag=True) == [1]
    assert chosen(few=None) == [0, 2]
    assert chosen(text="1.10") == [0]
    assert chosen(text=1.1) == []
    assert chosen(run_status="failed") == [2]
    assert chosen(omega=2.0, run_status="failed") == [2]
    assert chosen(omega=2.0, run_status="complete") == []
    assert exp.select(n=1)["few"].dtype == "Int64"  # a choice of rows changes no column's type
    with pytest.raises(KeyNotFoundError, match=r"has no column 'omga'; it has run_id, omega"):
        exp.select(omga=2.0)


def test_an_empty_experiment_has_no_rows(base: Path) -> None:
    exp = Experiment("sweep", base)
    assert exp.rows() == []
    assert exp.to_dataframe().empty
    assert exp.select(omega=1.0).empty


def test_a_table_that_is_half_written_is_not_read_as_one(base: Path) -> None:
    exp = sweep(base)
    exp.index_file.write_bytes(b"#" + exp.index_file.read_bytes()[1:])
    for read in (exp.rows, exp.to_dataframe, exp.select):
        with pytest.raises(DamagedError, match="half written"):
            read()


def test_a_table_of_notata_0_3_0_has_types_too(base: Path) -> None:
    """It writes text as it is, so that what looks like a number is one."""
    exp = Experiment("sweep", base)
    with exp.index_file.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["run_id", "dt", "ok", "status", "e"],
                ["007", "0.1", "True", "complete", "1e-05"],
                ["x", "", "", "missing", ""],
            ]
        )
    assert exp.rows() == [
        {"run_id": "007", "dt": 0.1, "ok": True, "status": "complete", "e": 1e-05},
        {"run_id": "x", "dt": None, "ok": None, "status": "missing", "e": None},
    ]
