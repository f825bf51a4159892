"""Merging what simulated ranks wrote, where something is in the way."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calling import notata as command
from simulated import answer, forget_logs, open_as, put_record, tree, write_as

import notata
from notata import Logbook, LogReader, gather, layout, manifests, npy
from notata.errors import DamagedError, MergeError


def rows(log: Logbook) -> None:
    """A row of x from each rank, and a message."""
    log.array("x", [[10 * log.rank, 10 * log.rank + 1]])
    log.info(f"here is {log.rank}")


def contents(run: Path) -> dict[str, bytes]:
    return {
        name: b"" if name.endswith("/") else (run / name).read_bytes()
        for name in tree(run)
        if not name.endswith(".lock")
    }


def edit_json(path: Path, **fields: Any) -> None:
    put_record(path, json.loads(path.read_text()) | fields)


# ----- a full disk -----


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", os.fspath(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"no file system of a small size can be mounted: {error}")
    if done.returncode != 0:
        pytest.skip(f"no file system of a small size can be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", os.fspath(folder)], check=True)


MERGE = """
import json, os
import notata

if {untold}:  # a quota, say
    room = os.statvfs({run!r})
    os.statvfs = lambda path: os.statvfs_result((1, 1, 1 << 40, 1 << 40, 1 << 40, *room[5:]))
try:
    notata.merge({run!r})
except OSError as error:
    print(json.dumps([error.errno, error.filename, str(error)]))
else:
    print("null")
"""


@pytest.mark.parametrize("untold", [False, True])
@pytest.mark.parametrize("kind", ["array", "bundle", "log", "json", "orders"])
def test_a_full_disk_is_an_error_and_leaves_the_run_as_it_was(
    small_disk: Path, kind: str, untold: bool
) -> None:
    def work(log: Logbook) -> None:
        if kind == "log":
            log.info("x" * (900_000 if log.rank else 1_300_000))
        elif kind == "json":
            log.json("big", {"x": "x" * 1_100_000})
        elif kind == "bundle":
            log.arrays("deep/T", False, k=np.full(140_000, log.rank, float))
        elif kind == "orders":  # rank 1's piece is turned on the disk
            block = np.full((2, 56_000), log.rank, float)
            log.array("deep/T", np.array(block, order="CF"[log.rank]))
        else:
            log.array("deep/T", np.full(140_000, log.rank, float))

    run = write_as(2, small_disk, work)
    before = contents(run)
    code = MERGE.format(run=os.fspath(run), untold=untold)
    number, file, told = answer(code, small_disk)  # in a process of its own: it may be killed
    targets = {"bundle": "data/deep/T.npz", "log": "log.txt", "json": "artifacts/big.ranks.json"}
    target = targets.get(kind, "data/deep/T.npy")
    assert (number, file) == (errno.ENOSPC, os.fspath(run / target if untold else run))
    if kind == "orders":
        beside = r" 1792000 bytes, and 896000 more until its pieces are joined"
        needed = r" 2688000 bytes are needed \(89[0-9]{4} of them only until pieces are joined\)"
        assert re.search(beside if untold else needed, told)
    else:
        assert re.search(" 22[04]0[0-9]{3} bytes", told)
    assert untold or re.search(r" \d+ are free", told)
    assert contents(run) == before


@pytest.mark.parametrize("untold", [False, True])
def test_a_disk_that_is_too_full_for_a_mask(small_disk: Path, untold: bool) -> None:
    def work(log: Logbook) -> None:
        length = 100_000 if log.rank else 10
        log.array("T", np.ones(length, "i1"), start=10 * log.rank, shape=2_200_000)

    run = write_as(2, small_disk, work)
    before = contents(run)
    code = MERGE.replace("merge({run!r})", "merge({run!r}, allow_missing=True)")
    told = answer(code.format(run=os.fspath(run), untold=untold), small_disk)
    number, file, text = told
    assert (number, file) == (
        errno.ENOSPC,
        os.fspath(run / "data/T.mask.npy") if untold else os.fspath(run),
    )
    wanted = r" 2200128 bytes" if untold else r" 440[0-9]{4} bytes are needed, \d+ are free"
    assert re.search(wanted, text)
    assert contents(run) == before


@pytest.mark.parametrize("untold", [False, True])
@pytest.mark.parametrize("before", [False, True])
def test_a_disk_that_is_too_full_for_the_archive(
    small_disk: Path, before: bool, untold: bool
) -> None:
    def work(log: Logbook) -> None:
        log.array("T", np.full(10_000, log.rank, float))
        log.array("kept", np.full(130_000, log.rank, float), join="none")

    run = write_as(2, small_disk, work)
    if before:
        notata.merge(run)
    found = contents(run)
    code = MERGE.replace("merge({run!r})", "merge({run!r}, prune=True)")
    number, file, told = answer(code.format(run=os.fspath(run), untold=untold), small_disk)
    assert (number, file) == (errno.ENOSPC, os.fspath(run / "ranks.zip" if untold else run))
    if untold:
        assert " for 2080256 bytes" in told
        assert not list(run.rglob(".notata-*"))
        now = contents(run)  # it is merged all the same
        assert all(now[name] == found[name] for name in found if name.startswith("ranks/"))
    else:
        both = r"22406[0-9]{2} bytes are needed \(2080256 of them for ranks.zip\)"
        needed = "2080256 bytes are needed for ranks.zip" if before else both
        assert re.search(needed + r", \d+ are free", told)
        assert contents(run) == found


def test_a_merged_file_stays_where_the_disk_is_too_full_for_the_next(small_disk: Path) -> None:
    run = write_as(2, small_disk, lambda log: log.array("T", np.full(70_000, log.rank, float)))
    notata.merge(run)
    log = open_as(1, 2, small_disk / "other")
    log.array("T", np.zeros(100_000))
    own = run / "ranks/rank_00001"
    for name in ("data/T.npy", "manifest.jsonl"):
        (own / name).write_bytes((log.rank_dir / name).read_bytes())
    shutil.rmtree(log.path)
    (small_disk / "ballast").write_bytes(bytes(800_000))
    before = contents(run)
    code = MERGE.format(run=os.fspath(run), untold=True)
    assert answer(code, small_disk)[0] == errno.ENOSPC
    assert contents(run) == before
    (small_disk / "ballast").unlink()
    notata.merge(run)
    assert np.load(run / "data/T.npy").shape == (170_000,)


def _refused(call: str, run: Path) -> Callable[..., None]:
    """A call that a full disk refuses: of a folder's names, or of what has a temporary name."""
    real = getattr(os, call)

    def refuse(what: Any, *others: Any, **named: Any) -> None:
        if call == "fsync":
            path = os.readlink(f"/proc/self/fd/{what}")
            if path == os.fspath(run / "data"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif layout.MERGE_PREFIX in what and (call == "utime" or others[0].endswith("log.txt")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), what, None, *others[:1])
        real(what, *others, **named)

    return refuse


@pytest.mark.parametrize(
    ("call", "named"), [("fsync", "data"), ("utime", "log.txt"), ("replace", "log.txt")]
)
def test_a_refused_call_is_told_with_the_file_that_people_know(
    base: Path, monkeypatch: pytest.MonkeyPatch, call: str, named: str
) -> None:
    run = write_as(2, base, rows)
    messages = list(LogReader(run).messages())
    monkeypatch.setattr(os, call, _refused(call, run))
    told = f"^{re.escape(str(run))}/{named}: No space left on device; free space or inodes there"
    done = command("merge", run)
    assert done.exit_code == 2
    assert re.search(told, done.stderr.removeprefix(f"notata: error: {run}: ")), done.stderr
    assert len(done.stderr.splitlines()) == 1
    monkeypatch.undo()
    assert list(LogReader(run).messages()) == messages
    notata.merge(run)
    assert np.load(run / "data/x.npy").tolist() == [[0, 1], [10, 11]]
    assert list(LogReader(run).messages()) == messages
    assert not list(run.rglob(f"{layout.TEMP_PREFIX}*"))


# ----- the record -----


def test_the_record_says_its_format_and_which_version_merged(base: Path) -> None:
    run = write_as(2, base, rows)
    notata.merge(run)
    record = json.loads((run / "merge.json").read_text())
    assert (record["format"], record["notata"]) == (1, notata.__version__)
    assert notata.merge(run).nothing_to_do
    edit_json(run / "merge.json", format=2)  # of a later version, which nothing here can read
    with pytest.raises(MergeError, match="damaged, or of another version"):
        notata.merging.verify(run)
    with pytest.raises(MergeError, match="is there already"):
        notata.merge(run)


# ----- where the ranks ran -----


def test_a_merge_adds_the_hosts_that_only_the_ranks_knew(base: Path) -> None:
    run = write_as(5, base, lambda log: log.rank != 3 and log.array("x", [log.rank]))
    edit_json(run / "ranks/rank_00002/rank.json", host="node2")
    here = LogReader(run).ranks[0].record["host"]
    before = LogReader(run).meta
    assert before["parallel"]["hosts_unknown"] == "1-4"
    notata.merge(run, unfinished=True)
    after = LogReader(run).meta
    assert after["parallel"]["hosts"] == {here: "0-1,4", "node2": "2"}
    assert after["parallel"]["hosts_unknown"] == "3"  # silent: nobody will ever know
    for parallel in (before["parallel"], after["parallel"]):
        for key in ("hosts", "hosts_unknown", "checksum"):
            del parallel[key]
    assert after == before
    written = (run / "metadata.json").stat().st_mtime_ns
    assert notata.merge(run, unfinished=True).nothing_to_do
    assert (run / "metadata.json").stat().st_mtime_ns == written


def test_once_all_ranks_told_their_hosts_none_is_unknown(base: Path) -> None:
    run = write_as(3, base, rows)
    notata.merge(run)
    parallel = LogReader(run).meta["parallel"]
    assert list(parallel["hosts"].values()) == ["0-2"]
    assert "hosts_unknown" not in parallel


def test_the_metadata_of_a_run_that_may_go_on_stays_rank_0_s(base: Path) -> None:
    logs = [open_as(rank, 2, base) for rank in range(2)]
    for log in logs:
        rows(log)
    before = (logs[0].path / "metadata.json").read_bytes()
    notata.merge(logs[0].path, unfinished=True)
    assert (logs[0].path / "metadata.json").read_bytes() == before


@pytest.mark.parametrize("hosts", [[], "n1", {"n1": "0-x"}])
def test_hosts_that_are_none(base: Path, hosts: Any) -> None:
    run = write_as(3, base, rows)
    edit_json(run / "metadata.json", parallel=LogReader(run).meta["parallel"] | {"hosts": hosts})
    with pytest.raises(DamagedError, match=r"metadata\.json is damaged"):
        notata.merge(run)
    assert not (run / "data").exists()


# ----- lost, failed, damaged -----


def test_rows_of_a_rank_that_left_nothing_are_not_left_out_in_silence(base: Path) -> None:
    run = write_as(4, base, lambda log: log.rank in (0, 3) and rows(log))
    before = contents(run)
    with pytest.raises(MergeError, match=r"ranks 1-2 left nothing.*'x'.*--unfinished") as caught:
        notata.merge(run)
    assert len(caught.value.problems) == 1
    assert contents(run) == before
    notata.merge(run, unfinished=True)
    np.testing.assert_array_equal(np.load(run / "data/x.npy"), [[0, 1], [30, 31]])


def test_a_rank_that_closed_the_run_without_a_piece_is_not_lost(base: Path) -> None:
    run = write_as(3, base, lambda log: log.info("x") if log.rank == 1 else rows(log))
    notata.merge(run)
    np.testing.assert_array_equal(np.load(run / "data/x.npy"), [[0, 1], [20, 21]])


def test_silent_ranks_don_t_matter_where_geometry_tells_or_pieces_were_counted(base: Path) -> None:
    def work(log: Logbook) -> None:
        if log.rank < 2:
            log.array("T", [log.rank], start=log.rank, shape=2)

    notata.merge(write_as(3, base, work))
    counted = write_as(3, base, lambda log: log.rank != 1 and rows(log), run_id="counted")
    parallel = LogReader(counted).meta["parallel"]
    edit_json(counted / "metadata.json", parallel=parallel | {"pieces": {"0": "1", "1": "0,2"}})
    notata.merge(counted)
    edit_json(counted / "metadata.json", parallel=parallel | {"pieces": {"1": "0-2"}})
    with pytest.raises(MergeError, match="rank 1 wrote 1 pieces, but its folder is missing"):
        notata.merge(counted, unfinished=True)


def test_a_rank_that_failed_in_a_run_that_is_complete(base: Path) -> None:
    def work(log: Logbook) -> None:
        rows(log)
        if log.rank == 1:
            log.mark_failed("diverged")

    run = write_as(3, base, work)
    edit_json(run / "metadata.json", status="complete")  # such as versions before said of it
    with pytest.raises(MergeError, match=r"rank 1 failed \(diverged\), though.*--unfinished"):
        notata.merge(run)
    notata.merge(run, unfinished=True)
    assert len(np.load(run / "data/x.npy")) == 3


@pytest.mark.parametrize(
    "parallel",
    [
        [],
        "x",
        {},
        {"size": "3"},
        {"size": 0},
        {"size": None},
        {"size": 3, "pieces": []},
        {"size": 3, "pieces": 1},
        {"size": 3, "pieces": {"one": "0-2"}},
        {"size": 3, "pieces": {"1": "0-x"}},
        {"size": 3, "pieces": {"1": [0, 1, 2]}},
    ],
    ids=json.dumps,
)
def test_metadata_that_does_not_tell_the_ranks(base: Path, parallel: Any) -> None:
    run = write_as(3, base, rows)
    edit_json(run / "metadata.json", parallel=parallel)
    before = contents(run)
    with pytest.raises(DamagedError, match=r"log_run/metadata\.json is damaged: parallel"):
        notata.merge(run)
    assert contents(run) == before


@pytest.mark.parametrize("noted", [True, "MPI", {"threads": 4}, {"size": "large"}])
def test_what_a_program_of_one_rank_calls_parallel_is_its_own_affair(
    base: Path, noted: object
) -> None:
    with Logbook("run", base) as log:
        log.array("x", [1])
    edit_json(log.path / "metadata.json", parallel=noted)  # notata 0.3.0 takes it by log.meta
    assert LogReader(log.path).size == 1
    np.testing.assert_array_equal(LogReader(log.path).load_array("x"), [1])
    assert notata.merge(log.path).nothing_to_do


def test_a_rank_s_record_that_does_not_tell_its_pieces(base: Path) -> None:
    run = write_as(3, base, rows)
    edit_json(run / "ranks/rank_00001/rank.json", pieces="one")
    with pytest.raises(MergeError, match=r"rank_00001/rank\.json is damaged: pieces is 'one'"):
        notata.merge(run)


def test_a_manifest_with_a_join_that_is_none(base: Path) -> None:
    run = write_as(3, base, rows)
    path = run / "ranks/rank_00001/manifest.jsonl"
    line = path.read_bytes().partition(b',"line":')[0] + b"}\n"  # as older versions wrote it
    path.write_bytes(line.replace(b'"concat"', b'"sum"'))
    with pytest.raises(MergeError, match=r"rank_00001/manifest\.jsonl, line 1: join 'sum'"):
        notata.merge(run)


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"[]", b'{"outputs": 1, "pending": 2}', b'{"outputs": {"data/x.npy": 3}}'],
)
def test_a_merge_record_that_is_damaged(base: Path, record: bytes) -> None:
    run = write_as(2, base, rows)
    (run / "merge.json").write_bytes(record)
    notata.merge(run)
    assert notata.merge(run).nothing_to_do
    np.testing.assert_array_equal(LogReader(run).load_array("x"), [[0, 1], [10, 11]])


# ----- once only what has changed -----


def test_pieces_are_looked_into_once_and_only_where_they_changed(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(log: Logbook) -> None:
        log.arrays("b", k=[log.rank], m=[log.rank], n=[log.rank])
        log.arrays("c", k=[log.rank])

    run = write_as(3, base, work)
    opened: list[str] = []
    looked_into = npy.bundle_keys

    def noted(path: str) -> list[str]:
        opened.append(os.path.relpath(path, run))
        return looked_into(path)

    monkeypatch.setattr(npy, "bundle_keys", noted)
    notata.merge(run)
    each = [f"ranks/rank_{rank:05d}/data/{name}.npz" for name in "bc" for rank in range(3)]
    assert sorted(opened) == sorted(each)
    opened.clear()
    assert notata.merge(run).nothing_to_do
    assert opened == []
    (run / "data/b.npz").unlink()
    assert notata.merge(run).note == "joined 3 of 5"
    assert opened == each[:3]


def test_each_array_of_a_bundle_that_is_cut_off_is_named(base: Path) -> None:
    run = write_as(2, base, lambda log: log.arrays("b", k=[log.rank], m=[log.rank]))
    path = run / "ranks/rank_00001/data/b.npz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    told = [problem.partition(" has ")[0] for problem in caught.value.problems]
    assert told == ["rank 1's piece of 'b:k'", "rank 1's piece of 'b:m'"]


# ----- reading after a merge -----


def later(run: Path, rank: int, **arrays: Any) -> None:
    """Let a rank write pieces after the merge, as one that was still at work would."""
    log = open_as(rank, 3, run.parent, "later")
    for name, array in arrays.items():
        if isinstance(array, dict):
            log.arrays(name, **array)
        else:
            log.array(name, array)
    own = run / f"ranks/rank_{rank:05d}"
    (own / "data").mkdir(parents=True, exist_ok=True)
    for path in (log.rank_dir / "data").iterdir():
        os.replace(path, own / "data" / path.name)
    with (own / "manifest.jsonl").open("ab") as file:
        file.write((log.rank_dir / "manifest.jsonl").read_bytes())


def test_a_piece_that_is_newer_than_the_merged_array_is_read(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.array("x", [log.rank])
        log.array("y", [log.rank])
        log.arrays("b", k=[log.rank])

    run = write_as(3, base, work)
    notata.merge(run)
    later(run, 1, x=[7, 8], b={"k": [9]})
    reader = LogReader(run)
    for _ in range(2):  # before and after the next merge
        assert reader.arrays == ["b:k", "x", "y"]
        np.testing.assert_array_equal(reader.load_array("x"), [0, 7, 8, 2])
        np.testing.assert_array_equal(reader.load_array("x", np.s_[1:3]), [7, 8])
        np.testing.assert_array_equal(reader.load_array("y"), [0, 1, 2])
        np.testing.assert_array_equal(reader.load_array("b:k"), [0, 9, 2])
        notata.merge(run)
    np.testing.assert_array_equal(np.load(run / "data/x.npy"), [0, 7, 8, 2])


def test_the_first_piece_of_another_rank_is_newer_too(base: Path) -> None:
    run = write_as(3, base, lambda log: log.rank != 1 and log.array("x", [log.rank]))
    notata.merge(run, unfinished=True)
    np.testing.assert_array_equal(LogReader(run).load_array("x"), [0, 2])
    later(run, 1, x=[1])
    np.testing.assert_array_equal(LogReader(run).load_array("x"), [0, 1, 2])


def test_a_merged_array_that_was_cut_off_is_read_from_the_pieces(base: Path) -> None:
    run = write_as(3, base, rows)
    whole = LogReader(run).load_array("x")
    notata.merge(run)
    os.truncate(run / "data/x.npy", 130)
    np.testing.assert_array_equal(LogReader(run).load_array("x"), whole)


def test_a_merge_that_was_cut_off_leaves_the_pieces_to_be_read(base: Path) -> None:
    run = write_as(3, base, rows)
    notata.merge(run)
    record = json.loads((run / "merge.json").read_text())
    del record["outputs"]["data/x.npy"]
    (run / "merge.json").write_text(json.dumps(record | {"pending": ["data/x.npy"]}))
    np.save(run / "data/x.npy", [[0, 0]])
    assert LogReader(run).load_array("x").shape == (3, 2)
    notata.merge(run)
    assert np.load(run / "data/x.npy").shape == (3, 2)


@pytest.mark.parametrize("gone", ["ranks", "ranks/rank_00001"])
def test_a_merged_array_is_read_where_pieces_have_been_taken_away(base: Path, gone: str) -> None:
    run = write_as(3, base, rows)
    whole = LogReader(run).load_array("x")
    notata.merge(run)
    shutil.rmtree(run / gone)
    assert LogReader(run).arrays == ["x"]
    np.testing.assert_array_equal(LogReader(run).load_array("x"), whole)


def test_pieces_are_not_opened_while_the_merged_array_is_made_of_them(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_as(3, base, rows)
    notata.merge(run)

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a manifest or a piece was opened")

    monkeypatch.setattr(manifests, "read", opened)
    monkeypatch.setattr(gather, "load_piece", opened)
    assert LogReader(run).load_array("x").shape == (3, 2)


# ----- logs -----


def test_torn_lines_stay_with_their_rank(base: Path) -> None:
    run = write_as(3, base, rows)
    forget_logs(run)
    logs = [run / "log.txt", *(run / f"ranks/rank_{rank:05d}/log.txt" for rank in (1, 2))]
    head = b"[2026-11-23T03:00:00.000005] INFO [rank 2] "
    logs[0].write_bytes(logs[0].read_bytes() + b"[2026-11-23T03:00:00.000001] INFO [ra")
    logs[1].write_bytes(b"torn \xff\n of 1\n" + logs[1].read_bytes() + b"[2026-11-23T03")
    logs[2].write_bytes(head + b"one\n" + head[:-4] + b"\n" + head + b"two\n")
    reader = LogReader(run)
    before = list(reader.messages())
    of_1 = [m.message for m in reader.messages(ranks=[1])]
    assert (of_1[0], of_1[-1]) == ("torn \udcff\n of 1", "here is 1\n[2026-11-23T03")
    assert [(m.rank, m.message) for m in reader.messages(ranks=[2])] == [
        (2, "one"),
        (2, "[rank"),
        (2, "two"),
    ]
    notata.merge(run)
    assert list(reader.messages()) == before
    merged = (run / "log.txt").read_bytes()
    start = before[1].time.encode()  # of the first record, which is rank 2's
    assert merged.startswith(b"[%b] UNKNOWN [rank 1] torn \xff\n     of 1\n" % start)
    assert merged.count(b"[rank 2] [rank\n") == 1
    assert merged.count(b"torn") == merged.count(b"here is 1\n[2026-11-23T03\n") == 1
    for name in ("merge.json", "data/x.npy"):
        (run / name).unlink()
    assert not notata.merge(run).nothing_to_do
    assert (run / "log.txt").read_bytes() == merged
    assert list(reader.messages()) == before


def test_only_the_log_of_the_rank_that_is_asked_for_is_opened(base: Path) -> None:
    run = write_as(4, base, lambda log: log.info(f"here is {log.rank}"))
    for path in (run / "log.txt", *(run / f"ranks/rank_{rank:05d}/log.txt" for rank in (1, 2))):
        path.unlink()
        path.mkdir()  # can't be opened to read
    reader = LogReader(run)
    assert [m.message for m in reader.ranks[3].messages()] == ["here is 3"]
    with pytest.raises(IsADirectoryError):
        list(reader.ranks[2].messages())


def test_messages_of_some_ranks_where_the_ranks_own_logs_have_been_taken_away(base: Path) -> None:
    run = write_as(4, base, lambda log: log.info(f"here is {log.rank}"))
    before = list(LogReader(run).messages())
    notata.merge(run)
    shutil.rmtree(run / "ranks/rank_00002")
    reader = LogReader(run)
    assert list(reader.messages()) == before
    assert [m.message for m in reader.messages(ranks=[2, 3])] == ["here is 2", "here is 3"]
    shutil.rmtree(run / "ranks")
    assert list(reader.messages()) == before
    assert [m.message for m in reader.ranks[3].messages()] == ["here is 3"]


def test_rows_that_a_failed_rank_never_wrote_are_not_left_out_in_silence(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.info("here")
        if log.rank == 1:
            raise RuntimeError("NaN")
        log.array("x", [log.rank, log.rank])

    for rank in (0, 1, 2):
        with suppress(RuntimeError), open_as(rank, 3, base) as log:
            work(log)
    run = base / "log_run"
    edit_json(run / "metadata.json", status="failed", failure_reason="rank 1: NaN")
    with pytest.raises(MergeError, match=r"rank 1 failed \(NaN\) without a piece of 'x'"):
        notata.merge(run)
    assert not (run / "data/x.npy").exists()
    notata.merge(run, unfinished=True)
    np.testing.assert_array_equal(np.load(run / "data/x.npy"), [0, 0, 2, 2])


def test_of_a_log_that_is_not_what_was_merged_rank_0s_own_lines_count(base: Path) -> None:
    """It may have been copied here again, or somebody has taken lines out."""
    run = write_as(3, base, lambda log: log.info(f"from {log.rank} " + "." * 200))
    log = run / "log.txt"
    original = log.read_bytes()
    notata.merge(run)
    merged = log.read_bytes().splitlines(keepends=True)
    without = b"".join(line for line in merged if b"[rank 1]" not in line)
    for content in (original, without):
        assert content != b"".join(merged)
        log.write_bytes(content)
        notata.merge(run)
        assert log.read_bytes().splitlines(keepends=True) == merged
    log.write_bytes(b"".join(line for line in merged if b"from 0" not in line))
    with pytest.raises(MergeError, match="rank 0's log has"):
        notata.merge(run)


def test_what_lies_behind_a_link_is_there(base: Path, tmp_path: Path) -> None:
    """People move ranks' folders to a larger disk."""

    def work(log: Logbook) -> None:
        log.info(f"from {log.rank}")
        log.json("own", {"rank": log.rank})

    run = write_as(3, base, work)
    for number, name in enumerate(("rank_00001", "rank_00002/artifacts")):
        elsewhere = tmp_path / f"elsewhere-{number}"
        (run / "ranks" / name).rename(elsewhere)
        (run / "ranks" / name).symlink_to(elsewhere)
    notata.merge(run)
    assert b"from 1" in (run / "log.txt").read_bytes()
