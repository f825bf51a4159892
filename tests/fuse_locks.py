"""A FUSE file system that shows a folder, with locks of a kind that clusters have.

Started as a program: fuse_locks.py FOLDER MOUNTPOINT KIND, where KIND is

    local    the kernel keeps locks to this mount, like NFS with nolock, Lustre with localflock
    shared   locks reach the folder, so that two mounts of it exclude each other
    hang     a lock is never answered
    ENOLCK, ENOSYS, …    what flock fails with
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from typing import Any

import mfusepy

STAT = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_blocks")


class Locks(mfusepy.Operations):
    """Hands every call on to the folder."""

    use_ns = True

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def _at(self, path: str) -> str:
        return self.folder + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        told = os.lstat(self._at(path))
        times = {f"st_{k}time": getattr(told, f"st_{k}time_ns") for k in "amc"}
        return {key: getattr(told, key) for key in STAT} | times

    def statfs(self, path: str) -> dict[str, int]:
        told = os.statvfs(self._at(path))
        return {key: getattr(told, key) for key in dir(told) if key.startswith("f_")}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._at(path), length)
        return 0

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._at(path))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._at(path))
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        os.utime(self._at(path))  # nobody here sets another time than the present
        return 0

    def rename(self, old: str, new: str) -> int:
        os.rename(self._at(old), self._at(new))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0


class WithFlock(Locks):
    """The same, and the kernel asks it for locks."""

    def __init__(self, folder: str, kind: str) -> None:
        super().__init__(folder)
        self.kind = kind

    def flock(self, path: str, fh: int, op: int) -> int:
        if self.kind == "hang":
            time.sleep(3600)
        if self.kind != "shared":
            raise mfusepy.FuseOSError(getattr(errno, self.kind))
        fcntl.flock(fh, op)
        return 0


if __name__ == "__main__":
    folder, point, kind = sys.argv[1:]
    mfusepy.FUSE(
        Locks(folder) if kind == "local" else WithFlock(folder, kind),
        point,
        foreground=True,
        attr_timeout=0,
        entry_timeout=0,
        direct_io=True,
        max_threads=32,
    )
