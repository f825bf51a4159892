"""The command `notata merge`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from notata import layout
from notata.cli.mergeshow import Outcome, Shown
from notata.cli.printing import ATTENTION, KEEP, WELL, WRONG, located
from notata.cli.progress import Progress
from notata.errors import MergeError, NotataError
from notata.phrases import error_text, size_text

if TYPE_CHECKING:
    from concurrent.futures import Executor

_HELP = f"""Make of each RUN's ranks what one process would have written.

The ranks' pieces of an array are joined into the run's data/, their messages into its log.txt, and
JSON that several ranks wrote under one name into artifacts/NAME.ranks.json, keyed by rank; of its
numbers, artifacts/NAME.ranks.csv has a row a rank. The ranks' own files are left alone unless
--prune is given. merge.json says what was made of what: a second merge does just what has changed.

A RUN that is an experiment, or a folder of runs, stands for all of its runs. Those that are still
going are left out and named, with --unfinished those that gave a sign of life lately. An
experiment's index.csv is made again from its runs. A RUN may be a name below outputs/.

Under mpirun or srun the ranks share the work, as --jobs processes do on one machine.

What is missing or contradicts (a rank, a piece, a part of an array) is named, and nothing is
written. Two options let a merge go on. --unfinished is about what nobody can know: the run was
killed, a rank never closed it, or left nothing and may have been silent. --allow-missing is about
what is known to be missing: it leaves holes (NaN; where the type has none, zeros, and True in
data/NAME.mask.npy), and the summary and merge.json name each of them.

--dry-run looks at names, sizes and heads of files alone. What they hold is read when it is merged,
so that damage within a file is found then; it changes nothing and is named.

{KEEP}Example:
  notata merge outputs/log_heat
  notata merge --dry-run outputs/log_heat
  notata merge --prune outputs/log_heat
  notata merge --verify outputs/log_heat
  notata merge --jobs 4 outputs/sweep
  notata merge --unfinished outputs/log_killed

Exit status: 0 if all is merged; 1 if a run that still goes was left out, or if --verify finds that
ranks wrote since; 2 if a run can't be merged, or what was merged is damaged. What is wrong with one
run does not stop the others.
"""


class Options(NamedTuple):
    """What was asked for."""

    dry_run: bool
    verify: bool
    prune: bool
    allow_missing: bool
    unfinished: bool
    timeout: float | None
    quiet: bool
    as_json: bool
    executor: Executor | None = None


@click.command(help=_HELP)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path())
@click.option("--dry-run", is_flag=True, help="Show the plan and what is wrong; write nothing.")
@click.option(
    "--verify", is_flag=True, help="Compare what was merged with its checksums; write nothing."
)
@click.option(
    "--prune",
    is_flag=True,
    help="Then delete the ranks' folders. What nothing joins stays in ranks.zip.",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Leave holes where pieces are missing, damaged or don't fit.",
)
@click.option(
    "--unfinished",
    is_flag=True,
    help="Merge a run as far as it got: killed, or with ranks that failed or left nothing.",
)
@click.option(
    "-j", "--jobs", type=click.IntRange(1), default=1, help="Processes that share the work."
)
@click.option(
    "--timeout", type=click.FloatRange(0), help="Seconds to wait for another merge of the run."
)
@click.option("-q", "--quiet", is_flag=True, help="Print errors alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def merge(ctx: click.Context, /, runs: tuple[str, ...], jobs: int, **given: Any) -> None:
    """Merge runs, and all runs of experiments and folders.

    Ranks: independent; one process is enough.
    """
    options = Options(**given)
    if sum((options.dry_run, options.verify, options.prune)) > 1:
        raise click.UsageError("--dry-run, --verify and --prune exclude one another")
    from notata.merging.crew import crew

    shown = Shown(quiet=options.quiet, as_json=options.as_json)
    with crew(jobs) as workers:
        if not workers.leads:
            return  # it has worked for rank 0, which says the rest
        for named in runs:
            _merge_named(located(named), options._replace(executor=workers.executor), shown)
    shown.finish()
    if shown.worst:
        ctx.exit(shown.worst)


def _merge_named(named: str, options: Options, shown: Shown) -> None:
    """Merge a run, or all that lie in an experiment or a folder."""
    from notata import listing

    if not os.path.isdir(named) or listing.holds_run(named):
        shown.add(_outcome(named, options))
        return
    try:
        folders = [named] if listing.is_experiment(named) else listing.experiments_in(named)
        runs = [] if folders == [named] else listing.runs_in(named)
    except OSError as error:
        shown.add(_refused(named, error))
        return
    if not runs and not folders:
        shown.add(_outcome(named, options))  # which says that it is no run
        return
    for run in runs:
        shown.add(_outcome_of_many(os.fspath(run), options), many=True)
    for experiment in folders:
        _merge_experiment(os.fspath(experiment), options, shown)
    shown.end(named)


def _merge_experiment(path: str, options: Options, shown: Shown) -> None:
    """Merge an experiment's runs, and make its table again from them."""
    from notata.index import Index
    from notata.listing import runs_of

    try:
        runs = runs_of(path)
        for run in runs:
            shown.add(_outcome_of_many(os.fspath(run), options), many=True)
        if runs and not (options.dry_run or options.verify):
            rows = Index(path).rebuild()
            shown.indexed(path, rows)
    except OSError as error:
        shown.add(_refused(path, error))
    if not runs:
        shown.empty(path)
    shown.end(path)


def _outcome_of_many(run: str, options: Options) -> Outcome:
    """Merge one run of many, unless it is still going."""
    from notata import pulse
    from notata.merging.survey import ENDED
    from notata.stored import read_json

    status = (read_json(os.path.join(run, layout.METADATA)) or {}).get("status", ENDED[0])
    if status not in ENDED and not options.unfinished:
        return Outcome(run, ATTENTION, left_out=f"it is still going, or was killed ({status})")
    if status not in ENDED and not pulse.is_lost(run, status):
        told = "it still gives signs of life; to merge it as far as it got, name it by itself"
        return Outcome(run, ATTENTION, left_out=told)
    return _outcome(run, options)


def _outcome(run: str, options: Options) -> Outcome:
    """Do with a run what was asked for, or say what is wrong with it."""
    from notata.merging import merge as merge_run

    try:
        if options.verify:
            return _verified(run, options)
        if options.dry_run:
            return _planned(run, options)
        with Progress(run, quiet=options.quiet or options.as_json) as progress:
            report = merge_run(
                run,
                unfinished=options.unfinished,
                allow_missing=options.allow_missing,
                prune=options.prune,
                timeout=options.timeout,
                executor=options.executor,
                progress=progress,
                verifying=progress.also("verifying"),
            )
        return Outcome(run, WELL, report=report)
    except MergeError as error:
        return Outcome(
            run, WRONG, problems=tuple(error.problems or [str(error)]), hint=_hint(error.ways_out)
        )
    except NotataError as error:
        return Outcome(run, WRONG, problems=(str(error),), named=run in str(error))
    except OSError as error:
        return _refused(run, error)


def _refused(run: str, error: OSError) -> Outcome:
    text = error_text(error)
    return Outcome(run, WRONG, problems=(text,), named=text.startswith(f"{run}:"))


def _hint(options: Sequence[str]) -> str:
    """What to do where a merge would go on with other options."""
    return f"nothing was written; {' '.join(options)} would go on" if options else ""


def _verified(run: str, options: Options) -> Outcome:
    from notata.merging import verify

    with Progress(run, quiet=options.quiet or options.as_json) as progress:
        verdict = verify(run, progress=progress.also("verifying"))
    status = WRONG if verdict.damaged else ATTENTION if verdict.changed else WELL
    return Outcome(run, status, note=verdict.note, problems=verdict.damaged + verdict.changed)


def _planned(run: str, options: Options) -> Outcome:
    from notata.merging import make_plan, rows_of, ways_out

    plan = make_plan(run, unfinished=options.unfinished, allow_missing=options.allow_missing)
    stale = plan.stale
    rows = tuple(row for output in plan.outputs for row in rows_of(output, stale))
    if plan.size == 1:
        note = "one rank: nothing to merge"
    elif plan.problems:
        note = "can't be merged as it is"
    else:
        new = [row.bytes for row in rows if row.action != "unchanged"]
        note = f"would join {len(new)} of {len(rows)}, {size_text(sum(new))}"
    note += "".join(f"; {told}" for told in plan.notes)
    return Outcome(
        run,
        WRONG if plan.problems else WELL,
        note=note,
        rows=rows,
        problems=tuple(map(str, plan.problems)),
        holes=tuple(hole.text for hole in plan.holes),
        hint=_hint(ways_out(plan.problems)),
    )
