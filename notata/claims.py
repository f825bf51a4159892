"""Which runs of a sweep may be done: those that nobody began, and those whose task is gone.

That a task is gone takes proof: the scheduler says so, or, where it doesn't know the job, the run
gave no sign of life for as long as `pulse.bound` says.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from notata import files, freshness, layout, pulse, scheduler
from notata.attempts import Attempt, current_job, job_of
from notata.jobs import End, JobId
from notata.stored import read_json
from notata.topology import Topology
from notata.worklist import array_of

FREE, COMPLETE, FAILED, OPEN = "free", "complete", "failed", "open"
LOST = "lost"  # open, and its task is gone, also if only `notata reconcile` has written that down

_CLOCK_LASTS = 5.0  # seconds for which the file system's time is not asked for again
_OPENS = 10.0  # seconds in which a task that makes a run's folder says whose it is, mostly
_SLACK = 5.0  # seconds that the clocks of the scheduler and of this node may differ

Ends = Callable[[Iterable[JobId]], Mapping[JobId, End]]


class Seen(NamedTuple):
    """A run of a sweep, as it was when it was looked at.

    Attributes:
        run: Its folder.
        state: `free`, `complete`, `failed`, `open`; `lost` where `notata reconcile` found it so.
        metadata: What its metadata said; empty where they are missing or damaged.
    """

    run: str
    state: str
    metadata: Mapping[str, Any]


class Claims:
    """The states of the runs of a sweep.

    Args:
        runs: The folders of all that this process may do.
        experiment: Folder of the experiment.
        ends: Says of jobs whether they have ended.
        began: When the sweep began, by the file system's clock; what changed later is of the sweep.
    """

    def __init__(
        self, runs: Sequence[str], experiment: str, ends: Ends, began: float = math.inf
    ) -> None:
        self._runs, self._ends, self._experiment = runs, ends, experiment
        self._began = began
        self._answers: dict[JobId, End] = {}
        self._clock: tuple[float, pulse.Clock] | None = None

    def look(self, run: str) -> Seen:
        """Look at a run.

        Ranks: independent.
        """
        if not freshness.exists(run):
            return Seen(run, FREE, {})
        metadata = _metadata(run)
        told = metadata.get("status")
        state = str(told) if told in (COMPLETE, FAILED) else OPEN
        if state == FAILED and metadata.get("reconciled"):
            state = LOST
        return Seen(run, state, metadata)

    def is_half_made(self, run: str) -> bool:
        """Whether a run's folder is there for longer than an opening takes, and nobody's yet.

        Ranks: independent.
        """
        if freshness.exists(os.path.join(run, layout.METADATA)):
            return False
        return self._since(_changed(run)) > _OPENS

    def next_attempt(self, seen: Seen) -> int:
        """The number of the attempt that follows the one that a run was seen in.

        Of many tasks that saw the same, one can claim it. Whoever claimed it before, and has not
        opened the run since, was killed, if that was long ago: then it is the one behind it.

        Ranks: independent.
        """
        told = seen.metadata.get("attempts")
        number = (len(told) if isinstance(told, list) and told else 1) + 1
        limit = max(pulse.OPENING, pulse.bound())
        while self._since(_changed(os.path.join(seen.run, layout.attempt_file(number)))) > limit:
            number += 1
        return number

    def is_of_this_sweep(self, seen: Seen) -> bool:
        """Whether a run has ended since this process began its sweep, or in a task of its array.

        Ranks: independent.
        """
        if _is_of_our_array(seen.metadata):
            return True
        sign = pulse.last_sign(seen.run)
        return sign is not None and sign > self._began

    def was_done_again(self, seen: Seen) -> bool:
        """Whether a task of this process's array went on in a run that was there.

        Ranks: independent.
        """
        attempts = seen.metadata.get("attempts")
        is_later = isinstance(attempts, list) and len(attempts) > 1
        return is_later and _is_of_our_array(seen.metadata)

    def is_cut_off(self, seen: Seen, place: Topology) -> bool:
        """Whether it is this very job that began a run, and was started again in the middle of it.

        One that failed by itself before that is none. One that failed after a warning is, since its
        program stopped for the scheduler; so is one of which only the scheduler said that it ended.

        Args:
            seen: The run.
            place: This process's place.

        Ranks: independent.
        """
        if current_job().restarts == 0:
            return False
        stopped = seen.state == FAILED and _was_warned(seen.metadata)
        cut_off = stopped or seen.state in (OPEN, LOST)
        return cut_off and Attempt(seen.run, place).goes_on(None)

    def is_lost(self, seen: Seen) -> bool:
        """Whether a run that is open has nobody left who does it.

        Ranks: independent.
        """
        metadata = seen.metadata
        silence = self._silence(seen.run)
        # Where no signs are given, what began just now is none the more silent for that.
        is_quiet = silence > 2 * (pulse.interval() or pulse.USUAL)
        is_unheard = is_quiet and silence > pulse.bound()
        job = _slurm_job(seen.run, metadata)
        if job is None:
            return is_unheard
        # As a rule the tasks of an array live where their runs are open: not each asks for others.
        # Nor does it for what has begun since it asked.
        if not is_quiet and (_is_beside(metadata) or (self._answers and job not in self._answers)):
            return False
        end = self._end(job, metadata)
        if not end.over:
            return end.over is None and is_unheard
        if end.time is None:
            return is_quiet
        if time.time() - end.time > silence + _SLACK:  # a sign of life came after that end
            return is_quiet if end.settled else is_unheard
        return is_quiet or end.settled

    def _silence(self, run: str) -> float:
        """Seconds since a run's last sign of life."""
        sign = pulse.last_sign(run)
        return self._since(_changed(run) if sign is None else sign)

    def _since(self, then: float | None) -> float:
        """Seconds since a time of the file system's clock; 0 where there is none."""
        if self._clock is None or time.monotonic() - self._clock[0] > _CLOCK_LASTS:
            self._clock = time.monotonic(), pulse.Clock(self._experiment)
        asked, clock = self._clock
        return 0.0 if then is None else clock.now + time.monotonic() - asked - then

    def _end(self, job: JobId, metadata: Mapping[str, Any]) -> End:
        """What the scheduler says of a job; it is asked once for all that it may have to say."""
        if job not in self._answers:
            wanted, beside = {job}, _is_beside(metadata)
            for run in self._runs:
                told = _metadata(run)
                other = _slurm_job(run, told)
                is_open = told.get("status") not in (COMPLETE, FAILED)
                if other is not None and is_open and (beside or not _is_beside(told)):
                    wanted.add(other)
            asked = sorted(wanted - self._answers.keys(), key=lambda other: other.name)
            self._answers |= self._ends(asked)
        return self._answers.get(job, End(None))


def _metadata(run: str) -> dict[str, Any]:
    return read_json(os.path.join(run, layout.METADATA)) or {}


def _changed(path: str) -> float | None:
    """When a file or folder was changed last, or None where it is missing."""
    with suppress(FileNotFoundError):
        return os.stat(path).st_mtime
    return None


def _slurm_job(run: str, metadata: Mapping[str, Any]) -> JobId | None:
    told, job = metadata.get("scheduler"), job_of(metadata).id
    if job is None or not isinstance(told, dict) or told.get("name") != "slurm":
        return None
    user = files.owner(os.path.join(run, layout.METADATA))
    return JobId(job, str(told.get("cluster") or ""), user)


def _is_of_our_array(metadata: Mapping[str, Any]) -> bool:
    """Whether the newest attempt at a run began in a task of this process's array."""
    told, mine = metadata.get("scheduler"), array_of(scheduler.job())
    return mine is not None and isinstance(told, dict) and array_of(told) == mine


def _is_beside(metadata: Mapping[str, Any]) -> bool:
    """Whether a run is of this process's job, or of another task of its array."""
    mine = current_job().id
    return _is_of_our_array(metadata) or (mine is not None and job_of(metadata).id == mine)


def _was_warned(metadata: Mapping[str, Any]) -> bool:
    """Whether a signal came in the newest attempt at a run."""
    attempts, signals = metadata.get("attempts"), metadata.get("signals")
    newest = attempts[-1] if isinstance(attempts, list) and attempts else metadata
    told = [one for one in signals if isinstance(one, dict)] if isinstance(signals, list) else []
    began = str(newest.get("start_time")) if isinstance(newest, dict) else ""
    return any(str(one.get("time", "")) >= began for one in told)
