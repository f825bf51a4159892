"""Two processes at once: the lock around what several may write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from notata.errors import LockTimeoutError

DEFAULT_TIMEOUT = 60.0


def timeout_from_environment() -> float:
    """Seconds to wait for a lock: `NOTATA_LOCK_TIMEOUT`, or 60.

    Raises:
        ValueError: If the variable is not a number.

    Ranks: independent.
    """
    text = os.environ.get("NOTATA_LOCK_TIMEOUT")
    if not text:
        return DEFAULT_TIMEOUT
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"NOTATA_LOCK_TIMEOUT={text!r} is not a number of seconds") from None


@contextmanager
def locked(path: str | os.PathLike[str], timeout: float | None = None) -> Iterator[None]:
    """Hold an exclusive lock for the length of a `with` block.

    The lock is a file of its own beside what it protects, so that what it protects can be opened
    afresh once the lock is held: on NFS that is what makes other nodes' writes visible.

    Args:
        path: The lock file; it stays on disk.
        timeout: Seconds to wait; by default `NOTATA_LOCK_TIMEOUT`, or 60.

    Raises:
        LockTimeoutError: If another process held it all that time.

    Ranks: independent.
    """
    import filelock

    seconds = timeout_from_environment() if timeout is None else timeout
    try:
        held = filelock.FileLock(path, timeout=seconds, mode=0o664).acquire()
    except filelock.Timeout:
        raise LockTimeoutError(
            f"another process held {os.fspath(path)} for {seconds:g} s; set NOTATA_LOCK_TIMEOUT to "
            "wait for longer"
        ) from None
    with held:
        yield
