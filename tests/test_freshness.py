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

from notata import Experiment, files, folders, freshness, index
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
