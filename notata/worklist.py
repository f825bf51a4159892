"""What there was to do: the tasks of arrays, and the points of the grid that `sweep` saved."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from notata import layout, writers
from notata.jobs import Answer, JobId
from notata.stored import read_json

_DEEPEST = 5  # folders in an experiment's name


def is_task(facts: Mapping[str, Any]) -> bool:
    """Whether what a run's metadata say of its job is of an array task.

    Ranks: independent.
    """
    return "array_job_id" in facts and isinstance(facts.get("array_task_id"), int)


def missing_tasks(jobs: Iterable[Mapping[str, Any]]) -> tuple[dict[str, list[int]], list[str]]:
    """The tasks of arrays that have no run.

    Args:
        jobs: What the metadata of all runs say of their jobs.

    Returns:
        For each array its tasks without a run; and the arrays that were no plain range, such as
        `3,7-9`, of which the scheduler has to say which tasks they had.

    Example:
        >>> told = {"min": 1, "max": 4, "step": 1, "count": 4}
        >>> missing_tasks([{"array_job_id": "7", "array_task_id": 2, "array": told}])
        ({'7': [1, 3, 4]}, [])

    Ranks: independent.
    """
    in_arrays = [facts for facts in jobs if is_task(facts)]
    arrays = {str(facts["array_job_id"]): facts for facts in in_arrays}
    seen = {facts["array_task_id"] for facts in in_arrays}
    missing: dict[str, list[int]] = {}
    unclear: list[str] = []
    for array, facts in arrays.items():
        told = facts.get("array") or {}
        low, high, step = told.get("min"), told.get("max"), told.get("step") or 1
        if low is None or high is None:
            continue
        tasks = range(low, high + 1, step)
        if told.get("count", len(tasks)) == len(tasks):
            missing[array] = [task for task in tasks if task not in seen]
        else:
            unclear.append(array)
    return missing, unclear


class Unbegun(NamedTuple):
    """The array tasks without a run.

    Attributes:
        waiting: Those that wait or run, and may still begin one.
        never: Those that never will, each with a reason.
        unknown: Those of which nobody knows, each with a reason.
    """

    waiting: list[int]
    never: dict[int, str]
    unknown: dict[int, str]


def without_runs(
    missing: Mapping[str, list[int]],
    unclear: Iterable[str],
    jobs: Iterable[Mapping[str, Any]],
    users: Mapping[str, int | None],
    answer: Answer,
) -> Unbegun:
    """Part the tasks without a run into those that may still begin one and those that won't.

    Args:
        missing: The tasks of each array that have no run.
        unclear: The arrays whose tasks the scheduler has to name.
        jobs: What the metadata of all runs say of their jobs.
        users: Numbers of the users whose arrays they are.
        answer: What the scheduler answered.

    Ranks: independent.
    """
    jobs = list(jobs)
    clusters = {str(f["array_job_id"]): str(f.get("cluster") or "") for f in jobs if is_task(f)}
    seen = {facts["array_task_id"] for facts in jobs if is_task(facts)}
    known = {array: set(tasks) for array, tasks in missing.items()}
    for array in unclear:
        named = (name for name in answer.jobs if name.startswith(f"{array}_"))
        known[array] = {int(name.rpartition("_")[2]) for name in named} - seen
    waiting: set[int] = set()
    never: dict[int, str] = {}
    unknown: dict[int, str] = {}
    for array, tasks in known.items():
        for task in tasks:
            name = JobId(f"{array}_{task}", clusters[array], users.get(array))
            job = answer.find({"job_id": name.name, "cluster": name.cluster})
            if job is None and answer.source is None:
                unknown[task] = "no run, and no scheduler to ask"
            elif job is None and answer.lacks(name):
                never[task] = f"no run, and its job is gone (Slurm {name.name})"
            elif job is None:
                unknown[task] = f"no run, and its job is unknown (Slurm {name.name})"
            elif job.newest.state == "COMPLETED":
                pass  # it found nothing to do
            elif job.newest.over:
                never[task] = f"no run: {job.newest.why} (Slurm {name.name})"
            else:
                waiting.add(task)
    return Unbegun(
        sorted(waiting),
        {task: never[task] for task in sorted(never.keys() - waiting)},
        {task: unknown[task] for task in sorted(unknown.keys() - waiting - never.keys())},
    )


class Grid(NamedTuple):
    """The grid that `sweep` saved.

    Attributes:
        runs: Name of the folder of each point's run.
        array: First task, step and number of tasks that points are divided among, or None where a
            task takes whichever point is left.
    """

    runs: list[str]
    array: tuple[int, int, int] | None

    def task(self, point: int) -> int | None:
        """The task that does a point, or None where any may."""
        if self.array is None:
            return None
        low, step, count = self.array
        return low + point % count * step


def saved_grid(folder: str, there: Collection[str]) -> Grid | None:
    """The grid that `sweep` saved in an experiment's folder, or None.

    Args:
        folder: The experiment's folder.
        there: Names of the folders of its runs.

    Ranks: independent.
    """
    saved = read_json(os.path.join(folder, layout.SWEEP)) or {}
    points = saved.get("points")
    names = set(there)
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        return None
    digests = list(map(writers.digest, points))
    parts = os.path.abspath(folder).split(os.sep)[1:]
    found: list[str] = []
    for depth in range(1, min(len(parts), _DEEPEST) + 1):  # an experiment's name may hold slashes
        name = "/".join(parts[-depth:])
        ids = map(partial(layout.experiment_run_id, name), points, digests)
        guess = list(map(layout.run_dir, ids))
        is_it = not names.isdisjoint(guess)
        if not found or is_it:
            found = guess
        if is_it:
            break
    told, array = saved.get("array"), None
    if saved.get("mode") == "static" and isinstance(told, dict):
        low, high, step = int(told["min"]), int(told["max"]), int(told.get("step") or 1)
        array = low, step, len(range(low, high + 1, step))
    return Grid(found, array)
