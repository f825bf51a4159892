"""Joining arrays and bundles: slab by slab, in any order of memory, in several processes."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import resource
import tempfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from simulated import write_as
from test_properties import DTYPES, an_array, folder

import notata
from notata import Logbook, LogReader, checksums, mergerecord, npy
from notata.assembly import Box
from notata.errors import DamagedError, HoleError, MergeError
from notata.merging import arrays, places, slabs, sources
from notata.merging.joining import join
from notata.merging.plan import Output, make_plan
from notata.merging.tasks import Made

RECORD = np.dtype([("é", "<f4"), ("氷", ">i2", (2,)), ("t", "<M8[s]")])


# Types beyond those that most programs write: an array of each, made of whole numbers.
RARE = ["<f2", "<f16", "<u8", ">U3", ">c16", ">M8[us]", "<m8", "<U0", "<c32", "|V3"]
RECORDS = {
    "nested": np.dtype([("a", ">i2"), ("in", [("x", "<f8", (2,)), ("in", [("t", "<m8[s]")])])]),
    "aligned": np.dtype([("a", "|u1"), ("x", "<f8"), ("b", "|b1")], align=True),
}


def an_array_of(shape: tuple[int, ...], kind: str) -> np.ndarray[Any, Any]:
    """The same as `an_array`, of rare types too."""
    count = math.prod(shape)
    if kind in ("<M8", "<m8"):  # without a unit numbers can't be turned into them
        return np.arange(count).view(kind).reshape(shape)
    if kind not in RECORDS:
        return an_array(shape, kind)
    made = np.zeros(count, RECORDS[kind])
    for name, numbers in (("a", np.arange(count) % 200), ("b", np.arange(count) % 2)):
        if name in (RECORDS[kind].names or ()):
            made[name] = numbers
    if kind == "nested":
        made["in"]["x"] = np.arange(2 * count).reshape(count, 2)
        made["in"]["in"]["t"] = np.arange(count)
    else:
        made["x"] = np.arange(count)
    return made.reshape(shape)


def bytes_in(array: np.ndarray[Any, Any]) -> bytes:
    """What an array holds, without the gaps between fields, which numpy doesn't copy."""
    if array.dtype.names:
        return b"".join(bytes_in(array[name]) for name in array.dtype.names)
    return array.tobytes()


def halves(shape: tuple[int, ...], kind: str) -> Any:
    """An array cut in two along its first axis and its last, in both orders of memory."""
    spans = [[(0, n)] for n in shape]
    for axis in (0, -1):
        n = shape[axis]
        spans[axis] = [(0, n // 2), (n // 2, n)]
    boxes = [
        (tuple(a for a, _ in box), tuple(b - a for a, b in box))
        for box in itertools.product(*spans)
    ]
    return an_array_of(shape, kind), boxes, list("CFFC")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs, tiles and tasks of a few elements, so that small arrays take many."""
    make_tiny(monkeypatch)


def make_tiny(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(slabs, "SLAB", 100)
    patch.setattr(slabs, "_CHUNK", 30)
    patch.setattr(slabs, "_LEAST", 20)
    patch.setattr(sources, "_TILE", 90)
    patch.setattr(places, "_HANDLES", 2)
    patch.setattr(arrays, "_TASK", 3)
    patch.setattr("notata.merging.joining._LARGE", 150)


def arrays_of(run: Path) -> list[Output]:
    return [out for out in make_plan(os.fspath(run)).outputs if not out.is_log]


def joined(
    run: Path, executor: Executor | None = None, outputs: list[Output] | None = None
) -> tuple[dict[str, Made], dict[str, bytes]]:
    """What join makes, and the bytes of it."""
    found = arrays_of(run) if outputs is None else outputs
    pairs = [(out, os.fspath(run / f"made-{number}.tmp")) for number, out in enumerate(found)]
    told: list[int] = []
    try:
        made = join(os.fspath(run), pairs, executor, told.append)
        data = {out.file: Path(path).read_bytes() for out, path in pairs}
    finally:
        for _, path in pairs:
            Path(path).unlink(missing_ok=True)
    assert sum(told) == sum(out.bytes for out in found)
    for out in found:
        assert made[out.file].checksum == checksums.of_bytes(data[out.file])
        assert made[out.file].inputs == {name: checksums.of_file(run / name) for name in out.inputs}
    assert not list(run.rglob(".notata-*"))
    return made, data


@st.composite
def pieces(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], list[Box], list[str]]:
    """An array cut along its axes, and the order of memory of each piece."""
    shape = tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=4)))
    spans = []
    for length in shape:
        cuts = sorted(draw(st.lists(st.integers(0, length), max_size=2)))
        spans.append(list(itertools.pairwise([0, *cuts, length])))
    boxes = [
        (tuple(a for a, _ in box), tuple(b - a for a, b in box))
        for box in itertools.product(*spans)
    ][:20]
    whole = an_array_of(shape, draw(st.sampled_from([*DTYPES, "record", *RARE, *RECORDS])))
    orders = [draw(st.sampled_from("CF")) for _ in boxes]
    if draw(st.booleans()):
        orders = ["F"] * len(boxes)
    return whole, boxes, orders


def cut(whole: np.ndarray[Any, Any], box: Box) -> np.ndarray[Any, Any]:
    return whole[tuple(slice(a, a + n) for a, n in zip(*box, strict=True))]


def spill_measured(patch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that are asked for beside the files that are made."""
    asked: list[int] = []
    room = places.Spill.room

    def counting(self: places.Spill, size: int) -> tuple[int, int]:
        asked.append(size)
        return room(self, size)

    patch.setattr(places.Spill, "room", counting)
    return asked


def test_a_merge_takes_away_what_one_left_that_was_killed_while_it_turned_pieces(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_as(2, base, lambda log: log.array("T", np.ones((2, 3), order="CF"[log.rank])))
    (run / "data").mkdir()
    monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False)  # as on NFS
    with places.Spill(os.fspath(run / "data")) as spill, monkeypatch.context() as patch:
        patch.setattr(os, "unlink", lambda *args, **options: None)  # killed just before it
        spill.room(10)
    assert len(list(run.rglob(".notata-*"))) == 1
    notata.merge(run)
    assert not list(run.rglob(".notata-*"))


@settings(max_examples=150)
@given(made=pieces(), compressed=st.booleans(), streams=st.sampled_from([0, 2, 64]))
@example(made=halves((4, 1, 2, 3, 2, 3), "<f8"), compressed=True, streams=2)
@example(made=halves((2,) * 8, "nested"), compressed=False, streams=64)
@example(made=halves((5, 2, 1, 1, 4), "<m8"), compressed=True, streams=0)
def test_any_pieces_in_any_order_of_memory(
    made: tuple[np.ndarray[Any, Any], list[Box], list[str]], compressed: bool, streams: int
) -> None:
    whole, boxes, orders = made
    covered = sum(math.prod(shape) for _, shape in boxes) == whole.size

    def work(log: Logbook) -> None:
        if log.rank >= len(boxes):
            return
        box = boxes[log.rank]
        piece = np.array(cut(whole, box), order=orders[log.rank])
        log.array("T", piece, start=box[0], shape=whole.shape)
        log.arrays("b", compressed, k=piece, start=box[0], shape=whole.shape)

    if not covered:
        return
    with folder() as base, pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)
        patch.setattr(sources, "STREAMS", streams)
        run = write_as(max(2, len(boxes)), base, work)
        spilled = spill_measured(patch)
        found, data = joined(run)
        assert sum(spilled) == sum(slabs.spill_of(out.wholes[0]) for out in arrays_of(run))
        notata.merge(run)
        loaded = np.load(run / "data/T.npy")
        assert (loaded.dtype, loaded.shape) == (whole.dtype, whole.shape)
        assert bytes_in(loaded) == bytes_in(whole)
        with np.load(run / "data/b.npz") as bundle:
            assert bytes_in(bundle["k"]) == bytes_in(whole)
            assert bundle["k"].dtype == whole.dtype
        with ThreadPoolExecutor(3) as executor:
            (run / "merge.json").unlink()
            for file in ("T.npy", "b.npz"):
                (run / "data" / file).unlink()
            assert joined(run, executor) == (found, data)


NOTHING = st.sampled_from([[], np.zeros((0, 3)), np.zeros((0, 2, 5), "<i2"), np.zeros(0, "|S4")])


@pytest.mark.parametrize("kind", [*RARE, *RECORDS, "<M8"])  # which numpy can't print
def test_arrays_of_rare_types(base: Path, tiny: None, kind: str) -> None:
    whole, boxes, orders = halves((5, 2, 4), kind)

    def work(log: Logbook) -> None:
        start, _ = boxes[log.rank]
        piece = np.array(cut(whole, boxes[log.rank]), order=orders[log.rank])
        log.array("T", piece, start=start, shape=whole.shape)
        log.arrays("b", k=piece, start=start, shape=whole.shape)

    run = write_as(4, base, work)
    for prune in (False, True):
        notata.merge(run, prune=prune)
        for name in ("T", "b:k"):
            found = LogReader(run).load_array(name)
            assert (found.dtype, found.shape) == (whole.dtype, whole.shape)
            assert bytes_in(found) == bytes_in(whole)


@given(
    rows=st.lists(st.integers(0, 3), min_size=1, max_size=4).filter(any),
    inner=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    kind=st.sampled_from([*DTYPES, "record"]),
    fortran=st.booleans(),
    empty=st.lists(NOTHING, min_size=4, max_size=4),
)
def test_ranks_that_have_nothing_may_write_any_array_without_elements(
    rows: list[int], inner: tuple[int, ...], kind: str, fortran: bool, empty: list[Any]
) -> None:
    rows = [*rows, 0]
    ends = np.cumsum([0, *rows])
    whole = np.array(an_array((int(ends[-1]), *inner), kind), order="F" if fortran else "C")

    def work(log: Logbook) -> None:
        first, end = ends[log.rank : log.rank + 2]
        piece = np.array(whole[first:end], order="F" if fortran else "C")
        value = piece if piece.size else empty[log.rank % 4]
        log.array("T", value)
        log.arrays("b", k=value, ranks=[log.rank])
        start = (int(first), *(0 for _ in inner))
        placed = piece if piece.size else np.zeros((0, *inner), "<c8")
        log.array("P", placed, start=start, shape=whole.shape)

    with folder() as base:
        run = write_as(len(rows), base, work)
        for prune in (False, True, None):
            for name in ("T", "P", "b:k"):
                found = LogReader(run).load_array(name)
                assert (found.dtype, found.shape) == (whole.dtype, whole.shape)
                assert found.tobytes() == whole.tobytes()
            for rank in LogReader(run).ranks:
                own = np.asarray(empty[rank.rank % 4])
                if not rows[rank.rank]:
                    found = rank.load_array("T")
                    assert (found.dtype, found.shape) == (own.dtype, own.shape)
                    assert rank.load_array("P").dtype == "<c8"
            if prune is not None:
                notata.merge(run, prune=prune)
        made = mergerecord.read(os.fspath(run)).outputs["data/T.npy"]
        assert list(made.inputs) == [f"ranks/rank_{r:05}/data/T.npy" for r in range(len(rows))]


@pytest.mark.parametrize("kind", ["<f8", ">f4", "<c8", "<M8[s]", "<m8[ms]", "<i4", "<U2", "|b1"])
@pytest.mark.parametrize("order", "CF")
def test_holes_are_filled(base: Path, tiny: None, kind: str, order: str) -> None:
    whole = np.arange(1, 64).astype(kind).reshape(7, 9)

    def work(log: Logbook) -> None:
        piece = np.array(whole[4 * log.rank : 4 + 3 * log.rank], order=order)
        log.array("T", piece, start=(4 * log.rank, 0), shape=(7, 9))
        log.arrays("b", k=piece, start=(4 * log.rank, 0), shape=(7, 9))

    run = write_as(2, base, work)
    left = []
    for out in arrays_of(run):
        (one,) = out.wholes
        hole = {one.label: (((4, 0), (3, 5)), ((4, 5), (3, 4)))}
        left.append(out._replace(wholes=(one._replace(parts=one.parts[:1]),), holes=hole))
    _, data = joined_as_is(run, left)
    expected = whole.copy()
    value = {"f": np.nan, "c": np.nan, "M": "NaT", "m": "NaT"}.get(expected.dtype.kind)
    expected[4:] = np.zeros((), kind) if value is None else value
    for file in ("T.npy", "k.npy"):
        path = base / file
        path.write_bytes(data[file])
        np.testing.assert_array_equal(np.load(path), expected)
    assert npy.can_be_missing(np.dtype(kind)) == (value is not None)
    bare = [out._replace(holes={}) for out in left]
    with pytest.raises(HoleError, match="pieces don't fill it"):
        joined_as_is(run, bare)


def joined_as_is(run: Path, outputs: list[Output]) -> tuple[dict[str, Made], dict[str, bytes]]:
    """The `.npy` files that join makes, those in bundles too."""
    pairs = [(out, os.fspath(run / f"made-{number}")) for number, out in enumerate(outputs)]
    data = {}
    try:
        made = join(os.fspath(run), pairs, None, lambda count: None)
        for out, path in pairs:
            if out.wholes[0].key is None:
                data[os.path.basename(out.file)] = Path(path).read_bytes()
            else:
                with zipfile.ZipFile(path) as archive:
                    data |= {name: archive.read(name) for name in archive.namelist()}
    finally:
        for _, path in pairs:
            Path(path).unlink(missing_ok=True)
    return made, data


def test_the_fields_of_a_record_that_is_missing() -> None:
    found = npy.missing_value(np.dtype([("x", "<f4", (2,)), ("n", "<i4"), ("t", "<M8[s]")]))
    assert np.isnan(found["x"]).all()
    assert found["n"] == 0
    assert np.isnat(found["t"])
    assert not npy.can_be_missing(found.dtype)  # who reads n alone takes 0 for a value
    assert npy.can_be_missing(np.dtype([("x", "<f4", (2,)), ("t", "<M8[s]")]))
    assert not npy.can_be_missing(np.dtype([("n", "<i4"), ("s", "|S3")]))


@pytest.mark.parametrize(
    "dtype",
    ["<f8", ">i2", "|S0", RECORD, np.dtype([("x" * 70_000, "<f4")]), [("\xff" * 70_000, "<i4")]],
    ids=["f8", "i2", "S0", "utf-8", "long", "long latin-1"],
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 5), (4, 3)])
@pytest.mark.parametrize("fortran", [False, True])
def test_the_head_of_a_file_is_as_numpy_writes_it(
    tmp_path: Path, dtype: Any, shape: tuple[int, ...], fortran: bool
) -> None:
    array = np.zeros(shape, dtype, order="F" if fortran else "C")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that old numpys can't read it
        np.save(tmp_path / "x.npy", array)
    data = (tmp_path / "x.npy").read_bytes()
    header = npy.Header(shape, bool(array.flags.fnc), array.dtype)
    assert npy.header_bytes(header) + array.tobytes("A") == data
    with (tmp_path / "x.npy").open("rb") as file:
        assert npy.read_header(file) == header
        assert file.tell() + array.nbytes == len(data)


@pytest.mark.parametrize("head", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x02\x00{}", b"x" * 200])
def test_a_head_that_is_none(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(head)
    with path.open("rb") as file, pytest.raises(DamagedError, match=r"no head of a \.npy file"):
        npy.read_header(file)


# ----- in several processes -----


@pytest.fixture
def workers() -> Iterator[Executor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        yield executor


def several(log: Logbook) -> None:
    """A large array in columns, a bundle, small arrays, messages."""
    columns = np.arange(4_000_000.0).reshape(2000, 2000)[:, log.rank * 500 :][:, :500]
    log.array("large", columns, start=(0, log.rank * 500), shape=(2000, 2000))
    log.arrays("b", k=columns[:10], m=[log.rank])
    for number in range(20):
        log.array(f"small/{number}", [log.rank + number])


def test_other_processes_make_the_same_bytes(
    base: Path, workers: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_as(4, base, several)
    alone = joined(run)
    monkeypatch.setattr("notata.merging.joining._LARGE", 1_000_000)
    monkeypatch.setattr("notata.merging.joining._MANY", 3)
    monkeypatch.setattr(arrays, "_TASK", 1)
    assert joined(run, workers) == alone


def test_a_file_that_many_write_has_its_size_from_the_beginning(base: Path, tiny: None) -> None:
    """An NFS client that writes behind what it takes for the end adds zeros before its part."""
    rows = np.arange(70.0).reshape(7, 10)

    def work(log: Logbook) -> None:
        log.array("T", rows, start=(7 * log.rank, 0), shape=(14, 10))

    run = write_as(2, base, work)
    (output,) = arrays_of(run)
    path = run / "backwards.tmp"
    steps = arrays.divided(os.fspath(run), output.file, output.wholes[0], (), os.fspath(path))
    tasks = next(steps)
    assert len(tasks) > 3
    expected = joined(run)[1][output.file]
    assert path.stat().st_size == len(expected)
    for task in reversed(tasks):
        task.function(*task.args)
    assert path.read_bytes() == expected


def test_who_writes_for_another_node_syncs_it(
    base: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merge's own node can't: it does not have what is still in this one's memory."""
    run = write_as(4, base, several)
    synced: dict[str, int] = {}
    fsync = os.fsync

    def note(descriptor: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced[name] = synced.get(name, 0) + 1
        fsync(descriptor)

    monkeypatch.setattr(slabs, "SLAB", 1 << 21)
    monkeypatch.setattr("notata.merging.joining._LARGE", 1_000_000)
    monkeypatch.setattr(os, "fsync", note)
    outputs = arrays_of(run)
    with ThreadPoolExecutor(1) as executor:
        joined(run, executor, outputs)
    names = {f"made-{number}.tmp": output.file for number, output in enumerate(outputs)}
    assert synced.keys() == names.keys()
    parts = {name for name, count in synced.items() if count > 1}
    assert {names[name] for name in parts} == {"data/large.npy"}


@pytest.mark.parametrize("name", ["large", "small/7", "b"])
def test_an_error_of_another_process_comes_back_as_it_is(
    base: Path, workers: Executor, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = write_as(4, base, several)
    outputs = arrays_of(run)
    damaged = run / f"ranks/rank_00002/data/{name}.np{'z' if name == 'b' else 'y'}"
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-7])
    monkeypatch.setattr("notata.merging.joining._LARGE", 1_000_000)
    with pytest.raises(DamagedError, match=r"rank 2's piece of .* is damaged: .*rank_00002"):
        joined(run, workers, outputs)
    damaged.unlink()
    with pytest.raises(DamagedError, match=r"rank 2's piece of .* is missing: .*rank_00002"):
        joined(run, workers, outputs)


# ----- damage -----


def test_a_flipped_bit_in_a_bundle_is_noticed(base: Path) -> None:
    run = write_as(2, base, lambda log: log.arrays("b", False, k=np.arange(1000.0) + log.rank))
    outputs = arrays_of(run)
    path = run / "ranks/rank_00001/data/b.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"rank 1's piece of 'b:k' is damaged"):
        joined(run, None, outputs)


def test_a_bundle_whose_end_points_nowhere_is_named(base: Path) -> None:
    run = write_as(2, base, lambda log: log.arrays("b", k=np.arange(1000.0) + log.rank))
    path = run / "ranks/rank_00001/data/b.npz"
    data = bytearray(path.read_bytes())
    data[-3] = 1  # of where the table of contents begins: its members begin before the file does
    path.write_bytes(data)
    with pytest.raises((DamagedError, MergeError), match=r"rank_00001/data/b\.npz"):
        notata.merge(run)


@pytest.mark.parametrize("what", ["shape", "type", "order"])
def test_a_piece_that_is_not_what_its_manifest_says(base: Path, what: str) -> None:
    run = write_as(2, base, lambda log: log.array("T", np.ones((3, 2))))
    outputs = arrays_of(run)
    other = {"shape": np.ones((2, 3)), "type": np.ones((3, 2), "<i8")}
    np.save(run / "ranks/rank_00001/data/T.npy", other.get(what, np.ones((3, 2), order="F")))
    with pytest.raises(DamagedError, match=r"rank 1's piece of 'T' is not what its manifest"):
        joined(run, None, outputs)


def test_a_bundle_has_the_same_bytes_at_any_time(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_as(2, base, lambda log: log.arrays("b", k=[log.rank]))
    _, first = joined(run)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    assert joined(run)[1] == first


def test_many_pieces_need_few_open_files(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.array("T", np.full((50, 1), log.rank), start=(0, log.rank), shape=(50, 150))
        log.arrays("b", k=np.full((50, 1), log.rank), start=(0, log.rank), shape=(50, 150))

    run = write_as(150, base, work)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 100, before[1]))
    try:
        joined(run)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ranks", [2, 80])
def test_the_memory_of_a_bundle_does_not_grow_with_it(
    base: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool, ranks: int
) -> None:
    """Also of more ranks than are read at once, whose pieces are laid aside."""
    monkeypatch.setattr(slabs, "SLAB", 1 << 18)
    monkeypatch.setattr(sources, "_TILE", 1 << 18)
    most = []
    for size in (1 << 20, 1 << 24):
        block = np.arange(size // ranks // 64 * 8).reshape(-1, 8)

        def work(log: Logbook, block: Any = block) -> None:
            log.arrays("b", compressed, u=block + log.rank, v=[log.rank])

        run = os.fspath(write_as(ranks, base, work, f"run_{size}"))
        (output,) = [one for one in make_plan(run).outputs if one.kind == "bundle"]
        tracemalloc.start()
        try:
            join(run, [(output, os.path.join(run, "joined.tmp"))], None, lambda count: None)
            most.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        with np.load(os.path.join(run, "joined.tmp")) as made:
            assert made["u"].nbytes == len(block) * ranks * 64
            assert np.array_equal(made["u"][-len(block) :], block + ranks - 1)
    assert most[1] < 1.5 * most[0] + (1 << 20), most
    assert most[1] < 1 << 23
