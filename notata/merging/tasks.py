"""Work in parts that any process can do, and doing it in several processes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any, NamedTuple

_WAITING = 64  # tasks handed out at most, so that what was planned for later needs no memory

Told = Callable[[int], None]


def silent(count: int) -> None:
    """Tell nobody of progress.

    Ranks: independent.
    """


class Made(NamedTuple):
    """A file that was joined, under its temporary name still.

    Attributes:
        checksum: Of the file.
        inputs: Checksums of the files that it was made of, by their path relative to the run.
    """

    checksum: str
    inputs: Mapping[str, str]


class Task(NamedTuple):
    """A part of the work.

    Attributes:
        function: A function of a module, so that another process finds it.
        args: Its arguments, which can be pickled.
        bytes: How far the work has got when it is done.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    bytes: int = 0


# Yields tasks that don't need one another, is sent their results, and returns what was made.
Steps = Generator[Sequence[Task], list[Any], dict[str, Made]]


class _Job:
    """Steps on their way."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.tasks: list[Task] = []
        self.results: list[Any] = []
        self.missing = 0

    def go_on(self) -> dict[str, Made] | None:
        """Take the next step; gives what was made after the last."""
        try:
            while True:
                self.tasks = list(self.steps.send(self.results) if self.tasks else next(self.steps))
                self.results = [None] * len(self.tasks)
                self.missing = len(self.tasks)
                if self.tasks:
                    return None
        except StopIteration as done:
            made: dict[str, Made] = done.value
            return made


def carry_out(jobs: Iterable[Steps], executor: Executor, progress: Told) -> dict[str, Made]:
    """Do several pieces of work side by side.

    Args:
        jobs: The work, begun as earlier work leaves processes idle.
        executor: Runs the tasks.
        progress: Called with the number of bytes that a task brought, as each is done.

    Returns:
        All that was made.

    Raises:
        Exception: What the first task to fail met. No other task runs any more then.

    Ranks: independent.
    """
    made: dict[str, Made] = {}
    running: dict[Future[Any], tuple[_Job, int]] = {}
    ready = _tasks(jobs, made)
    again: list[tuple[_Job, int]] = []
    try:
        while True:
            while len(running) < _WAITING:
                job, number = again.pop(0) if again else next(ready, (None, 0))
                if job is None:
                    break
                task = job.tasks[number]
                running[executor.submit(task.function, *task.args)] = job, number
            if not running:
                return made
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, number = running.pop(future)
                job.results[number] = future.result()
                job.missing -= 1
                progress(job.tasks[number].bytes)
                if not job.missing:
                    again += _begun(job, made)
    finally:
        for future in running:
            future.cancel()
        wait(running)


def _tasks(jobs: Iterable[Steps], made: dict[str, Made]) -> Iterator[tuple[_Job, int]]:
    for steps in jobs:
        yield from _begun(_Job(steps), made)


def _begun(job: _Job, made: dict[str, Made]) -> list[tuple[_Job, int]]:
    made |= job.go_on() or {}
    return [(job, number) for number in range(job.missing)]
