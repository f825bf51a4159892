"""What is missing or contradicts: refused by name, or left as holes that are named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calling import notata as command
from hypothesis import given, settings
from hypothesis import strategies as st
from richrun import answers, counted, rich, tree_of
from simulated import write_as

import notata
from notata import Logbook, LogReader
from notata.assembly import flaws
from notata.errors import MergeError, NotataError
from notata.mending import mend
from notata.merging import make_plan
from notata.pieces import Piece

Work = Callable[[Logbook], object]


def written(base: Path, work: Work, size: int = 3) -> Path:
    return counted(write_as(size, base, work))


def refused_then_merged(run: Path, *words: str) -> notata.merging.Report:
    """Merge a run that can't be merged without holes: first in vain, and then with them."""
    before = tree_of(run)
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    told = "; ".join(caught.value.problems)
    assert all(word in told for word in words), told
    assert caught.value.ways_out == ["--allow-missing"]
    assert tree_of(run) == before
    with pytest.raises(MergeError):
        notata.merge(run, unfinished=True)
    report = notata.merge(run, allow_missing=True)
    holes = json.loads((run / "merge.json").read_text())["holes"]
    assert tuple(hole["what"] for hole in holes) == report.holes
    assert all(any(word in hole for hole in report.holes) for word in words)
    return report


def row(run: Path, rank: int) -> Path:
    return run / f"ranks/rank_{rank:05d}"


def rows_of_3(log: Logbook) -> None:
    log.array("x", np.full((2, 2), log.rank, float))
    log.array("T", np.full(2, log.rank, float), start=2 * log.rank, shape=6)
    log.array("s", [log.rank, log.rank], join="stack")
    log.arrays("b", u=np.full(2, float(log.rank)), i=[log.rank])


NAN = np.nan


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_piece_that_can_t_be_read(base: Path, how: str) -> None:
    run = written(base, rows_of_3)
    for name in ("x.npy", "T.npy", "s.npy", "b.npz"):
        path = row(run, 1) / "data" / name
        path.unlink() if how == "gone" else path.write_bytes(path.read_bytes()[:-3])
    told = [f"rank 1's piece of '{name}'" for name in ("x", "T", "s", "b:i", "b:u")]
    report = refused_then_merged(run, *told)
    holes = json.loads((run / "merge.json").read_text())["holes"]
    boxes = {hole["name"]: hole["boxes"] for hole in holes if hole["boxes"]}
    assert boxes == {
        "x": [[[2, 0], [2, 2]]],
        "T": [[[2], [2]]],
        "s": [[[1, 0], [1, 2]]],
        "b:i": [[[1], [1]]],
        "b:u": [[[2], [2]]],
    }
    found = LogReader(run)
    np.testing.assert_array_equal(
        np.load(run / "data/x.npy"), [[0, 0], [0, 0], [NAN, NAN], [NAN, NAN], [2, 2], [2, 2]]
    )
    np.testing.assert_array_equal(found.load_array("T"), [0, 0, NAN, NAN, 2, 2])
    np.testing.assert_array_equal(np.load(run / "data/s.npy"), [[0, 0], [0, 0], [2, 2]])
    np.testing.assert_array_equal(np.load(run / "data/s.mask.npy"), [[0, 0], [1, 1], [0, 0]])
    np.testing.assert_array_equal(found.load_array("b:u"), [0, 0, NAN, NAN, 2, 2])
    np.testing.assert_array_equal(found.load_array("b.mask:i"), [False, True, False])
    assert report.note.endswith("holes")
    again = notata.merge(run, allow_missing=True)
    assert again.nothing_to_do
    assert again.holes == report.holes
    with pytest.raises(MergeError):
        notata.merge(run)  # holes are never passed over in silence
    if how == "gone":
        shutil.copytree(
            written(base / "again", rows_of_3) / "ranks", run / "ranks", dirs_exist_ok=True
        )
        notata.merge(run)
        np.testing.assert_array_equal(np.load(run / "data/s.npy"), [[0, 0], [1, 1], [2, 2]])
        assert not (run / "data/s.mask.npy").exists()
        assert not (run / "data/b.mask.npz").exists()
        assert json.loads((run / "merge.json").read_text())["holes"] == []
    else:
        notata.merge(run, allow_missing=True, prune=True)
        with pytest.raises(NotataError):
            LogReader(run).ranks[1].load_array("x")  # as before
        assert LogReader(run).ranks[2].load_array("x").tolist() == [[2, 2], [2, 2]]


def kept_apart(log: Logbook) -> None:
    log.array("x", [float(log.rank)])
    log.array("kept", np.arange(50) + log.rank, join="none")
    log.arrays("b", join="none", u=np.arange(50) + log.rank)


FILES_APART = {"kept": "data/kept.npy", "b:u": "data/b.npz"}


@pytest.mark.parametrize("name", FILES_APART)
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_piece_that_nothing_joins_is_missing_or_cut(base: Path, how: str, name: str) -> None:
    run = written(base, kept_apart)
    path = row(run, 1) / FILES_APART[name]
    path.unlink() if how == "gone" else path.write_bytes(path.read_bytes()[:-3])
    what = "is missing" if how == "gone" else "bytes, its manifest says"
    before = tree_of(run)
    for options in (["--dry-run"], ["--prune"], []):
        result = command("merge", *options, run)
        assert result.exit_code == 2
        (told,) = [line for line in result.stderr.splitlines() if "rank 1" in line]
        assert f"rank 1's piece of '{name}' " in told
        assert what in told
        assert tree_of(run) == before
    report = refused_then_merged(run, f"rank 1's piece of '{name}' ", what)
    assert len(report.holes) == 1
    again = notata.merge(run, allow_missing=True, prune=True)
    assert again.holes == report.holes  # once, though the pruning finds it too
    assert len(json.loads((run / "merge.json").read_text())["holes"]) == 1
    with pytest.raises(NotataError):
        LogReader(run).ranks[1].load_array(name)
    assert LogReader(run).ranks[2].load_array(name).tolist() == list(range(2, 52))


@pytest.mark.parametrize("name", FILES_APART)
def test_a_byte_that_flips_where_nothing_joins_is_told_by_the_pruning(
    base: Path, name: str
) -> None:
    run = written(base, kept_apart)
    path = row(run, 1) / FILES_APART[name]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    notata.merge(run)  # which doesn't read it
    before = tree_of(run)
    told = rf"can't be pruned: rank 1's piece of '{name}' is damaged.*--allow-missing"
    with pytest.raises(MergeError, match=told):
        notata.merge(run, prune=True)
    assert tree_of(run) == before
    report = notata.merge(run, allow_missing=True, prune=True)
    assert len(report.holes) == 1
    assert report.note.startswith("nothing to do: merged before, with 1 hole; pruned")
    (hole,) = json.loads((run / "merge.json").read_text())["holes"]
    assert (hole["ranks"], hole["name"], hole["what"]) == ("1", name, report.holes[0])


def test_a_rank_whose_folder_is_missing(base: Path) -> None:
    run = written(base, rows_of_3)
    shutil.rmtree(row(run, 1))
    refused_then_merged(
        run,
        "rank 1 wrote 5 pieces, but its folder is missing",
        "nothing covers",
        "what rank 1 may have written of 'x' is missing",
        "of 'b:i' is missing",
        "of 'b:u' is missing",
    )
    holes = json.loads((run / "merge.json").read_text())["holes"]
    assert {hole["name"] for hole in holes} == {None, "x", "T", "s", "b:i", "b:u"}
    np.testing.assert_array_equal(np.load(run / "data/T.npy"), [0, 0, NAN, NAN, 2, 2])
    np.testing.assert_array_equal(np.load(run / "data/s.npy"), [[0, 0], [0, 0], [2, 2]])
    assert len(np.load(run / "data/x.npy")) == 4  # nobody knows how many rows it had


@pytest.mark.parametrize(
    ("with_counts", "first"),
    [
        pytest.param(True, "rank 1 wrote 5 pieces, but its folder is missing", id="communicator"),
        pytest.param(False, "rank 1 left nothing, and without a communicator", id="launcher"),
    ],
)
def test_the_command_names_a_rank_whose_folder_is_missing(
    base: Path, with_counts: bool, first: str
) -> None:
    run = write_as(3, base, rows_of_3)
    if with_counts:
        counted(run)
    shutil.rmtree(row(run, 1))
    before = tree_of(run)
    for options in ([], ["--jobs", 2], ["--prune"]):
        result = command("merge", *options, run)
        assert (result.exit_code, result.stdout.strip()) == (2, "")
        told = result.stderr.splitlines()
        assert told.pop(0).startswith(f"notata: error: {run}: {first}")
        if with_counts:
            assert [told.pop(0) for _ in range(3)] == [
                f"notata: error: {run}: what rank 1 may have written of {name!r} is missing"
                for name in ("b:i", "b:u", "x")
            ]
        assert told == [
            f"notata: error: {run}: array 'T' of shape (6,): nothing covers [2:4] (rank 1 left no "
            "piece of it)",
            f"notata: error: {run}: array 's' has one row per rank, but rank 1 wrote none",
            "notata: nothing was written; --allow-missing would go on",
        ]
        assert tree_of(run) == before


@pytest.mark.parametrize("prune", [False, True])
def test_pieces_that_contradict(base: Path, prune: bool) -> None:
    def work(log: Logbook) -> None:
        odd = log.rank == 1
        log.array("type", np.full(2, log.rank, np.float32 if odd else float))
        log.array("shape", np.full((2, 3 if odd else 2), float(log.rank)))
        log.array("join", [float(log.rank)], join="stack" if odd else "concat")
        log.array("whole", [1.0 * log.rank], start=log.rank, shape=4 if odd else 3)

    run = written(base, work)
    refused_then_merged(run, "has type", "beyond axis 0", "is joined by", "is part of a whole")
    np.testing.assert_array_equal(np.load(run / "data/type.npy"), [0, 0, NAN, NAN, 2, 2])
    expected = [[0, 0], [0, 0], [NAN, NAN], [NAN, NAN], [2, 2], [2, 2]]
    np.testing.assert_array_equal(np.load(run / "data/shape.npy"), expected)
    np.testing.assert_array_equal(np.load(run / "data/join.npy"), [0, NAN, 2])
    np.testing.assert_array_equal(np.load(run / "data/whole.npy"), [0, NAN, 2])
    notata.merge(run, allow_missing=True, prune=prune)
    assert LogReader(run).ranks[1].load_array("shape").shape == (2, 3)  # it is not lost
    assert LogReader(run).ranks[2].load_array("type").tolist() == [2, 2]


def test_pieces_that_overlap_are_left_out(base: Path) -> None:
    starts = {0: 0, 1: 1, 2: 4}
    run = written(
        base, lambda log: log.array("T", [1.0 * log.rank] * 2, start=starts[log.rank], shape=6)
    )
    refused_then_merged(run, "ranks 0-1 overlap at [1:2]", "nothing covers [3:4]")
    np.testing.assert_array_equal(np.load(run / "data/T.npy"), [NAN, NAN, NAN, NAN, 2, 2])


def test_what_is_no_hole_is_never_let_pass(base: Path) -> None:
    run = written(base, rows_of_3)
    (run / "data").mkdir()
    np.save(run / "data/x.npy", [1])
    (run / "artifacts").mkdir()
    for options in ({}, {"allow_missing": True}, {"allow_missing": True, "unfinished": True}):
        with pytest.raises(MergeError, match=r"data/x\.npy is there already") as caught:
            notata.merge(run, **options)
        assert caught.value.ways_out == []
    assert np.load(run / "data/x.npy").tolist() == [1]


def test_a_run_that_never_ended_takes_both_permissions(base: Path) -> None:
    run = written(base, rows_of_3)
    meta = json.loads((run / "metadata.json").read_text())
    (run / "metadata.json").write_text(json.dumps(meta | {"status": "initialized"}))
    (row(run, 1) / "data/x.npy").unlink()
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    assert caught.value.ways_out == ["--allow-missing", "--unfinished"]
    for one in ("allow_missing", "unfinished"):
        with pytest.raises(MergeError):
            notata.merge(run, **{one: True})
    assert len(notata.merge(run, allow_missing=True, unfinished=True).holes) == 2


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_piece_without_elements_is_no_hole_where_others_are_damaged(
    base: Path, order: tuple[int, ...]
) -> None:
    """Of three ranks one has nothing, one has rows, and one's rows are cut off."""
    nothing, rows, broken = order

    def work(log: Logbook) -> None:
        value = [] if log.rank == nothing else np.full((2, 3), log.rank)
        log.array("T", value)
        start = 2 * (log.rank == broken)
        placed = [] if log.rank == nothing else np.full(2, log.rank)
        log.array("P", placed, start=start, shape=4)

    run = write_as(3, base, work)
    for name in "TP":
        path = run / f"ranks/rank_0000{broken}/data/{name}.npy"
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    assert len(caught.value.problems) == 2
    notata.merge(run, allow_missing=True)
    made = json.loads((run / "merge.json").read_text())
    for name, shape in (("T", (2, 3)), ("P", (2,))):
        left = made["outputs"][f"data/{name}.npy"]["left"]
        assert left == [f"ranks/rank_0000{broken}/data/{name}.npy"]
        found = np.load(run / f"data/{name}.npy")
        parts = {rows: np.full(shape, rows), broken: np.zeros(shape)}
        places = sorted(parts) if name == "T" else (rows, broken)
        np.testing.assert_array_equal(found, np.concatenate([parts[r] for r in places]))
        assert found.dtype == np.dtype(int)


# ----- the plan, as a value -----


def test_the_plan_says_what_becomes_of_what_and_writes_nothing(base: Path) -> None:
    run = rich(base)
    before = tree_of(run)
    plan = make_plan(os.fspath(run))
    assert plan.problems == plan.holes == ()
    assert {(out.file, out.kind, out.ranks) for out in plan.outputs} == {
        ("data/T.npy", "array", (0, 1, 3)),
        ("data/F.npy", "array", (0, 1, 3)),
        ("data/rows/n.npy", "array", (0, 1, 3)),
        ("data/b.npz", "bundle", (0, 1, 3)),
        ("data/z.npz", "bundle", (0, 1, 3)),
        ("artifacts/metrics.ranks.json", "json", (0, 1, 3)),
        ("artifacts/metrics.ranks.csv", "table", (0, 1, 3)),
        ("artifacts/conf/solver.ranks.json", "json", (0, 1, 3)),
        ("log.txt", "log", (0, 1, 3)),
    }
    shapes = {whole.label: whole.shape for out in plan.outputs for whole in out.wholes}
    assert shapes == {
        "T": (6, 5),
        "F": (6, 3),
        "rows/n": (7,),
        "b:u": (6,),
        "b:v": (3,),
        "z:k": (150,),
    }
    assert plan.stale == plan.outputs
    assert tree_of(run) == before
    notata.merge(run)
    again = make_plan(os.fspath(run))
    assert again.stale == ()
    assert len(again.outputs) == len(plan.outputs)
    assert make_plan(os.fspath(run), quick=True).unchanged


# ----- geometry, without files -----


def piece(start: tuple[int, ...], shape: tuple[int, ...], whole: tuple[int, ...]) -> Piece:
    return Piece("T", None, "data/T.npy", "place", shape, "<f8", False, start, whole, 0, 0)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_holes_are_just_what_is_not_covered_once(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([(6,), (4, 5), (2, 3, 4)]))
    count = np.zeros(whole, int)
    ranked = {}
    for rank in range(data.draw(st.integers(1, 5))):
        start = tuple(data.draw(st.integers(0, n - 1)) for n in whole)
        shape = tuple(data.draw(st.integers(0, n - a)) for a, n in zip(start, whole, strict=True))
        ranked[rank] = piece(start, shape, whole)
        count[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))] += 1
    mended, boxes = mend(ranked, 5)
    filled = np.zeros(whole, int)
    for start, shape in (*boxes, *((part.start, part.shape) for part in mended.parts)):
        filled[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))] += 1
    assert (filled == 1).all()
    left_out = set(ranked) - {part.rank for part in mended.parts}
    for rank, own in ranked.items():
        at = tuple(slice(a, a + n) for a, n in zip(own.start or (), own.shape, strict=True))
        assert (rank in left_out) == bool((count[at] > 1).any())
    named = {r: (p.start or (), p.shape) for r, p in ranked.items()}
    assert bool(boxes) == bool(flaws(whole, named))


# ----- random damage -----


@pytest.mark.parametrize(
    ("at", "bit"),
    [
        pytest.param(8, 0, id="encrypted"),
        pytest.param(8, 5, id="patched"),
        pytest.param(8, 6, id="strongly encrypted"),
        pytest.param(10, 0, id="of an unknown method"),
        pytest.param(10, 2, id="of bzip2"),
    ],
)
def test_a_bundle_whose_table_of_contents_is_damaged(base: Path, at: int, bit: int) -> None:
    run = written(base, lambda log: log.arrays("z", compressed=True, k=np.arange(50) * log.rank))
    path = row(run, 0) / "data/z.npz"
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + at] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(MergeError, match="rank 0's piece of 'z:k' is damaged"):
        notata.merge(run)
    assert not (run / "data").exists()


# What rank 0 wrote, and a merge joins.
OF_THE_RUN = ("log.txt", "artifacts/metrics.json", "artifacts/conf/solver.json")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damage_is_told_or_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("damage")
    run = rich(base)
    before = answers(run)
    files = sorted(path for path in (run / "ranks").rglob("*") if path.is_file())
    files += [run / name for name in OF_THE_RUN]
    how = data.draw(st.sampled_from(["flip", "cut", "rank"]))
    if how == "rank":
        shutil.rmtree(row(run, data.draw(st.sampled_from([0, 1, 3]))))
        path = run
    else:
        path = data.draw(st.sampled_from(files))
        content, status = bytearray(path.read_bytes()), path.stat()
        end = len(content)
        if path == run / "log.txt":
            end = content.rindex(b"\n", 0, -1)  # its last line comes after what rank 0 noted of it
        at = data.draw(st.integers(0, end - 1))
        if how == "cut":
            del content[at:]
        else:
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a disk would damage it
    # Only the pruning reads pieces that nothing joins.
    prune = how == "flip" and ("kept" in path.name or "mixed" in path.parts)
    try:
        report = notata.merge(run, prune=prune)
    except NotataError:
        with pytest.raises(NotataError):
            notata.merge(run, prune=prune)  # it is told each time
        report = None
    if report is not None:
        _same_but_for(before, run, path, how)
    shutil.rmtree(base)


def _same_but_for(before: dict[str, object], run: Path, path: Path, how: str) -> None:
    """What was merged is what it would have been: the byte is one that means nothing."""
    assert path.suffix == ".npz" or path.name in ("manifest.jsonl", "rank.json"), path
    assert how == "flip"
    try:
        after = answers(run)
    except NotataError:  # a reader says so
        return
    if path.name == "rank.json":  # where the name `checksum` is hit, the rest stands
        after, before = _unsealed(after), _unsealed(before)
    differing = {key for key in before if after.get(key) != before[key]}
    assert not differing, f"{how} of {path}: {differing}"


def _unsealed(told: dict[str, Any]) -> dict[str, Any]:
    """The answers, with ranks' records without what they say of themselves."""
    return {
        key: {k: v for k, v in value.items() if not str(v).startswith("crc32:")}
        if key.endswith(": record")
        else value
        for key, value in told.items()
    }
