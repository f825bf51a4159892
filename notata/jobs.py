"""What a scheduler says of jobs: their states, in a small vocabulary, and how they ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from notata.ranges import tasks_of

WAITING = frozenset(
    ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
)
RUNNING = frozenset(
    ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING")
) | {"STAGE_OUT", "RESIZING"}
STOPPED = frozenset(("SUSPENDED", "STOPPED"))  # those of them in which no process gets on
# States that say by themselves why a job ended; FAILED and COMPLETED leave it to the exit status.
TELLING = frozenset(
    ("OUT_OF_MEMORY", "TIMEOUT", "NODE_FAIL", "CANCELLED", "PREEMPTED", "DEADLINE", "BOOT_FAIL")
)
# Those of a job that won't begin again. A Slurm may have states that are in no list of these.
FINAL = TELLING | {"COMPLETED", "FAILED"}


class JobId(NamedTuple):
    """A job, and whose it is: elsewhere its number may be another job's.

    Attributes:
        name: Its id as people write it.
        cluster: The cluster that gave the id, or empty where unknown.
        user: Number of the user that it runs for, or None where unknown.
    """

    name: str
    cluster: str = ""
    user: int | None = None


class Record(NamedTuple):
    """One run of a job, or of one of its steps; a job that was requeued has several.

    Attributes:
        state: Slurm's word for it, such as `TIMEOUT`.
        by: Who cancelled it, as Slurm tells it: a user's number; else empty.
        exit_code: Status and signal, such as `1:0`; empty where unknown.
        nodes: Where it ran, such as `n[1-2]`.
        start: When it began, in seconds since the epoch, or None.
        end: When it ended, likewise.
        cluster: The cluster, or empty where unknown.
    """

    state: str
    by: str = ""
    exit_code: str = ""
    nodes: str = ""
    start: float | None = None
    end: float | None = None
    cluster: str = ""

    @property
    def over(self) -> bool:
        """Whether it has ended and won't begin again."""
        return self.state in FINAL

    @property
    def known(self) -> bool:
        """Whether its state says if it has ended; that of another cluster's share does not."""
        return self.over or self.state in WAITING or self.state in RUNNING

    @property
    def telling(self) -> bool:
        """Whether its state alone says why it ended."""
        return self.state in TELLING

    @property
    def why(self) -> str:
        """How it ended, in words.

        Example:
            >>> Record("CANCELLED", by="1000").why, Record("FAILED", exit_code="1:0").why
            ('CANCELLED by 1000', 'FAILED, exit status 1')
        """
        if self.state == "CANCELLED" and self.by:
            return f"CANCELLED by {self.by}"
        if self.state == "COMPLETED":
            return "ended without a word, though its job COMPLETED"
        return f"{self.state}{_exit_text(self.exit_code)}" if self.state == "FAILED" else self.state


class End(NamedTuple):
    """Whether a job has ended, as far as the scheduler knows.

    Attributes:
        over: True if it has ended and won't begin again, False if it waits or runs, None if nobody
            knows.
        time: When it ended, in seconds since the epoch, or None where unknown.
        settled: Whether its nodes said that its processes have ended too. Of a job that is at its
            time limit or was cancelled they may write their last for a while, and those of a node
            that was lost for longer.
    """

    over: bool | None
    time: float | None = None
    settled: bool = False


class Job:
    """What Slurm says of a job, or of one task of an array.

    Attributes:
        name: Its id as people write it: `4711`, or `4711_3` for task 3 of array 4711.
        records: Its runs, the newest last; there is at least one.
        steps: Its steps in the newest run, by name: `batch`, `0`, …
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.records: list[Record] = []
        self.steps: dict[str, Record] = {}

    @property
    def newest(self) -> Record:
        """Its newest run."""
        return self.records[-1]


class Answer:
    """What the scheduler answered, for all jobs that it was asked about.

    Attributes:
        source: The program that answered, or None if none did.
        refusals: Why the programs that were tried before it did not, one sentence each.
        queue: Name of the cluster of which it lists all jobs that wait or run, else empty.
        asked: The ids that it was asked about, of jobs or arrays; None if about all.
        jobs: The jobs, by their names and by their plain ids.
    """

    def __init__(
        self,
        source: str | None = None,
        refusals: Iterable[str] = (),
        queue: str = "",
        asked: Iterable[str] | None = None,
    ) -> None:
        self.source = source
        self.refusals = list(refusals)
        self.queue = queue
        self.asked = None if asked is None else frozenset(asked)
        self.jobs: dict[str, Job] = {}
        # By plain ids: a task that was requeued, or one of those that wait unsplit as their array.
        self._waiting: dict[str, Job] = {}

    def find(self, facts: Mapping[str, Any]) -> Job | None:
        """The job that a run's metadata name, or None if the scheduler doesn't know it.

        Args:
            facts: The run's `scheduler`, as `notata.scheduler.job` gives it.

        Ranks: independent.
        """
        plain = str(facts.get("job_id"))
        job = self.jobs.get(job_name(facts)) or self.jobs.get(plain) or self._waiting.get(plain)
        cluster = facts.get("cluster")
        if job is None or (cluster and job.newest.cluster not in ("", cluster)):
            return None
        return job

    def lacks(self, job: JobId) -> bool:
        """Whether a job is gone, since the queue that it would be in doesn't list it.

        That proves nothing of jobs of another cluster, nor of another user's, which a site may hide
        from everybody but root, nor of those that it wasn't asked about.

        Ranks: independent.
        """
        if self.asked is not None and self.asked.isdisjoint((job.name, job.name.partition("_")[0])):
            return False
        ours = bool(self.queue) and job.cluster == self.queue
        facts = {"job_id": job.name, "cluster": job.cluster}
        return ours and os.geteuid() in (0, job.user) and self.find(facts) is None

    def add(self, name: str, plain: str, step: str, record: Record) -> None:
        """Take in what was told of a job.

        Args:
            name: The job's name; `4711_[3,7-9]` for tasks that wait together.
            plain: The plain id that Slurm has for a task besides.
            step: Which of its steps this is about; empty for the job itself.
            record: What was told.

        Ranks: independent.
        """
        for element in _elements(name):
            job = self.jobs.setdefault(element, Job(element))
            if step:
                job.steps[step] = record
                continue
            job.records.append(record)
            if record.state in WAITING:
                self._waiting[plain] = job
            elif element == name:
                self.jobs[plain] = job

    def finish(self) -> Answer:
        """Put each job's runs in order; steps of earlier runs count no more.

        Ranks: independent.
        """
        self.jobs = {name: job for name, job in self.jobs.items() if job.records}
        for job in {id(job): job for job in self.jobs.values()}.values():
            # A run that was requeued at once has an end, and no start that anybody wrote down.
            job.records.sort(key=lambda record: record.start or record.end or float("inf"))
            began = job.newest.start or 0.0
            job.steps = {k: v for k, v in job.steps.items() if (v.start or 0.0) >= began}
        return self


def job_name(facts: Mapping[str, Any]) -> str:
    """A job's id as people write it.

    Example:
        >>> job_name({"job_id": "4712", "array_job_id": "4711", "array_task_id": 3})
        '4711_3'

    Ranks: independent.
    """
    if "array_job_id" in facts and "array_task_id" in facts:
        return f"{facts['array_job_id']}_{facts['array_task_id']}"
    return str(facts.get("job_id", ""))


def _elements(name: str) -> Iterator[str]:
    """The names of the tasks that `4711_[3,7-9%2]` stands for; other names stand for themselves."""
    array, _, tasks = name.partition("_[")
    if not tasks:
        yield name
        return
    yield from (f"{array}_{task}" for task in tasks_of(tasks))


def _exit_text(exit_code: str) -> str:
    """An exit code in words; `sacct` keeps the lowest seven bits of a status."""
    status, _, number = exit_code.partition(":")
    if not status.isdecimal() or not number.isdecimal():
        return ""
    if number != "0":
        return f", signal {_signal_name(int(number)) or number}"
    if status == "0":
        return ", exit status 128"
    killer = _signal_name(int(status)) if status in ("6", "7", "9", "11", "15") else None
    return f", exit status {status}" + (
        f" or {int(status) + 128}, which is {killer}" if killer else ""
    )


def _signal_name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None
