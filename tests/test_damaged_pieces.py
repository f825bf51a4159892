"""What flips in a piece between its writing and the merge: told, or left out where holes may be."""

from __future__ import annotations

import json
import threading
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xxhash
from calling import notata as command
from richrun import counted, tree_of
from simulated import write_as

import notata
from notata import Logbook, LogReader, checksums
from notata.errors import MergeError
from notata.merging import arrays, joining, slabs, sources

SIZE = 3
ROWS, COLUMNS = 4, 6


def values(rank: int, kind: str = "<f8") -> np.ndarray:
    found = np.arange(1 + ROWS * COLUMNS * rank, 1 + ROWS * COLUMNS * (rank + 1))
    return found.reshape(ROWS, COLUMNS).astype(kind)


def rows(log: Logbook, cells: np.ndarray) -> None:
    log.array("T", cells, start=(ROWS * log.rank, 0), shape=(ROWS * log.size, COLUMNS))


def columns(log: Logbook, cells: np.ndarray) -> None:
    log.array("T", cells, start=(0, COLUMNS * log.rank), shape=(ROWS, COLUMNS * log.size))


WAYS: dict[str, Callable[[Logbook], object]] = {
    "rows": lambda log: rows(log, values(log.rank)),
    "columns": lambda log: columns(log, values(log.rank)),
    "concat": lambda log: log.array("T", values(log.rank)),
    "stack": lambda log: log.array("T", values(log.rank), join="stack"),
    "numbers": lambda log: log.array("T", 1.5 + log.rank),
    "one turned": lambda log: rows(log, np.array(values(log.rank), order="CFC"[log.rank])),
    "records": lambda log: rows(log, values(log.rank, "<f4").view([("a", "<f4")])),
    "strings": lambda log: log.array("T", np.array([f"of rank {log.rank}"] * 3)),
}


def piece(run: Path, rank: int = 1, name: str = "T.npy") -> Path:
    return run / f"ranks/rank_{rank:05d}/data" / name


def line(run: Path, rank: int = 1) -> dict[str, object]:
    path = run / f"ranks/rank_{rank:05d}/manifest.jsonl"
    return dict(json.loads(path.read_text().splitlines()[-1]))


def flip(path: Path, at: int = -1, bit: int = 3) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


# ----- what a manifest says -----


@pytest.mark.parametrize("way", WAYS)
def test_a_manifest_has_the_checksum_of_each_file(base: Path, way: str) -> None:
    run = write_as(SIZE, base, WAYS[way])
    for rank in range(SIZE):
        data = piece(run, rank).read_bytes()
        assert line(run, rank)["checksum"] == f"xxh128:{xxhash.xxh3_128_hexdigest(data)}"


@pytest.mark.parametrize("cells", [9_000, 200_000, 1_000_000])  # over 64 KB, and over 4 MB
@pytest.mark.parametrize("kind", ["<i8", [("a", "<i4"), ("b", "<f4")]])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_checksum_of_a_large_array_is_computed_as_it_is_written(
    base: Path, monkeypatch: pytest.MonkeyPatch, cells: int, kind: object, order: str
) -> None:
    of_file = checksums.of_file

    def read(path: str, size: int | None = None) -> str:
        assert not path.endswith(".npy"), f"{path} was read again"
        return of_file(path, size)

    block = np.arange(cells).view(kind).reshape(2, -1)
    with monkeypatch.context() as patch:
        patch.setattr(checksums, "of_file", read)
        run = write_as(2, base, lambda log: log.array("T", np.asarray(block, order=order)))
    data = piece(run).read_bytes()
    assert line(run)["checksum"] == f"xxh128:{xxhash.xxh3_128_hexdigest(data)}"
    np.testing.assert_array_equal(np.load(piece(run)), block)


def test_where_no_thread_can_be_started_it_is_computed_all_the_same(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def work(log: Logbook) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            log.array("T", np.arange(1_000_000))

    run = write_as(2, base, work)
    assert line(run)["checksum"] == checksums.of_file(piece(run))


@pytest.mark.parametrize("compressed", [False, True])
def test_of_a_bundle_it_has_the_crc_of_each_key(base: Path, compressed: bool) -> None:
    run = write_as(2, base, lambda log: log.arrays("b", compressed, u=[log.rank], v=np.arange(9)))
    lines = (run / "ranks/rank_00001/manifest.jsonl").read_text().splitlines()
    with zipfile.ZipFile(piece(run, 1, "b.npz")) as archive:
        crcs = [f"crc32:{zlib.crc32(archive.read(f'{key}.npy')):08x}" for key in "uv"]
    assert [json.loads(one)["checksum"] for one in lines] == crcs


def test_a_rank_alone_computes_none(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compute() -> None:
        raise AssertionError("a checksum is computed")

    monkeypatch.setattr(checksums, "hasher", compute)
    with Logbook("alone", base) as log:
        log.array("T", values(0))
        log.array("large", np.zeros(1_000_000))
        log.root.array("whole", values(0))
        log.arrays("b", u=[1])


# ----- the merge -----


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_a_byte_that_flips_is_told(base: Path, way: str, jobs: int) -> None:
    run = counted(write_as(SIZE, base, WAYS[way]))
    flip(piece(run))
    before = tree_of(run)
    assert command("merge", "--dry-run", run).exit_code == 0  # contents are read by the merge alone
    done = command("merge", "--jobs", jobs, run)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"notata: error: {run}: rank 1's piece of 'T' is damaged: {piece(run)} does not hold what "
        "was written: let its rank write it again, or put a sound copy in its place",
        "notata: nothing was written; --allow-missing would go on",
    ]
    assert tree_of(run) == before


@pytest.mark.parametrize("way", ["rows", "columns", "one turned"])
def test_and_where_an_array_is_divided(
    base: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(joining, "_LARGE", 1)
    monkeypatch.setattr(slabs, "SLAB", 100)
    monkeypatch.setattr(arrays, "_TASK", 2)
    monkeypatch.setattr(sources, "_TILE", 64)
    run = write_as(SIZE, base, WAYS[way])
    flip(piece(run, 0))
    flip(piece(run, 2), at=-9)
    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(MergeError) as caught:
            notata.merge(run, executor=executor)
        assert len(caught.value.problems) == 2
        report = notata.merge(run, allow_missing=True, executor=executor)
    assert len(report.holes) == 2
    found = LogReader(run).load_array("T")
    assert int(np.isnan(found).sum()) == 2 * ROWS * COLUMNS
    np.testing.assert_array_equal(found[~np.isnan(found)], values(1).reshape(-1))


def test_all_that_is_damaged_is_told_at_once(base: Path) -> None:
    def work(log: Logbook) -> None:
        for name in ("T", "U", "V"):
            log.array(name, values(log.rank))

    run = counted(write_as(SIZE, base, work))
    for rank, name in ((0, "T"), (2, "T"), (1, "V")):
        flip(piece(run, rank, f"{name}.npy"))
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    told = [problem.split(" is damaged")[0] for problem in caught.value.problems]
    assert told == [
        "rank 0's piece of 'T'",
        "rank 2's piece of 'T'",
        "rank 1's piece of 'V'",
    ]
    assert caught.value.ways_out == ["--allow-missing"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_damaged_becomes_a_hole_where_holes_may_be(base: Path, jobs: int) -> None:
    def work(log: Logbook) -> None:
        rows(log, values(log.rank))
        log.array("n", values(log.rank, "<i4"))
        log.arrays("b", False, u=values(log.rank), v=values(log.rank))
        log.array("sound", values(log.rank))

    run = counted(write_as(SIZE, base, work))
    flip(piece(run))
    flip(piece(run, 0, "n.npy"))
    path = piece(run, 2, "b.npz")
    flip(path, path.read_bytes().index(values(2).tobytes()) + 7)  # in u, which comes first
    done = command("merge", "--jobs", jobs, "--allow-missing", run)
    assert done.exit_code == 0, done.stderr
    assert "with 3 holes" in done.stdout
    named = {
        hole["name"]: (hole["ranks"], hole["boxes"])
        for hole in json.loads((run / "merge.json").read_text())["holes"]
    }
    size = [ROWS, COLUMNS]
    assert named == {
        "T": ("1", [[[ROWS, 0], size]]),
        "n": ("0", [[[0, 0], size]]),
        "b:u": ("2", [[[2 * ROWS, 0], size]]),
    }
    reader = LogReader(run)
    whole = np.concatenate([values(rank) for rank in range(SIZE)])
    for name, rank in (("T", 1), ("b:u", 2)):
        expected = whole.copy()
        expected[ROWS * rank : ROWS * (rank + 1)] = np.nan
        np.testing.assert_array_equal(reader.load_array(name), expected)
    for name in ("b:v", "sound"):
        np.testing.assert_array_equal(reader.load_array(name), whole)
    np.testing.assert_array_equal(np.load(run / "data/n.npy")[:ROWS], np.zeros(size))
    np.testing.assert_array_equal(np.load(run / "data/n.mask.npy")[:, 0], [1] * 4 + [0] * 8)
    made = json.loads((run / "merge.json").read_text())["outputs"]
    assert made["data/T.npy"]["left"] == ["ranks/rank_00001/data/T.npy"]
    assert made["data/sound.npy"].get("left") is None

    again = notata.merge(run, allow_missing=True)
    assert again.nothing_to_do
    assert len(again.holes) == 3
    assert command("merge", "--verify", run).exit_code == 0
    with pytest.raises(MergeError, match="rank 1's piece of 'T' is damaged"):
        notata.merge(run)  # holes are never passed over in silence


def test_a_hole_of_damage_is_filled_once_the_piece_is_sound(base: Path) -> None:
    run = counted(write_as(SIZE, base, lambda log: log.array("n", values(log.rank, "<i4"))))
    sound = piece(run, 1, "n.npy").read_bytes()
    flip(piece(run, 1, "n.npy"))
    notata.merge(run, allow_missing=True)
    (run / "ranks/rank_00000/data/other.npy").touch()  # so that the merge looks at everything
    record = (run / "merge.json").read_text()
    assert notata.merge(run, allow_missing=True).nothing_to_do
    holes = json.loads(record)["holes"]
    assert json.loads((run / "merge.json").read_text())["holes"] == holes
    piece(run, 1, "n.npy").write_bytes(sound)
    notata.merge(run)
    whole = np.concatenate([values(rank, "<i4") for rank in range(SIZE)])
    np.testing.assert_array_equal(np.load(run / "data/n.npy"), whole)
    assert not (run / "data/n.mask.npy").exists()


def test_a_damaged_piece_that_was_left_out_is_kept_when_the_rest_is_pruned(base: Path) -> None:
    run = counted(write_as(SIZE, base, WAYS["rows"]))
    flip(piece(run), at=-2)
    odd = np.load(piece(run))
    notata.merge(run, allow_missing=True, prune=True)
    assert not (run / "ranks").exists()
    np.testing.assert_array_equal(LogReader(run).ranks[1].load_array("T"), odd)
    np.testing.assert_array_equal(LogReader(run).ranks[2].load_array("T"), values(2))


def test_a_bundle_that_another_took_the_place_of_is_told(base: Path) -> None:
    """Its own checksums are those of what it holds; the manifest's are not."""
    run = counted(write_as(SIZE, base, lambda log: log.arrays("b", False, u=values(log.rank))))
    piece(run, 1, "b.npz").write_bytes(piece(run, 2, "b.npz").read_bytes())
    with pytest.raises(MergeError, match="rank 1's piece of 'b:u' is not what its manifest says"):
        notata.merge(run)


@pytest.mark.parametrize("damage", [False, True])
@pytest.mark.parametrize("told", [None, "sum:of another version"])
def test_what_has_no_checksum_is_not_compared(base: Path, told: str | None, damage: bool) -> None:
    """As older versions wrote it, or newer ones may."""
    run = counted(write_as(SIZE, base, WAYS["rows"]))
    for rank in range(SIZE):
        path = run / f"ranks/rank_{rank:05d}/manifest.jsonl"
        fields = line(run, rank)
        del fields["checksum"]
        path.write_text(json.dumps(fields | ({} if told is None else {"checksum": told})) + "\n")
    if damage:
        flip(piece(run))
    assert notata.merge(run).holes == ()
    whole = np.concatenate([values(rank) for rank in range(SIZE)])
    assert (LogReader(run).load_array("T") == whole).all() != damage


@pytest.mark.parametrize("way", ["rows", "columns", "stack", "numbers", "strings"])
def test_an_array_of_which_every_piece_is_damaged_is_one_hole(base: Path, way: str) -> None:
    run = counted(write_as(SIZE, base, WAYS[way]))
    whole = LogReader(run).load_array("T")
    for rank in range(SIZE):
        flip(piece(run, rank))
    report = notata.merge(run, allow_missing=True)
    assert len(report.holes) == SIZE
    found = np.load(run / "data/T.npy")
    assert (found.shape, found.dtype) == (whole.shape, whole.dtype)
    assert np.isnan(found).all() if found.dtype.kind == "f" else (found == "").all()
