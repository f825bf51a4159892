"""The command `notata merge`."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import click

from notata.cli.printing import KEEP, WRONG, cell, complain, new_table, show, told
from notata.errors import MergeError, NotataError
from notata.phrases import printable, size_text

if TYPE_CHECKING:
    from notata.merging import Report

_HELP = f"""Make of each RUN's ranks what one process would have written.

The ranks' pieces of an array are joined into the run's data/, their messages into its log.txt. The
ranks' own files are left alone. A RUN that is an experiment stands for all of its runs. A second
merge joins just what has changed since.

{KEEP}Example:
  notata merge outputs/log_heat
  notata merge outputs/sweep
  notata merge --unfinished outputs/log_killed

Exit status: 0 if all is merged, 2 if a run can't be; what is wrong with it is told on standard
error, nothing is written to it, and the other runs are merged.
"""


@click.command(help=_HELP)
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
        complain(told(error))
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
        many = f"{count} runs" if count > 1 else "1 run"
        click.echo(f"{printable(path)}: {many}: {printable(note)}")
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
            complain(f"{path}: {problem}")
    except NotataError as error:
        complain(str(error) if path in str(error) else f"{path}: {error}")
    except OSError as error:
        complain(f"{path}: {told(error)}")
    return None


def _show_merge(report: Report) -> None:
    click.echo(f"{printable(report.run)}: {printable(report.note)}")
    joined = [row for row in report.rows if row.action == "joined"]
    if not joined:
        return
    table = new_table("name")
    for heading in ("pieces", "shape", "size"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in joined:
        shape = "" if row.shape is None else " × ".join(map(str, row.shape)) or "one number"
        table.add_row(cell(row.name), str(row.pieces), shape, size_text(row.bytes))
    show(table)
