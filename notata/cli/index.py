"""The command `notata index`."""

from __future__ import annotations

import os
from collections import Counter

import click

from notata.cli.printing import ATTENTION, KEEP, complain, json_text, located
from notata.phrases import printable

_HELP = f"""Make the table of EXPERIMENT, its index.csv, anew from the folders of its runs.

Every run that has ended gets its row, whatever became of the table. Runs that are at work
meanwhile add theirs as always. EXPERIMENT may be a name below outputs/.

{KEEP}Example:
  notata index outputs/sweep
  notata index --json outputs/sweep

Exit status: 0; 1 if a run's metadata, parameters or metrics can't be read, which its row says too;
2 if there is no such experiment, or its table can't be written.
"""


@click.command(name="index", help=_HELP)
@click.argument("experiment", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def index(ctx: click.Context, experiment: str, as_json: bool) -> None:
    """Make the table of an experiment anew.

    Ranks: independent; one process is enough.
    """
    from notata.index import Index
    from notata.reader import ExperimentReader
    from notata.stored import DAMAGED

    experiment = located(experiment)
    reader = ExperimentReader(experiment)  # says what is wrong if it is none
    table = Index(os.path.abspath(experiment))
    table.rebuild()
    rows = table.rows()
    statuses = Counter(str(row["run_status"]) for row in rows)
    damaged = {
        row["run_id"]: (row["failure_reason"] if row["run_status"] == DAMAGED else None)
        or row.get("error_reason")
        or "damaged"
        for row in rows
        if row["run_status"] == DAMAGED or row["status"] == "error"
    }
    if as_json:
        told = {
            "index": os.fspath(reader.index_path),
            "rows": len(rows),
            "statuses": dict(sorted(statuses.items())),
            "damaged": damaged,
        }
        click.echo(json_text(told))
    else:
        parts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
        click.echo(f"{printable(os.fspath(reader.index_path))}: {parts or 'no run has ended yet'}")
        for run_id, reason in damaged.items():
            complain(f"run {run_id}: {reason}")
    if damaged:
        ctx.exit(ATTENTION)
