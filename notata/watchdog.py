"""Notices that a rank is stuck, while it is: looks now and then whether it gave signs of life."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from notata import layout, vigil
from notata.aborting import end_job
from notata.aside import Aside, tidy
from notata.logwriter import LogWriter
from notata.rankfolder import RankFolder
from notata.topology import hostname

_SOONEST = 5.0  # seconds between two looks at most
_HEAD_START = 1.0  # seconds that ranks have to write their stacks, and rank 0 to speak first
# Seconds, and looks, that ranks which can run Python have from the first stacks on, before one that
# can't is ended.
_LAST_RESORT, _LOOKS = 4.0, 3
_PAUSE, _LONGEST_PAUSE = 0.1, 1.0  # seconds between two looks for the stacks of other ranks
_COLLECTING = 30.0  # seconds that the rank that looks where all stand may take for reading that
# Seconds that a silent rank has to write down what there is to say. After them a disk that gives no
# answer keeps nobody from ending the job; nor do, a moment later, standard error and MPI.
_LAST_WORDS, _MOMENT = 120.0, 5.0
_NOWHERE = 2**31 - 1  # a descriptor of no file: what faulthandler writes to it can't be waited for


def seconds(timeout: Any = None) -> float:
    """How long a rank may be silent: the argument, else `NOTATA_WATCH`, else 0, for ever.

    Raises:
        ValueError: If it is not a number of seconds.

    Ranks: independent.
    """
    given: Any = os.environ.get("NOTATA_WATCH") or 0 if timeout is None else timeout
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"timeout={given!r} (NOTATA_WATCH) is not a number of seconds")
    return value


class Watchdog:
    """Has it written down where its process stands when that is silent for too long.

    A log line and a tick are signs of life. They are looked at beside the program, in a thread of
    `vigil` that touches no file: a rank that computes on must not be taken for a silent one while a
    file server pauses. What there is to write is written in the other one.

    Where the program holds Python's lock for all that time, in an extension, neither can run: then
    `faulthandler` writes the stacks, from a thread without Python, into a file that is open from
    the beginning; to standard error where that can't be made. If the job is to end, it ends this
    process with status 1, so that the launcher ends the others: later than ranks that can run have
    written down why, and before they give up waiting for its stacks.
    """

    def __init__(
        self,
        timeout: float,
        log: LogWriter,
        folder: RankFolder,
        give_up: Callable[[Watchdog, float], object] | None,
    ) -> None:
        """Start to watch.

        Args:
            timeout: Seconds without a sign of life after which the stacks are written.
            log: The rank's log, which counts the signs.
            folder: The folder that this rank alone writes to.
            give_up: Called with the seconds without any if there is no sign of life after that
                either; it ends the job.
        """
        from notata import stacks  # now: a rank that is stuck may be so in an import

        self._timeout, self._log, self._folder, self._stacks = timeout, log, folder, stacks
        self._give_up = give_up
        place = folder.topology
        self._path = os.path.join(folder.path if place.parallel else folder.run, layout.STACKS)
        self._head_start = _HEAD_START * (1 if place.is_root else 2)
        self._aside: Aside | None = None  # where stacks go that Python can't write
        self._target = self._open_aside()
        self._seen, self._since = log.signs, time.monotonic()
        self._noted, self._told = self._seen, False
        self._stopped = self._ending = self._resting = False
        self._pid = os.getpid()
        # Never held while a file is touched; a signal handler that forks may find it held.
        self._lock = threading.RLock()
        self._busy = threading.Lock()  # held while files are
        self._pause = min(timeout / 10, _SOONEST)
        self._arm()
        self._tasks = (
            vigil.Task(self._look, self._pause, vigil.LOOKS, rest=self._rest),
            vigil.Task(self._act, self._pause),
        )
        for task in self._tasks:
            task.start()

    def spare(self) -> None:
        """Let the job live, whatever comes: this rank waits for the others at the run's end."""
        if os.getpid() != self._pid:
            return  # forked off: it is its parent that is watched
        self._withdraw()
        with self._lock:
            if not self._ending:
                self._arm()

    def _withdraw(self) -> None:
        """Let the job not be ended; where that has begun, wait for it."""
        with self._lock:
            if not self._ending:
                self._give_up = None
                return
        with self._busy:
            pass

    def where(self, *, everybody: bool) -> str:
        """Where ranks stand, in a sentence: all of them, or this one.

        Ranks: independent.
        """
        place = self._folder.topology
        if everybody:
            stands = self._stacks.read(self._folder.run, place.size)
            return self._stacks.told(self._stacks.groups(stands))
        mine = self._stacks.last(self._path)
        return self._stacks.told([[mine]]) if mine else f"rank {place.rank}"

    def wait_for_stacks(self) -> None:
        """Wait for those of ranks that can't run Python, which come as these ranks are ended.

        Ranks: independent; called while the job is being ended.
        """
        deadline, pause = time.monotonic() + self._waits, _PAUSE
        run, place = self._folder.run, self._folder.topology
        silent = self._stacks.survey(run, place.size).silent
        while silent and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            silent = self._stacks.survey(run, place.size, frozenset(silent)).silent
        if not silent:
            tidy(run, place.parallel)

    def wait_for_collector(self) -> None:
        """Wait until the rank that looks where all stand has had the time to end the job.

        Ranks: independent; called while the job is being ended.
        """
        time.sleep(self._waits + _COLLECTING)

    @property
    def _waits(self) -> float:
        """Seconds in which ranks that can't run Python are ended."""
        # From its last sign of life until the next look a rank has been silent for a little less.
        return (_LOOKS + 1) * self._pause + _LAST_RESORT

    def stop(self) -> None:
        """Watch no more."""
        if os.getpid() != self._pid:
            return
        self._withdraw()
        with self._lock:
            self._stopped = True
            if not self._ending:
                faulthandler.cancel_dump_traceback_later()
        for task in self._tasks:
            task.stop()
        with self._busy:
            self._note_going_on()
            if self._aside is not None:
                with suppress(OSError):
                    self._aside.close()
                self._aside = None

    def _rest(self) -> None:
        """Set no timer over a fork: the child would wait for the parent's to end, for ever."""
        with self._lock:
            self._resting = True
            faulthandler.cancel_dump_traceback_later()

    def _look(self, _: int) -> None:
        """See whether there was a sign of life. Nothing here waits for a disk."""
        with self._lock:
            if self._stopped:
                return
            if self._log.signs != self._seen:
                self._seen, self._since = self._log.signs, time.monotonic()
            self._resting = False
            self._arm()
            silent = time.monotonic() - self._since
            if self._give_up is None or silent < self._timeout + _LAST_WORDS:
                return
            self._ending = True
        with suppress(OSError, ValueError, RuntimeError):
            faulthandler.dump_traceback_later(_MOMENT, file=_NOWHERE, exit=True)
        place = self._folder.topology
        why = f"rank {place.rank} gave no sign of life for {silent:.0f} s, and a disk no answer"
        end_job(place.comm, f"ending the job: {why}")

    def _arm(self) -> None:
        if self._resting:  # a fork is under way; the next look comes after it
            return
        ends = self._give_up is not None
        later = _LOOKS * self._pause + _LAST_RESORT if ends else 2 * self._pause
        with suppress(OSError, ValueError, AttributeError, RuntimeError):  # no standard error
            # By its number: of a file object `faulthandler` would flush what the program has there.
            target = self._target or sys.__stderr__.fileno()  # type: ignore[union-attr]
            faulthandler.dump_traceback_later(self._timeout + later, file=target, exit=ends)

    def _act(self, _: int) -> None:
        """Write down what there is to say; it may take as long as a file server gives no answer."""
        if not self._busy.acquire(blocking=False):
            return  # a fork has left an older thread behind, which still waits
        try:
            if not self._stopped:
                self._aim(self._open_aside())
                self._say(*self._silence())
        finally:
            self._busy.release()

    def _aim(self, target: int) -> None:
        """Have stacks go where they can, where the program has closed what they would go to."""
        if target != self._target:
            with self._lock:
                self._target = target
                if not (self._stopped or self._ending):
                    self._arm()

    def _silence(self) -> tuple[int, float]:
        """The number of signs of life, and for how many seconds there was none."""
        with self._lock:
            signs = self._log.signs
            return signs, time.monotonic() - self._since if signs == self._seen else 0.0

    def _say(self, signs: int, silent: float) -> None:
        if signs != self._noted:
            self._noted = signs
            self._note_going_on()
        elif not self._told and silent >= self._timeout:
            self._told = True
            self._attempt(self._write, silent)
        elif self._told and silent >= self._timeout + self._head_start:
            with self._lock:
                give_up = self._give_up
                self._ending = give_up is not None
            if give_up is not None:
                give_up(self, silent)

    def _open_aside(self) -> int:
        """The descriptor of the file that is made for it; 0 where it can't be."""
        place = self._folder.topology
        for _ in range(2):
            with suppress(OSError):
                if self._aside is None:
                    run = self._folder.run
                    self._aside = Aside(run, place.rank, place.parallel)
                return self._aside.fileno()
            self._aside = None  # the program has closed it, with all that it knew nothing of
        return 0

    def _note_going_on(self) -> None:
        """Say below stacks that were written that the program is no longer there."""
        if self._told:
            self._told = False
            self._attempt(self._stacks.note_going_on, self._path)
        with suppress(OSError):  # closed by the program; a disk that takes no more is asked again
            if self._aside is not None:
                self._aside.note_going_on()

    def _attempt(self, action: Callable[..., object], *args: object) -> None:
        """Write something down; a disk that doesn't take it keeps nobody from watching."""
        try:
            action(*args)
        except Exception as error:
            print(f"notata: {self._path} could not be written: {error}", file=sys.stderr)

    def _write(self, silent: float) -> None:
        place = self._folder.topology
        if place.parallel:
            self._folder.claim()
        self._stacks.write(self._path, place.rank, hostname(), silent)
