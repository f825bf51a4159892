"""Values on their way through the table: what was saved comes back, equal and of the same type."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from notata import Experiment, Logbook, bloom
from notata.cells import decode, encode, typed
from notata.columns import Row
from notata.errors import DamagedError, KeyNotFoundError
from notata.frames import frame_of, parsed
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
@example(10**4300)
@example(10**4300 - 1)
@example(1 - 10**4300)
@example(-0.0)
@example("-nan")
def test_any_value_comes_back_from_a_cell(value: Any) -> None:
    if isinstance(value, int) and abs(value) >= 10**4300:
        with pytest.raises(ValueError, match="digits"):  # Python itself refuses to print it
            encode(value)
        return
    assert alike(decode(encode(value)), value)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(TEXT.filter(bool)),
    st.integers(0, 1000),
    st.sampled_from([64, 1]),
)
def test_a_filter_overlooks_no_row(run_ids: list[str], size: int, least: int) -> None:
    """Whatever was put in is found, and all of it is made anew where the table has another size."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bloom, "_LEAST", least)
        seen, told = bloom.Bloom(f"{folder}/bloom"), list[str]()
        table = bloom.Table(0, b"")
        for run_id in run_ids:
            after = table.and_(b"x" * size)
            known = seen.enter(run_id, table, after)
            assert known is not False or run_id not in told
            told.append(run_id)
            table = after
            if known is None:
                seen.make(told, table)
        for run_id in told:
            assert seen.enter(run_id, table, table) is not False
            assert seen.enter(run_id, table.and_(b"x"), table) is None
            assert seen.enter(run_id, table._replace(tail=b"other"), table) is None


def test_a_filter_is_hardly_ever_wrong_and_grows(tmp_path: Path) -> None:
    seen, asked, wrong, anew = bloom.Bloom(str(tmp_path / "bloom")), 20_000, 0, 0
    for number in range(asked):
        before, after = bloom.Table(number, b"x"), bloom.Table(number + 1, b"x")
        known = seen.enter(f"sweep_k_{number}", before, after)
        wrong += known is True
        if known is None:
            anew += 1
            seen.make([f"sweep_k_{k}" for k in range(number + 1)], after)
    assert wrong <= asked / 1000
    assert anew == 6  # at none, 1024 rows, and twice as many each time
    assert (tmp_path / "bloom").stat().st_size < 8 * asked  # 32 bits a row, and room for as many


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
            index.add(row)
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
@example(math.nan, [math.nan])
@example({"a": [math.nan]}, [True])
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
        assert alike(exp.rows(), [row])
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


# ----- columns at once -----

HARD = ["", "0", "-0", "00", "-01", "+1", " 1", "1 ", "5.", ".5", "-.5", "5.e3", "1E5", "1E-5"]
HARD += ["1e5", "1.5e-07", "nan", "-nan", "NaN", "inf", "-inf", "Infinity", "1e400", "1_0", "٣"]
HARD += ["True", "False", "TRUE", "true", "false", "None", "null", "rk4", "x\ty", "\t", "1\t", "#"]
HARD += [
    str(2**53),
    str(2**53 + 1),
    str(2**63 - 1),
    str(2**63),
    str(-(2**63)),
    str(2**64),
    "9" * 40,
]
HARD += ["[1, 2]", '{"a": 1}', '"1.10"', 'say "x"', "a,b", "two\nlines", "two\r\nlines", "\r", "\0"]
HARD += [
    "\ufeff1",
    "\udcff",
    "1\xa0",
    "0x10",
    "1j",
    "0.1",
    "-0.0",
    "0.30000000000000004",
    "1",
    "-7",
]
# Of one kind most of the time, since pandas reads a column of several kinds as text.
CELLS = st.one_of(
    st.lists(st.sampled_from(["0", "1", "-7", "12", "+1", " 1", "007", "-0"])),
    st.lists(st.sampled_from(["0.5", "-1e-05", "2", "5.", ".5", "1E5", "5.e3", "-0", "007.5"])),
    st.lists(st.floats(allow_nan=False).map(repr), min_size=2),
    st.lists(st.integers().map(str), min_size=2),
    st.lists(st.sampled_from(["True", "False", "TRUE", "true"])),
    st.lists(st.sampled_from(HARD)),
)
NAMES = ["run_id", "status", "run_status", "failure_reason", "start_time", "runtime_sec", "a", "b"]


@given(CELLS, st.sampled_from(["a", "status", "runtime_sec"]))
def test_a_column_is_typed_as_its_cells_are(texts: list[str], name: str) -> None:
    expected = [text or None if name == "status" else decode(text) for text in texts]
    assert all(map(alike, typed(name, texts), expected))
    assert len(typed(name, texts)) == len(texts)
    assert typed(name, [*texts, None]) == [*typed(name, texts), None] or "nan" in " ".join(texts)


def written(header: list[str], rows: list[list[str]], careful: bool) -> bytes:
    """A table: as csv writes it, or as a program does that puts commas between texts."""
    if not careful:
        return "".join(",".join(row) + "\n" for row in [header, *rows]).encode(*UTF8)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode(*UTF8)


UTF8 = ("utf-8", "surrogateescape")


def one_by_one(data: bytes) -> dict[str, list[Any]]:
    """What each cell says, taken by itself: the last row of a run counts."""
    text = io.StringIO(data.decode(*UTF8), newline="")
    reader = csv.DictReader(text)
    header, rows = list(reader.fieldnames or ()), list(reader)
    if "run_id" in header:
        last = {row["run_id"]: number for number, row in enumerate(rows)}
        rows = [row for number, row in enumerate(rows) if last[row["run_id"]] == number]
    as_text = {"run_id", "status", "run_status", "failure_reason", "start_time"}
    return {
        name: [(row[name] or None) if name in as_text else decode(row[name]) for row in rows]
        for name in header
    }


@settings(max_examples=400, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_pandas_reads_a_table_as_each_cell_is_read(
    data: st.DataObject, careful: bool, unique: bool
) -> None:
    header = ["run_id", *data.draw(st.lists(st.sampled_from(NAMES[1:]), unique=True, min_size=1))]
    columns = [data.draw(CELLS) for _ in header[1:]]
    ids = [f"r{n}" if unique else f"r{n // 2}" for n in range(max(map(len, columns)))]
    rows = [[*cells] for cells in itertools.zip_longest(ids, *columns, fillvalue="")]
    if data.draw(st.booleans()) and rows:  # a line that is too short or too long
        row = data.draw(st.sampled_from(rows))
        row[1:] = row[1 : data.draw(st.integers(1, len(row)))]
        row += ["7"] * data.draw(st.integers(0, 4))
    table = written(header, rows, careful)
    try:
        expected = frame_of(one_by_one(table))
    except csv.Error:
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "index.csv").write_bytes(table)
        index = Index(folder)
        pandas.testing.assert_frame_equal(index.frame(), expected)
        names = list(expected)
        found = [[row[name] for row in index.rows()] for name in names]
        assert all(map(alike, found, one_by_one(table).values()))
    if not {'"', "\r", "\0"} & set(table.decode(*UTF8)) and unique and rows:
        assume(parsed(table) is not None)  # else the test would be of one way alone


def test_pandas_itself_reads_a_usual_table() -> None:
    lines = [f"s_{k},{k},{k * 0.5},rk4,complete,{k / 7},True,complete,,2026,0.1" for k in range(9)]
    head = "run_id,k,omega,scheme,status,drift,ok,run_status,failure_reason,start_time,runtime_sec"
    frame = parsed("\n".join([head, *lines, ""]).encode())
    types = [str(kind) for kind in frame.dtypes]
    text = str(frame["run_id"].dtype)
    middle = ["int64", "float64", text, text, "float64", "bool", text]
    assert types == [text, *middle, "object", text, "float64"]
    assert frame["drift"].tolist() == [k / 7 for k in range(9)]


def test_a_number_that_no_float_holds_stays_as_it_is_beside_floats() -> None:
    """2**53 + 1, which becomes 2**53 as a float: the largest that is not looked at again."""
    table = b"run_id,x,status\na,0.5,complete\nb,9007199254740993,complete\n"
    frame = pandas.DataFrame(one_by_one(table)) if parsed(table) is None else parsed(table)
    assert list(frame["x"]) == [0.5, 9007199254740993]
    assert type(list(frame["x"])[1]) is int
