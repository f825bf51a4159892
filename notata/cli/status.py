"""The command `notata status`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from notata.cli.printing import (
    ATTENTION,
    KEEP,
    cell,
    complain,
    json_text,
    located,
    new_table,
    plain_run,
    show,
    source_text,
    status_text,
    without_run,
)
from notata.phrases import counted, printable
from notata.ranges import compact

if TYPE_CHECKING:
    from notata.outcomes import Survey
    from notata.verdicts import Outcome

_HELP = f"""Say what became of the runs of an EXPERIMENT: how many are in which state, and why.

Runs that ended by themselves are believed. For the others Slurm is asked, once for all: by sacct,
else squeue, else scontrol. Where it doesn't know, a run that gave no sign of life for 10 minutes
(NOTATA_LOST_AFTER, in seconds) is lost. EXPERIMENT may be a single run, or a name below outputs/.

Points of a sweep that have no run are waiting as long as a task, or a job of no array, may still do
them. Where Slurm knows that none will, they have failed as the task has, or the task COMPLETED
without them. Without a sweep, a task of an array whose runs are complete may still have left some
if Slurm has it as anything but COMPLETED; it counts as failed. Tasks of an array that have no run,
and of which nobody knows whether they wait in the queue, are unknown.

{KEEP}Example:
  notata status outputs/sweep
  notata status --json outputs/sweep

Exit status: 0 if nothing is known to be wrong; 1 if runs failed or are lost, or a task has left
something that no other will do; 2 if there is no such experiment.
"""

_SHOWN = 20  # runs that need attention, in the table
_COLOURS = {"complete": "green", "running": "yellow", "waiting": "cyan", "unknown": "cyan"}


@click.command(help=_HELP)
@click.argument("experiment", metavar="EXPERIMENT", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def status(ctx: click.Context, experiment: str, as_json: bool) -> None:
    """Say what became of the runs of an experiment.

    Ranks: independent; one process is enough.
    """
    from notata.outcomes import survey

    found = survey(located(experiment))
    groups = list(_groups(found))
    bad = [outcome for outcome in found.outcomes if _needs_attention(outcome)]
    if as_json:
        click.echo(json_text(_plain(found, groups, bad)))
    else:
        _show(found, groups, bad)
    if bad or any(one.over for one in found.left):
        ctx.exit(ATTENTION)


def _needs_attention(outcome: Outcome) -> bool:
    return outcome.state not in ("complete", "running", "waiting")


def _groups(found: Survey) -> Iterator[tuple[str, str, int]]:
    """Each state with its reasons, and how many runs have it; a reason may be empty."""
    from notata.verdicts import STATES

    reasons: dict[tuple[str, str], list[str]] = {}
    for outcome in found.outcomes:
        text = _without_place(outcome.reason or "")
        reasons.setdefault((outcome.state, re.sub(r"\d+", "#", text)), []).append(text)
    for one in found.left:
        text = _without_place(one.reason or "not begun")
        reasons.setdefault((one.state, text), []).append(text)
    order = {state: place for place, state in enumerate(STATES)}
    for (state, pattern), texts in sorted(
        reasons.items(), key=lambda item: (order.get(item[0][0], len(order)), -len(item[1]))
    ):
        yield state, texts[0] if len(set(texts)) == 1 else pattern, len(texts)


def _without_place(reason: str) -> str:
    """A reason without the job and node that it names."""
    return re.sub(r" \(Slurm [^()]*\)$", "", reason)


def _show(found: Survey, groups: list[tuple[str, str, int]], bad: list[Outcome]) -> None:
    from rich.text import Text

    click.echo(f"{printable(found.folder)}: {counted(len(found.outcomes), 'run')}")
    if groups:
        table = new_table("state")
        table.add_column("runs", justify="right", no_wrap=True)
        table.add_column("why", overflow="fold")
        for state, reason, count in groups:
            name = Text(printable(state), style=_COLOURS.get(state, "red"))
            table.add_row(name, str(count), cell(reason))
        show(table)
    click.echo(source_text(found))
    if bad:
        click.echo("\nThese need attention:")
        _show_runs(bad)
    _show_hints(found)


def _show_runs(bad: list[Outcome]) -> None:
    shown = bad[:_SHOWN]
    jobs = any(outcome.job for outcome in shown)  # a column of nothing takes room from the reasons
    table = new_table("run")
    for heading in ("state", "job") if jobs else ("state",):
        table.add_column(heading, no_wrap=True)
    table.add_column("why", overflow="fold")
    for outcome in shown:
        job = [cell(outcome.job)] if jobs else []
        why = cell(_without_place(outcome.reason or ""))
        table.add_row(cell(outcome.run_id), status_text(outcome.state), *job, why)
    show(table)
    if len(bad) > _SHOWN:
        click.echo(f"and {len(bad) - _SHOWN} more, which `notata failed` lists")


def _show_hints(found: Survey) -> None:
    again = f"`notata failed {printable(found.folder)} --array`"
    over = [one for one in found.left if one.over]
    if over and found.grid is not None:
        count, are = counted(len(over), "point"), "is" if len(over) == 1 else "are"
        click.echo(f"{count} {are} left that no task will do; {again} says what to submit again")
    else:
        _show_tasks(found)
    for array in found.unclear:
        complain(
            f"array {array} is no plain range, and nobody says which tasks it had: those "
            "that never began are not counted"
        )
    unsaid = sum(outcome.unsaid for outcome in found.outcomes)
    if unsaid:
        click.echo(
            f"{counted(unsaid, 'run')} never got to say so: `notata reconcile "
            f"{printable(found.folder)}` writes it into {'it' if unsaid == 1 else 'them'}"
        )


def _show_tasks(found: Survey) -> None:
    """Name the array tasks that left something, where no grid says what."""
    if ended := without_run(found, "failed"):
        click.echo(f"{counted(len(ended), 'task')} ended without a run: {compact(ended)}")
    if cut := [one.task for one in found.left if one.begun and one.task is not None]:
        count = counted(len(cut), "task")
        click.echo(f"{count} ended before all was done, it may be: {compact(cut)}")
    if unknown := without_run(found, "unknown"):
        have = "1 task has" if len(unknown) == 1 else f"{len(unknown)} tasks have"
        click.echo(f"{have} no run, and may still wait in the queue: {compact(unknown)}")


def _plain(
    found: Survey, groups: Iterable[tuple[str, str, int]], bad: Iterable[Outcome]
) -> dict[str, Any]:
    counts: dict[str, int] = {}
    told = []
    for state, reason, count in groups:
        counts[state] = counts.get(state, 0) + count
        told.append({"state": state, "reason": reason or None, "runs": count})
    return {
        "experiment": found.folder,
        "runs": len(found.outcomes),
        "states": counts,
        "reasons": told,
        "source": found.answer.source or "signs of life",
        "refusals": found.answer.refusals,
        "attention": [plain_run(outcome) for outcome in bad],
        "tasks_without_run": {str(task): why for task, why in without_run(found).items()},
        "unsaid": sum(outcome.unsaid for outcome in found.outcomes),
    }
