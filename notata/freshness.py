"""What this node remembers of files that other nodes write, and how it is made to ask anew."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

StrPath = str | os.PathLike[str]
T = TypeVar("T")

_STALE = 5.0  # seconds for which another answer is waited for; GlusterFS takes one
_MISSING = 1.0  # the same for what may be no mistake: a rank that opens a run has little time
_PAUSE = 0.05
# Errors that say that there is no such file, nor can be.
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
_AGAIN = 60.0  # seconds after one in vain until there is another wait: a folder may have many files
_in_vain = float("-inf")  # when this process last waited so


def patiently(act: Callable[[], T], *others: int) -> T:
    """Do something with a file or folder that another node may have replaced, removed or made.

    This node may still have its old name in mind, and is told that this is stale: it tries again.

    Args:
        act: What to do.
        others: Further error numbers that may pass.

    Returns:
        What it returned.

    Raises:
        OSError: Any other, or such a one if it stays so.

    Ranks: independent.
    """
    global _in_vain
    limit: float | None = None
    waited = False
    while True:
        try:
            return act()
        except OSError as error:
            if error.errno not in (errno.ESTALE, *others):
                raise
            now = time.monotonic()
            if limit is None:
                limit = now
                if now - _in_vain > _AGAIN:
                    limit += _STALE if error.errno == errno.ESTALE else _MISSING
                    waited = error.errno == errno.ESTALE
            if now >= limit:
                _in_vain = now if waited else _in_vain
                raise
            time.sleep(_PAUSE)


def exists(path: StrPath) -> bool:
    """Whether anything has this name, be it a link that leads nowhere.

    What `os.path.exists` takes for a missing file may be one of which the disk, or its server,
    can't tell just now; to go on as if there was none would do harm.

    Raises:
        OSError: If that can't be told.

    Ranks: independent.
    """
    return status(path, follow=False) is not None


def status(path: StrPath, *, follow: bool = True) -> os.stat_result | None:
    """What the system says of a file or folder, or None where there is none.

    Args:
        path: Its path.
        follow: Whether it is that which a link leads to.

    Raises:
        OSError: If that can't be told.

    Ranks: independent.
    """
    try:
        return patiently(lambda: os.stat(path, follow_symlinks=follow))
    except ValueError:  # no system has such a name
        return None
    except OSError as error:
        if error.errno not in _NOTHING:
            raise
        return None


def ask_anew(path: StrPath) -> None:
    """Let this node forget what it remembers of a file that another one may have written to.

    Its size and bytes are asked for where the file is changed, be it the time in its record only.

    Raises:
        OSError: If there is none, or it may not be written to.

    Ranks: independent.
    """
    os.utime(path)


def is_there(path: StrPath) -> bool:
    """Whether a file exists by now, though it was looked for a moment ago in vain.

    An NFS client remembers for half a minute that a name was missing, unless it has just opened the
    folder and seen that this has changed.

    Raises:
        OSError: If that can't be told.

    Ranks: independent.
    """
    path = os.fspath(path)
    with suppress(OSError):
        os.close(os.open(path[: path.rfind("/") + 1] or ".", os.O_RDONLY | os.O_CLOEXEC))
    return exists(path)


def is_reachable(path: StrPath) -> bool:
    """The same where the folders above may have been looked for in vain as well.

    Raises:
        OSError: If that can't be told.

    Ranks: independent.
    """
    path = os.fspath(path)
    if is_there(path):
        return True
    above = os.path.dirname(path)
    return above not in ("", path) and not exists(above) and is_reachable(above) and is_there(path)


def opener(path: str, flags: int) -> int:
    """Open a file that another node may just have made; the built-in `open` takes this.

    Returns:
        The descriptor; the caller closes it.

    Raises:
        OSError: If it can't be opened.

    Ranks: independent.
    """
    try:
        return patiently(lambda: os.open(path, flags | os.O_CLOEXEC, 0o666))
    except FileNotFoundError:
        if not is_reachable(path):
            raise
    return patiently(lambda: os.open(path, flags | os.O_CLOEXEC, 0o666))


def size_of(path: StrPath) -> int:
    """Bytes of a file as its server has it now; 0 where there is none, or nobody may look.

    `os.stat` may tell what this node has remembered for a minute.

    Ranks: independent.
    """
    with suppress(OSError), open(path, "rb", buffering=0, opener=opener) as file:
        return os.fstat(file.fileno()).st_size  # of what was just opened, that is asked for
    return 0
