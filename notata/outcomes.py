"""What became of an experiment's runs, and of what there was to do besides.

The scheduler is asked once for all runs that did not say how they ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from notata import layout, slurm, worklist
from notata.errors import NotARunError, RunNotFoundError
from notata.jobs import Answer
from notata.stored import DAMAGED, StrPath, run_folders
from notata.verdicts import FAILED, LOST, RUNNING, WAITING, Judge, Outcome, read_run


class Survey(NamedTuple):
    """What became of all runs of an experiment.

    Attributes:
        folder: The experiment's folder, or that of a run.
        outcomes: The runs, by name.
        waiting: Array tasks without a run that the scheduler has yet to end.
        unbegun: Array tasks that ended without a run, each with a reason; of a saved grid, those
            whose points still have none, if the scheduler knows it.
        unclear: Arrays of which it isn't known which tasks they had.
        grid: The grid that `sweep` saved, if it did.
        points: Numbers of its points that have no run.
        answer: What the scheduler answered.
        asked: How many runs depended on the scheduler, or else on their signs of life.
    """

    folder: str
    outcomes: list[Outcome]
    waiting: list[int]
    unbegun: dict[int, str]
    unclear: list[str]
    grid: worklist.Grid | None
    points: list[int]
    answer: Answer
    asked: int

    @property
    def never(self) -> list[str]:
        """Why runs never began and won't: a reason for each point of a grid, or else each task."""
        if self.grid is None:
            return list(self.unbegun.values())
        if self.grid.array is not None:
            tasks = map(self.grid.task, self.points)
            return [self.unbegun[task] for task in tasks if task in self.unbegun]
        # Any task may do any point: as long as one is under way, they all may begin.
        return [] if _busy(self) else list(self.unbegun.values())[: len(self.points)]

    @property
    def pending(self) -> int:
        """How many runs have not begun, and may still do so."""
        return len(self.waiting) if self.grid is None else len(self.points) - len(self.never)


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
    there, jobs = {os.path.basename(run.path) for run in runs}, [run.facts for run in runs]
    grid = worklist.saved_grid(folder, there)
    missing, unclear = worklist.missing_tasks(jobs)
    open_runs = [run for run in runs if run.is_open]
    ids = {run.asked_as for run in runs if run.asked_as is not None}
    answer = ask(ids | {array for array, tasks in missing.items() if tasks} | set(unclear))
    judge = Judge(folder, answer, alone=[run.path for run in runs] == [folder])
    outcomes = [judge.outcome(run) for run in runs]
    arrays = {str(run.facts["array_job_id"]): run for run in runs if worklist.is_task(run.facts)}
    users = {array: run.user for array, run in arrays.items()}
    tasks = worklist.without_runs(missing, unclear, jobs, users, answer)
    left = [place for place, name in enumerate(grid.runs) if name not in there] if grid else []
    unknown = [
        array for array in unclear if not any(n.startswith(f"{array}_") for n in answer.jobs)
    ]
    unbegun = dict(sorted((tasks.never | tasks.unknown).items()))
    if grid is not None:  # its points say what there is to do, whatever the tasks were
        owners, unknown = set(map(grid.task, left)), []
        unbegun = {task: why for task, why in tasks.never.items() if owners & {task, None}}
    more = grid, left, answer, len(open_runs)
    return Survey(folder, outcomes, tasks.waiting, unbegun, unknown, *more)


def _paths(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        raise RunNotFoundError(f"no such folder: {folder}")
    if os.path.lexists(os.path.join(folder, layout.METADATA)):
        return [folder]
    runs = os.path.join(folder, layout.RUNS)
    if not os.path.isdir(runs):
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
        tasks: The array tasks that they ran in, and those that never began one.
        others: Those of the runs that no array task would do again.
    """

    runs: list[Outcome]
    tasks: list[int]
    others: list[Outcome]


def again(found: Survey) -> Again:
    """Say which runs, and which array tasks, have to be submitted again.

    Tasks that wait or still run are left out, since they may do what is left by themselves.
    Where `sweep` saved a grid, its points count, be they begun or not: the tasks are those that the
    points are divided among, or else a task for each point, as far as the array goes.

    Args:
        found: What became of the experiment's runs.

    Ranks: independent.
    """
    runs = [outcome for outcome in found.outcomes if outcome.state in (FAILED, LOST, DAMAGED)]
    if found.grid is not None:
        return _points_again(found, found.grid, runs)
    tasks = {outcome.task for outcome in runs if outcome.task is not None} | set(found.unbegun)
    tasks -= _busy(found)
    return Again(runs, sorted(tasks), [outcome for outcome in runs if outcome.task is None])


def _points_again(found: Survey, grid: worklist.Grid, runs: list[Outcome]) -> Again:
    bad = {os.path.basename(os.path.abspath(outcome.path)): outcome for outcome in runs}
    others = [bad[name] for name in sorted(bad.keys() - set(grid.runs))]
    left = set(found.points) | {place for place, name in enumerate(grid.runs) if name in bad}
    if grid.array is not None:
        tasks = {task for task in map(grid.task, left) if task is not None}
        return Again(runs, sorted(tasks - _busy(found)), others)
    seen = {outcome.task for outcome in found.outcomes if outcome.task is not None}
    if not seen:
        return Again(runs, sorted(left), others)  # no array has run yet: a task a point
    # Any task may do any point, a task a point: first those that failed or never began.
    first = {outcome.task for outcome in runs if outcome.task is not None} | set(found.unbegun)
    busy = _busy(found)
    order = [*sorted(first - busy), *sorted(seen - first - busy)]
    return Again(runs, sorted(order[: len(left)]), others)


def _busy(found: Survey) -> set[int]:
    """The array tasks that wait, or have a run that does or is under way."""
    under_way = (o.task for o in found.outcomes if o.state in (RUNNING, WAITING))
    return {*found.waiting, *(task for task in under_way if task is not None)}
