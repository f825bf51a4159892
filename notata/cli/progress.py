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

_EVERY = 30.0  # seconds between two lines


class Progress:
    """Shows bytes that are done, and the time to go, on standard error.

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
        if self._quiet:
            return
        if self._bar is not None:
            if not self._bar.tasks:
                self._bar.add_task(self._what, total=total)
            self._bar.update(self._bar.tasks[0].id, completed=done, total=total)
            return
        now = self._clock()
        if done == 0:
            self._began = self._told = now
        elif now - self._told >= _EVERY and done < total:
            self._told = now
            left = (now - self._began) * (total - done) / done
            told = f"{size_text(done)} of {size_text(total)}, {duration_text(left)} to go"
            click.echo(f"notata: {self._what}: {told}", err=True)
