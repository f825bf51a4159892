"""The command `notata stuck`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from notata.cli.printing import ATTENTION, KEEP, cell, json_text, located, new_table, show
from notata.phrases import duration_text, printable
from notata.ranges import compact, ranks_text

if TYPE_CHECKING:
    from notata.reader import LogReader
    from notata.stacks import Stand, Survey

_HELP = f"""Show where the ranks of a RUN stand that give no sign of life.

Ranks that stand at the same line are a row, the fewest first: the many wait for one another, and
the one that they wait for is elsewhere. A run is watched by log.watch() or NOTATA_WATCH=600; a
rank that logged nothing and passed no log.tick() for that long has written its stacks. RUN may be
a name below outputs/.

{KEEP}Example:
  notata stuck outputs/log_heat
  notata stuck --json outputs/log_heat

Exit status: 0 if no rank is stuck, 1 if some are, 2 if there is no such run.
"""

_ENDED = ("complete", "failed")  # statuses of runs whose ranks no longer wait


@click.command(help=_HELP)
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def stuck(ctx: click.Context, run: str, as_json: bool) -> None:
    """Show where the ranks of a run stand.

    Ranks: independent; one process is enough.
    """
    from notata.reader import LogReader
    from notata.stacks import survey

    run = located(run)
    reader = LogReader(run)
    found = survey(run, reader.size)
    if as_json:
        click.echo(json_text(_plain(run, reader.size, found)))
    else:
        _show(run, reader, found)
    if found.groups:
        ctx.exit(ATTENTION)


def _show(run: str, reader: LogReader, found: Survey) -> None:
    size, status = reader.size, reader.meta.get("status")
    count = sum(map(len, found.groups))
    ranks = f"{count} of {size} ranks" if size > 1 else "its one rank"
    told = f"{ranks} gave no sign of life" if count else "no rank is known to be stuck"
    if status in _ENDED:
        told += f"; the run has ended: {status}"
    click.echo(f"{printable(run)}: {told}")
    if found.groups:
        table = new_table("ranks")
        table.add_column("silent for", justify="right", no_wrap=True)
        table.add_column("where", overflow="fold")
        for group in found.groups:
            ranks = compact(stand.rank for stand in group)
            longest = max(stand.silent for stand in group)
            table.add_row(ranks, duration_text(longest), cell(_path(group[0])))
        show(table)
    for line in _others(found._replace(silent=[]) if status in _ENDED else found):
        click.echo(printable(line))


def _path(stand: Stand) -> str:
    """The place, and how the program came there."""
    callers = [str(frame) for frame in stand.own[1:4]]
    return stand.place + "".join(f" < {caller}" for caller in callers)


def _others(found: Survey) -> Iterator[str]:
    ended: dict[str, list[int]] = {}
    for rank, told in found.ended.items():
        ended.setdefault(told, []).append(rank)
    for told, ranks in ended.items():
        yield f"{ranks_text(ranks)} ended: {told}"
    if found.went_on:
        yield f"{ranks_text(found.went_on)} went on after a while"
    if found.silent:
        yield (
            f"{ranks_text(found.silent)} wrote no stacks: at work, dead, or not watched (log.watch "
            "or NOTATA_WATCH)"
        )


def _plain(run: str, size: int, found: Survey) -> dict[str, Any]:
    return {
        "run": run,
        "size": size,
        "groups": [
            {
                "ranks": [stand.rank for stand in group],
                "place": group[0].place,
                "silent_sec": max(stand.silent for stand in group),
                "since": min(stand.time for stand in group) or None,
                "hosts": sorted({stand.host for stand in group if stand.host}),
                "frames": [frame._asdict() for frame in group[0].frames],
            }
            for group in found.groups
        ],
        "went_on": found.went_on,
        "ended": {str(rank): told for rank, told in found.ended.items()},
        "no_stacks": found.silent,
    }
