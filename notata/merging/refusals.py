"""What an error of the disk says of a merge: which file it was about, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from notata import layout
from notata.errors import NO_ROOM, NotataError

# A merge can't write elsewhere, as a run can: it is to be done again.
_ADVICE = {
    errno.ENOSPC: "free space or inodes there (df -h, df -i), and merge again",
    errno.EDQUOT: "your quota is used up (quota -s): delete files there, and merge again",
    errno.EFBIG: "there is a limit on the size of files (ulimit -f): raise it, and merge again",
    errno.EIO: "the disk or its server failed (dmesg, or your administrators, say more): merge "
    "again once it is repaired",
    errno.EROFS: "it is mounted read-only here: merge where it can be written to",
    errno.ESTALE: "the file server no longer knows the file or its folder: see whether it was "
    "moved or deleted from another node, and merge again",
}


@contextmanager
def naming(target: str, size: int | None = None, beside: int = 0) -> Iterator[None]:
    """Let an error of the disk say what could not be made.

    Args:
        target: The file that is being made, or the folder.
        size: Its bytes, where they may be too many.
        beside: Bytes that are taken beside it meanwhile.

    Ranks: independent.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, NotataError):
            raise
        told = error.strerror or ""
        if error.errno in NO_ROOM:
            told += f" for {size} bytes" if size is not None else ""
            told += f", and {beside} more until its pieces are joined" if beside else ""
            told += _free(target) if size is not None and error.errno == errno.ENOSPC else ""
        elif error.filename is None:
            told += " while this was made"  # it may be that one of its pieces can't be read
        elif not _is_temporary(error.filename):
            raise
        raise OSError(error.errno, told, target) from error


@contextmanager
def explaining(run: str) -> Iterator[None]:
    """Let an error of the disk name a file that people know, and say what to do.

    Args:
        run: Folder of the run, which is named where nobody knows more.

    Ranks: independent.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _ADVICE or isinstance(error, NotataError):
            raise
        name = error.filename or run
        if _is_temporary(name):
            name = error.filename2 or os.path.dirname(name)
        told = f"{error.strerror}; {_ADVICE[error.errno]}"
        raise OSError(error.errno, told, name) from error


def _free(target: str) -> str:
    """What is free; not asked where a quota or a limit is met, which others may not have."""
    with suppress(OSError):
        status = os.statvfs(os.path.dirname(target))
        return f", {status.f_bavail * status.f_frsize} are free"
    return ""


def _is_temporary(path: str | bytes | int) -> bool:
    return isinstance(path, str) and os.path.basename(path).startswith(layout.MERGE_PREFIX)
