"""The commands: `notata merge`, `notata ls`.

Exit statuses: 0 done, 1 something needs attention, 2 wrong use or damaged input.

Click reads the command line and Rich draws the tables. Whatever else is printed is a plain line
that no terminal width breaks, so that it can be searched and its paths copied.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from notata.errors import MergeError, NotataError
from notata.phrases import duration_text, printable, size_text
from notata.version import __version__

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from notata.listing import Entry
    from notata.merging import Report

ATTENTION, WRONG = 1, 2

# Click keeps the line breaks of a paragraph that follows this character.
_KEEP = "\b\n"

_HELP = f"""Structured filesystem logging for scientific runs, from one process to a cluster.

{_KEEP}Example:
  mpirun -n 4 python sim.py
  notata merge outputs/log_heat
  notata ls

Exit status: 0 done, 1 something needs attention, 2 wrong use or damaged input.
"""

_MERGE_HELP = f"""Make of each RUN's ranks what one process would have written.

The ranks' pieces of an array are joined into the run's data/, their messages into its log.txt. The
ranks' own files are left alone. A RUN that is an experiment stands for all of its runs. A second
merge joins just what has changed since.

{_KEEP}Example:
  notata merge outputs/log_heat
  notata merge outputs/sweep
  notata merge --unfinished outputs/log_killed

Exit status: 0 if all is merged, 2 if a run can't be; what is wrong with it is told on standard
error, nothing is written to it, and the other runs are merged.
"""

_LS_HELP = f"""List the runs and experiments in DIR (outputs by default).

If DIR is an experiment, its runs are listed. For an experiment, the status says how many of its
runs have which, the duration is the sum of theirs, and the age is that of the newest.

{_KEEP}Example:
  notata ls
  notata ls outputs/sweep

Exit status: 0, or 1 if a run's metadata is damaged, or 2 if there is no such folder.
"""


class _Commands(click.Group):
    """The commands, with errors told in one line rather than as a stack trace."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NotataError as error:
            _complain(str(error))
        except OSError as error:
            if error.errno == errno.EPIPE:  # `notata ls | head`: Click ends quietly
                raise
            _complain(_told(error))
        ctx.exit(WRONG)


@click.group(
    cls=_Commands,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="notata", message="%(prog)s %(version)s")
def main() -> None:
    """The program `notata`.

    Ranks: independent.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the locale can't print


# ----- merge -----


@main.command(help=_MERGE_HELP)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--unfinished",
    is_flag=True,
    help="Merge a run as far as it got: killed, or with ranks that failed or left nothing.",
)
@click.pass_context
def merge(ctx: click.Context, runs: tuple[str, ...], unfinished: bool) -> None:
    """Merge runs, and all runs of experiments.

    Ranks: independent; one process is enough.
    """
    from notata.listing import is_experiment

    well = True
    for named in runs:
        if is_experiment(named):
            well = _merge_experiment(named, unfinished) and well
            continue
        report = _merge_one(named, unfinished)
        if report is None:
            well = False
        else:
            _show_merge(report)
    if not well:
        ctx.exit(WRONG)


def _merge_experiment(path: str, unfinished: bool) -> bool:
    """Merge an experiment's runs; those with nothing to merge are told by their number."""
    from notata.listing import runs_of

    well, idle = True, Counter[str]()
    try:
        runs = runs_of(path)
    except OSError as error:
        _complain(_told(error))
        return False
    for run in runs:
        report = _merge_one(os.fspath(run), unfinished)
        if report is None:
            well = False
        elif report.nothing_to_do:
            idle[report.note] += 1
        else:
            _show_merge(report)
    for note, count in idle.items():
        told = f"{count} runs" if count > 1 else "1 run"
        click.echo(f"{printable(path)}: {told}: {printable(note)}")
    if not runs:
        click.echo(f"{printable(path)}: no runs: nothing to merge")
    return well


def _merge_one(path: str, unfinished: bool) -> Report | None:
    """Merge a run, or say what is wrong with it."""
    from notata.merging import merge as merge_run

    try:
        return merge_run(path, unfinished=unfinished)
    except MergeError as error:
        for problem in error.problems or [str(error)]:
            _complain(f"{path}: {problem}")
    except NotataError as error:
        _complain(str(error) if path in str(error) else f"{path}: {error}")
    except OSError as error:
        _complain(f"{path}: {_told(error)}")
    return None


def _show_merge(report: Report) -> None:
    click.echo(f"{printable(report.run)}: {printable(report.note)}")
    joined = [row for row in report.rows if row.action == "joined"]
    if not joined:
        return
    table = _table("name")
    for heading in ("pieces", "shape", "size"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in joined:
        shape = "" if row.shape is None else " × ".join(map(str, row.shape)) or "one number"
        table.add_row(_text(row.name), str(row.pieces), shape, size_text(row.bytes))
    _print(table)


# ----- ls -----


@main.command(name="ls", help=_LS_HELP)
@click.argument("folder", metavar="[DIR]", default="outputs", type=click.Path())
@click.pass_context
def list_runs(ctx: click.Context, folder: str) -> None:
    """List the runs and experiments of a folder.

    Ranks: independent; one process is enough.
    """
    from notata import listing

    entries = listing.find(folder)
    if not entries:
        _say_empty(folder)
        return
    table = _table("name")
    table.add_column("kind", no_wrap=True)
    table.add_column("status", overflow="fold")
    for heading in ("ranks", "duration", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in entries:
        table.add_row(*_line(entry))
    _print(table)
    damage = [sentence for entry in entries for sentence in entry.damage]
    for sentence in damage:
        _complain(sentence)
    if damage:
        ctx.exit(ATTENTION)


def _line(entry: Entry) -> Sequence[str | Text]:
    ranks, age = "-", "-"
    if entry.ranks is not None:
        low, high = entry.ranks
        ranks = str(low) if low == high else f"{low}-{high}"
    if entry.started is not None:
        age = duration_text(max(0.0, time.time() - entry.started), coarse=True)
    took = "-" if entry.runtime is None else duration_text(entry.runtime)
    return _text(entry.path.resolve().name), entry.kind, _status(entry), ranks, took, age


def _status(entry: Entry) -> Text:
    from rich.text import Text

    from notata.listing import DAMAGED

    colours = {"complete": "green", "failed": "red", DAMAGED: "bold red", "initialized": "yellow"}
    parts = []
    for status, count in sorted(entry.statuses.items()):
        told = f"{count} {status}" if entry.kind == "experiment" else status
        parts.append(Text(printable(told), style=colours.get(status, "")))
    return Text(", ").join(parts) if parts else Text("no runs")


def _say_empty(folder: str) -> None:
    from notata.listing import folders_with_runs, is_experiment

    if is_experiment(folder):
        click.echo(f"no runs in experiment {printable(folder)}")
        return
    click.echo(f"no runs or experiments in {printable(folder)}")
    below = folders_with_runs(folder)
    if below:
        click.echo("there are some in " + ", ".join(printable(str(path)) for path in below))


# ----- what is printed -----


def _table(first: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(first, overflow="fold")
    return table


def _text(text: str) -> Text:
    from rich.text import Text

    return Text(printable(text))  # not a string, which Rich would read as markup


def _print(table: Table) -> None:
    from rich.console import Console

    Console(highlight=False).print(table)


def _complain(message: str) -> None:
    click.echo(f"notata: error: {printable(message)}", err=True)


def _told(error: OSError) -> str:
    if error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__
