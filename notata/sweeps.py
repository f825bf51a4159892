"""The points of a sweep, and which of them an array task does: arithmetic, without files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from notata.errors import SettingError

MODES = ("static", "claim")
_TASKS = "NOTATA_ARRAY"


def points_of(
    grid: Mapping[str, Iterable[Any]] | Iterable[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The points of a grid, in order; the last parameter varies fastest.

    Args:
        grid: Values for each parameter, of which every combination is a point; or the points.

    Raises:
        TypeError: If it is neither.

    Example:
        >>> points_of({"a": [1, 2], "b": "xy"})[:3]
        [{'a': 1, 'b': 'x'}, {'a': 1, 'b': 'y'}, {'a': 2, 'b': 'x'}]

    Ranks: independent.
    """
    if isinstance(grid, Mapping):
        for name, values in grid.items():
            if not isinstance(values, Iterable):
                raise TypeError(f"grid {name!r}: give a list of values, not {values!r:.60}")
        return [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]
    points = list(grid)
    for point in points:
        if not isinstance(point, Mapping):
            raise TypeError(f"a point of the grid is a dict of parameters, not {point!r:.60}")
    return [dict(point) for point in points]


class Tasks(NamedTuple):
    """The tasks of an array, of which each has a number: `min`, `min + step`, … `max`."""

    min: int
    max: int
    step: int = 1

    @property
    def size(self) -> int:
        """How many there are."""
        return len(range(self.min, self.max + 1, self.step))

    def place(self, task: int) -> int | None:
        """The place of a task among them, from 0; None for one that isn't among them."""
        numbers = range(self.min, self.max + 1, self.step)
        return numbers.index(task) if task in numbers else None

    def hold(self, others: Tasks) -> bool:
        """Whether others are all among them.

        Example:
            >>> Tasks(1, 9, 2).hold(Tasks(3, 7, 4)), Tasks(1, 9, 2).hold(Tasks(3, 4))
            (True, False)
        """
        numbers = range(self.min, self.max + 1, self.step)
        return all(task in numbers for task in range(others.min, others.max + 1, others.step))


def tasks_of(
    job: Mapping[str, Any], saved: Tasks | None, environ: Mapping[str, str] | None = None
) -> Tasks | None:
    """The tasks among which points are divided, or None in a process that is no array task.

    Slurm and SGE say which tasks an array has, and LSF in the job's name; where that has no list,
    LSF's last number and step count, and its arrays are taken to begin at 1. PBS and Flux say
    nothing, so that `NOTATA_ARRAY=1-100` in the job script has to. An array whose tasks are all
    among those that points were divided among before is a resubmission of these, and changes
    nothing; so is a list such as `3,7-9,21` (Slurm, LSF). Any other divides the points anew.

    Args:
        job: What the scheduler told of this process's job.
        saved: The tasks that the sweep was divided among before.
        environ: The environment to read; the process's own by default.

    Raises:
        SettingError: If nobody says which tasks there are (a `ValueError`).

    Example:
        >>> tasks_of({"array_task_id": 4, "array": {"min": 0, "max": 8, "step": 2}}, None).place(4)
        2

    Ranks: independent.
    """
    if "array_task_id" not in job:
        return None
    task, told = job["array_task_id"], job.get("array", {})
    text = (os.environ if environ is None else environ).get(_TASKS)
    if text:
        found = _parsed(text)
    elif "max" in told:
        found = Tasks(told.get("min", 1), told["max"], told.get("step", 1))
        is_list = told.get("count", found.size) != found.size
        if saved is not None and (is_list or saved.hold(found)):
            found = saved
    elif saved is not None:
        found = saved
    else:
        raise SettingError(
            f"{job.get('name')} doesn't tell a task which tasks its array has: set {_TASKS} in the "
            "job script to what the array was submitted with, such as 1-100 or 0-98:2, or use "
            'mode="claim"'
        )
    count = told.get("count", found.size)
    if found.place(task) is None or (not text and saved is None and count != found.size):
        raise SettingError(
            f"task {task} is part of no array that the points were divided among before: submit "
            f'the whole array once, set {_TASKS}, or use mode="claim"'
        )
    return found


def _parsed(text: str) -> Tasks:
    span, _, step = text.partition(":")
    first, _, last = span.partition("-")
    try:
        found = Tasks(int(first), int(last or first), int(step or 1))
    except ValueError:
        found = Tasks(0, -1)
    if found.step < 1 or not found.size:
        raise SettingError(f"{_TASKS}={text!r} is not first-last or first-last:step")
    return found


def share(number: int, tasks: Tasks | None, task: int | None) -> Sequence[int]:
    """The points that a task does, of so many: each point is one task's.

    Example:
        >>> list(share(10, Tasks(5, 7), 6))
        [1, 4, 7]

    Ranks: independent.
    """
    place = tasks.place(task) if tasks is not None and task is not None else None
    return range(number) if tasks is None or place is None else range(place, number, tasks.size)


def in_turn(number: int, job: Mapping[str, Any]) -> Sequence[int]:
    """All points, in the order in which a task looks for those that nobody has claimed.

    Each task of an array begins elsewhere, so that a thousand of them don't all try the same point.

    Ranks: independent.
    """
    if not number:
        return []
    first = job.get("array_task_id", 0) % number
    return [*range(first, number), *range(first)]
