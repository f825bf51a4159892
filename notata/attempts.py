"""Which attempt at a run is this: going on in a run, and noticing that another one does.

The first attempt leaves no trace beyond the run's own files. Each later one is claimed by an
exclusive create of `.attempt-<number>` in the run's folder, so that of many processes one goes on.
An attempt is outdated once the file of the next one is there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from notata import files, folders, freshness, history, layout, pulse, scheduler
from notata.disk import Disk
from notata.errors import NotResumableError, OutdatedError, RunExistsError
from notata.history import Entry
from notata.messages import now, stamp_seconds
from notata.stored import read_json
from notata.topology import Topology, hostname, same_launch

_SLACK = 60.0  # seconds that the openings of two ranks of one launch may lie apart
_SHOWN = 2.0  # seconds in which a file system shows what is in a file whose name it shows


class Job(NamedTuple):
    """The scheduler's job that a process runs in.

    Attributes:
        id: Its id, or None outside of a job.
        restarts: How often the scheduler started it again.
        task: Its number in an array: all tasks of SGE and LSF have the array's id.
    """

    id: str | None
    restarts: int
    task: int | None = None


def current_job(environ: Mapping[str, str] | None = None) -> Job:
    """The job that this process runs in.

    Example:
        >>> current_job({"SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": "1"})
        Job(id='77', restarts=1, task=None)

    Ranks: independent.
    """
    return job_of({"scheduler": scheduler.job(environ)})


def job_of(metadata: Mapping[str, Any]) -> Job:
    """The job in which a run's newest attempt began, from the run's metadata.

    Ranks: independent.
    """
    told = metadata.get("scheduler")
    if not isinstance(told, dict) or not told.get("job_id"):
        return Job(None, 0)
    numbers = {name: value for name, value in told.items() if isinstance(value, int)}
    restarts, task = numbers.get("restart_count", 0), numbers.get("array_task_id")
    return Job(str(told["job_id"]), restarts, task)


class Attempt:
    """A process's attempt at a run.

    Attributes:
        number: Which attempt it is, from 1.
        is_new: Whether this process has just made the run's folder, so that nobody can have gone on
            in it yet.
        disk: The disk, as this process uses it in this attempt.
    """

    def __init__(self, run: str, topology: Topology, disk: Disk | None = None) -> None:
        """Take it for the first attempt; no file is touched.

        Args:
            run: The run's folder.
            topology: This process's place.
            disk: The disk; by default as it is used where nobody chose a durability.
        """
        self.number, self.is_new, self.disk = 1, False, disk or Disk()
        self._run, self._topology = run, topology
        self._opened = time.time()
        self._follows = False  # whether rank 0 of this launch may still begin the next one
        self._outdated, self._overtaken = False, f"a newer attempt goes on in {run}"
        self._when_outdated: list[Callable[[], object]] = []

    # ----- beginning -----

    def goes_on(self, resume: int | None) -> bool:
        """Whether this process is to go on in the run that is there.

        Args:
            resume: What the program says; None leaves it to the scheduler: a job that was started
                again goes on in what it began.

        Ranks: independent.
        """
        if resume is not None:
            return bool(resume)
        mine = current_job()
        if mine.id is None or mine.restarts == 0:
            return False
        number = self._newest()
        began = [job_of(self.metadata())]
        if number > 1:
            began.append(_job_of_record(self._record(number) or {}))
        elif not freshness.exists(os.path.join(self._run, layout.METADATA)):
            # Killed before it could say whose run it is; else another process may be opening it.
            return not self._topology.is_root or self._age() > pulse.OPENING
        ours = [job.restarts for job in began if (job.id, job.task) == (mine.id, mine.task)]
        # Other ranks without a communicator may find that rank 0 has gone on already.
        return bool(ours) and (max(ours) < mine.restarts or not self._topology.is_root)

    def _age(self) -> float:
        """Seconds since anything came into the run's folder."""
        return pulse.Clock(os.path.dirname(self._run)).now - os.stat(self._run).st_mtime

    def metadata(self) -> dict[str, Any]:
        """What the run's metadata say now; empty where they are missing or damaged.

        Ranks: independent.
        """
        return read_json(os.path.join(self._run, layout.METADATA)) or {}

    def check_size(self) -> None:
        """Make sure that the run has as many ranks as this attempt, and their files still.

        Raises:
            NotResumableError: If it has not: pieces of another number of ranks would stay beside
                ours, and what was pruned can't be merged with what is written after.

        Ranks: independent.
        """
        from notata import gather

        metadata = self.metadata()
        size = gather.run_size(self._run, metadata) if metadata else self._topology.size
        if size != self._topology.size:
            raise NotResumableError(
                f"run folder {self._run} has {size} as its number of ranks, and this attempt has "
                f"{self._topology.size}: go on with {size}, choose another run id, or pass "
                "overwrite=True to replace that run"
            )
        if freshness.exists(os.path.join(self._run, layout.ARCHIVE)):
            raise NotResumableError(
                f"run folder {self._run} was merged and pruned, and can't be gone on with: choose "
                "another run id, or pass overwrite=True to replace that run"
            )

    def claim(self, number: int | None = None) -> list[Entry]:
        """Begin the next attempt at the run that is there.

        Args:
            number: Which one that has to be, from 2; any that is next where it is less, or None.

        Returns:
            What is known of the attempts before it, and the new one.

        Raises:
            RunExistsError: If another process begins it just now, or has done so.

        Ranks: root only.
        """
        number = number if number and number > 1 else self._newest() + 1
        job = current_job()
        record: Entry = {"start_time": now(), "host": hostname(), "pid": os.getpid(), "job": job.id}
        record |= {"restarts": job.restarts, "task": job.task}
        record |= {"launch": self._topology.launch, "size": self._topology.size}
        path, sign = self._file(number), pulse.last_sign(self._run)
        try:
            self.disk.create(path, json.dumps(record).encode())
        except FileExistsError:
            raise RunExistsError(
                f"{path} exists: another process goes on in this run just now"
            ) from None
        self.number = number
        return [*self._before(self.metadata(), sign), history.entry(record)]

    def join(self, number: int) -> None:
        """Belong to the attempt that rank 0 has begun.

        Ranks: independent.
        """
        self.number = number

    def follow(self) -> None:
        """Belong to the attempt that rank 0 begins, or has begun, where it can't be asked.

        Ranks: independent.
        """
        self.number = self._newest()
        self._follows = self.number == 1 or self._kinship(self.number) != "ours"

    def _before(self, metadata: Mapping[str, Any], sign: float | None) -> list[Entry]:
        """The attempts before this one, also those that were killed before they could say so."""
        found = history.before(metadata, job_of(metadata).id)[: self.number - 1]
        missing = range(len(found) + 1, self.number)
        found += (history.entry(self._record(number) or {}) for number in missing)
        return history.closed(found, metadata.get("signals"), sign, self.number)

    def _newest(self) -> int:
        """The number of the newest attempt that there is.

        A folder's listing may be some seconds old (NFS), so that the next name is tried, too.
        """
        names = os.listdir(self._run) if folders.is_dir(self._run) else []
        newest = max((layout.attempt_of(name) or 1 for name in names), default=1)
        while files.read_bytes(self._file(newest + 1)) is not None:
            newest += 1
        return newest

    def _file(self, number: int) -> str:
        return f"{self._run}/{layout.attempt_file(number)}"

    def _record(self, number: int) -> dict[str, Any] | None:
        return read_json(self._file(number))

    def _kinship(self, number: int) -> str:
        """Whether an attempt is that of this launch: `ours`, `another`, `unknown`."""
        record = self._record(number)
        if record is None:
            return "unknown"  # just being written
        if _job_of_record(record) != current_job():
            return "another"
        told = record.get("size"), record.get("launch") is None
        if "size" in record and told != (self._topology.size, self._topology.launch is None):
            return "another"  # rank 0 of this launch would have said the same
        started: float | None = None
        with suppress(ValueError):
            started = stamp_seconds(str(record.get("start_time")))
        if started is not None and started > self._opened + _SLACK:
            return "another"
        return same_launch(self._topology, record.get("launch"), started, None)

    # ----- being outdated -----

    @property
    def outdated(self) -> bool:
        """Whether a newer attempt goes on in the run, so that its files are no longer ours.

        Looks on disk each time until it is so; then it is said once on standard error.
        """
        if not self._outdated and not self.is_new and self._is_overtaken():
            self._outdated = True
            for stop in self._when_outdated:
                stop()
            with suppress(Exception):
                self._overtaken = self._who_goes_on()
                print(f"notata: {self._overtaken}", file=sys.stderr, flush=True)
        return self._outdated

    @property
    def noticed(self) -> bool:
        """Whether it was outdated when that was last looked for."""
        return self._outdated

    def look(self) -> None:
        """Look on disk whether this attempt is outdated; what is to stop then is told."""
        with suppress(OSError):  # a log line is written whatever the disk says of other files
            _ = self.outdated

    def is_newest(self) -> bool:
        """Whether no newer attempt goes on in the run, as far as the disk says now."""
        return not self.outdated

    def when_outdated(self, stop: Callable[[], object]) -> None:
        """Call something once it is known that this attempt is outdated."""
        self._when_outdated.append(stop)

    def check(self) -> None:
        """Make sure that this attempt is the newest.

        Raises:
            OutdatedError: If it is not.

        Ranks: independent.
        """
        if self.outdated:
            raise OutdatedError(self._overtaken)

    def _is_overtaken(self) -> bool:
        with self.disk.explaining(self._run):
            while freshness.is_there(self._file(self.number + 1)):
                if not self._follows:
                    return True
                kinship = self._kinship(self.number + 1)
                if kinship == "another":
                    return True
                self._follows = kinship == "unknown"
                self.number += 1
            archive = os.path.join(self._run, layout.ARCHIVE)  # which leaves the newest's claim
            pruned = self._topology.parallel and freshness.exists(archive)
            return pruned and self._newest() > self.number

    def _who_goes_on(self) -> str:
        """What to say of the newer attempt, whose file may be there before what it says is."""
        limit = time.monotonic() + _SHOWN
        while (newer := self._record(self.number + 1)) is None and time.monotonic() < limit:
            time.sleep(0.02)
        newer = newer or {}
        job = f", job {newer['job']}" if newer.get("job") else ""
        who = f" (process {newer['pid']} on {newer.get('host')}{job})" if "pid" in newer else ""
        return (
            f"attempt {self.number + 1} goes on in {self._run}{who}; this process, rank "
            f"{self._topology.rank} of attempt {self.number}, writes there no more"
        )


def _job_of_record(record: Mapping[str, Any]) -> Job:
    job, restarts = record.get("job"), int(record.get("restarts") or 0)
    return Job(None if job is None else str(job), restarts, record.get("task"))
