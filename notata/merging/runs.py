"""Merging runs: one, or all that lie in an experiment or a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Executor
from typing import NamedTuple

from notata import layout
from notata.assembly import Whole
from notata.merging import commit
from notata.merging.artifacts import Metric
from notata.merging.commit import Done, Progress, Way
from notata.merging.output import Output, bytes_of
from notata.merging.prune import Pruned
from notata.merging.prune import prune as prune_run
from notata.merging.refusals import explaining
from notata.ranges import compact


class Row(NamedTuple):
    """A line of the report: one array, the log, or another file.

    Attributes:
        name: The name that a reader loads it by, or the file.
        kind: `array`, `bundle`, `log`, `json`, `table` or `mask`.
        pieces: Number of ranks whose outputs were joined.
        shape: Shape of the whole, or None for anything but arrays.
        bytes: Bytes of the array, or of the file.
        action: `joined` or `unchanged`; in a plan, `to join` or `unchanged`.
        ranks: Those ranks, such as `0-2,5`.
    """

    name: str
    kind: str
    pieces: int
    shape: tuple[int, ...] | None
    bytes: int
    action: str
    ranks: str = ""


class Report(NamedTuple):
    """What a merge did.

    Attributes:
        run: Folder of the run.
        rows: One for each array and file; none where nothing had changed.
        nothing_to_do: Whether everything had been merged before.
        note: The same in a sentence.
        holes: What was missing, as sentences.
        metrics: Numbers across ranks, of the tables that were made.
        pruned: How many files were deleted, or None if none were to be.
        clock_correction: The largest correction of a clock that ordered the messages, in seconds.
    """

    run: str
    rows: tuple[Row, ...]
    nothing_to_do: bool
    note: str
    holes: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    pruned: int | None = None
    clock_correction: float = 0.0


def merge(
    path: str | os.PathLike[str],
    *,
    unfinished: bool = False,
    allow_missing: bool = False,
    prune: bool = False,
    timeout: float | None = None,
    executor: Executor | None = None,
    progress: Progress = lambda done, total: None,
    verifying: Progress = lambda done, total: None,
) -> Report:
    """Make of all ranks' outputs what one process would have written.

    Arrays are joined into the run's `data/`, all ranks' messages into its `log.txt`, and JSON that
    several ranks wrote under one name into `artifacts/<name>.ranks.json`, keyed by rank. A second
    call joins just what has changed since.

    Args:
        path: Folder of the run.
        unfinished: Whether a run is merged as far as it got, though it never closed, or one of its
            ranks failed, or left nothing and was not counted.
        allow_missing: Whether it is merged though pieces are known to be missing, or can't be
            joined. Holes are left where they would have been: NaN, or where the type has none,
            zeros, and True in `data/<name>.mask.npy`.
        prune: Whether to delete the ranks' folders once all is merged and verified. What nothing
            joins stays in `ranks.zip`, where readers find it.
        timeout: Seconds to wait for another merge of the run; by default `NOTATA_LOCK_TIMEOUT`,
            or 60.
        executor: Shares the work; None for this process alone.
        progress: Called with the bytes that are joined, and with how many there are.
        verifying: The same of the bytes that `prune` reads and writes before it deletes anything.

    Returns:
        What was joined.

    Raises:
        MergeError: If anything is missing, cut off, overlapping or contradictory; `problems` lists
            all of it, and nothing was written.
        DamagedError: If the run's metadata does not say what it says of a run of several ranks.
        OSError: If a file can't be written, such as on a full disk; nothing was replaced.
        RunNotFoundError: If there is no such folder.
        NotARunError: If no run was written there.
        LockTimeoutError: If another merge of this run does not end.

    Example:
        >>> merge("outputs/log_demo").note
        'one rank: nothing to merge'

    Ranks: independent; call it after the run, from one process.
    """
    run = os.fspath(path)
    way = Way(unfinished, allow_missing, timeout, executor, progress, prune)
    prunings: list[Pruned] = []

    def after(done: Done) -> None:
        prunings.append(_pruned(done, allow_missing, verifying))

    with explaining(run):
        done = commit.carry_out(run, way, after if prune else None)
    rows = tuple(row for output in done.plan.outputs for row in rows_of(output, done.joined, run))
    idle = not done.joined
    gone, kept, damaged = prunings[0] if prunings else Pruned()
    holes = (*_holes(done), *damaged)
    shift = _correction(done)
    note = _note(done, rows, len(holes))
    if shift and done.joined:
        note += f"; clocks corrected by up to {shift:.3g} s"
    note += "".join(f"; {told}" for told in done.plan.notes)
    if gone:
        note += f"; pruned {gone} files, {kept} are in ranks.zip"
    if prune and os.path.lexists(os.path.join(run, layout.PRUNED)):
        note += f"; {layout.PRUNED} could not be deleted: the next merge tries again"
    pruned = gone if prune else None
    return Report(run, rows, idle and not gone, note, holes, done.metrics, pruned, shift)


def _correction(done: Done) -> float:
    told = done.plan.merged.clocks if done.plan.unchanged else done.plan.clocks
    return float(told["largest"]) if told else 0.0


def _pruned(done: Done, allow_missing: bool, verifying: Progress) -> Pruned:
    if done.plan.unchanged or done.plan.outputs or done.plan.merged.files:
        return prune_run(done.plan.run, allow_missing=allow_missing, progress=verifying)
    return Pruned()


def _note(done: Done, rows: tuple[Row, ...], holes: int) -> str:
    plan = done.plan
    if plan.size == 1:
        return "one rank: nothing to merge"
    if not plan.outputs and not plan.unchanged:
        return "no rank but 0 wrote anything: nothing to merge"
    told = f", with {holes} hole{'s' if holes > 1 else ''}" if holes else ""
    if not done.joined:
        return f"nothing to do: merged before{told}"
    return f"joined {sum(row.action == 'joined' for row in rows)} of {len(rows)}{told}"


def _holes(done: Done) -> Iterable[str]:
    plan = done.plan
    if plan.unchanged:
        return (str(hole.get("what")) for hole in plan.merged.holes)
    return (hole.text for hole in plan.holes)


def rows_of(output: Output, joined: Iterable[Output], run: str | None = None) -> list[Row]:
    """The lines that a report, or a plan, has for an output.

    Args:
        output: The output.
        joined: The outputs that were made, or are to be made.
        run: Folder of the run, once they were made.

    Ranks: independent.
    """
    stale = output.file in {made.file for made in joined}
    told = ("to join" if run is None else "joined") if stale else "unchanged"
    if output.kind in ("array", "bundle") and output.wholes:
        return [_array_row(output, whole, told) for whole in output.wholes]
    shape = output.wholes[0].shape if len(output.wholes) == 1 else None
    bundled = output.wholes and output.wholes[0].key is not None
    size = output.size  # of bundles too it is that of what they hold
    if run is not None and not bundled:
        size = os.stat(os.path.join(run, output.file)).st_size
    ranks = compact(output.ranks)
    return [Row(output.file, output.kind, len(output.ranks), shape, size, told, ranks)]


def _array_row(output: Output, whole: Whole, told: str) -> Row:
    # Where the ranks' files were pruned, nothing tells of parts any more.
    ranks = [part.rank for part in whole.parts] if output.inputs else output.ranks
    shape, size = whole.shape, bytes_of(whole)
    return Row(whole.label, output.kind, len(ranks), shape, size, told, compact(ranks))
