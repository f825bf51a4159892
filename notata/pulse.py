"""Does a run still live: the sign that its process gives, and how readers judge it.

While a run is open, rank 0 touches `metadata.json` once a minute. The touch names no time, so that
NFS stamps it by the file server's clock; Lustre does by the node's own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from functools import cached_property

from notata import layout
from notata.errors import SettingError
from notata.vigil import Task

RUNNING, LOST = "running", "lost"
OPENING = 60.0  # seconds in which whoever makes a run's folder has said in it whose it is
USUAL = 60.0  # seconds between two signs of life where nobody says otherwise
_COARSEST_TICK = 2.5  # seconds
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.25
_UNTOLD = "initialized"  # on disk, of a run that has not said how it ended

StrPath = str | os.PathLike[str]


def interval() -> float:
    """Seconds between two signs of life: `NOTATA_HEARTBEAT`, or 60; 0 for none.

    Raises:
        SettingError: If the variable is not a number of seconds.

    Ranks: independent.
    """
    return _seconds("NOTATA_HEARTBEAT", USUAL)


def bound() -> float:
    """Seconds without a sign of life that make a run lost: `NOTATA_LOST_AFTER`, or 600; 0: any is.

    Raises:
        SettingError: If the variable is not a number of seconds.

    Ranks: independent.
    """
    return _seconds("NOTATA_LOST_AFTER", 600.0)


def _seconds(name: str, otherwise: float) -> float:
    text = os.environ.get(name)
    if not text:
        return otherwise
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise SettingError(f"{name}={text!r} is not a number of seconds")
    return seconds


class Beat:
    """The sign of life of one run, given until it is stopped or nobody holds it any more."""

    def __init__(self, run: str, alive: Callable[[], object]) -> None:
        """Prepare.

        Args:
            run: The run's folder.
            alive: Asked before each sign; once it says no, none is given any more.
        """
        self._path = f"{run}/{layout.METADATA}"
        self._alive = alive
        self._task: Task | None = None

    def start(self, every: float) -> None:
        """Let the sign be given, at first after so many seconds; 0 gives none.

        Ranks: root only.
        """
        if every > 0:
            self._task = Task(self.give, every)
            self._task.start()

    def stop(self) -> None:
        """Give the sign no more.

        Ranks: root only.
        """
        if self._task is not None:
            self._task.stop()
            self._task = None

    def give(self, _: int = 0) -> None:
        """Give the sign now."""
        try:
            if self._alive():
                os.utime(self._path)
            else:
                self.stop()
        except FileNotFoundError:
            self.stop()  # somebody took the run away
        except OSError:
            pass  # the file server may be back for the next one


def last_sign(run: StrPath) -> float | None:
    """When a run last gave a sign of life, in seconds since the epoch of its file server.

    That is the newest time of change of its metadata and its log.

    Returns:
        The time, or None where neither is there.

    Ranks: independent.
    """
    found = []
    for name in (layout.METADATA, layout.LOG):
        with contextlib.suppress(OSError):
            found.append(os.stat(os.path.join(run, name)).st_mtime)
    return max(found, default=None)


class Clock:
    """The present as the file system of a folder has it, which may not be this machine's."""

    def __init__(self, folder: StrPath) -> None:
        """Name the folder; it is not touched yet."""
        self._folder = os.fspath(folder)

    @cached_property
    def now(self) -> float:
        """The time of a file that was made there just now, or this machine's where none can be."""
        path = os.path.join(self._folder, layout.temporary())
        try:
            with open(path, "xb") as file:
                made = os.fstat(file.fileno()).st_mtime
            os.unlink(path)
        except OSError:
            return time.time()
        return made


def dividing_time(folder: StrPath) -> float:
    """A time that parts what changed in a file system before this call from what changes after it.

    A file system's clock moves on every few milliseconds, some only every second or two; so this
    waits until it has.

    Args:
        folder: Any folder of that file system.

    Returns:
        Seconds since the epoch. What changed before has this time or an earlier one.

    Ranks: independent.
    """
    path = os.path.join(folder, layout.temporary())
    try:
        with open(path, "xb") as file:
            before = os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
    with contextlib.suppress(OSError):
        began, pause = time.monotonic(), _SHORTEST_PAUSE
        while os.stat(path).st_mtime <= before and time.monotonic() - began < _COARSEST_TICK:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            os.utime(path)
    with contextlib.suppress(OSError):
        os.unlink(path)
    return before


def state(status: str, run: StrPath, clock: Clock) -> str:
    """The state of a run as people are told it.

    Args:
        status: What its metadata say.
        run: Its folder.
        clock: The clock of its file system.

    Returns:
        The status; but `running` or `lost` for a run that has not said how it ended.

    Raises:
        SettingError: If `NOTATA_LOST_AFTER` is not a number of seconds.

    Ranks: independent.
    """
    if status != _UNTOLD:
        return status
    sign = last_sign(run)
    return RUNNING if sign is not None and clock.now - sign < bound() else LOST


def is_lost(run: StrPath, status: str = _UNTOLD) -> bool:
    """Whether a run has neither ended nor given a sign of life lately.

    Args:
        run: Its folder.
        status: What its metadata say.

    Raises:
        SettingError: If `NOTATA_LOST_AFTER` is not a number of seconds.

    Ranks: independent.
    """
    return state(status, run, Clock(run)) == LOST
