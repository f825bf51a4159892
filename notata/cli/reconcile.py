"""The command `notata reconcile`."""

from __future__ import annotations

import click

from notata.cli.printing import KEEP, json_text, located, plain_run, source_text
from notata.phrases import printable

_HELP = f"""Mark as failed the runs of an EXPERIMENT that ended without a word, with Slurm's reason.

A run that was killed says nothing any more; Slurm knows why: OUT_OF_MEMORY, TIMEOUT, NODE_FAIL,
CANCELLED, PREEMPTED, an exit status. That is written into the run's metadata, and its row into the
table. A run that ended by itself, or still runs, is left alone, so that this may run from cron; a
second time it finds nothing to do. Rows that are missing, or are of an earlier attempt, are made
anew. EXPERIMENT may be a single run, or a name below outputs/.

{KEEP}Example:
  notata reconcile outputs/sweep
  */10 * * * * notata reconcile $HOME/outputs/sweep

Exit status: 0, or 2 if there is no such experiment.
"""


@click.command(help=_HELP)
@click.argument("experiment", metavar="EXPERIMENT", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def reconcile(experiment: str, as_json: bool) -> None:
    """Mark as failed the runs that ended without a word.

    Ranks: independent; one process is enough.
    """
    from notata.reconciling import reconcile as reconcile_runs

    experiment = located(experiment)
    done = reconcile_runs(experiment)
    lost = [outcome for outcome in done.survey.outcomes if outcome.state == "lost"]
    if as_json:
        told = {
            "experiment": experiment,
            "source": done.survey.answer.source or "signs of life",
            "marked": [plain_run(outcome) for outcome in done.written],
            "skipped": [plain_run(outcome) for outcome in done.skipped],
            "lost": [plain_run(outcome) for outcome in lost],
            "rows": done.rows,
        }
        click.echo(json_text(told))
        return
    for outcome in done.written:
        click.echo(f"{printable(outcome.run_id)}: failed: {printable(outcome.reason or '')}")
    for outcome in done.skipped:
        click.echo(f"{printable(outcome.run_id)}: moved on in the meantime, left alone")
    count = len(done.written)
    runs = "1 run" if count == 1 else f"{count} runs"
    click.echo(f"{printable(experiment)}: {runs} marked as failed. {source_text(done.survey)}")
    if lost:
        many = "1 run is" if len(lost) == 1 else f"{len(lost)} runs are"
        click.echo(f"{many} lost, of which no scheduler knows more; left alone")
    if done.rows is not None:
        click.echo(f"the table was made anew: {done.rows} rows")
