"""What there was to do: the tasks of arrays, and the points of the grid that `sweep` saved."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from notata import layout, writers
from notata.errors import DamagedError, UnsupportedValueError
from notata.jobs import Answer
from notata.stored import read_json, read_params

_DEEPEST = 5  # folders in an experiment's name
_ASKED = 10  # runs that are asked for the name of an experiment whose folder has another


class Array(NamedTuple):
    """An array of tasks, as the metadata of its runs tell; or a job of none, without tasks.

    Attributes:
        scheduler: Which scheduler's it is, such as `slurm`.
        job: Its id.
        cluster: The cluster that gave the id, or empty where unknown.
        run: Folder of one of its runs.
        tasks: Its tasks; where `listed`, or where nobody told a range, those that have a run.
        begun: Those of them that have a run.
        listed: Whether it was no plain range, such as `3,7-9`: the scheduler has to name the rest.
    """

    scheduler: str
    job: str
    cluster: str
    run: str
    tasks: Collection[int]
    begun: Collection[int]
    listed: bool

    def named_by(self, answer: Answer) -> set[int]:
        """Those of a listed array's tasks that the scheduler names."""
        if not self.listed or self.scheduler != "slurm":
            return set()
        named = (name for name in answer.jobs if name.startswith(f"{self.job}_"))
        return {int(name.rpartition("_")[2]) for name in named}


def array_of(facts: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The array that a run's job is a task of: scheduler, id, cluster; None if it is of none.

    Tasks of Slurm have an id of their own besides; SGE and LSF give all of them the array's.

    Example:
        >>> array_of({"name": "sge", "job_id": "7", "array_task_id": 3})
        ('sge', '7', '')

    Ranks: independent.
    """
    if not isinstance(facts.get("array_task_id"), int):
        return None
    scheduler = str(facts.get("name"))
    job = facts.get("array_job_id") or (None if scheduler == "slurm" else facts.get("job_id"))
    return None if job is None else (scheduler, str(job), str(facts.get("cluster") or ""))


def arrays_of(jobs: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Array]:
    """The arrays that an experiment's runs are of, the newest last.

    Args:
        jobs: The folder of each run, and what its metadata say of its job.

    Example:
        >>> told = {"name": "slurm", "array_job_id": "7", "array": {"min": 1, "max": 4}}
        >>> arrays_of([("log_a", told | {"array_task_id": 2})])[0].tasks
        range(1, 5)

    Ranks: independent.
    """
    seen: dict[tuple[str, str, str], set[int]] = {}
    told: dict[tuple[str, str, str], tuple[str, Mapping[str, Any]]] = {}
    for run, facts in jobs:
        key = array_of(facts)
        if key is not None:
            seen.setdefault(key, set()).add(facts["array_task_id"])
            told.setdefault(key, (run, facts))
    arrays = []
    for key in sorted(seen, key=lambda key: (len(key[1]), key[1])):
        run, facts = told[key]
        tasks = _range(facts)
        count = (facts.get("array") or {}).get("count")
        listed = tasks is not None and count not in (None, len(tasks))
        known = seen[key] if tasks is None or listed else tasks
        arrays.append(Array(*key, run, known, seen[key], listed))
    return arrays


def jobs_of(jobs: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Array]:
    """The jobs of no array that an experiment's runs are of, those of Slurm, the newest last.

    Args:
        jobs: The folder of each run, and what its metadata say of its job.

    Example:
        >>> jobs_of([("log_a", {"name": "slurm", "job_id": "500"})])[0].job
        '500'

    Ranks: independent.
    """
    found: dict[tuple[str, str, str], str] = {}
    for run, facts in jobs:
        if facts.get("name") == "slurm" and facts.get("job_id") and array_of(facts) is None:
            key = "slurm", str(facts["job_id"]), str(facts.get("cluster") or "")
            found.setdefault(key, run)
    ordered = sorted(found, key=lambda key: (len(key[1]), key[1]))
    return [Array(*key, found[key], (), (), False) for key in ordered]


def begun(arrays: Iterable[Array], answer: Answer) -> set[int]:
    """The task numbers that have a run of the newest array that has them.

    An older array's run says nothing of what the newer one had to do. Of arrays of several
    clusters, whose ids don't tell which is newer, a run of either counts.

    Args:
        arrays: The arrays, the newest last.
        answer: What the scheduler answered.

    Ranks: independent.
    """
    found: dict[tuple[str, str], set[int]] = {}
    for array in arrays:
        there = found.setdefault((array.scheduler, array.cluster), set())
        there.difference_update(array.tasks, array.named_by(answer))
        there.update(array.begun)
    return set().union(*found.values())


def _range(facts: Mapping[str, Any]) -> range | None:
    """The tasks from an array's first to its last; LSF may leave the first to be taken for 1."""
    array = facts.get("array") or {}
    low, high = array.get("min", 1 if facts.get("name") == "lsf" else None), array.get("max")
    return None if low is None or high is None else range(low, high + 1, array.get("step") or 1)


class Grid(NamedTuple):
    """The grid that `sweep` saved.

    Attributes:
        points: The parameters of each point.
        runs: Name of the folder of each point's run.
        array: First task, step and number of tasks that points are divided among, or None where a
            task takes whichever point is left.
    """

    points: list[dict[str, Any]]
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
    names = frozenset(there)
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        return None
    runs = _named_in_json(folder, points, _names(folder, points, names), names)
    told, array = saved.get("array"), None
    if saved.get("mode") == "static" and isinstance(told, dict):
        low, high, step = int(told["min"]), int(told["max"]), int(told.get("step") or 1)
        array = low, step, len(range(low, high + 1, step))
    return Grid(points, runs, array)


def _names(folder: str, points: list[dict[str, Any]], there: frozenset[str]) -> list[str]:
    """The names of the points' folders, as the experiment's own name makes them.

    That is the end of its path, or what the runs begin with if it was moved or renamed since.
    """

    def under(name: str) -> list[str]:
        ids = (layout.experiment_run_id(name, point, writers.digest) for point in points)
        return list(map(layout.run_dir, ids))

    parts = os.path.abspath(folder).split(os.sep)[1:]
    depths = range(1, min(len(parts), _DEEPEST) + 1)  # an experiment's name may hold slashes
    usual = ["/".join(parts[-depth:]) for depth in depths]
    guesses = map(under, chain(usual, _former_names(folder, there)))
    first = next(guesses)
    return next((guess for guess in chain([first], guesses) if not there.isdisjoint(guess)), first)


def _former_names(folder: str, there: frozenset[str]) -> Iterator[str]:
    """What the first runs that are there say the experiment was named."""
    for run in sorted(there)[:_ASKED]:
        params = _params(folder, run)
        if params is None:
            continue
        end = layout.experiment_run_id("", params, writers.digest)
        if run.endswith(end):
            yield layout.run_id_of(run.removesuffix(end))


def _named_in_json(
    folder: str, points: list[dict[str, Any]], runs: list[str], there: frozenset[str]
) -> list[str]:
    """The names of the points' folders, also where JSON made text of keys that were numbers.

    Names depend on the keys, so that these points are found by the runs' parameters.
    """
    odd, taken = [], set[str]()
    for place, point in enumerate(points):
        if runs[place] in there and runs[place] not in taken:
            taken.add(runs[place])
        elif any(isinstance(value, dict | list) for value in point.values()):
            odd.append(place)
    found: dict[str, list[str]] = {}
    for run in sorted(there - taken) if odd else ():
        params = json.loads(json.dumps(_params(folder, run)))
        if params is not None:
            found.setdefault(writers.digest(params), []).append(run)
    named = list(runs)
    for place in odd:
        if same := found.get(writers.digest(points[place])):
            named[place] = same.pop()
    return named


def _params(folder: str, run: str) -> dict[str, Any] | None:
    try:
        params = read_params(os.path.join(folder, layout.RUNS, run))
        return {name: writers.plain(value, name) for name, value in params.items()}
    except (DamagedError, UnsupportedValueError, OSError):
        return None
