"""What a rank writes down when a signal comes: at once, from beside the main thread."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from notata import deadline, layout, lifecycle, messages, scheduler, signalled, speaking
from notata.lifecycle import Metadata
from notata.logwriter import LogWriter
from notata.messages import now
from notata.parking import Lock, held
from notata.rankfolder import RankFolder
from notata.signals import WARNINGS, Listener
from notata.stored import read_json

_HEAD_START = 0.15  # seconds that rank 0 has to say how the run ended; launchers soon kill


def numbers_of(signals: Iterable[Any]) -> tuple[int, ...]:
    """The numbers of signals that a program names.

    Args:
        signals: Members of `signal.Signals`, numbers, or names such as `"SIGUSR1"`.

    Raises:
        ValueError: If there is no such signal, or no process can catch it.

    Example:
        >>> numbers_of(["SIGINT", signal.SIGTERM])
        (2, 15)

    Ranks: independent.
    """
    if signals == WARNINGS:
        return WARNINGS
    found = []
    for given in signals:
        try:
            one = signal.Signals[given] if isinstance(given, str) else signal.Signals(given)
        except (KeyError, ValueError):
            raise ValueError(f"signals: there is no signal {given!r}") from None
        if one in (signal.SIGKILL, signal.SIGSTOP):
            raise ValueError(f"signals: no process can catch {one.name}")
        found.append(int(one))
    return tuple(found)


class Notices:
    """Notes each signal in the rank's log and record, and in the metadata on rank 0."""

    def __init__(
        self,
        folder: RankFolder,
        metadata: Metadata,
        log: LogWriter,
        elapsed: Callable[[], float],
    ) -> None:
        """Prepare; nothing is installed yet.

        Args:
            folder: The folder that this rank alone writes to.
            metadata: The run's metadata.
            log: The log that this rank writes.
            elapsed: Gives the seconds since the run was opened.
        """
        self._folder, self._metadata, self._log = folder, metadata, log
        self._elapsed = elapsed
        self._told: list[dict[str, Any]] = []
        self._earlier: list[Any] = []  # what the attempts before have noted
        self._others: dict[int, list[dict[str, Any]]] = {}  # what other ranks told, on rank 0
        self._lock = Lock()  # held until the metadata say what was noted
        self._listener: Listener | None = None

    @property
    def warned(self) -> bool:
        """Whether a signal has come."""
        return self._listener is not None and self._listener.warned

    def start(self, numbers: Iterable[int]) -> None:
        """Listen to these signals; nothing happens off the main thread.

        Ranks: independent; the run is open.
        """
        noted = self._metadata.values.get("signals")
        self._earlier = noted if isinstance(noted, list) else []
        self._listener = Listener(numbers, self._note)
        self._listener.start()

    def stop(self) -> None:
        """Listen no more.

        Ranks: independent.
        """
        if self._listener is not None:
            self._listener.stop()

    def packed(self) -> list[list[Any]]:
        """What was noted until now, as rank 0 is told it.

        Ranks: independent.
        """
        if self._listener is not None:
            self._listener.settle()
        return signalled.packed(self._told)

    @contextmanager
    def hearing(self, records: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """What the metadata are to say of all ranks' signals; meanwhile rank 0 notes none.

        Args:
            records: What each rank told when all closed the run; `signals`, as `packed` made it.

        Ranks: root only.
        """
        told = {
            rank: signalled.unpacked(record["signals"])
            for rank, record in enumerate(records)
            if rank and "signals" in record
        }
        with held(self._lock):
            self._others |= told
            yield {"signals": self._known()} if told else {}

    def _known(self) -> list[Any]:
        parallel = self._folder.topology.parallel
        mine = [one | {"ranks": "0"} for one in self._told] if parallel else self._told
        return self._earlier + signalled.joined(mine, self._others)

    def _note(self, number: int, ends: bool) -> None:
        """Write a signal down; if the process ends of it, that the run has failed, too."""
        if len(self._told) >= signalled.MOST_OF_A_RANK and not ends:
            return
        name, left = signal.Signals(number).name, deadline.seconds_left()
        limited = math.isfinite(left)
        told = {
            "signal": name,
            "time": now(),
            "time_left": round(left, 1) if limited else None,
            "ends": ends,
        }
        self._told.append(told)
        time_left = f", {left:.0f} s before the end of the job" if limited else ""
        what = "the process ends" if ends else "the program goes on"
        self._log.apart().write(messages.WARNING, f"received {name}{time_left}; {what}")
        reason = f"ended by {name}{time_left}" if ends else None
        place = self._folder.topology
        if place.is_root:
            blamed = reason and (lifecycle.blamed(0, reason) if place.parallel else reason)
            end = lifecycle.outcome_fields(lifecycle.FAILED, blamed, self._elapsed())
            says = ends and self._is_untold()
            with held(self._lock):
                self._metadata.update({"signals": self._known()} | (end if says else {}))
        if place.parallel and (self._folder.claimed or not place.is_root):
            end = {"status": lifecycle.FAILED, "failure_reason": reason, "end_time": now()}
            self._folder.note(signals=self._told, **(end if ends else {}))
        if reason and not place.is_root:
            self._speak(lifecycle.blamed(place.rank, reason))

    def _speak(self, reason: str) -> None:
        """Say how the run ended, unless rank 0 does so itself: the signal may be for this rank."""
        if self._folder.topology.comm is None or self._folder.attempt.outdated:
            return
        time.sleep(_HEAD_START)
        if self._is_untold():
            run, disk = self._folder.run, self._folder.disk
            speaking.speak_for_root(run, reason, self._elapsed(), disk)

    def _is_untold(self) -> bool:
        """Whether nobody else has said, or will say, how the run ended.

        Another rank that failed may have said so, and ended this one by the signal. Of its own jobs
        Slurm knows more: a time limit, a node that was lost, that it is about to start again. So
        the run stays open there, and `notata reconcile` writes down what Slurm says.
        """
        metadata = read_json(os.path.join(self._folder.run, layout.METADATA)) or {}
        open_still = metadata.get("status") == lifecycle.INITIALIZED
        return open_still and scheduler.job().get("name") != "slurm"
