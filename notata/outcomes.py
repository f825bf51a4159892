"""What became of an experiment's runs, and of what there was to do besides.

The scheduler is asked once for all runs that did not say how they ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from notata import folders, freshness, layout, leftovers, slurm, worklist
from notata.errors import NotARunError, RunNotFoundError
from notata.jobs import Answer
from notata.leftovers import Task, Unbegun
from notata.stored import DAMAGED, StrPath, run_folders
from notata.verdicts import COMPLETE, FAILED, LOST, RUNNING, WAITING, Judge, Outcome, read_run


class Survey(NamedTuple):
    """What became of all runs of an experiment.

    Attributes:
        folder: The experiment's folder, or that of a run.
        outcomes: The runs, by name.
        tasks: What the scheduler says of array tasks.
        job: What it says of jobs of no array that did points of that grid, if any did.
        left: What was never begun: the points of that grid, or else the tasks, that have no run;
            of the tasks also those that may have left some.
        unclear: Arrays of which it isn't known which tasks they had.
        grid: The grid that `sweep` saved, if it did.
        answer: What the scheduler answered.
        asked: How many runs depended on the scheduler, or else on their signs of life.
    """

    folder: str
    outcomes: list[Outcome]
    tasks: dict[int, Task]
    job: Task | None
    left: list[Unbegun]
    unclear: list[str]
    grid: worklist.Grid | None
    answer: Answer
    asked: int

    @property
    def busy(self) -> set[int | None]:
        """The array tasks that wait or run, as the scheduler says or a run that is under way.

        None stands for what is in no array.
        """
        busy = _under_way(self.outcomes)
        busy |= {number for number, task in self.tasks.items() if task.state == leftovers.BUSY}
        return busy | ({None} if self.job and self.job.state == leftovers.BUSY else set())

    @property
    def pending(self) -> int:
        """How many runs have not begun, and may still do so, if only by hand."""
        return sum(one.state != FAILED for one in self.left)


def survey(folder: StrPath, ask: Callable[[Iterable[str]], Answer] = slurm.ask) -> Survey:
    """Find out what became of an experiment's runs.

    Args:
        folder: The experiment's folder, or that of one run.
        ask: Asks the scheduler.

    Raises:
        RunNotFoundError: If there is no such folder (a `FileNotFoundError`).
        NotARunError: If it holds no runs (a `ValueError`).
        SettingError: If `NOTATA_LOST_AFTER` is not a number of seconds.

    Ranks: independent; one process is enough.
    """
    folder = os.fspath(folder)
    runs = list(map(read_run, _paths(folder)))
    alone = [run.path for run in runs] == [folder]  # it tells nothing of what else there was to do
    there = {os.path.basename(run.path) for run in runs}
    grid = None if alone else worklist.saved_grid(folder, there)
    told = [(run.path, run.facts) for run in runs if not alone]
    arrays, jobs = worklist.arrays_of(told), []
    points = [place for place, name in enumerate(grid.runs) if name not in there] if grid else []
    if grid is None:
        questions = arrays
    elif points or not all(run.is_complete for run in runs):
        questions, jobs = arrays, worklist.jobs_of(told)
    else:  # of points that are done, no task needs to be known
        questions = []
    ids = {run.asked_as for run in runs if run.asked_as is not None}
    answer = ask(ids | {one.job for one in (*questions, *jobs) if one.scheduler == "slurm"})
    judge = Judge(folder, answer, alone=alone)
    outcomes = [judge.outcome(run) for run in runs]
    tasks, job = leftovers.tasks_by(questions, answer), leftovers.of_jobs(jobs, answer)
    more = answer, sum(run.is_open for run in runs)
    if grid is None:
        at_work = _arrays_at_work(arrays, outcomes)
        named = {outcome.task for outcome in outcomes if outcome.state != COMPLETE}
        left = leftovers.of_arrays(tasks, worklist.begun(arrays, answer), at_work, named)
        unclear = [one.job for one in arrays if one.listed and not one.named_by(answer)]
        return Survey(folder, outcomes, tasks, None, left, unclear, None, *more)
    found = Survey(folder, outcomes, tasks, job, [], [], grid, *more)
    return found._replace(left=list(leftovers.of_grid(grid, points, tasks, job, found.busy)))


def _under_way(outcomes: Iterable[Outcome]) -> set[int | None]:
    """The array tasks of runs that wait or run; None for a run of no array."""
    return {outcome.task for outcome in outcomes if outcome.state in (RUNNING, WAITING)}


def _arrays_at_work(arrays: Iterable[worklist.Array], outcomes: Iterable[Outcome]) -> set[int]:
    """The tasks of the arrays that have a run that is under way."""
    under_way = (outcome for outcome in outcomes if outcome.state in (RUNNING, WAITING))
    keys = {worklist.array_of(outcome.facts) for outcome in under_way}
    return {task for array in arrays if array[:3] in keys for task in array.tasks}


def _paths(folder: str) -> list[str]:
    if freshness.exists(folder) and not folders.is_dir(folder):
        raise NotARunError(f"{folder} is a file, and no folder of a run or of an experiment")
    if not folders.is_dir(folder):
        raise RunNotFoundError(f"no such folder: {folder}")
    if freshness.exists(os.path.join(folder, layout.METADATA)):
        return [folder]
    runs = os.path.join(folder, layout.RUNS)
    if not folders.is_dir(runs):
        raise NotARunError(
            f"{folder} is no experiment: it has no folder {layout.RUNS}/, and is no run either; "
            "`notata ls` lists both"
        )
    return run_folders(runs, opened=False)


# ----- what to submit again -----


class Again(NamedTuple):
    """What to submit again.

    Attributes:
        runs: The runs that failed or are lost.
        tasks: The array tasks that they ran in, and those that never began one or may have left
            some.
        others: Those of the runs that no array task would do again.
        doubtful: Those of the tasks of which nobody knows whether they still wait or run.
    """

    runs: list[Outcome]
    tasks: list[int]
    others: list[Outcome]
    doubtful: list[int]


def again(found: Survey) -> Again:
    """Say which runs, and which array tasks, have to be submitted again.

    Tasks that wait or still run are left out, since they may do what is left by themselves.
    Those of which nobody knows are not, unless their array has a run that is under way. Without a
    grid, a task of which nobody knows has ended once its run has.
    Where `sweep` saved a grid, its points count, be they begun or not: the tasks are those that the
    points are divided among, or else a task for each point, as far as the array goes.

    Args:
        found: What became of the experiment's runs.

    Ranks: independent.
    """
    runs = [outcome for outcome in found.outcomes if outcome.state in (FAILED, LOST, DAMAGED)]
    if found.grid is not None:
        tasks, others = _points_again(found, found.grid, runs)
        # Of those that no array is known to have, either, if they were to be shared out.
        other = found.grid.array is not None or _is_unknown(found.job, False)
        unknown = {task for task in tasks if _is_unknown(found.tasks.get(task), other)}
    else:
        left = {one.task: one.state for one in found.left if one.task is not None}
        ended = {task for task, state in left.items() if state != WAITING}
        tasks = (_tasks(runs) | ended) - found.busy
        others = [outcome for outcome in runs if outcome.task is None]
        unknown = {task for task in tasks if left.get(task) == leftovers.UNKNOWN}
    return Again(runs, sorted(tasks), others, sorted(unknown))


def _points_again(
    found: Survey, grid: worklist.Grid, runs: list[Outcome]
) -> tuple[set[int], list[Outcome]]:
    bad = {os.path.basename(os.path.abspath(outcome.path)): outcome for outcome in runs}
    others = [bad[name] for name in sorted(bad.keys() - set(grid.runs))]
    left = {one.point for one in found.left if one.point is not None}
    left |= {place for place, name in enumerate(grid.runs) if name in bad}
    busy = found.busy
    if grid.array is not None:
        return {task for task in map(grid.task, left) if task is not None} - busy, others
    seen = _tasks(found.outcomes)
    if not seen:  # no array has run yet: a task a point, unless a job may do them all
        waits = found.job is not None and found.job.state == leftovers.BUSY
        return set() if waits else left, others
    # Any task may do any point, a task a point: first those that failed or never began.
    first = _tasks(runs) | {number for number, task in found.tasks.items() if task.failed}
    order = [*sorted(first - busy), *sorted(seen - first - busy)]
    return set(order[: len(left)]), others


def _tasks(outcomes: Iterable[Outcome]) -> set[int]:
    return {outcome.task for outcome in outcomes if outcome.task is not None}


def _is_unknown(task: Task | None, otherwise: bool) -> bool:
    return otherwise if task is None else task.state == leftovers.UNKNOWN
