"""The command `notata diff`, and reading arrays slab by slab."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calling import HOSTILE, assert_harmless, notata, run_of
from hypothesis import given
from hypothesis import strategies as st
from richrun import rich
from simulated import open_as

from notata import Logbook, LogReader, merge
from notata.comparing import Difference, compare
from notata.errors import ArrayNotFoundError, HoleError
from notata.opened import open_array, slabs


def saved(base: Path, name: str, **arrays: Any) -> Path:
    with Logbook(name, base) as log:
        for key, value in arrays.items():
            log.array(key, value)
    return log.path


def difference(base: Path, left: Any, right: Any, **options: Any) -> Difference:
    found = compare(saved(base, "a", T=left), saved(base, "b", T=right), **options)
    return found.arrays[0]


def blocks(log: Logbook) -> None:
    start = 2 * log.rank
    log.array("T", np.arange(8.0).reshape(2, 4) + start, start=(start, 0), shape=(2 * log.size, 4))


# ----- arrays -----


def _records(values: list[float]) -> Any:
    """An array of records, in which a number, a row and a time may be missing."""
    kind = [("i", "i4"), ("x", "f8"), ("row", "f4", (2,)), ("at", "M8[s]"), ("in", [("z", "c16")])]
    found = np.zeros(len(values), kind)
    found["x"], found["in"]["z"] = values, values
    found["row"][:, 1] = values
    found["at"] = [np.datetime64("NaT" if math.isnan(v) else "2026-01-01") for v in values]
    return found


@pytest.mark.parametrize("kind", ["f4", "f8", "i2", "i8", "u8", "c16", "?", "U5", "M8[s]"])
def test_the_same_is_no_difference(base: Path, kind: str) -> None:
    values = np.arange(24).astype("i8" if kind == "M8[s]" else kind).astype(kind).reshape(4, 6)
    found = difference(base, values, values)
    assert (found.apart, found.total, found.differs) == (0, 24, False)


@pytest.mark.parametrize(
    ("left", "right", "count", "largest", "where", "values"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.5], [3.0, -4.0]], 2, 8.0, (1, 1), (4.0, -4.0)),
        ([np.nan, 1.0, np.inf], [np.nan, 1.0, np.inf], 0, None, None, None),
        ([np.nan, 1.0], [0.0, 3.0], 2, 2.0, (1,), (1.0, 3.0)),
        ([1.0, np.inf], [1.0, -np.inf], 1, None, (1,), (np.inf, -np.inf)),
        (np.array([0, 255], "u1"), np.array([255, 255], "u1"), 1, 255.0, (0,), (0, 255)),
        (np.array([-(2**63)]), np.array([2**63 - 1]), 1, 2.0**64, (0,), (-(2**63), 2**63 - 1)),
        ([True, False], [True, True], 1, 1.0, (1,), (False, True)),
        ([1j], [1.0], 1, math.sqrt(2), (0,), (1j, 1 + 0j)),
        (5.0, 7.0, 1, 2.0, (), (5.0, 7.0)),
        (["a", "b"], ["a", "c"], 1, None, (1,), ("b", "c")),
        (np.zeros((0, 3)), np.zeros((0, 3)), 0, None, None, None),
        (np.array(["NaT", 3], "M8[s]"), np.array(["NaT", 3], "M8[s]"), 0, None, None, None),
        (_records([1.0, np.nan]), _records([1.0, np.nan]), 0, None, None, None),
        (_records([1.0, np.nan]), _records([np.nan, 1.0]), 2, None, (0,), None),
    ],
)
def test_where_and_how_much(
    base: Path, left: Any, right: Any, count: int, largest: Any, where: Any, values: Any
) -> None:
    found = difference(base, left, right)
    assert (found.apart, found.where) == (count, where)
    assert values is None or found.values == values
    assert found.largest == (largest if largest is None else pytest.approx(largest))


def test_records(base: Path) -> None:
    kind = [("id", "i4"), ("x", "f8", (2,))]
    one, other = np.zeros(3, kind), np.zeros(3, kind)
    other["x"][2, 1] = 1
    found = difference(base, one, other)
    assert (found.apart, found.where) == (1, (2,))


def test_what_is_tolerated(base: Path) -> None:
    one, other = np.array([1.0, 100.0]), np.array([1.001, 100.1])
    found = compare(saved(base, "a", T=one), saved(base, "b", T=other), rtol=1e-2)
    assert not found.results_differ
    assert compare(base / "log_a", base / "log_b", atol=0.05).arrays[0].apart == 1
    assert compare(base / "log_a", base / "log_b", atol=0.2).arrays[0].apart == 0


def test_other_shapes_and_types(base: Path) -> None:
    one = saved(base, "a", T=np.zeros((2, 3)), only=[1], kind=np.zeros(2, "f4"))
    other = saved(base, "b", T=np.zeros((3, 2)), kind=np.zeros(2, "f8"))
    found = {array.name: array for array in compare(one, other).arrays}
    assert (found["T"].left, found["T"].right) == ("2 × 3 float64", "3 × 2 float64")
    assert found["T"].apart is None
    assert found["only"].right == "—"
    assert (found["kind"].apart, found["kind"].differs) == (0, True)


def test_merged_and_pieces_are_the_same(base: Path) -> None:
    one, other = run_of(3, base, blocks, "a"), run_of(3, base, blocks, "b")
    merge(other, prune=True)
    result = notata("diff", one, other)
    assert result.exit_code == 0
    assert "arrays (1)" in result.stdout
    alone = saved(base, "c", T=LogReader(one).load_array("T"))
    assert notata("diff", one, alone).exit_code == 0


def test_the_place_in_the_whole(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notata.opened.SLAB", 64)
    monkeypatch.setattr("notata.opened.Opened.slabs.__defaults__", (64,))
    one = run_of(3, base, blocks, "a")
    whole = LogReader(one).load_array("T")
    whole[3, 2] += 1
    whole[5, 1] -= 4
    found = compare(one, saved(base, "b", T=whole)).arrays[0]
    assert (found.apart, found.total, found.largest, found.where) == (2, 24, 4.0, (5, 1))


# ----- the command -----


@pytest.fixture
def pair(base: Path) -> tuple[Path, Path]:
    def work(log: Logbook) -> None:
        log.array("T", np.arange(4.0) * log.params["kappa"])
        log.array("x", [1, 2])
        log.json("metrics", {"energy": log.params["kappa"], "steps": 3})

    found = []
    for name, kappa in (("a", 1.0), ("b", 1.5)):
        params = {"kappa": kappa, "grid": {"nx": 3, "ny": len(found)}, "same": "x"}
        with Logbook(name, base, params=params) as log:
            work(log)
        found.append(log.path)
    for run, commit, version in zip(found, ("1" * 40, "2" * 40), ("2.1", "0.1"), strict=True):
        told = json.loads((run / "metadata.json").read_text())
        told["provenance"] = {"git": {"commit": commit}, "packages": {"numpy": version, "x": "1"}}
        (run / "metadata.json").write_text(json.dumps(told | {"host": f"node{version}"}))
    return found[0], found[1]


def test_what_is_printed(pair: tuple[Path, Path]) -> None:
    result = notata("diff", *pair, width=140)
    assert (result.exit_code, result.stderr) == (1, "")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for line in (
        "kappa 1.0 1.5",
        "grid.ny 0 1",
        f"git.commit {'1' * 40} {'2' * 40}",
        "energy 1.0 1.5",
        "T 4 float64 same 3 of 4 1.5 (33 %) at [3]: 3, 4.5",
    ):
        assert line in lines
    assert "hosts node2.1 node0.1" in lines
    assert "numpy 2.1 0.1" in lines
    assert lines[-1] == "the same: arrays (1)"
    assert not any(line.startswith(("same", "grid.nx", "x ")) for line in lines)


def test_json(pair: tuple[Path, Path]) -> None:
    told = json.loads(notata("diff", "--json", *pair).stdout)
    assert told["parameters"]["kappa"] == {"left": 1.0, "right": 1.5}
    assert told["code"]["git.commit"] == {"left": "1" * 40, "right": "2" * 40}
    assert told["packages"] == {"numpy": {"left": "2.1", "right": "0.1"}}
    assert told["results_differ"] is True
    first = told["arrays"][0]
    assert (first["name"], first["largest"], first["where"]) == ("T", 1.5, [3])
    assert first["left"] == {"shape": [4], "dtype": "float64"}


def test_shapes_alone(pair: tuple[Path, Path]) -> None:
    told = json.loads(notata("diff", "--no-data", "--json", *pair).stdout)
    assert [array["differs"] for array in told["arrays"]] == [False, False]
    assert "shapes of arrays (2)" in notata("diff", "--no-data", *pair).stdout


def test_only_parameters_differ(base: Path) -> None:
    for name, value in (("a", 1), ("b", 2)):
        with Logbook(name, base, params={"n": value}):
            pass
    result = notata("diff", base / "log_a", base / "log_b")
    assert result.exit_code == 0
    assert "n            1      2" in result.stdout
    # Packages can be counted; what ranks are compared by (how many, on which hosts) are not ranks.
    same = result.stdout.splitlines()[-1]
    assert re.fullmatch(r"the same: code, packages \(\d+\), ranks", same)


@pytest.mark.parametrize("width", [80, 140])
def test_hostile_values_are_only_printed(base: Path, width: int) -> None:
    for name in ("a", "b"):
        with Logbook(name, base, params={HOSTILE: HOSTILE + name}) as log:
            log.array("[red]x[|red]", [HOSTILE + name])
            log.json("metrics", {"m": {HOSTILE: [name]}})
    result = notata("diff", base / "log_a", base / "log_b", width=width)
    assert result.exit_code == 1
    assert_harmless(result.stdout)
    assert "[red]x[|red]" in result.stdout
    table = [line for line in result.stdout.splitlines() if not line.startswith(("left", "right"))]
    assert max(map(len, table)) <= width


def test_no_such_run(base: Path, pair: tuple[Path, Path]) -> None:
    assert notata("diff", pair[0], base / "nowhere").exit_code == 2
    assert notata("diff", pair[0], base).exit_code == 2
    assert notata("diff", pair[0]).exit_code == 2


def test_damage_is_told(base: Path) -> None:
    one, other = run_of(3, base, blocks, "a"), run_of(3, base, blocks, "b")
    piece = other / "ranks" / "rank_00001" / "data" / "T.npy"
    piece.write_bytes(piece.read_bytes()[:-8])
    result = notata("diff", one, other, width=200)
    assert result.exit_code == 1
    assert "rank 1's piece of 'T' is damaged" in result.stdout
    (other / "metadata.json").write_text("{")
    result = notata("diff", one, other)
    assert result.exit_code == 1
    assert "metadata.json is damaged" in result.stderr


def test_a_run_that_is_open_right_now(base: Path) -> None:
    one = run_of(2, base, blocks, "a")
    logs = [open_as(rank, 2, base, "b") for rank in range(2)]
    blocks(logs[0])
    result = notata("diff", one, logs[0].path, width=200)
    assert result.exit_code == 1
    assert "nothing covers [2:4, 0:4]" in result.stdout
    blocks(logs[1])
    assert notata("diff", one, logs[0].path).exit_code == 0
    for log in reversed(logs):
        log.mark_complete()


# ----- arrays in parts -----


@given(st.lists(st.integers(0, 9), max_size=4).map(tuple), st.integers(1, 300), st.booleans())
def test_slabs_make_the_whole(shape: tuple[int, ...], limit: int, fortran: bool) -> None:
    seen = np.zeros(shape, int)
    for box in slabs(shape, 8, limit, fortran=fortran):
        part = seen[box]
        assert part.size * 8 <= max(limit, 8)
        seen[box] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("state", ["pieces", "merged", "pruned"])
def test_opened_is_what_a_reader_loads(base: Path, state: str) -> None:
    run = rich(base)
    if state != "pieces":
        merge(run, prune=state == "pruned", allow_missing=False)
    reader = LogReader(run)
    for name in reader.arrays:
        whole, opened = reader.load_array(name), open_array(run, name)
        assert (opened.shape, opened.dtype) == (whole.shape, whole.dtype)
        assert opened.nbytes == whole.nbytes
        assert np.array_equal(opened.read(), whole)
        for box in opened.slabs(16):
            assert np.array_equal(opened.read(box), whole[box])


def test_no_such_array(base: Path) -> None:
    run = run_of(2, base, blocks)
    for name in ("U", "T:x", "../x", "x" * 300):
        with pytest.raises((ArrayNotFoundError, ValueError)):
            open_array(run, name)


def test_a_gap_is_told_at_once(base: Path) -> None:
    run = run_of(3, base, lambda log: blocks(log) if log.rank else None)
    with pytest.raises(HoleError, match=r"nothing covers \[0:2, 0:4\]"):
        open_array(run, "T")
