"""What became of an experiment's runs: what they say, what the scheduler says, and signs of life.

A run that ended by itself is believed. Of one that did not say how it ended, the scheduler is
asked, once for all; where it doesn't know, signs of life tell runs that live from lost ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from notata import files, layout, lifecycle, pulse, silence, slurm, worklist
from notata.errors import NotARunError, RunNotFoundError
from notata.jobs import WAITING as JOB_WAITS
from notata.jobs import Answer, Job, JobId, Record, job_name
from notata.messages import stamp_seconds
from notata.phrases import duration_text
from notata.stored import DAMAGED, StrPath, read_json, run_folders

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


class _Run(NamedTuple):
    path: str
    meta: Mapping[str, Any] | None

    @property
    def facts(self) -> Mapping[str, Any]:
        told = (self.meta or {}).get("scheduler")
        return told if isinstance(told, dict) else {}

    @property
    def user(self) -> int | None:
        return files.owner(os.path.join(self.path, layout.METADATA))

    @property
    def is_open(self) -> bool:
        return self.meta is not None and self.meta.get("status") == lifecycle.INITIALIZED


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
    runs = [_Run(path, _read(path)) for path in _paths(folder)]
    there, jobs = {os.path.basename(run.path) for run in runs}, [run.facts for run in runs]
    grid = worklist.saved_grid(folder, there)
    missing, unclear = worklist.missing_tasks(jobs)
    open_runs = [run for run in runs if run.is_open]
    ids = {_asked_as(run.facts) for run in open_runs if run.facts.get("name") == "slurm"}
    answer = ask(ids | {array for array, tasks in missing.items() if tasks} | set(unclear))
    judge = _Judge(folder, answer, alone=[run.path for run in runs] == [folder])
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


def _read(path: str) -> dict[str, Any] | None:
    try:
        return read_json(os.path.join(path, layout.METADATA))
    except OSError:
        return None


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


def _asked_as(facts: Mapping[str, Any]) -> str:
    """The id under which a job is asked for: an array stands for all of its tasks."""
    return str(facts.get("array_job_id") or facts.get("job_id"))


# ----- runs -----


class _Judge:
    """Says of each run what became of it."""

    def __init__(self, folder: str, answer: Answer, *, alone: bool = False) -> None:
        self._answer = answer
        self._alone = alone  # only one run is asked for: then each rank's record may be read
        self._clock = pulse.Clock(folder)
        self._bound = pulse.bound()

    def outcome(self, run: _Run) -> Outcome:
        found = self._outcome(run)
        if run.meta is None or not self._alone or found.state not in (FAILED, LOST):
            return found
        if found.unsaid and not str(found.reason).startswith(_UNASKED):
            return found  # the scheduler ended all ranks, which is reason enough
        return found._replace(reason=silence.explained(found.reason, run.path, run.meta))

    def _outcome(self, run: _Run) -> Outcome:
        run_id = layout.run_id_of(os.path.basename(os.path.abspath(run.path)))
        if run.meta is None:
            why = "its metadata are missing or damaged"
            return Outcome(run.path, run_id, DAMAGED, why, DAMAGED, "", {})
        status = str(run.meta.get("status"))
        reason = run.meta.get("failure_reason")
        reason = None if reason is None else str(reason)  # a program may note anything
        told = Outcome(run.path, run_id, status, reason, status, "", run.facts)
        if run.facts:
            told = told._replace(job=job_name(run.facts))
        if not run.is_open:
            return told
        told = told._replace(sign=pulse.last_sign(run.path))
        job = self._answer.find(run.facts) if run.facts.get("name") == "slurm" else None
        if job is not None and not _is_another(job, run.meta):
            return self._by_job(told, job)
        return self._by_sign(told, run.user)

    def _by_job(self, told: Outcome, job: Job) -> Outcome:
        newest = job.newest
        record = _decisive(job, told.facts)
        if not record.over:
            state = WAITING if newest.state in JOB_WAITS else RUNNING
            why = f"{newest.state} again (Slurm {job.name})" if state == WAITING else None
            return told._replace(state=state, reason=why)
        # A process may outlive its job: that of a node whose slurmd died goes on.
        ended = record.end if record.end is not None else newest.end
        if ended is not None and self._lives(told.sign) and (told.sign or 0.0) > ended + _SLACK:
            return told._replace(
                state=RUNNING, reason=f"{record.state}, but it still gives signs of life"
            )
        nodes = record.nodes or newest.nodes
        where = f"Slurm {job.name}, {nodes}" if nodes else f"Slurm {job.name}"
        return told._replace(state=FAILED, reason=f"{record.why} ({where})", ended=ended)

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


def _is_another(job: Job, meta: Mapping[str, Any]) -> bool:
    """Whether the scheduler has given the id of a run's job to an older or newer one."""
    try:
        began = stamp_seconds(str(meta.get("start_time")))
    except (ValueError, OverflowError):
        return False
    return job.newest.over and job.newest.end is not None and job.newest.end < began - _REUSED


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
