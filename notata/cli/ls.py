"""The command `notata ls`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from notata.cli.fitting import Shortened
from notata.cli.printing import (
    ATTENTION,
    KEEP,
    cell,
    complain,
    json_text,
    located,
    new_table,
    show,
    status_text,
)
from notata.phrases import duration_text, printable

if TYPE_CHECKING:
    from rich.text import Text

    from notata.listing import Entry
    from notata.querying import Line

_HELP = f"""List the runs and experiments in DIR (outputs by default).

If DIR is an experiment, its runs are listed. For an experiment, the status says how many of its
runs have which, the duration is the sum of theirs, and the age is that of the newest. DIR may be a
name below outputs/.

A run that has not ended is running, or lost if it gave no sign of life for ten minutes
(NOTATA_LOST_AFTER, in seconds).

With --where, only the runs for which a condition holds: of parameters and metrics by name, of
status, ranks, runtime_sec, start_time, age_sec, failure_reason, run_id; with comparisons, and, or,
not, in, arithmetic, abs, len, min, max, round. params.NAME and metrics.NAME tell them apart where
both have a name, and run["any name"] takes one with blanks. A condition on a value that a run
doesn't have is false.

{KEEP}Example:
  notata ls
  notata ls outputs/sweep --where 'omega>1 and status=="failed"'
  notata ls outputs/sweep --sort -runtime_sec --columns omega,status

Exit status: 0, or 1 if a run's metadata or parameters are damaged, or 2 if there is no such folder
or value.
"""

_RIGHT = ("ranks", "duration", "age")
_SPARE = ("age", "duration", "kind")  # columns that go where a terminal is narrow
_LONGEST = 40  # characters of a value


@click.command(name="ls", help=_HELP)
@click.argument("folder", metavar="[DIR]", default="outputs", type=click.Path())
@click.option("--where", metavar="CONDITION", help="Only the runs for which it holds.")
@click.option("--sort", metavar="NAMES", help="Sort by these values; - before one: largest first.")
@click.option("--columns", metavar="NAMES", help="Show these values, besides the name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def list_runs(
    ctx: click.Context,
    folder: str,
    where: str | None,
    sort: str | None,
    columns: str | None,
    as_json: bool,
) -> None:
    """List the runs and experiments of a folder.

    Ranks: independent; one process is enough.
    """
    from notata import listing

    folder = located(folder)
    entries = listing.find(folder)
    if where is None and sort is None and columns is None and not as_json:
        if not entries:
            _say_empty(folder)
            return
        _show_entries(entries)
    else:
        _query(entries, where, _split(sort), _split(columns), as_json)
    damage = [sentence for entry in entries for sentence in entry.damage]
    for sentence in damage:
        complain(sentence)
    if damage:
        ctx.exit(ATTENTION)


def _split(names: str | None) -> list[str] | None:
    return None if names is None else [name for name in map(str.strip, names.split(",")) if name]


def _query(
    entries: list[Entry],
    where: str | None,
    sort: list[str] | None,
    columns: list[str] | None,
    as_json: bool,
) -> None:
    from notata import querying
    from notata.expressions import Expression

    condition = None if where is None else Expression(where)
    found = querying.lines(entries, time.time())
    querying.check(columns or (), found)
    wanted = querying.wanted(found, condition) if condition else found
    wanted = querying.ordered(wanted, _checked(sort or [], found))
    if as_json:
        click.echo(json_text([_plain(line) for line in wanted]))
        return
    asked = [
        *(sorted(condition.names) if condition else ()),
        *(n.removeprefix("-") for n in sort or ()),
    ]
    if wanted:
        _show_lines(wanted, columns, list(dict.fromkeys(asked)))
    else:
        click.echo(f"none of {len(found)}" if found else "no runs or experiments")


def _checked(sort: list[str], found: Sequence[Line]) -> list[str]:
    """Of all that are there: a condition may leave none that has the value."""
    from notata.querying import check

    check((name.removeprefix("-") for name in sort), found)
    return sort


# ----- tables -----


def _show_entries(entries: list[Entry]) -> None:
    table = new_table("name")
    table.add_column("kind", no_wrap=True)
    table.add_column("status", overflow="fold")
    for heading in _RIGHT:
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in entries:
        table.add_row(cell(entry.path.resolve().name), *(make(entry) for make in _USUAL.values()))
    show(table, _SPARE)


def _show_lines(found: list[Line], columns: list[str] | None, asked: list[str]) -> None:
    """A row a run: the columns that were chosen, or the usual ones and what was asked for."""
    usual = [] if columns is not None else ["status", *_RIGHT]
    told = {"name", "run_id", "run_status", "runtime_sec", "age_sec", *usual}
    more = columns if columns is not None else [name for name in asked if name not in told]
    table = new_table("name")
    for name in (*usual, *more):
        number = name in _RIGHT or all(_is_number(line.get(name)) for line in found)
        table.add_column(cell(name), justify="right" if number else "left", overflow="fold")
    for line in found:
        cells = [_USUAL[name](line.entry) for name in usual]
        cells += [_value(line, name) for name in more]
        run = cell(line.entry.path.resolve().name)
        table.add_row(Shortened(run) if more else run, *cells)  # parameters tell runs apart
    show(table, () if columns is not None else _SPARE)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _value(line: Line, name: str) -> Text:
    from notata.querying import HEADED

    value = line.get(name)
    if value is None:
        return cell("-")
    if name in HEADED and value is line.own[HEADED[name]]:
        return _USUAL[name](line.entry)
    if name in ("status", "run_status"):
        return status_text(str(value))
    if name in ("runtime_sec", "age_sec") and isinstance(value, float):
        return cell(f"{value:.1f}")
    told = f"{value:.6g}" if isinstance(value, float) else str(value)
    return cell(told if len(told) <= _LONGEST else f"{told[: _LONGEST - 1]}…")


def _ranks(entry: Entry) -> Text:
    if entry.ranks is None:
        return cell("-")
    low, high = entry.ranks
    return cell(str(low) if low == high else f"{low}-{high}")


def _age(entry: Entry) -> Text:
    if entry.started is None:
        return cell("-")
    return cell(duration_text(max(0.0, time.time() - entry.started), coarse=True))


def _duration(entry: Entry) -> Text:
    return cell("-" if entry.runtime is None else duration_text(entry.runtime))


def _status(entry: Entry) -> Text:
    from rich.text import Text

    several = entry.kind == "experiment"
    parts = [
        status_text(status, count if several else None)
        for status, count in sorted(entry.statuses.items())
    ]
    return Text(", ").join(parts) if parts else Text("no runs")


_USUAL: dict[str, Callable[[Entry], Text]] = {
    "kind": lambda entry: cell(entry.kind),
    "status": _status,
    "ranks": _ranks,
    "duration": _duration,
    "age": _age,
}


def _plain(line: Line) -> dict[str, Any]:
    return {
        "path": str(line.entry.path),
        **line.own,
        "statuses": dict(line.entry.statuses),
        "params": line.params,
        "metrics": line.metrics,
        "damage": list(line.entry.damage),
    }


def _say_empty(folder: str) -> None:
    from notata.listing import folders_with_runs, is_experiment

    if is_experiment(folder):
        click.echo(f"no runs in experiment {printable(folder)}")
        return
    click.echo(f"no runs or experiments in {printable(folder)}")
    below = folders_with_runs(folder)
    if below:
        click.echo("there are some in " + ", ".join(printable(str(path)) for path in below))
