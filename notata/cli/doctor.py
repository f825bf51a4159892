"""The command `notata doctor`."""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from notata.cli.fitting import room
from notata.cli.printing import ATTENTION, KEEP, cell, console, json_text, new_table, show

if TYPE_CHECKING:
    from notata.doctor import Check

_HELP = f"""Say what DIR's file system and this cluster do to runs (DIR: this folder by default).

Locks, renames and clocks are tried, not just read about. Started with one rank on each of several
nodes, it also tries what the nodes see of each other; rank 0 prints. It works in a temporary folder
inside DIR and leaves nothing behind.

{KEEP}Example:
  notata doctor
  srun -N 2 -n 2 notata doctor $SCRATCH
  mpirun -n 2 notata doctor --json . > doctor.json

Exit status: 0 if all is well or merely slow, 1 if something could lose data, 2 for wrong use.
"""

_WIDE, _NARROW = 100, 20  # characters: of a wide terminal, and of a check's name on others


@click.command(help=_HELP)
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of a table.")
@click.pass_context
def doctor(ctx: click.Context, folder: str, as_json: bool) -> None:
    """Examine a folder and the cluster around it.

    Ranks: collective by files; rank 0 prints.
    """
    from notata.doctor import examine

    # A launcher ends its ranks by SIGTERM, and what is in DIR has to go then too.
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        rank, checks = examine(folder)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if rank != 0:
        return
    if as_json:
        well = all(check.verdict != "bad" for check in checks)
        rows = [check._asdict() for check in checks]
        click.echo(json_text({"folder": folder, "well": well, "checks": rows}))
    else:
        _show(checks)
    if any(check.verdict == "bad" for check in checks):
        ctx.exit(ATTENTION)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _show(checks: list[Check]) -> None:
    from rich.text import Text

    colours = {"ok": "green", "warn": "yellow", "bad": "bold red"}
    table = new_table("check")
    if room(console()) < _WIDE:
        table.columns[0].max_width = _NARROW  # room for the findings
    table.add_column("verdict", no_wrap=True)
    table.add_column("finding and remedy", overflow="fold")
    for check in checks:
        verdict = Text(check.verdict, style=colours[check.verdict])
        told = cell(check.finding)
        if check.remedy:
            # Where all is well there is nothing to remedy, but something else to try.
            label = "" if check.verdict == "ok" else "Remedy: "
            told.append(f"\n{label}", style="bold").append(cell(check.remedy))
        table.add_row(check.name, verdict, told)
    show(table)
