"""A manifest stays as short as what it lists, however often that is written again."""

from __future__ import annotations

import errno
import os
import shutil
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import (
    CHANGES,
    REFUSABLE,
    Point,
    each,
    errors_of,
    fail_at,
    kill_at,
    need_strace,
    points_in,
    python,
    refused,
    run,
    strace,
)
from simulated import open_as

import notata
from notata import Logbook, LogReader, files, manifests, manifestwriter
from notata.pieces import Piece


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifestwriter, "_LINES", 8)


@pytest.fixture
def log(base: Path) -> Logbook:
    with open_as(0, 2, base):
        pass
    return open_as(1, 2, base)


def manifest(log: Logbook) -> Path:
    return Path(log.path, "ranks/rank_00001/manifest.jsonl")


def write(log: Logbook, version: int, name: str = "T") -> None:
    log.array(name, [version, version])


def value(log: Logbook, name: str = "T") -> int:
    first, second = LogReader(log.path).load_array(name)
    assert first == second
    return int(first)


def lines(log: Logbook) -> list[bytes]:
    return manifest(log).read_bytes().splitlines()


def listed(log: Logbook) -> set[tuple[str, str | None]]:
    return {piece.identity for piece in manifests.read(os.fspath(manifest(log).parent))}


def test_it_never_has_more_than_four_lines_for_each_piece(log: Logbook) -> None:
    log.arrays("b", u=[1], v=[2], w=[3])
    inodes = set()
    for version in range(150):
        write(log, version)
        if version % 10 == 0:
            log.arrays("b", u=[version], v=[version])
        assert len(lines(log)) <= 4 * 4 + 4
        inodes.add(manifest(log).stat().st_ino)
        assert value(log) == version
    assert listed(log) == {("T", None), ("b", "u"), ("b", "v")}
    assert len(inodes) > 1
    log.mark_complete()
    assert LogReader(log.path).ranks[1].record["pieces"] == 3
    notata.merge(log.path, unfinished=True)
    assert list(LogReader(log.path).load_array("b:u")) == [140]


def test_one_of_many_pieces_is_left_alone_until_it_pays(log: Logbook) -> None:
    for number in range(30):
        write(log, number, f"x{number}")
    inode = manifest(log).stat().st_ino
    for version in range(40):
        write(log, version)
    assert manifest(log).stat().st_ino == inode
    assert len(lines(log)) == 30 + 2 * 40 - 1


def test_an_attempt_goes_on_in_a_short_one(log: Logbook, base: Path) -> None:
    for version in range(3):
        write(log, version)
    log.mark_failed("enough")
    with open_as(0, 2, base, resume=True, launch="2"):
        pass
    with open_as(1, 2, base, resume=True, launch="2") as later:
        for version in range(3, 60):
            write(later, version)
            assert len(lines(later)) <= 8
        assert value(later) == 59


# ----- others who write meanwhile -----


def test_what_is_to_come_is_kept(log: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file was refused between its two lines; and then the manifest is written anew."""
    write(log, 1, "other")
    replace = os.replace

    def refuse(source: str, target: str) -> None:
        if target.endswith("other.npy"):
            raise OSError(errno.EIO, "no")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="no"):
            write(log, 2, "other")
    for version in range(20):
        write(log, version)
    assert len(lines(log)) <= 4 * 2 + 4
    assert sum(b'"begun":true' in line and b"other" in line for line in lines(log)) == 1
    assert (value(log, "other"), value(log)) == (1, 19)
    done = manifest(log).read_bytes()
    write(log, 2, "other")  # as if it had been killed once the file had its name
    manifest(log).write_bytes(done)
    kept = [Piece.from_line(one) for one in done.splitlines() if b"other" in one]
    (piece,) = (p for p in manifests.read(os.fspath(manifest(log).parent)) if p.name == "other")
    assert [one.begun for one in kept] == [False, True]
    assert piece == kept[1]._replace(begun=False)


def test_a_file_between_its_two_lines_is_told_by_the_file(
    log: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread writes the manifest anew in between, and then the process is killed."""
    write(log, 1, "other")
    replace = os.replace
    left: list[bytes] = []

    def rewritten(source: str, target: str) -> None:
        if target.endswith("other.npy") and not left:
            thread = threading.Thread(target=lambda: [write(log, v) for v in range(20)])
            thread.start()
            thread.join()
            replace(source, target)
            left.append(manifest(log).read_bytes())
            return
        replace(source, target)

    monkeypatch.setattr(os, "replace", rewritten)
    write(log, 2, "other")
    manifest(log).write_bytes(left[0])
    assert value(log, "other") == 2
    (piece,) = (p for p in manifests.read(os.fspath(manifest(log).parent)) if p.name == "other")
    assert piece.checksum == f"xxh128:{_xxh(manifest(log).parent / 'data/other.npy')}"


def _xxh(path: Path) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def test_threads_lose_no_line_of_one_another(log: Logbook) -> None:
    gate = threading.Barrier(4)

    def work(number: int) -> None:
        gate.wait()
        for version in range(40):
            write(log, version, f"x{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(log)) <= 4 * 4 + 4
    assert {value(log, f"x{number}") for number in range(4)} == {39}
    assert listed(log) == {(f"x{number}", None) for number in range(4)}


@pytest.mark.parametrize("when", ["before it is written", "just before it has its name"])
def test_what_a_signals_handler_writes_in_the_middle_is_listed(
    log: Logbook, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    done: list[str] = []

    def handler() -> None:
        if len(done) < 2:
            done.append(f"late{len(done)}")
            write(log, 7, done[-1])

    shortened, replace = manifests.shortened, os.replace

    def shorten(data: bytes, path: str) -> bytes:
        if when == "before it is written":
            handler()
        return shortened(data, path)

    def rename(source: str, target: str) -> None:
        if when != "before it is written" and target == os.fspath(manifest(log)):
            handler()
        replace(source, target)

    monkeypatch.setattr(manifests, "shortened", shorten)
    monkeypatch.setattr(os, "replace", rename)
    for version in range(60):
        write(log, version)
    assert done == ["late0", "late1"]
    assert listed(log) == {("T", None), ("late0", None), ("late1", None)}
    assert value(log) == 59
    assert len(lines(log)) <= 4 * 3 + 2


@pytest.mark.parametrize("opened", [True, False])
def test_nothing_is_lost_that_a_child_appends_to_the_older_file(log: Logbook, opened: bool) -> None:
    log.info("here")
    if opened:
        write(log, 0)
    told, telling = os.pipe()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            write(log, 0, "first")
            os.write(telling, b"x")
            os.read(reading, 1)  # until the parent has written the manifest anew
            for version in range(20):
                write(log, version, "childs")
        finally:
            os._exit(0)
    os.read(told, 1)
    write(log, 0)
    for version in range(20):
        write(log, version)
    assert len(lines(log)) <= 4 * 2 + 2
    os.write(writing, b"x")
    os.waitpid(child, 0)
    for descriptor in (reading, writing, told, telling):
        os.close(descriptor)
    assert (value(log), value(log, "first"), value(log, "childs")) == (19, 0, 19)


def test_nothing_is_lost_that_a_child_appends_just_before_the_rename(
    log: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(log, 0)
    renamed = 0
    replace = os.replace

    def rename(source: str, target: str) -> None:
        nonlocal renamed
        if target == os.fspath(manifest(log)):
            renamed += 1
            child = os.fork()
            if not child:
                try:
                    monkeypatch.setattr(os, "replace", replace)
                    write(log, renamed, f"childs{renamed}")
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
        replace(source, target)

    monkeypatch.setattr(os, "replace", rename)
    for version in range(30):
        write(log, version)
    assert renamed > 1
    childs = [f"childs{number}" for number in range(1, renamed + 1)]
    assert listed(log) == {("T", None), *((name, None) for name in childs)}
    assert [value(log, name) for name in childs] == list(range(1, renamed + 1))


def test_an_older_attempt_leaves_the_newers_manifest_alone(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it looked just before the newer one began."""
    old = [open_as(rank, 2, base) for rank in range(2)]
    for version in range(3):
        write(old[1], version)
    shortened, newer = manifests.shortened, []

    def overtaken(data: bytes, path: str) -> bytes:
        if not newer:
            newer.extend(open_as(r, 2, base, launch="2", resume=True) for r in (0, 1))
            write(newer[1], 100)
        return shortened(data, path)

    monkeypatch.setattr(manifests, "shortened", overtaken)

    def go_on() -> None:
        for version in range(3, 30):
            write(old[1], version)

    with pytest.raises(notata.errors.OutdatedError):
        go_on()
    assert newer
    folder = newer[1]._session.folder
    assert os.fstat(folder.manifest._descriptor).st_ino == manifest(newer[1]).stat().st_ino
    write(newer[1], 101)
    assert value(newer[1]) == 101
    for log in (*old, *newer):
        log.mark_complete()


def test_an_older_attempt_looks_for_a_newer_once_its_file_is_on_disk(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [open_as(rank, 2, base, durability="node") for rank in range(2)]
    write(old[1], 0)
    held = os.fspath(manifest(old[1]).parent)
    newer: list[Logbook] = []
    fsync = os.fsync

    def overtaken(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        fsync(descriptor)
        new = os.path.dirname(path) == held and os.path.basename(path).startswith(".")
        if new and not newer and b'"T"' in Path(path).read_bytes():
            newer.extend(open_as(r, 2, base, launch="2", resume=True) for r in (0, 1))
            write(newer[1], 100, "newers")

    def go_on() -> None:
        for version in range(1, 30):
            write(old[1], version)

    monkeypatch.setattr(os, "fsync", overtaken)
    with pytest.raises(notata.errors.OutdatedError):
        go_on()
    monkeypatch.setattr(os, "fsync", fsync)
    descriptor = newer[1]._session.folder.manifest._descriptor
    assert os.fstat(descriptor).st_ino == manifest(newer[1]).stat().st_ino
    assert listed(newer[1]) == {("T", None), ("newers", None)}
    for log in (*old, *newer):
        log.mark_complete()


def test_a_newer_attempt_goes_on_in_what_an_older_has_put_over_its_manifest(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one was stopped between its last look and the rename."""
    old = [open_as(rank, 2, base) for rank in range(2)]
    write(old[1], 0)
    newer: list[Logbook] = []
    replace = os.replace

    def overtaken(source: str, target: str) -> None:
        if not newer and target == os.fspath(manifest(old[1])):
            newer.extend(open_as(r, 2, base, launch="2", resume=True) for r in (0, 1))
            write(newer[1], 100, "other")
        replace(source, target)

    def go_on() -> None:
        for version in range(1, 30):
            write(old[1], version)

    monkeypatch.setattr(os, "replace", overtaken)
    with pytest.raises(notata.errors.OutdatedError):
        go_on()
    for name in ("x", "y"):
        write(newer[1], 101, name)
    assert listed(newer[1]) == {("T", None), ("x", None), ("y", None)}  # the one before is lost
    for log in (*old, *newer):
        log.mark_complete()


# ----- a disk that refuses, and a process that is stopped -----


def test_a_manifest_that_can_not_be_written_anew_fails_no_array(
    log: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0
    replace = os.replace

    def full(source: str, target: str) -> None:
        nonlocal tried
        if target == os.fspath(manifest(log)):
            tried += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    for version in range(60):
        write(log, version)
        assert value(log) == version
    assert 2 <= tried <= 60 // 3  # not with each array
    assert len(lines(log)) == 2 * 60 - 1
    assert [path.name for path in manifest(log).parent.iterdir() if "notata" in path.name] == []
    monkeypatch.setattr(os, "replace", replace)
    for version in range(20):
        write(log, version)
    assert len(lines(log)) <= 8


@pytest.mark.parametrize("replaced", [False, True])
def test_a_refusal_to_close_counts_unless_another_file_has_the_lines(
    log: Logbook, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """NFS says so then of lines that were appended long before."""
    close, replace = os.close, os.replace
    refused = renamed = 0

    def no_room(descriptor: int) -> None:
        nonlocal refused
        path = os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")
        held = log._session.folder.manifest
        close(descriptor)
        if path == os.fspath(manifest(log)) and descriptor >= 40 and held._descriptor < 0:
            refused += 1
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def rename(source: str, target: str) -> None:
        nonlocal renamed
        if target == os.fspath(manifest(log)):
            renamed += 1
            if not replaced:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        replace(source, target)

    write(log, 0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", no_room)
        patch.setattr(os, "replace", rename)
        for version in range(20):
            write(log, version)
        assert renamed > 0
        if replaced:
            assert refused == renamed
            patch.setattr(os, "close", close)
            log.mark_complete()
        else:
            assert refused == 0
            with pytest.raises(OSError, match="manifest") as told:
                log.mark_complete()
            assert told.value.errno == errno.EDQUOT
            assert told.value.filename == os.fspath(manifest(log))
    status = LogReader(log.path).ranks[1].record["status"]
    assert status == ("complete" if replaced else "failed")


def test_an_array_costs_no_look_at_all_the_others(log: Logbook) -> None:
    for number in range(20):
        write(log, number, f"x{number}")
    log.arrays("b", u=[1], v=[2])
    log.arrays("b", u=[1])
    writer = log._session.folder.manifest
    assert writer._total == writer.pieces == 21

    class Counts(dict[str, int]):
        def values(self) -> Any:
            raise AssertionError("it looks at each")

    writer._counts = Counts(writer._counts)
    for number in range(20):
        write(log, number, f"x{number}")
    writer._counts = dict(writer._counts)


@pytest.mark.parametrize(("durability", "synced"), [("process", 0), ("close", 1), ("node", 1)])
def test_it_is_synced_before_it_has_its_name(
    base: Path, monkeypatch: pytest.MonkeyPatch, durability: str, synced: int
) -> None:
    """Else the loss of the node might take lines with it that were on disk long ago."""
    with open_as(0, 2, base, durability=durability):
        pass
    log = open_as(1, 2, base, durability=durability)
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: [events.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)],
    )

    def rename(source: str, target: str) -> None:
        if target == os.fspath(manifest(log)):
            assert events.count(source) == synced
            events.append("renamed")
        replace(source, target)

    monkeypatch.setattr(os, "replace", rename)
    for version in range(10):
        write(log, version)
    assert "renamed" in events
    log.mark_complete()


PROGRAM = textwrap.dedent("""
    import sys
    from notata import Logbook, manifestwriter
    manifestwriter._LINES = 6
    base, told = sys.argv[1:]
    log = Logbook("run", base)
    with open(told, "a", buffering=1) as file:
        for version in range(9):
            try:
                log.array("T", [version] * 3)
                log.arrays("b", u=[version], v=[version])
            except OSError as error:
                file.write(f"refused {version}\\n")
            else:
                file.write(f"{version}\\n")
        file.write("done\\n")
""")


def _prepared(folder: Path) -> tuple[Path, Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder.parent / "program.py"
    if not program.exists():
        program.write_text(PROGRAM)
    base, told = folder / "base", folder / "told"
    with open_as(0, 2, base, launch="1"):
        pass
    return program, base, told


def _as_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    import calls

    environment = calls.environment
    rank = {"NOTATA_RANK": "1", "NOTATA_SIZE": "2", "NOTATA_LAUNCH": "1"}
    monkeypatch.setattr(calls, "environment", lambda: environment() | rank)


def _points(tmp_path: Path, calls: list[str]) -> list[Point]:
    """The calls on the manifest, and on what takes its place."""
    need_strace()
    program, base, told = _prepared(tmp_path / "undisturbed")
    log = tmp_path / "calls"
    done = run([*strace(calls, to=log), *python(program, base, told)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert told.read_text().endswith("done\n")
    held = f"{base}/log_run/ranks/rank_00001"
    found = points_in(log, base, reads=calls is REFUSABLE)
    about = [p for p in found if f"{held}/manifest.jsonl" in p.line or f"{held}/." in p.line]
    assert sum(p.call.startswith("rename") and "manifest" in p.line for p in about) >= 3
    return about


def _check(base: Path, told: Path) -> None:
    said = told.read_text().split("\n") if told.exists() else []
    versions = [int(word) for word in said if word.isdecimal()]
    newest = versions[-1] if versions else -1
    refused = [int(word.split()[1]) for word in said if word.startswith("refused")]
    possible = {newest, *(v for v in refused if v > newest)}
    possible |= set() if "done" in said else {max(possible) + 1}
    reader = LogReader(base / "log_run")
    if newest < 0 and not reader.arrays:
        return
    found = set(reader.load_array("T").tolist())
    assert len(found) == 1
    assert found <= possible, (found, possible)
    if "b:u" in reader.arrays or newest >= 0:
        bundle = {int(reader.load_array(f"b:{key}")[0]) for key in "uv"}
        assert len(bundle) == 1
        assert bundle <= possible, (bundle, possible)
    notata.merge(base / "log_run", unfinished=True)
    assert set(LogReader(base / "log_run").load_array("T").tolist()) == found


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", ["death", "error"])
def test_at_each_call_nothing_that_was_finished_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    _as_rank(monkeypatch)
    points = _points(tmp_path, CHANGES if how == "death" else REFUSABLE)
    assert len(points) > 40
    tried = [
        (point, error)
        for point in points
        for error in ([""] if how == "death" else errors_of(point))
    ]
    folders = {which: tmp_path / f"{n}" for n, which in enumerate(tried)}
    missed: list[Any] = []

    def stop(which: Any) -> Any:
        point, error = which
        stopping = kill_at(point) if how == "death" else fail_at(point, error)
        for _ in range(3):  # a slow run makes other calls besides, which shifts the count
            shutil.rmtree(folders[which], ignore_errors=True)
            program, base, told = _prepared(folders[which])
            under = strace([point.call], *stopping, to=f"{folders[which]}.calls")
            done = run([*under, *python(program, base, told)], tmp_path)
            if how == "death" or refused(Path(f"{folders[which]}.calls"), base):
                break
        return done

    def look(which: Any, done: Any) -> None:
        base, told = folders[which] / "base", folders[which] / "told"
        if how == "death" and not done.returncode:
            missed.append(which)
            return
        if how == "error" and not refused(Path(f"{folders[which]}.calls"), base):
            missed.append(which)
            return
        _check(base, told)
        shutil.rmtree(folders[which])

    each(tried, 3, stop, look)
    assert len(missed) <= max(1, len(tried) // 50), missed


# ----- readers -----


def test_a_reader_that_follows_sees_each_version_and_no_gap(log: Logbook) -> None:
    write(log, 0)
    reader, seen, wrong = LogReader(log.path), [0], []
    done = threading.Event()

    def follow() -> None:
        while not done.is_set():
            try:
                seen.append(int(reader.load_array("T")[0]))
            except Exception as error:
                wrong.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    for version in range(1, 200):
        write(log, version)
    done.set()
    thread.join()
    assert wrong == []
    assert seen == sorted(seen)
    assert reader.load_array("T").tolist() == [199, 199]


def test_a_rename_under_a_reader_on_another_node(
    log: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS says that the file it has opened is stale, once."""
    for version in range(3):
        write(log, version)
    told: list[str] = []

    def stale(act: Callable[[], Any]) -> Callable[..., Any]:
        def once(*args: Any, **options: Any) -> Any:
            if not told and str(args[0]).endswith("manifest.jsonl"):
                told.append(str(args[0]))
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(args[0]))
            return act(*args, **options)

        return once

    monkeypatch.setattr(manifests, "open", stale(open), raising=False)
    assert value(log) == 2
    assert told
    told.clear()
    monkeypatch.setattr(os, "open", stale(os.open))
    assert files.read_bytes(manifest(log))
    assert told
    np.testing.assert_array_equal(LogReader(log.path).ranks[1].load_array("T"), [2, 2])


class Parsed:
    """Counts lines of manifests that are read, files of them that are opened, and wholes made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines = self.wholes = 0
        told, assemble = Piece.from_line, manifests.assemble

        def from_line(line: bytes) -> Piece:
            self.lines += 1
            return told(line)

        def made(*args: Any) -> Any:
            self.wholes += 1
            return assemble(*args)

        monkeypatch.setattr(Piece, "from_line", from_line)
        monkeypatch.setattr(manifests, "assemble", made)
        monkeypatch.setattr(manifests, "_SHORT", -1)  # of short ones more is remembered

    def taken(self) -> tuple[int, int]:
        found = self.lines, self.wholes
        self.lines = self.wholes = 0
        return found


def test_a_reader_reads_a_manifest_again_once_it_is_another_one(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = [open_as(rank, 4, base) for rank in range(4)]
    for rank in range(3):  # the last one has no manifest
        for number in range(5):
            ranks[rank].array(f"x{number}", [rank])
    ranks[3].info("here")
    counted, reader = Parsed(monkeypatch), LogReader(base / "log_run")
    assert reader.load_array("x0").tolist() == [0, 1, 2]
    assert counted.taken() == (15, 1)
    for number in range(5):
        assert reader.load_array(f"x{number}", np.s_[1:]).tolist() == [1, 2]
        assert len(reader.arrays) == 5
    assert counted.taken() == (0, 0)
    ranks[1].array("x0", [10, 11])
    assert reader.load_array("x0").tolist() == [0, 10, 11, 2]
    assert counted.taken() == (7, 1)  # of one rank, with the line before the file
    for version in range(8):  # its manifest is a shorter file
        ranks[1].array("x0", [version])
    counted.taken()
    assert reader.load_array("x0").tolist() == [0, 7, 2]
    found = counted.taken()
    assert found[0] < 20
    ranks[3].array("x0", [3])
    assert reader.load_array("x0").tolist() == [0, 7, 2, 3]
    assert counted.taken() == (1, 1)
    for log in ranks:
        log.mark_complete()
    notata.merge(base / "log_run")
    notata.merge(base / "log_run", prune=True)
    (base / "log_run/data/x0.npy").unlink()
    counted.taken()
    for _ in range(2):
        assert reader.ranks[1].load_array("x1").tolist() == [1]
        with pytest.raises(notata.errors.DamagedError, match="piece of 'x0' is missing"):
            reader.load_array("x0")


def test_a_reader_asks_a_file_between_two_lines_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_as(0, 2, base)
    write(log, 1)
    path = base / "log_run/ranks/rank_00000"
    begun = (path / "manifest.jsonl").read_bytes()
    older = (path / "data/T.npy").read_bytes()
    write(log, 2)
    newer = (path / "data/T.npy").read_bytes()
    begun += (path / "manifest.jsonl").read_bytes().splitlines(keepends=True)[1]
    (path / "manifest.jsonl").write_bytes(begun)
    reader = LogReader(base / "log_run")
    for data, version in ((older, 1), (newer, 2), (older, 1)):
        (path / "data/T.npy").write_bytes(data)
        (told,) = reader._wholes().values()
        assert told.parts[0].piece.begun is False
        assert told.parts[0].piece.checksum == f"xxh128:{_xxh(path / 'data/T.npy')}"
        assert reader.load_array("T").tolist() == [version, version]
