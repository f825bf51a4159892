"""Files that other nodes write, of which this node may remember something that is no longer true.

Here they are made up; `make test-nfs` has two nodes on NFS and GlusterFS.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from pathlib import Path
from typing import Any

import pytest
from simulated import write_as

import notata
import notata.merging
from notata import Experiment, asleft, checksums, files, folders, freshness, index
from notata.mounts import Mount

STALE = OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def let_be_stale(monkeypatch: pytest.MonkeyPatch, times: int, gone: Path | None = None) -> None:
    """Let the next openings of files fail; then one may be gone."""
    opened, left = os.open, itertools.repeat(STALE, times)

    def stale(*args: Any, **kwargs: Any) -> Any:
        for error in left:
            raise error
        if gone is not None:
            gone.unlink(missing_ok=True)
        return opened(*args, **kwargs)

    monkeypatch.setattr(os, "open", stale)


def test_a_file_that_another_node_replaced_just_now_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"new")
    let_be_stale(monkeypatch, 3)
    assert files.read_bytes(tmp_path / "file") == b"new"


def test_a_file_that_another_node_removed_just_now_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    let_be_stale(monkeypatch, 1, gone=tmp_path / "file")
    assert files.read_bytes(tmp_path / "file") is None


def test_a_file_that_stays_stale_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "_STALE", 0.05)
    monkeypatch.setattr(freshness, "_in_vain", float("-inf"))
    let_be_stale(monkeypatch, 1000)
    with pytest.raises(OSError, match="Stale file handle"):
        files.read_bytes(tmp_path / "file")


def test_what_was_waited_for_in_vain_is_not_waited_for_at_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "_STALE", 0.05)
    monkeypatch.setattr(freshness, "_in_vain", float("-inf"))
    sleeps: list[float] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: sleeps.append(seconds))
    let_be_stale(monkeypatch, 10**7)
    with pytest.raises(OSError, match="Stale file handle"):
        files.read_bytes(tmp_path / "file")
    waited = len(sleeps)
    assert waited
    for _ in range(3):
        with pytest.raises(OSError, match="Stale file handle"):
            files.read_bytes(tmp_path / "file")
    assert len(sleeps) == waited


@pytest.fixture
def unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that another node made, in two folders of its own, all of which were looked for here.

    Each name is missing until the folder that it is in has been opened, as on NFS.
    """
    file = tmp_path / "run" / "data" / "T"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"there")
    missing = {os.fspath(path) for path in (file, *file.parents) if path != tmp_path}
    missing = {path for path in missing if path.startswith(os.fspath(tmp_path / "run"))}
    opened, status = os.open, os.stat

    def look(path: Any) -> None:
        path = os.fspath(path).rstrip("/")
        if any(path == name or path.startswith(f"{name}/") for name in missing):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    def forgetful_open(path: Any, *args: Any, **kwargs: Any) -> int:
        look(path)
        found = opened(path, *args, **kwargs)
        for name in [name for name in missing if os.path.dirname(name) == path.rstrip("/")]:
            missing.remove(name)
        return found

    def forgetful_stat(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        look(path)
        return status(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", forgetful_open)
    monkeypatch.setattr(os, "stat", forgetful_stat)
    return file


def test_a_file_in_folders_that_another_node_made_just_now_is_opened(unseen: Path) -> None:
    with pytest.raises(FileNotFoundError):
        os.stat(unseen)
    assert checksums.of_file(unseen) == checksums.of_bytes(b"there")


def test_a_folder_that_another_node_made_just_now_is_reached(unseen: Path) -> None:
    assert not freshness.is_there(unseen.parent)
    assert freshness.is_reachable(unseen.parent)
    assert not freshness.is_reachable(unseen.parent / "gone" / "further")


def test_what_is_missing_is_an_error_all_the_same(tmp_path: Path) -> None:
    for path in (tmp_path / "gone", tmp_path / "no" / "folder" / "gone"):
        assert not freshness.is_reachable(path)
        with pytest.raises(FileNotFoundError, match="gone"):
            freshness.opener(os.fspath(path), os.O_RDONLY)


def test_a_size_that_this_node_remembers_is_asked_for_anew(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier `stat` told of a log stands for a minute, though a merge replaced it."""
    run = write_as(2, base, lambda log: log.info("said by all"))
    before = os.stat(run / "log.txt")
    notata.merge(run)
    assert (run / "log.txt").stat().st_size > before.st_size
    status = os.stat

    def remembered(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        return before if path == os.fspath(run / "log.txt") else status(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", remembered)
    assert not notata.merging.verify(run).damaged
    size = freshness.size_of(run / "log.txt")
    assert asleft.Left(size, checksums.of_file(run / "log.txt")).is_at(os.fspath(run / "log.txt"))
    assert not asleft.Left(size + 1).is_at(os.fspath(run / "log.txt"))
    assert freshness.size_of(run / "gone") == 0


def test_a_folder_that_another_node_made_just_now_need_not_be_found_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(freshness, "status", lambda path, **how: None)
    assert folders.make_folders(tmp_path / "runs") == []


def test_a_folder_whose_parent_another_node_made_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s").mkdir()
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    make, left = os.mkdir, [STALE, missing, missing, STALE]

    def stale(path: Any, *args: Any) -> None:
        if left and os.fspath(path).endswith("runs"):
            raise left.pop()
        make(path, *args)

    monkeypatch.setattr(os, "mkdir", stale)
    assert folders.make_folders(tmp_path / "s" / "runs") == [str(tmp_path / "s" / "runs")]


@pytest.mark.parametrize(
    ("make", "error"),
    [(folders.make_folders, FileExistsError), (folders.claim_dir, NotADirectoryError)],
)
def test_a_link_to_nowhere_above_a_folder_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, error: type[OSError]
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
    with pytest.raises(error, match="link"):
        make(tmp_path / "link" / "outputs" / "log_a")


def test_a_wait_comes_again_after_a_minute_whatever_failed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, sleeps = [1000.0], []
    monkeypatch.setattr(freshness, "_in_vain", float("-inf"))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    let_be_stale(monkeypatch, 10**7)
    waited = []
    for _ in range(4):  # half a minute from one to the next
        before = len(sleeps)
        with pytest.raises(OSError, match="Stale file handle"):
            files.read_bytes(tmp_path / "file")
        waited.append(len(sleeps) > before)
        now[0] += 30
    assert waited == [True, False, False, True]


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(FileExistsError, match="runs"):
        folders.make_folders(tmp_path / "runs")


@pytest.mark.parametrize(
    ("kind", "asked"),
    [("fuse.glusterfs", True), ("fuse.sshfs", True), ("nfs4", False), ("ext4", False)],
)
def test_the_table_is_asked_for_anew_and_synced_where_an_open_may_be_late(
    base: Path, monkeypatch: pytest.MonkeyPatch, kind: str, asked: bool
) -> None:
    monkeypatch.setattr(index, "mount_of", lambda path: Mount("/", kind, {}, ""))
    exp = Experiment("s", base)
    log = exp.add(durability="process", k=1)
    assert log is not None
    log.mark_complete()
    done: list[str] = []
    utime, fsync = os.utime, os.fsync

    def note_utime(path: Any, *args: Any) -> None:
        done.append(f"utime {os.path.basename(path)}")
        utime(path, *args)

    def note_fsync(descriptor: int) -> None:
        done.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        fsync(descriptor)

    log = exp.add(durability="process", k=2)
    assert log is not None
    monkeypatch.setattr(os, "utime", note_utime)
    monkeypatch.setattr(os, "fsync", note_fsync)
    log.mark_complete()
    names = ("index.csv", ".index.csv.bloom")
    expected = [f"utime {name}" for name in names] + [f"fsync {name}" for name in names[::-1]]
    assert done == (expected if asked else [])
    assert [row["k"] for row in exp.rows()] == [1, 2]
