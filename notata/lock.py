"""Two processes at once: the lock around what several may write.

There are two kinds. `flock` on a lock file is the kernel's: it is gone with the process that held
it. Where the file system refuses it, processes take turns (`turns`), which needs no support.

All processes agree on the kind, though each node may be told something else. A process that is
refused makes the folder of turns, which stays, and takes a turn. One that has flock says so in the
lock file and only then looks for the folder: if it is there, it lets go and takes a turn as well.
So whoever has flock without a turn has said so before the folder was there; who has a turn looks
into the lock file, and waits until that holder lets go or is known to be gone.
"""

from __future__ import annotations

import errno
import os
import time
from _thread import TIMEOUT_MAX
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from typing import NamedTuple

from notata import files, flocking, holders, layout
from notata.errors import LockTimeoutError, SettingError
from notata.turns import Turns, last_touch

DEFAULT_TIMEOUT = 60.0
FLOCK, TURNS = "flock", "turns"
# A holder of flock on another node gives no sign while it works, and rebuilds a table meanwhile.
_FLOCK_GONE_AFTER = 600.0
_REFUSED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class Held(NamedTuple):
    """How a lock is held.

    Attributes:
        kind: `flock` or `turns`.
        why: Why not by `flock`, or None if it is.
    """

    kind: str
    why: str | None = None


def timeout_from_environment() -> float:
    """Seconds to wait for a lock: `NOTATA_LOCK_TIMEOUT`, or 60; `inf` is as long as can be.

    Raises:
        SettingError: If the variable is not a number (a `ValueError`).

    Ranks: independent.
    """
    text = os.environ.get("NOTATA_LOCK_TIMEOUT")
    if not text:
        return DEFAULT_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:  # nan is not
        raise SettingError(f"NOTATA_LOCK_TIMEOUT={text!r} is not a number of seconds")
    return min(seconds, TIMEOUT_MAX)  # a thread that asks for `flock` is waited for no longer


@contextmanager
def locked(path: str | os.PathLike[str], timeout: float | None = None) -> Iterator[Held]:
    """Hold an exclusive lock for the length of a `with` block.

    The lock is a file of its own beside what it protects, so that what it protects can be opened
    afresh once the lock is held: on NFS that is what makes other nodes' writes visible.

    Args:
        path: The lock file; it stays on disk, and names the holder.
        timeout: Seconds to wait; by default `NOTATA_LOCK_TIMEOUT`, or 60; `inf` is as long as can
            be.

    Yields:
        How the lock is held.

    Raises:
        LockTimeoutError: If other processes held it all that time; the message names the last one.
            Also if the file system did not answer.
        OSError: If the lock can't be made.

    Ranks: independent.
    """
    seconds = timeout_from_environment() if timeout is None else min(timeout, TIMEOUT_MAX)
    lock = _Lock(os.fspath(path), time.monotonic() + seconds, seconds)
    # What looks as if there were no turns may be an old view, so that flock() looks again.
    file = None if lock.turns.seen else lock.flock()
    if file is None:
        with lock.turns.held(lock.turn()):
            lock.wait_for_flock()
            yield Held(TURNS, lock.refusal or "a process that shares this folder was refused flock")
        return
    with file:
        try:
            yield Held(FLOCK)
        finally:
            _unlock(file)


class _Lock:
    """One process's way to a lock."""

    def __init__(self, path: str, deadline: float, seconds: float) -> None:
        self.path = path
        self.turns = Turns(path + layout.TURNS)
        self.refusal: str | None = None
        self._deadline, self._seconds = deadline, seconds
        self._pause = _SHORTEST_PAUSE

    def flock(self) -> FileIO | None:
        """Get `flock`; gives the open lock file, or None where turns are to be taken.

        Raises:
            LockTimeoutError: If it is not to be had in time.
        """
        while True:
            file = self._try_flock()
            if file is not None:
                if not self.turns.in_use:
                    return file
                with file:
                    _unlock(file)
            if self.refusal is not None or self.turns.in_use:
                return None
            self._wait()

    def _try_flock(self) -> FileIO | None:
        from filelock import unlock_descriptor

        me = holders.record(holders.this_process())  # now: once it has the lock, others wait
        try:
            # A file object closes itself, whatever happens to the program between two lines.
            file = FileIO(
                self.path, "r+", opener=lambda path, flags: os.open(path, flags | os.O_CREAT, 0o666)
            )
        except FileExistsError:  # MooseFS, where another node makes it at the same time
            return None
        there = os.fstat(file.fileno())
        if there.st_size == 0:  # new: nobody has had it yet
            files.share(self.path)
        try:
            # A file that was taken away while it was waited for is no lock any more.
            if flocking.try_flock(file, self.path, self._left) and os.path.samestat(
                there, os.stat(self.path)
            ):
                _say_so(file, me)
                return file
        except FileNotFoundError:
            pass
        except LockTimeoutError:  # the call that has not come back still needs the file
            raise
        except OSError as error:
            if error.errno not in _REFUSED:
                with suppress(OSError):  # what an error left open would hold it as well
                    unlock_descriptor(file.fileno())
                file.close()
                error.filename = error.filename or self.path
                raise
            self.refusal = f"flock is refused here: {os.strerror(error.errno)}"
            self.turns.prepare()
        file.close()
        return None

    def turn(self) -> int:
        """Get the next turn.

        Raises:
            LockTimeoutError: If it is not to be had in time.
        """
        while (number := self.turns.take()) is None:
            self._wait()
        return number

    def wait_for_flock(self) -> None:
        """Having a turn, wait until nobody has `flock`.

        Raises:
            LockTimeoutError: If somebody has it for too long.
        """
        while self._has_flock():
            self._wait()

    def _has_flock(self) -> bool:
        """Whether a process that looked for turns before there were any may be at work."""
        data = files.read_bytes(self.path) or b""
        if not data or holders.is_free(data):
            return False
        holder = holders.parse(data)
        gone = None if holder is None else holder.gone
        return last_touch(self.path)[1] < _FLOCK_GONE_AFTER if gone is None else not gone

    @property
    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _wait(self) -> None:
        left = self._left
        if left <= 0:
            raise LockTimeoutError(
                f"{self.path} was held by others for {self._seconds:g} s, at last by "
                f"{self._holder()}; set NOTATA_LOCK_TIMEOUT to wait for longer"
            )
        import random

        time.sleep(min(left, self._pause * random.uniform(0.5, 1.0)))
        self._pause = min(self._pause * 1.5, _LONGEST_PAUSE)

    def _holder(self) -> str:
        holder = self.turns.holder() or holders.parse(files.read_bytes(self.path) or b"")
        return str(holder or "a process that has not said who it is")


def _say_so(file: FileIO, record: bytes) -> None:
    os.pwrite(file.fileno(), record, 0)
    os.close(os.dup(file.fileno()))  # on NFS, a close is when others can see it


def _unlock(file: FileIO) -> None:
    from filelock import unlock_descriptor

    with suppress(OSError):  # who waits by turns sees that this process is gone, or is patient
        holders.let_go(file.fileno())
    unlock_descriptor(file.fileno())
