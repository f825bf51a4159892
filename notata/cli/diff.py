"""The command `notata diff`."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from notata.cli.printing import ATTENTION, KEEP, cell, complain, json_text, located, new_table, show
from notata.cli.progress import Progress
from notata.phrases import duration_text, printable

if TYPE_CHECKING:
    from notata.comparing import Comparison, Difference, Group
    from notata.overview import Overview

_HELP = f"""Say what differs between two RUNs: how they were made, and what came out.

Parameters, code, packages, ranks and metrics are compared, and all arrays, merged or not: for each
how many elements differ, and where the difference is largest. A RUN may be a name below outputs/.

{KEEP}Example:
  notata diff outputs/log_heat outputs/log_killed
  notata diff --rtol 1e-9 outputs/log_heat outputs/log_killed
  notata diff --no-data --json outputs/log_heat outputs/log_killed

Exit status: 0 if metrics and arrays are the same; 1 if they differ or can't be compared; 2 if there
is no such run.
"""

_COUNTED = ("parameters", "packages", "metrics")  # where a fact is one of them
_LONGEST = 60  # characters of a value


@click.command(help=_HELP)
@click.argument("left", metavar="RUN", type=click.Path())
@click.argument("right", metavar="RUN", type=click.Path())
@click.option("--no-data", is_flag=True, help="Compare shapes and types of arrays alone.")
@click.option("--atol", type=click.FloatRange(min=0), default=0.0, help="Tolerate so much.")
@click.option("--rtol", type=click.FloatRange(min=0), default=0.0, help="Tolerate such a share.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def diff(
    ctx: click.Context,
    left: str,
    right: str,
    no_data: bool,
    atol: float,
    rtol: float,
    as_json: bool,
) -> None:
    """Say what differs between two runs.

    Ranks: independent; one process is enough.
    """
    from notata.comparing import compare

    with Progress("arrays", quiet=as_json) as progress:
        found = compare(
            located(left), located(right), data=not no_data, atol=atol, rtol=rtol, tell=progress
        )
    if as_json:
        click.echo(json_text(_plain(found)))
    else:
        _show(found, no_data)
    for sentence in (*found.left.damage, *found.right.damage):
        complain(sentence)
    if found.results_differ or found.left.damage or found.right.damage:
        ctx.exit(ATTENTION)


def _plain(found: Comparison) -> dict[str, Any]:
    return {
        **{side: _run(run) for side, run in (("left", found.left), ("right", found.right))},
        **{
            group.what: {c.name: _sides(c.left, c.right) for c in group.changes}
            for group in found.groups
        },
        "arrays": [_plain_array(array, found) for array in found.arrays],
        "results_differ": found.results_differ,
    }


def _run(run: Overview) -> dict[str, Any]:
    return {"path": run.path, "status": run.status, "runtime_sec": run.runtime}


def _sides(left: Any, right: Any) -> dict[str, Any]:
    """What each run has; nothing where it has nothing."""
    from notata.comparing import MISSING

    sides = {"left": left, "right": right}
    return {side: value for side, value in sides.items() if value is not MISSING}


def _plain_array(array: Difference, found: Comparison) -> dict[str, Any]:
    kinds = {
        side: {"shape": facts.shape, "dtype": facts.dtype}
        for side, run in (("left", found.left), ("right", found.right))
        for facts in run.arrays
        if facts.name == array.name
    }
    told = array._asdict() | {"problem": array.problem or None, "differs": array.differs}
    return {key: value for key, value in told.items() if key not in ("left", "right")} | kinds


# ----- for people -----


def _show(found: Comparison, no_data: bool) -> None:
    for side, run in (("left", found.left), ("right", found.right)):
        took = "" if run.runtime is None else f", {duration_text(run.runtime)}"
        click.echo(f"{side:5}  {printable(run.path)}: {printable(run.status)}{took}")
    same = []
    for group in found.groups:
        if group.changes:
            _show_group(group)
        elif group.same:
            counts = group.what in _COUNTED
            same.append(f"{group.what} ({group.same})" if counts else group.what)
    apart = [array for array in found.arrays if array.differs]
    if apart:
        _show_arrays(apart)
    alike = len(found.arrays) - len(apart)
    if alike:
        same.append(f"shapes of arrays ({alike})" if no_data else f"arrays ({alike})")
    if same:
        click.echo(f"\nthe same: {', '.join(same)}")


def _show_group(group: Group) -> None:
    click.echo()
    table = new_table(group.what)
    table.add_column("left", overflow="fold")
    table.add_column("right", overflow="fold")
    for change in group.changes:
        table.add_row(*map(cell, (change.name, _value(change.left), _value(change.right))))
    show(table)


def _show_arrays(arrays: list[Difference]) -> None:
    click.echo()
    table = new_table("arrays")
    for heading in ("left", "right", "differ"):
        table.add_column(heading, overflow="fold")
    table.add_column("largest difference", overflow="fold")
    for array in arrays:
        right = "same" if array.right == array.left else array.right
        table.add_row(*map(cell, (array.name, array.left, right, *_told(array))))
    show(table)


def _told(array: Difference) -> tuple[str, str]:
    if array.problem:
        return "?", array.problem
    if array.apart is None:
        return "-", "-"
    share = f"{array.apart} of {array.total}"
    if array.where is None or array.values is None:
        return share, "-"
    place = f"at [{', '.join(map(str, array.where))}]: " if array.where else ""
    values = ", ".join(f"{v:.8g}" if isinstance(v, float) else _value(v) for v in array.values)
    if array.largest is None:
        return share, f"{place}{values}"
    relative = ""
    if array.relative is not None and math.isfinite(array.relative):
        relative = f" ({100 * array.relative:.2g} %)"
    return share, f"{array.largest:.3g}{relative} {place}{values}"


def _value(value: Any) -> str:
    try:
        told = value if isinstance(value, str) else json.dumps(value)
    except TypeError:
        told = str(value)
    return told if len(told) <= _LONGEST else f"{told[: _LONGEST - 1]}…"
