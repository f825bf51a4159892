"""What the commands print: tables, and plain lines that no terminal width breaks.

Lines are left as they are so that they can be searched and their paths copied.
"""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from notata import layout
from notata.cli import fitting
from notata.phrases import counted, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from notata.outcomes import Survey
    from notata.verdicts import Outcome

# Exit statuses: done; something needs attention; wrong use, or input too damaged to do it.
WELL, ATTENTION, WRONG = 0, 1, 2

_COLOURS = {
    "complete": "green",
    "failed": "red",
    "running": "yellow",
    "lost": "bold red",
    "damaged": "bold red",
    "waiting": "cyan",
    "unknown": "cyan",
}

# Click keeps the line breaks of a paragraph that follows this character.
KEEP = "\b\n"


def new_table(first: str) -> Table:
    """A table whose first column takes names of any length.

    Args:
        first: Heading of that column.

    Ranks: independent.
    """
    table = fitting.empty()
    table.add_column(first, overflow="fold")
    return table


def cell(text: str) -> Text:
    """Text for a table as it is: Rich would read markup in a string.

    Ranks: independent.
    """
    from rich.text import Text

    return Text(printable(text))


def console() -> Console:
    """Standard output, as wide as the terminal; colours on a terminal alone.

    Ranks: independent.
    """
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def show(table: Table, spare: Sequence[str] = ()) -> None:
    """Print a table on standard output; a pipe or a file gets a line a row.

    Args:
        table: The table.
        spare: Headings of columns that are left out where a terminal has no room for them, the
            first one first.

    Ranks: independent.
    """
    # Rich knows whether colours are wanted, and what can be printed; Click, what to do where the
    # reader of a pipe has gone, if it hears of that while the command runs.
    print("\n".join(fitting.lines(table, console(), spare)), flush=True)


def status_text(status: str, count: int | None = None) -> Text:
    """A run's status in its colour.

    Args:
        status: The status.
        count: How many runs have it, if that is to be said.

    Ranks: independent.
    """
    from rich.text import Text

    told = printable(status if count is None else f"{count} {status}")
    return Text(told, style=_COLOURS.get(status, ""))


def painter() -> Callable[[str, str], str]:
    """What gives text a style on a terminal that shows one, for lines that Rich doesn't break.

    Ranks: independent.
    """
    from rich.console import COLOR_SYSTEMS
    from rich.style import Style

    screen = console()
    if not screen.is_terminal or screen.no_color or screen.color_system is None:
        return lambda text, style: text
    system = COLOR_SYSTEMS[screen.color_system]
    styles: dict[str, Style] = {}

    def paint(text: str, style: str) -> str:
        if style and style not in styles:
            styles[style] = Style.parse(style)
        return styles[style].render(text, color_system=system) if style else text

    return paint


def complain(message: str) -> None:
    """Print a line on standard error.

    Ranks: independent.
    """
    click.echo(f"notata: error: {printable(message)}", err=True)


def located(named: str) -> str:
    """The folder that a command's RUN, EXPERIMENT or DIR means: itself, or one below `outputs`.

    The id of a run will do, as other commands print it, also of one in an experiment.

    Ranks: independent.
    """
    if not os.path.exists(named):
        for path in _meant(named):
            if os.path.isdir(path):
                return path
        context = click.get_current_context(silent=True)
        if context is not None and os.sep not in named:
            context.meta[_SOUGHT] = named
    return named


_BELOW = "outputs"
_SOUGHT = "notata.sought"  # a name by which there is nothing


def _meant(named: str) -> Iterator[str]:
    """The places that a name may mean, the likeliest first."""
    yield os.path.join(_BELOW, named)
    head, name = os.path.split(named)
    run = f"{layout.RUN_PREFIX}{name}"
    for base in ("", _BELOW):
        yield os.path.join(base, head, run)
        for one in (name, run):
            yield os.path.join(base, head, layout.RUNS, one)
    if not head:
        for experiment in _names(_BELOW):
            for one in (name, run):
                yield os.path.join(_BELOW, experiment, layout.RUNS, one)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def hint() -> str:
    """Where a name was looked for that is nowhere, and which is like it; `""` if none was.

    Ranks: independent.
    """
    context = click.get_current_context(silent=True)
    named = context.meta.get(_SOUGHT) if context is not None else None
    if named is None:
        return ""
    there = [name for folder in (".", _BELOW) for name in _names(folder)]
    runs = {name.removeprefix(layout.RUN_PREFIX): name for name in reversed(there)}
    near = difflib.get_close_matches(named, [*there, *runs], 1)
    like = f"; did you mean {runs.get(near[0], near[0])!r}?" if near else ""
    return f", here or below {_BELOW}, nor a run of that id{like}"


def json_text(value: Any, indent: int | None = 2) -> str:
    """A document of JSON that any reader takes.

    NaN and infinite numbers, which JSON doesn't have, are null; keys are text, and so is whatever
    else JSON doesn't have, such as dates.

    Args:
        value: What is in it.
        indent: Spaces that each level is indented by; None for one line.

    Example:
        >>> json_text({"rate": float("nan"), 1: [0.5]}, indent=None)
        '{"rate": null, "1": [0.5]}'

    Ranks: independent.
    """
    return json.dumps(_json(value, 0), indent=indent, default=str, allow_nan=False)


_DEEPEST = 200  # levels; no run is written with so many, and Python can't print any number of them


def _json(value: Any, depth: int) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, Mapping | list | tuple):
        return value
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): _json(item, depth + 1) for key, item in value.items()}
    return [_json(item, depth + 1) for item in value]


def source_text(found: Survey) -> str:
    """Where the knowledge comes from, in a sentence.

    Args:
        found: What became of the runs.

    Ranks: independent.
    """
    answer = found.answer
    if not found.asked and not found.left:
        return "Known from the runs themselves."
    if answer.source is None and not answer.refusals:
        if found.asked:
            return f"Known from the runs, and signs of life of {counted(found.asked, 'open run')}."
        return "Known from the runs themselves."
    tried = f" ({'; '.join(answer.refusals)})" if answer.refusals else ""
    if answer.source is None:
        return f"Known from the runs and their signs of life; no scheduler answered{tried}."
    which = "didn't say" if found.asked else "never began"
    return f"Known from the runs, and from {answer.source} for those that {which}{tried}."


def without_run(found: Survey, *states: str) -> dict[int, str]:
    """The array tasks that have left something that has no run, each with a reason.

    Args:
        found: What became of the runs.
        states: `failed` for tasks that have ended, or `unknown`; both by default.

    Ranks: independent.
    """
    wanted = states or ("failed", "unknown")
    left = (one for one in found.left if one.state in wanted and not one.begun)
    tasks = ((one.task, one.reason) for one in left)
    return {task: why or "" for task, why in tasks if task is not None}


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
