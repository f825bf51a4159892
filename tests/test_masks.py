"""Holes in arrays of every type: NaN, or a mask beside the array, made in bounded memory."""

from __future__ import annotations

import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from richrun import counted
from simulated import write_as

import notata
from notata import Logbook, LogReader
from notata.assembly import Whole
from notata.merging import small
from notata.merging.output import Output

TYPES = {
    "i4": np.dtype("<i4"),
    "big": np.dtype(">i2"),
    "bool": np.dtype("?"),
    "text": np.dtype("<U3"),
    "bytes": np.dtype("S2"),
    "record": np.dtype([("a", "<i4"), ("b", "<i2", (2,))]),
    "f4": np.dtype("<f4"),
    "c16": np.dtype("<c16"),
    "time": np.dtype("<M8[s]"),
    "partly": np.dtype([("a", "<i4"), ("x", "<f8")]),
    "within": np.dtype([("t", "<f8"), ("r", [("x", "<f4", (2,)), ("a", "?")])]),
    "wholly": np.dtype([("x", "<f8"), ("r", [("y", "<c8"), ("t", "<m8[s]")])]),
}
NO_MASK = {"f4", "c16", "time", "wholly"}
HOLES: dict[str, Any] = {
    "concat": ((6, 3), np.s_[2:4]),
    "stack": ((3, 2, 3), np.s_[1]),
    "place": ((2, 9), np.s_[:, 3:6]),
}


def block(rank: int, dtype: np.dtype[Any]) -> Any:
    numbers = np.arange(6).reshape(2, 3) + 10 * rank + 1
    if dtype.names:
        made = np.zeros((2, 3), dtype)
        for name in dtype.names:
            if dtype[name].names:
                made[name] = block(rank, dtype[name])
            else:
                made[name] = numbers if made[name].ndim == 2 else numbers[..., None]
        return made
    return numbers.astype(dtype)


def plain(array: Any) -> list[Any]:
    """The fields of an array of records, and of records in them; else the array itself."""
    names = array.dtype.names
    return [part for name in names for part in plain(array[name])] if names else [array]


def write(log: Logbook, order: Any) -> None:
    for name, dtype in TYPES.items():
        piece = np.asarray(block(log.rank, dtype), order=order)
        log.array(f"concat/{name}", piece)
        log.array(f"stack/{name}", piece, join="stack")
        log.array(f"place/{name}", piece, start=(0, 3 * log.rank), shape=(2, 9))


@pytest.mark.parametrize("prune", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_hole_is_told_from_every_value_of_every_type(base: Path, order: str, prune: bool) -> None:
    run = counted(write_as(3, base, lambda log: write(log, order)))
    for path in (run / "ranks/rank_00001/data").rglob("*.npy"):
        path.unlink()
    report = notata.merge(run, allow_missing=True, prune=prune)
    assert len(report.holes) >= len(HOLES) * len(TYPES)
    reader = LogReader(run)
    for join, (shape, hole) in HOLES.items():
        missing = np.zeros(shape, bool)
        missing[hole] = True
        for name, dtype in TYPES.items():
            found = reader.load_array(f"{join}/{name}")
            assert (found.shape, found.dtype) == (shape, dtype)
            blocks = [block(rank, dtype) for rank in range(3)]
            axis = {"concat": 0, "place": 1}.get(join)
            whole = np.stack(blocks) if axis is None else np.concatenate(blocks, axis)
            assert (found == whole)[~missing].all(), (join, name)
            path = run / f"data/{join}/{name}.mask.npy"
            if name in NO_MASK:
                assert not path.exists()
                for values in plain(found):
                    isnt = np.isnat(values) if values.dtype.kind in "mM" else np.isnan(values)
                    assert (isnt == missing).all(), (join, name)
            else:
                for values in plain(found[missing]):
                    if values.dtype.kind in "fc":
                        assert np.isnan(values).all(), (join, name)
                    else:
                        assert (values == np.zeros((), values.dtype)).all(), (join, name)
                mask = np.load(path)
                assert mask.dtype == bool
                assert (mask == missing).all(), (join, name)


def mask_of(shape: tuple[int, ...], key: str | None) -> Output:
    whole = Whole("T", key, "place", shape, "|i1", False, (), ())
    half = (shape[0] // 2, *shape[1:])
    holes = {whole.label: (((half[0], *(0,) * (len(shape) - 1)), half),)}
    return Output("data/T.mask.npy", (whole,), {}, False, holes, "mask")


@pytest.mark.parametrize(
    ("shape", "key"),
    [((60, 1_000_000), None), ((60_000_000,), None), ((2, 6, 5_000_000), "k")],
)
def test_a_mask_of_any_size_takes_little_memory(
    tmp_path: Path, shape: tuple[int, ...], key: str | None
) -> None:
    path = tmp_path / "mask"
    np.zeros(1)  # numpy itself is loaded
    tracemalloc.start()
    try:
        small.make(os.fspath(tmp_path), mask_of(shape, key), os.fspath(path))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 30_000_000
    if key is None:
        mask = np.load(path, mmap_mode="r")
    else:
        with zipfile.ZipFile(path) as members:  # the same bytes whenever it is made
            assert [info.date_time[:3] for info in members.infolist()] == [(1980, 1, 1)]
        with np.load(path) as archive:
            mask = archive["k"]
    assert mask.shape == shape
    assert not mask[: shape[0] // 2].any()
    assert mask[shape[0] // 2 :].all()
