"""The command `notata ls`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from notata.cli.printing import ATTENTION, KEEP, cell, complain, new_table, show
from notata.phrases import duration_text, printable

if TYPE_CHECKING:
    from rich.text import Text

    from notata.listing import Entry

_HELP = f"""List the runs and experiments in DIR (outputs by default).

If DIR is an experiment, its runs are listed. For an experiment, the status says how many of its
runs have which, the duration is the sum of theirs, and the age is that of the newest.

A run that has not ended is running, or lost if it gave no sign of life for ten minutes
(NOTATA_LOST_AFTER, in seconds).

{KEEP}Example:
  notata ls
  notata ls outputs/sweep

Exit status: 0, or 1 if a run's metadata is damaged, or 2 if there is no such folder.
"""


@click.command(name="ls", help=_HELP)
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
    table = new_table("name")
    table.add_column("kind", no_wrap=True)
    table.add_column("status", overflow="fold")
    for heading in ("ranks", "duration", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in entries:
        table.add_row(*_line(entry))
    show(table)
    damage = [sentence for entry in entries for sentence in entry.damage]
    for sentence in damage:
        complain(sentence)
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
    return cell(entry.path.resolve().name), entry.kind, _status(entry), ranks, took, age


def _status(entry: Entry) -> Text:
    from rich.text import Text

    from notata.listing import DAMAGED
    from notata.pulse import LOST, RUNNING

    colours = {"complete": "green", "failed": "red", RUNNING: "yellow"}
    colours |= dict.fromkeys((DAMAGED, LOST), "bold red")
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
