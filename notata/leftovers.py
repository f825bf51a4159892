"""What was never begun, and whether anybody still will: points of a grid, or else array tasks.

That nobody will takes proof: the scheduler says that the tasks that were to do it have ended.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from notata import files, layout
from notata.jobs import Answer, JobId
from notata.worklist import Array, Grid

BUSY, ENDED, COMPLETED, GONE = "busy", "ended", "completed", "gone"
WAITING, FAILED, UNKNOWN = "waiting", "failed", "unknown"
_OVER = (ENDED, COMPLETED, GONE)
_TOLD = 3  # ways in which tasks ended that are told apart


class Task(NamedTuple):
    """What the scheduler says of an array task, or of jobs of no array, by the newest of its jobs.

    Attributes:
        state: `busy` while a job of it waits or runs; `ended`, `completed`, or `gone` from the
            queue; `unknown`.
        why: In words; where it has ended, how.
        job: Name of the job, such as `4711_3`, if that is what the words are about.
        when: When that ended, in seconds since the epoch, or 0.
    """

    state: str
    why: str
    job: str = ""
    when: float = 0.0

    @property
    def over(self) -> bool:
        """Whether all of its jobs that are known have ended."""
        return self.state in _OVER

    @property
    def failed(self) -> bool:
        """Whether it ended, and not as one that has done its work."""
        return self.over and self.state != COMPLETED

    @property
    def where(self) -> str:
        """Its job, to be put behind a reason."""
        return f" (Slurm {self.job})" if self.job else ""


_Jobs = dict[tuple[str, str], Task]  # the newest of each scheduler and cluster


class Unbegun(NamedTuple):
    """A run that was never begun, or may not have been.

    Attributes:
        point: Number of the point of the grid; None where no grid was saved.
        task: The array task that is to do it; None where any may.
        state: `waiting`, `failed` if its task has ended, or `unknown`.
        reason: Why, if there is more to say.
        over: Whether nobody will begin it, as far as the scheduler knows.
        begun: Whether its task has a run, and ended before it had done all.
    """

    point: int | None
    task: int | None
    state: str
    reason: str | None = None
    over: bool = False
    begun: bool = False


def tasks_by(arrays: Iterable[Array], answer: Answer) -> dict[int, Task]:
    """What the scheduler says of the tasks of arrays, each by the newest job of its number.

    Args:
        arrays: The arrays, the newest last.
        answer: What the scheduler answered.

    Ranks: independent.
    """
    found: dict[int, _Jobs] = {}
    for array in arrays:
        user = _user(array)
        for number in sorted({*array.tasks, *array.named_by(answer)}):
            _take(found.setdefault(number, {}), array, _by_job(array, number, user, answer))
    return {number: max(jobs.values(), key=_counts) for number, jobs in found.items()}


def of_jobs(jobs: Iterable[Array], answer: Answer) -> Task | None:
    """What the scheduler says of jobs of no array, by the newest; None if there are none.

    Args:
        jobs: The jobs, the newest last.
        answer: What the scheduler answered.

    Ranks: independent.
    """
    found: _Jobs = {}
    for job in jobs:
        _take(found, job, _by_job(job, None, _user(job), answer))
    return max(found.values(), key=_counts, default=None)


def _user(array: Array) -> int | None:
    return files.owner(os.path.join(array.run, layout.METADATA))


def _take(jobs: _Jobs, array: Array, task: Task) -> None:
    place = array.scheduler, array.cluster
    if place not in jobs or _replaces(task, jobs[place]):
        jobs[place] = task


def _replaces(task: Task, other: Task) -> bool:
    """Whether a job counts, and not another of its cluster that has a lower id."""
    if task.over and other.over:
        return task.when >= other.when  # ids begin anew some day, times don't
    return task.state == BUSY or other.state != BUSY


def _counts(task: Task) -> tuple[int, float]:
    """Of one number's jobs on several clusters, one that goes on counts first, or may do so."""
    return (2 if task.state == BUSY else 1 if task.state == UNKNOWN else 0), task.when


def _by_job(array: Array, number: int | None, user: int | None, answer: Answer) -> Task:
    if array.scheduler != "slurm" or answer.source is None:
        return Task(UNKNOWN, "no scheduler to ask")
    job_name = array.job if number is None else f"{array.job}_{number}"
    name = JobId(job_name, array.cluster, user)
    job = answer.find({"job_id": name.name, "cluster": name.cluster})
    if job is None and answer.lacks(name):
        return Task(GONE, "its job is gone", name.name)
    if job is None:
        return Task(UNKNOWN, "its job is unknown", name.name)
    newest = job.newest
    if not newest.known:
        return Task(UNKNOWN, f"its job is {newest.state}", name.name)
    if not newest.over:
        return Task(BUSY, newest.state, name.name)
    if newest.state == "COMPLETED":
        return Task(COMPLETED, newest.state, name.name, newest.end or 0.0)
    return Task(ENDED, newest.why, name.name, newest.end or 0.0)


def of_arrays(
    tasks: Mapping[int, Task],
    begun: Collection[int],
    at_work: Collection[int],
    named: Collection[int | None],
) -> list[Unbegun]:
    """The array tasks that left something to do, where no grid says what there is.

    Those are the tasks that have no run. One that COMPLETED found nothing to do, and is none of
    them. Besides, those that have ended otherwise, though their runs are complete: nobody knows how
    many more of them there were to be.

    Args:
        tasks: What the scheduler says of the tasks.
        begun: Those that have a run.
        at_work: Those whose array has a run that is under way.
        named: Those that have a run that is not complete, which says by itself what is wrong.

    Ranks: independent.
    """
    found = []
    for number, task in sorted(tasks.items()):
        if number in begun:
            if task.state == ENDED and number not in named:
                why = f"its task may have left some: {task.why}{task.where}"
                found.append(Unbegun(None, number, FAILED, why, over=True, begun=True))
            continue
        if task.state == BUSY or (task.state == UNKNOWN and number in at_work):
            found.append(Unbegun(None, number, WAITING))
        elif task.state == UNKNOWN:
            found.append(Unbegun(None, number, UNKNOWN, f"no run, and {task.why}{task.where}"))
        elif task.state != COMPLETED:
            found.append(Unbegun(None, number, FAILED, _reason(task), over=True))
    return found


def of_grid(
    grid: Grid,
    points: Iterable[int],
    tasks: Mapping[int, Task],
    job: Task | None,
    busy: Collection[int | None],
) -> Iterator[Unbegun]:
    """The points of a grid that have no run.

    Args:
        grid: The grid.
        points: Numbers of these points.
        tasks: What the scheduler says of the tasks of all arrays.
        job: What it says of jobs of no array, if there are any.
        busy: The tasks that wait or run, as far as it is known; None for a process of no array.

    Ranks: independent.
    """
    # Any task may do any point: as long as one may be under way, they all may begin.
    all_tasks = [*tasks.values(), *([] if job is None else [job])]
    ended = bool(all_tasks) and not busy and all(task.over for task in all_tasks)
    if not ended:
        state, reason = WAITING, None
    elif tasks or job is None:
        state, reason = _all_ended(all_tasks)
    elif job.failed:
        state, reason = FAILED, _reason(job)
    else:
        state, reason = WAITING, f"not begun, though its job COMPLETED{job.where}"
    for point in points:
        number = grid.task(point)
        if number is None:
            yield Unbegun(point, None, state, reason, over=ended)
            continue
        task = tasks.get(number)
        if task is None or not task.over or number in busy:
            yield Unbegun(point, number, WAITING)
        elif task.state == COMPLETED:
            without = f"not begun, though its task COMPLETED{task.where}"
            yield Unbegun(point, number, WAITING, without, over=True)
        else:
            yield Unbegun(point, number, FAILED, _reason(task), over=True)


def _reason(task: Task) -> str:
    return f"no run{', and ' if task.state == GONE else ': '}{task.why}{task.where}"


def _all_ended(tasks: Iterable[Task]) -> tuple[str, str]:
    """State and reason of points that any task might have done, where all tasks have ended."""
    ways = Counter("gone" if task.state == GONE else task.why for task in tasks)
    if set(ways) == {"COMPLETED"}:
        return WAITING, "not begun, though all tasks COMPLETED"
    told = [f"{count} {way}" for way, count in ways.most_common(_TOLD)]
    rest = ways.total() - sum(count for _, count in ways.most_common(_TOLD))
    told += [f"{rest} otherwise"] if rest else []
    return FAILED, f"no run, and no task is left: {'; '.join(told)}"
