"""What the commands print: tables, and plain lines that no terminal width breaks.

Lines are left as they are so that they can be searched and their paths copied.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from notata.phrases import counted, printable

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from notata.outcomes import Outcome, Survey

# Exit statuses: done; something needs attention; wrong use or damaged input.
WELL, ATTENTION, WRONG = 0, 1, 2

# Click keeps the line breaks of a paragraph that follows this character.
KEEP = "\b\n"


def new_table(first: str) -> Table:
    """A table whose first column takes names of any length.

    Args:
        first: Heading of that column.

    Ranks: independent.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    return table


def cell(text: str) -> Text:
    """Text for a table as it is: Rich would read markup in a string.

    Ranks: independent.
    """
    from rich.text import Text

    return Text(printable(text))


def show(table: Table) -> None:
    """Print a table on standard output.

    Ranks: independent.
    """
    from rich.console import Console

    Console(highlight=False).print(table)


def complain(message: str) -> None:
    """Print a line on standard error.

    Ranks: independent.
    """
    click.echo(f"notata: error: {printable(message)}", err=True)


def told(error: OSError) -> str:
    """An error of the system in a line: which file, and what about it.

    Ranks: independent.
    """
    if error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__


def located(experiment: str) -> str:
    """The folder that a command's EXPERIMENT means: itself, or one below `outputs`.

    Ranks: independent.
    """
    below = os.path.join("outputs", experiment)
    return below if not os.path.exists(experiment) and os.path.isdir(below) else experiment


def source_text(found: Survey) -> str:
    """Where the knowledge comes from, in a sentence.

    Args:
        found: What became of the runs.

    Ranks: independent.
    """
    answer = found.answer
    if answer.source is None and not answer.refusals:
        if found.asked:
            return f"Known from the runs, and signs of life of {counted(found.asked, 'open run')}."
        return "Known from the runs themselves."
    tried = f" ({'; '.join(answer.refusals)})" if answer.refusals else ""
    if answer.source is None:
        return f"Known from the runs and their signs of life; no scheduler answered{tried}."
    return f"Known from the runs, and from {answer.source} for those that didn't say{tried}."


def plain_run(outcome: Outcome) -> dict[str, Any]:
    """A run as JSON has it.

    Args:
        outcome: What became of it.

    Ranks: independent.
    """
    return {
        "run_id": outcome.run_id,
        "path": outcome.path,
        "state": outcome.state,
        "reason": outcome.reason,
        "job": outcome.job or None,
        "task": outcome.task,
    }
