"""What became of one run: by what it says, by what the scheduler says, by signs of life.

A run that ended by itself is believed. One that did not say how it ended has the state of its job;
where the scheduler doesn't know that, signs of life tell runs that live from lost ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from notata import files, layout, lifecycle, pulse, silence
from notata.cells import encode_own
from notata.jobs import STOPPED, Answer, Job, JobId, Record, job_name
from notata.jobs import WAITING as JOB_WAITS
from notata.messages import began
from notata.phrases import duration_text
from notata.stored import DAMAGED, read_json

COMPLETE, FAILED, RUNNING, LOST, WAITING = "complete", "failed", "running", "lost", "waiting"
STATES = (COMPLETE, FAILED, RUNNING, LOST, WAITING)

_SLACK = 5.0  # seconds that the clocks of the scheduler and of the file server may differ
# How reasons begin where not the scheduler ended a job's processes.
_UNASKED = ("FAILED", "OUT_OF_MEMORY", "NODE_FAIL", "no sign of life")
_REUSED = 60.0  # a job that ended so long before its run began is another one of the same id


class Outcome(NamedTuple):
    """What became of a run.

    Attributes:
        path: Its folder.
        run_id: Its id.
        state: One of `STATES`, or `damaged`, or what the program itself put there.
        reason: Why, if it needs one.
        recorded: The status that its metadata have.
        job: Name of its job, such as `4711_3`, or empty.
        facts: What its metadata say of its job.
        ended: When the scheduler says that it ended, if that is how its state is known.
        sign: Its last sign of life, if it was looked for.
    """

    path: str
    run_id: str
    state: str
    reason: str | None
    recorded: str
    job: str
    facts: Mapping[str, Any]
    ended: float | None = None
    sign: float | None = None

    @property
    def unsaid(self) -> bool:
        """Whether the scheduler knows how it ended, and its metadata don't say so yet."""
        return self.state == FAILED and self.recorded == lifecycle.INITIALIZED

    @property
    def task(self) -> int | None:
        """The array task that it ran in, or None."""
        task = self.facts.get("array_task_id")
        return task if isinstance(task, int) else None


class Run(NamedTuple):
    """A run as it is on disk.

    Attributes:
        path: Its folder.
        meta: Its metadata, or None where they are missing or damaged.
    """

    path: str
    meta: Mapping[str, Any] | None

    @property
    def facts(self) -> Mapping[str, Any]:
        """What its metadata say of its job."""
        told = (self.meta or {}).get("scheduler")
        return told if isinstance(told, dict) else {}

    @property
    def user(self) -> int | None:
        """Number of the user that it ran for, or None where unknown."""
        return files.owner(os.path.join(self.path, layout.METADATA))

    @property
    def is_open(self) -> bool:
        """Whether it did not say yet how it ended."""
        return self.meta is not None and self.meta.get("status") == lifecycle.INITIALIZED

    @property
    def is_complete(self) -> bool:
        """Whether it said that it is complete."""
        return self.meta is not None and self.meta.get("status") == COMPLETE

    @property
    def asked_as(self) -> str | None:
        """The id under which Slurm is asked about it: an array stands for all of its tasks."""
        if not self.is_open or self.facts.get("name") != "slurm":
            return None
        return str(self.facts.get("array_job_id") or self.facts.get("job_id"))


def read_run(path: str) -> Run:
    """Read what a run says of itself.

    Args:
        path: Its folder.

    Ranks: independent.
    """
    try:
        return Run(path, read_json(os.path.join(path, layout.METADATA)))
    except OSError:
        return Run(path, None)


class Judge:
    """Says of each run what became of it."""

    def __init__(self, folder: str, answer: Answer, *, alone: bool = False) -> None:
        """Take in what the scheduler answered.

        Args:
            folder: A folder on the runs' file system, whose clock counts.
            answer: What the scheduler answered.
            alone: Whether one run alone is asked for.
        """
        self._answer = answer
        self._alone = alone  # only one run is asked for: then each rank's record may be read
        self._clock = pulse.Clock(folder)
        self._bound = pulse.bound()

    def outcome(self, run: Run) -> Outcome:
        """Say what became of a run.

        Ranks: independent.
        """
        found = self._outcome(run)
        if run.meta is None or not self._alone or found.state not in (FAILED, LOST):
            return found
        if found.unsaid and not str(found.reason).startswith(_UNASKED):
            return found  # the scheduler ended all ranks, which is reason enough
        return found._replace(reason=silence.explained(found.reason, run.path, run.meta))

    def _outcome(self, run: Run) -> Outcome:
        run_id = layout.run_id_of(os.path.basename(os.path.abspath(run.path)))
        if run.meta is None:
            run = read_run(run.path)  # it may have been opened since
        if run.meta is None:
            state, why = DAMAGED, "its metadata are damaged"
            if not os.path.lexists(os.path.join(run.path, layout.METADATA)):
                why = f"half-made: without {layout.METADATA}"
                if self._is_young(run.path):
                    state, why = RUNNING, f"being opened, or {why}"
            return Outcome(run.path, run_id, state, why, DAMAGED, "", {})
        status = str(run.meta.get("status"))
        reason = run.meta.get("failure_reason")
        # A program may note anything; it is told as in the table, whose row is compared with it.
        reason = None if reason is None else encode_own(reason)
        told = Outcome(run.path, run_id, status, reason, status, "", run.facts)
        if run.facts:
            told = told._replace(job=job_name(run.facts))
        if not run.is_open:
            return told
        told = told._replace(sign=pulse.last_sign(run.path))
        job = self._answer.find(run.facts) if run.facts.get("name") == "slurm" else None
        if job is None or not job.newest.known or _is_another(job, run):
            return self._by_sign(told, run.user)
        judged = self._by_job(told, job)
        if judged.state == RUNNING and judged.reason:
            now = read_run(run.path)  # that sign may have been its end, told since it was read
            if now.meta is not None and not now.is_open:
                return self._outcome(now)
        return judged

    def _is_young(self, path: str) -> bool:
        """Whether a run's folder is so new that its metadata may yet come."""
        with suppress(OSError):
            return self._clock.now - os.stat(path).st_mtime <= pulse.OPENING
        return False

    def _by_job(self, told: Outcome, job: Job) -> Outcome:
        newest = job.newest
        record = _decisive(job, told.facts)
        if not record.over and not newest.over:
            state = WAITING if newest.state in JOB_WAITS else RUNNING
            again = f"{newest.state} again (Slurm {job.name})"
            why = again if state == WAITING else self._silent_in(newest, told.sign)
            return told._replace(state=state, reason=why)
        # A process may outlive its job: that of a node whose slurmd died goes on.
        ended = record.end if record.end is not None else newest.end
        if ended is not None and self._lives(told.sign) and (told.sign or 0.0) > ended + _SLACK:
            return told._replace(
                state=RUNNING, reason=f"{record.state}, but it still gives signs of life"
            )
        nodes = record.nodes or newest.nodes
        where = f"Slurm {job.name}, {nodes}" if nodes else f"Slurm {job.name}"
        why = record.why if record.over else f"{record.state}, and not gone on with"
        return told._replace(state=FAILED, reason=f"{why} ({where})", ended=ended)

    def _silent_in(self, record: Record, sign: float | None) -> str | None:
        """What is to be said of a run without a sign of life whose job goes on, as Slurm says."""
        since = max(sign or 0.0, record.start or 0.0)  # a job that began anew comes to it yet
        if not since or self._lives(since) or record.state in STOPPED:
            return None
        return f"no sign of life for {self._age(since)}, though its job is {record.state}"

    def _by_sign(self, told: Outcome, user: int | None) -> Outcome:
        if self._lives(told.sign):
            return told._replace(state=RUNNING)
        age = "" if told.sign is None else f" for {self._age(told.sign)}"
        silent = f"no sign of life{age}"
        job = JobId(told.job, str(told.facts.get("cluster") or ""), user)
        if told.facts.get("name") == "slurm" and self._answer.lacks(job):
            why = f"{silent}, and its job is gone (Slurm {told.job})"
            return told._replace(state=FAILED, reason=why, ended=told.sign)
        return told._replace(state=LOST, reason=silent)

    def _age(self, sign: float) -> str:
        return duration_text(max(0.0, self._clock.now - sign), coarse=True)

    def _lives(self, sign: float | None) -> bool:
        return sign is not None and self._clock.now - sign <= self._bound


def _is_another(job: Job, run: Run) -> bool:
    """Whether the scheduler has given the id of a run's job to an older or newer one."""
    meta, end = run.meta or {}, job.newest.end
    start = began(meta)
    if start is None or end is None or not job.newest.over or end >= start - _REUSED:
        return False
    if "start_epoch" in meta:
        return True
    # The stamp alone may be of another time zone; what the job's run wrote is older than its end.
    written = [
        os.stat(path).st_mtime
        for path in (os.path.join(run.path, name) for name in layout.PARAMS.values())
        if os.path.exists(path)
    ]
    return end < min(written, default=start) - _REUSED


def _decisive(job: Job, facts: Mapping[str, Any]) -> Record:
    """What of a job's record tells how a run in it ended."""
    newest, restarts = job.newest, int(facts.get("restart_count") or 0)
    if not newest.over and len(job.records) > restarts + 1:
        return newest  # it will go on in the run, or does so already
    own = job.records[min(restarts, len(job.records) - 1)]
    step = str(facts.get("step_id", "batch"))
    told = job.steps.get(step) if own is newest else None
    if told is None or not told.over:
        return own
    if told.state == "OUT_OF_MEMORY":
        return told
    # The end of a batch script's own step is that of its job; one that srun began may end before.
    return told if step.isdecimal() and not own.telling else own
