"""The command `notata follow`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from notata.cli.printing import (
    ATTENTION,
    KEEP,
    cell,
    console,
    json_text,
    located,
    new_table,
    status_text,
)
from notata.phrases import counted, duration_text, printable

if TYPE_CHECKING:
    from rich.console import Group

    from notata.pacing import Now, Pace

_HELP = f"""Follow an EXPERIMENT until its runs have ended, or Ctrl-C: states, rate, time to go.

On a terminal it is a table that is drawn again and again, with what the newest runs said last.
Elsewhere, as in a job's output, a line is printed when something has changed. Slurm is asked once a
minute at most. EXPERIMENT may be a name below outputs/.

Where points of a sweep, or tasks of an array, are left that nobody works on, it ends after
--patience seconds: they may never begin. A job that still waits in the queue is only known of if
one of its tasks has begun a run; to wait for one that is not, give more, or inf.

{KEEP}Example:
  notata follow outputs/sweep
  notata follow --json --every 60 outputs/sweep
  notata follow --patience 0 outputs/sweep

Exit status: 0 if all runs are complete; 1 if some failed or are lost, none has begun, or points are
left that nobody works on; 2 if there is no such experiment.
"""

_SHOWN = 8  # runs that are at work, and runs that failed
_SHARE = 0.1  # of the time may go into looking


@click.command(help=_HELP)
@click.argument("experiment", metavar="EXPERIMENT", type=click.Path())
@click.option("--every", type=click.FloatRange(min=0.1), default=2.0, help="Seconds between looks.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    help="Seconds to wait for somebody to work on what is left.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document when it has changed.")
@click.pass_context
def follow(
    ctx: click.Context, experiment: str, every: float, patience: float, as_json: bool
) -> None:
    """Follow an experiment until its runs have ended.

    Ranks: independent; one process is enough.
    """
    from notata.pacing import Pace

    pace = Pace(located(experiment))
    screen, end = console(), _End(patience)
    if as_json or not screen.is_terminal:
        found = _by_lines(pace, every, end, as_json)
    else:
        found = _live(pace, every, end)
    if found.left:
        _say_left(found, patience)
    if found.left or found.bad or found.states.get("failed") or not found.begun:
        ctx.exit(ATTENTION)


class _End:
    """Says when there is nothing to follow any more."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._idle_since: float | None = None

    def reached(self, found: Now) -> bool:
        """Whether all is done, or nobody has worked on what is left for so long."""
        now = time.monotonic()
        if not found.idle:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        idle_for = -1.0 if self._idle_since is None else now - self._idle_since
        return not found.left or idle_for >= self._patience


def _say_left(found: Now, patience: float) -> None:
    few = found.left == 1
    told = f"{counted(found.left, found.unit)} {'is' if few else 'are'} left, and nobody "
    told += f"has worked on {'it' if few else 'them'} for {duration_text(patience, coarse=True)}"
    again = f"notata failed {printable(found.folder)} --array"
    click.echo(f"notata: {told}; to submit again: {again}", err=True)


def _by_lines(pace: Pace, every: float, end: _End, as_json: bool) -> Now:
    before: Any = None
    while True:
        began = time.monotonic()
        found = pace.look()
        if found.states != before:
            click.echo(json_text(_plain(found), indent=None) if as_json else _sentence(found))
        before = found.states
        if end.reached(found):
            return found
        _rest(every, began)


def _live(pace: Pace, every: float, end: _End) -> Now:
    from rich.live import Live

    with Live(console=console(), auto_refresh=False, transient=False) as live:
        while True:
            began = time.monotonic()
            found = pace.look()
            live.update(_table(found), refresh=True)
            if end.reached(found):
                return found
            _rest(every, began)


def _rest(every: float, began: float) -> None:
    """Wait, the longer the longer a look takes: ten thousand runs are not read all the time."""
    took = time.monotonic() - began
    time.sleep(max(every - took, took * (1 - _SHARE) / _SHARE if took > _SHARE * every else 0.0))


# ----- what is shown -----


def _ordered(found: Now) -> list[tuple[str, int]]:
    from notata.verdicts import STATES

    order = {state: place for place, state in enumerate(STATES)}
    return sorted(found.states.items(), key=lambda item: (order.get(item[0], 9), item[0]))


def _sentence(found: Now) -> str:
    """How far it is, in a line."""
    told = ", ".join(f"{count} {state}" for state, count in _ordered(found)) or "no runs"
    return printable(f"{time.strftime('%H:%M:%S')} {told}{_speed(found)}")


def _speed(found: Now) -> str:
    if found.rate is None or not found.left:
        return ""
    hourly = 3600 * found.rate
    rate = f"{hourly:.0f} runs/h" if hourly < 3600 else f"{found.rate:.1f} runs/s"
    return f"; {rate}, {duration_text(found.to_go or 0.0, coarse=True)} to go"


def _table(found: Now) -> Group:
    from rich.console import Group
    from rich.text import Text

    from notata.pacing import last_words

    done = f"{found.ended} of {found.ended + found.left} ended" if found.left else "all ended"
    parts: list[Any] = [
        Text(printable(found.folder), style="bold", no_wrap=True, overflow="ellipsis"),
        Text(f"{done}{_speed(found)}"),
    ]
    states = new_table("state")
    states.add_column("runs", justify="right")
    for state, count in _ordered(found):
        states.add_row(status_text(state), str(count))
    parts.append(states)
    if found.running:
        table = new_table("at work")
        table.add_column("said last", no_wrap=True, overflow="ellipsis")
        for outcome in found.running[:_SHOWN]:
            table.add_row(cell(outcome.run_id), cell(last_words(outcome.path)))
        parts += [Text(""), table, *_more(len(found.running))]
    if found.bad:
        table = new_table("need attention")
        table.add_column("state", no_wrap=True)
        table.add_column("why", no_wrap=True, overflow="ellipsis")
        for outcome in found.bad[:_SHOWN]:
            table.add_row(
                cell(outcome.run_id), status_text(outcome.state), cell(outcome.reason or "")
            )
        parts += [Text(""), table, *_more(len(found.bad))]
    return Group(*parts)


def _more(count: int) -> list[Any]:
    from rich.text import Text

    return [Text(f"and {counted(count - _SHOWN, 'run')} more", "dim")] if count > _SHOWN else []


def _plain(found: Now) -> dict[str, Any]:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "experiment": found.folder,
        "states": dict(found.states),
        "ended": found.ended,
        "left": found.left,
        "runs_per_hour": None if found.rate is None else 3600 * found.rate,
        "seconds_to_go": found.to_go,
    }
