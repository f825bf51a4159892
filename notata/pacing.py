"""How far a sweep has got: how many runs are in which state, how fast they end, what is left."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from notata import listing, slurm, tails
from notata.jobs import Answer
from notata.outcomes import survey
from notata.stored import StrPath
from notata.verdicts import RUNNING, WAITING, Outcome

_MEASURED = 100  # the newest ends of which the rate is taken
_LONG_GAP = 600.0  # seconds without an end, besides ten times the usual, that part submissions
_PATIENCE = 60.0  # seconds between two questions to the scheduler


class Now(NamedTuple):
    """How far a sweep has got.

    Attributes:
        folder: The experiment's folder.
        states: How many runs are in each state; those that have yet to begin are `waiting`,
            those whose tasks have ended without them `failed`, and array tasks without a run of
            which nobody knows `unknown`.
        ended: How many runs have ended, well or not.
        left: How many are still to end, as far as is known.
        unit: What those are that have not begun: each a `point` of a grid, or a `task`.
        begun: Whether there is anything to follow yet: a run, or a point of a grid.
        idle: Whether something is left that nobody works on, and no known job waits to.
        rate: Runs that end in a second, or None before two have.
        running: The runs that are at work, newest first.
        bad: The runs that failed or are lost, newest first.
    """

    folder: str
    states: Mapping[str, int]
    ended: int
    left: int
    unit: str
    begun: bool
    idle: bool
    rate: float | None
    running: list[Outcome]
    bad: list[Outcome]

    @property
    def to_go(self) -> float | None:
        """Seconds until all have ended, at this rate; None where it isn't known."""
        return self.left / self.rate if self.rate and self.left else None


class Pace:
    """Looks at a sweep again and again.

    The scheduler is asked once a minute at most; what the runs say is read each time.
    """

    def __init__(
        self,
        folder: StrPath,
        *,
        clock: Callable[[], float] = time.time,
        ask: Callable[[Iterable[str]], Answer] = slurm.ask,
    ) -> None:
        """Name the experiment; nothing is read yet.

        Args:
            folder: Its folder.
            clock: Gives the time, in seconds since the epoch.
            ask: Asks the scheduler.
        """
        self._folder = os.fspath(folder)
        self._clock, self._ask = clock, ask
        self._asked: tuple[float, Answer] | None = None
        self._seen: set[str] | None = None  # runs that had ended
        self._ends: deque[float] = deque(maxlen=_MEASURED)

    def look(self) -> Now:
        """Find out how far it is.

        Raises:
            RunNotFoundError: If there is no such folder (a `FileNotFoundError`).
            NotARunError: If it holds no runs (a `ValueError`).

        Ranks: independent; one process is enough.
        """
        found = survey(self._folder, self._patiently)
        states = Counter(outcome.state for outcome in found.outcomes)
        states.update(one.state for one in found.left)
        at_work = [o for o in found.outcomes if o.state in (RUNNING, WAITING)]
        over = [o for o in found.outcomes if o.state not in (RUNNING, WAITING)]
        self._note({outcome.path for outcome in over})
        running = [o for o in at_work if o.state == RUNNING]
        bad = [outcome for outcome in over if outcome.state != "complete"]
        return Now(
            self._folder,
            {state: count for state, count in states.items() if count},
            len(over),
            len(at_work) + found.pending,
            "task" if found.grid is None else "point",
            bool(found.outcomes or found.pending or found.grid is not None),
            bool(found.pending and not at_work and not found.busy),
            self._rate(),
            sorted(running, key=lambda outcome: outcome.sign or 0.0, reverse=True),
            bad[::-1],
        )

    def _patiently(self, ids: Iterable[str]) -> Answer:
        wanted, now = frozenset(ids), self._clock()
        if self._asked is not None:
            when, answer = self._asked
            if 0 <= now - when < _PATIENCE:
                return answer  # of jobs that are new since then it says nothing
        answer = self._ask(wanted)
        if wanted:  # else nobody was asked
            self._asked = now, answer
        return answer

    def _note(self, over: set[str]) -> None:
        """Remember when runs ended: what was over before we looked says so itself."""
        if self._seen is None:
            ends = [
                entry.started + entry.runtime
                for entry in listing.find(self._folder)
                if entry.started is not None and entry.runtime is not None
            ]
            self._ends.extend(sorted(ends))
        else:
            self._ends.extend([self._clock()] * len(over - self._seen))
        self._seen = over

    def _rate(self) -> float | None:
        ends = list(self._ends)
        gaps = [after - before for before, after in pairwise(ends)]
        if gaps:
            # An earlier submission says nothing about this one: it begins behind the last long gap.
            long = _LONG_GAP + 10 * median(gaps)
            breaks = [place for place, gap in enumerate(gaps) if gap > long]
            ends = ends[breaks[-1] + 1 :] if breaks else ends
        if len(ends) < 2:
            return None
        since = self._clock() - ends[0]
        return (len(ends) - 1) / since if since > 0 else None


def last_words(run: str) -> str:
    """The last message of a run, or `""`.

    Ranks: independent.
    """
    try:
        found = tails.last(run, 1)
    except (OSError, ValueError):
        return ""
    return found[0].message.split("\n")[0] if found else ""
