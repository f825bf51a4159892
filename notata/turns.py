"""A lock that needs no support by the kernel: processes take turns, each with a number of its own.

A turn is a file in a folder, made by an exclusive create, whose name is its number. Who has made
the highest number holds the lock until the file says that it is free. The next number may be made
once that is so, or once its holder is known to be gone; whoever makes it holds the lock. The
highest file is never removed, so that no number is used twice, and nothing is ever renamed or
stolen: of two processes that find a dead holder, one makes the next number.

A holder is known to be gone if it ran on this node and is no more. One on another node, or of
another user where those can't be seen, is taken for gone once its file was not touched for 45 s.
It touches that every 5 s while it lives. NFS stamps both by the server's clock; Lustre by those of
the two nodes, which may differ, so that nobody is taken for gone whose file was not watched, too,
and stayed as it was for longer than two touches.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from notata import files, freshness, holders, layout
from notata.holders import Holder

GONE_AFTER = 45.0  # seconds; less than a lock's default time limit, so that nobody waits in vain
_TOUCH = 5.0
_WATCHED = 11.0  # seconds

# Of each lock the turn that is watched, its last touch, and since when that is known here: kept, so
# that a process that waits for less than that each time gets the lock in the end.
_watched: dict[str, tuple[int, float, float]] = {}


class Turns:
    """The turns of one lock.

    Args:
        folder: Where their files are; made by the first turn.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._look_again = 0.0  # when to look next how old a file is, which makes one itself

    @property
    def seen(self) -> bool:
        """Whether some process has taken a turn, as far as this node knows already."""
        return os.path.lexists(self._folder)

    @property
    def in_use(self) -> bool:
        """Whether some process has taken a turn, ever."""
        return freshness.is_there(self._folder)

    def prepare(self) -> None:
        """Make the folder, for everybody who may write to the one that it is in.

        Ranks: independent.
        """
        with suppress(FileExistsError):
            os.mkdir(self._folder)
            files.share(self._folder)

    def take(self) -> int | None:
        """Take the next turn, or give None where another process has the lock.

        Raises:
            OSError: If the folder can't be read or written.

        Ranks: independent.
        """
        newest = max(self._numbers(), default=0)
        if newest and not self._is_over(newest):
            return None
        mine = newest + 1
        path = self._file(mine)
        try:
            files.create(path, holders.record(holders.this_process()))
        except FileExistsError:
            return None
        files.share(path)
        # The listing above may have been an old one: then ours is a number that others had, and
        # have removed since. One that is read after a change of our own to the folder is not old.
        there = self._numbers()
        if max(there, default=0) != mine:
            self._end(mine)
            return None
        for number in there:
            if number < mine:
                with suppress(OSError):
                    os.unlink(self._file(number))
        return mine

    @contextmanager
    def held(self, number: int) -> Iterator[None]:
        """Keep a turn alive for the length of a `with` block, and end it."""
        ended = threading.Event()
        beat = threading.Thread(target=_touch, args=(self._file(number), ended), daemon=True)
        try:
            with suppress(RuntimeError):  # no more threads: a turn is kept for a while without
                beat.start()
            yield
        finally:
            ended.set()
            self._end(number)

    def _end(self, number: int) -> None:
        # The file is missing only if others took this process for gone, and have the lock.
        with suppress(FileNotFoundError), open(self._file(number), "r+b", buffering=0) as file:
            holders.let_go(file.fileno())

    def holder(self) -> Holder | None:
        """Who holds the lock, as far as it is known.

        Ranks: independent.
        """
        newest = max(self._numbers(), default=0)
        return holders.parse(files.read_bytes(self._file(newest)) or b"")

    def _numbers(self) -> list[int]:
        try:
            return [int(name) for name in os.listdir(self._folder) if name.isdecimal()]
        except FileNotFoundError:
            return []

    def _file(self, number: int) -> str:
        return os.path.join(self._folder, f"{number:012d}")

    def _is_over(self, number: int) -> bool:
        """Whether the turn ended or its holder is gone; False, too, where it is over for long."""
        data = files.read_bytes(self._file(number))
        if data is None:
            return False  # a later turn has begun: look again
        if holders.is_free(data):
            return True
        holder = holders.parse(data)  # none where it is just being written, or the writer died
        gone = None if holder is None else holder.gone
        if gone is not None:
            return gone
        if time.monotonic() < self._look_again:
            return False
        now = time.monotonic()
        self._look_again = now + 1.0
        touched, silent = last_touch(self._file(number))
        seen = _watched.get(self._folder)
        if seen is None or seen[:2] != (number, touched):
            seen = _watched[self._folder] = number, touched, now
        return silent > GONE_AFTER and now - seen[2] >= _WATCHED


def last_touch(path: str) -> tuple[float, float]:
    """When a file was last touched, and how many seconds ago that was: 0 if it is no more.

    Both are told by the clocks that stamp files there, never by that of this process.

    Ranks: independent.
    """
    probe = os.path.join(os.path.dirname(path), layout.temporary())
    try:
        with open(path, "rb") as file, open(probe, "xb") as now:
            touched = os.fstat(file.fileno()).st_mtime
            return touched, os.fstat(now.fileno()).st_mtime - touched
    except OSError:
        return 0.0, 0.0
    finally:
        with suppress(OSError):
            os.unlink(probe)


def _touch(path: str, ended: threading.Event) -> None:
    while not ended.wait(_TOUCH):
        with suppress(OSError):
            os.utime(path)
