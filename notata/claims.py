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
from typing import Any

from notata import files, layout, pulse, scheduler
from notata.attempts import job_of
from notata.jobs import JobId
from notata.stored import read_json

FREE, COMPLETE, FAILED, RUNNING, LOST = "free", "complete", "failed", "running", "lost"
_CLOCK_LASTS = 5.0  # seconds for which the file system's time is not asked for again

Gone = Callable[[Iterable[JobId]], Mapping[JobId, bool | None]]


class Claims:
    """The states of the runs of a sweep.

    Args:
        runs: The folders of all of them.
        experiment: Folder of the experiment.
        gone: Says of jobs whether they are gone: True, False, or None where it isn't known.
        began: When the sweep began, by the file system's clock; what changed later is of the sweep.
    """

    def __init__(
        self, runs: Sequence[str], experiment: str, gone: Gone, began: float = math.inf
    ) -> None:
        self._runs, self._gone, self._experiment = runs, gone, experiment
        self._began = began
        self._answers: dict[JobId, bool | None] = {}
        self._clock: tuple[float, pulse.Clock] | None = None

    def state(self, run: str) -> str:
        """The state of a run: free, complete, failed, running or lost.

        Ranks: independent.
        """
        metadata = read_json(os.path.join(run, layout.METADATA))
        if metadata is None and not os.path.lexists(run):
            return FREE
        told = (metadata or {}).get("status")
        if told in (COMPLETE, FAILED):
            return str(told)
        return LOST if self._is_lost(run, metadata or {}) else RUNNING

    def is_of_this_sweep(self, run: str) -> bool:
        """Whether a run has ended since this process began its sweep, or in a task of its array.

        Ranks: independent.
        """
        metadata = read_json(os.path.join(run, layout.METADATA)) or {}
        told, array = metadata.get("scheduler"), scheduler.job().get("array_job_id")
        if array is not None and isinstance(told, dict) and told.get("array_job_id") == array:
            return True
        sign = pulse.last_sign(run)
        return sign is not None and sign > self._began

    def _is_lost(self, run: str, metadata: Mapping[str, Any]) -> bool:
        silence = self._silence(run)
        if silence <= 2 * pulse.interval():
            return False
        job = _slurm_job(run, metadata)
        gone = None if job is None else self._is_gone(job)
        return silence > pulse.bound() if gone is None else gone

    def _silence(self, run: str) -> float:
        """Seconds since a run's last sign of life."""
        if self._clock is None or time.monotonic() - self._clock[0] > _CLOCK_LASTS:
            self._clock = time.monotonic(), pulse.Clock(self._experiment)
        sign = pulse.last_sign(run)
        with suppress(FileNotFoundError):
            sign = os.stat(run).st_mtime if sign is None else sign
        return 0.0 if sign is None else self._clock[1].now - sign

    def _is_gone(self, job: JobId) -> bool | None:
        """What the scheduler says of a job; it is asked once for all that are not known to run."""
        if job not in self._answers:
            silent = {job}
            for run in self._runs:
                metadata = read_json(os.path.join(run, layout.METADATA)) or {}
                other = _slurm_job(run, metadata)
                if other is not None and metadata.get("status") not in (COMPLETE, FAILED):
                    silent.add(other)
            asked = sorted(silent - self._answers.keys(), key=lambda other: other.name)
            self._answers |= self._gone(asked)
        return self._answers.get(job)


def _slurm_job(run: str, metadata: Mapping[str, Any]) -> JobId | None:
    told, job = metadata.get("scheduler"), job_of(metadata).id
    if job is None or not isinstance(told, dict) or told.get("name") != "slurm":
        return None
    user = files.owner(os.path.join(run, layout.METADATA))
    return JobId(job, str(told.get("cluster") or ""), user)
