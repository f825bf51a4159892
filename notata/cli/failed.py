"""The command `notata failed`."""

from __future__ import annotations

from collections.abc import Mapping
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
    without_run,
)
from notata.phrases import printable
from notata.ranges import compact, task_specs

if TYPE_CHECKING:
    from notata.leftovers import Unbegun
    from notata.outcomes import Again, Survey

_HELP = f"""List the runs of an EXPERIMENT that failed or are lost, with parameters and reasons.

Points of a sweep that no task will do any more are listed behind them, and array tasks that ended
without a run, or, without a sweep, in another way than COMPLETED between two runs.

With --array, print the array specification of what to submit again, such as 3,7-9,21: the tasks of
those runs, and the tasks that never began one, or left points or may have left runs. Tasks that
wait or run are left out; those that may do so, as no scheduler tells, are named on standard error.
Where the site's arrays can't have so many tasks (MaxArraySize), there are several, one a line, each
for an sbatch of its own. EXPERIMENT may be a name below outputs/.

{KEEP}Example:
  notata failed outputs/sweep
  sbatch --array=$(notata failed sweep --array) slurm/array.sbatch

Exit status: 0, or 1 if there is work that no array task stands for, or 2 if there is no such
experiment.
"""


@click.command(help=_HELP)
@click.argument("experiment", metavar="EXPERIMENT", type=click.Path())
@click.option("--array", is_flag=True, help="Print an array specification instead of the runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def failed(ctx: click.Context, experiment: str, array: bool, as_json: bool) -> None:
    """List the runs that failed or are lost.

    Ranks: independent; one process is enough.
    """
    from notata import slurm
    from notata.outcomes import again, survey

    found = survey(located(experiment))
    todo = again(found)
    limit = slurm.array_limit() if array and todo.tasks else None
    size, most = limit or (None, None)
    fitting = [task for task in todo.tasks if size is None or task < size]
    specs = task_specs(fitting, most) if fitting else []
    remarks = list(_remarks(found, todo, size)) if array else []
    if as_json:
        click.echo(json_text(_plain(found, todo, specs)))
    elif array:
        for spec in specs:
            click.echo(spec)
    else:
        _show(found, todo)
    for remark in remarks:
        complain(remark)
    if todo.doubtful:
        which = f"task{'s' if len(todo.doubtful) > 1 else ''} {compact(todo.doubtful)}"
        told = "may still wait in the queue or run: no scheduler tells"
        click.echo(f"notata: {which} {told}", err=True)
    if array and not specs and not remarks:
        click.echo(f"{printable(found.folder)}: nothing to submit again{_while(found)}", err=True)
    if remarks:
        ctx.exit(ATTENTION)


def _while(found: Survey) -> str:
    """The job of no array that may do what is left."""
    job = found.job
    waits = job is not None and not job.over and bool(found.left)
    return f" while job {job.job} is {job.why}" if job is not None and waits else ""


def _remarks(found: Survey, todo: Again, size: int | None) -> list[str]:
    """What the specification leaves out, in sentences."""
    told = []
    if todo.others:
        names = ", ".join(outcome.run_id for outcome in todo.others[:3])
        more = f" and {len(todo.others) - 3} more" if len(todo.others) > 3 else ""
        why = "did not run in an array" if found.grid is None else "had no point in the last sweep"
        told.append(f"{names}{more} {why}: submit them by themselves")
    if size is not None and (beyond := [task for task in todo.tasks if task >= size]):
        told.append(
            f"tasks {compact(beyond)} are left out: MaxArraySize is {size} here, which allows task "
            f"ids up to {size - 1}"
        )
    told += [
        f"array {array} is no plain range, and nobody says which tasks it had: those that "
        "never began are left out"
        for array in found.unclear
    ]
    return told


def _show(found: Survey, todo: Again) -> None:
    from notata.errors import NotataError
    from notata.stored import read_params

    over = [one for one in found.left if one.over]
    if not todo.runs and not over:
        click.echo(f"{printable(found.folder)}: no run failed or is lost")
        return
    table = new_table("run")
    table.add_column("task", justify="right", no_wrap=True)
    table.add_column("parameters", overflow="fold")
    table.add_column("why", overflow="fold")
    for outcome in todo.runs:
        try:
            params = _listed(read_params(outcome.path))
        except (NotataError, OSError):
            params = "damaged"
        why = outcome.reason or outcome.state
        table.add_row(*map(cell, (outcome.run_id, _number(outcome.task), params, why)))
    for one in over:
        params = _listed(_params(found, one) or {})
        table.add_row(*map(cell, ("-", _number(one.task), params, one.reason or one.state)))
    show(table)


def _number(task: int | None) -> str:
    return "" if task is None else str(task)


def _listed(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())


def _params(found: Survey, one: Unbegun) -> dict[str, Any] | None:
    """The parameters of a point that was never begun."""
    if found.grid is None or one.point is None:
        return None
    return found.grid.points[one.point]


def _plain(found: Survey, todo: Again, specs: list[str]) -> dict[str, Any]:
    from notata.errors import NotataError
    from notata.stored import read_params

    runs = []
    for outcome in todo.runs:
        try:
            params: Any = read_params(outcome.path)
        except (NotataError, OSError):
            params = None
        runs.append(plain_run(outcome) | {"params": params})
    return {
        "experiment": found.folder,
        "runs": runs,
        "tasks": todo.tasks,
        "tasks_without_run": {str(task): why for task, why in without_run(found).items()},
        "never_begun": [
            {"params": _params(found, one), "task": one.task}
            | {"state": one.state, "reason": one.reason}
            for one in found.left
            if one.over
        ],
        "array": specs,
    }
