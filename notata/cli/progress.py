"""How far a long command has got: a bar on a terminal, plain lines now and then in a batch log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

import click

from notata.phrases import duration_text, printable, size_text

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_EVERY = 30.0  # seconds between two lines


class Progress:
    """Shows bytes that are done, and the time to go, on standard error.

    What is done after it, such as verifying, has a line or a bar of its own: see `also`.

    Args:
        what: What is being done, such as the name of a run.
        quiet: Whether nothing is to be shown.
        clock: Gives seconds.
    """

    def __init__(
        self, what: str, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._quiet, self._clock = printable(what), quiet, clock
        self._bar: Bar | None = None
        self._tasks: dict[str, TaskID] = {}  # of the bar, by what is done
        self._began = self._told = clock()

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is.

        Args:
            done: Bytes that are done.
            total: Of how many.
        """
        self._show(self._what, done, total)

    def also(self, how: str) -> Callable[[int, int], None]:
        """What shows how far something else is that is done with the same, after it.

        Args:
            how: What that is, such as `verifying`.
        """
        return lambda done, total: self._show(f"{how} {self._what}", done, total)

    def _show(self, what: str, done: int, total: int) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total)
            self._bar.update(self._tasks[what], completed=done, total=total)
            return
        now = self._clock()
        if done == 0:
            self._began = self._told = now
        elif now - self._told >= _EVERY and done < total:
            self._told = now
            left = (now - self._began) * (total - done) / done
            told = f"{size_text(done)} of {size_text(total)}, {duration_text(left)} to go"
            click.echo(f"notata: {what}: {told}", err=True)
