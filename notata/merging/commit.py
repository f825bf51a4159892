"""What was joined takes its place, all of it or nothing, and the run says what was merged."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from notata import files, gather, layout
from notata.assembly import Whole
from notata.errors import DamagedError, MergeError
from notata.lock import locked
from notata.merging import hosts
from notata.merging.joining import join
from notata.merging.plan import Output, Plan, bytes_of, make_plan
from notata.stored import read_json
from notata.version import __version__


class Row(NamedTuple):
    """A line of the report: one array, or the log.

    Attributes:
        name: The name that a reader loads it by, or `log.txt`.
        kind: `array`, `bundle` or `log`.
        pieces: Number of ranks whose pieces were joined.
        shape: Shape of the whole, or None for the log.
        bytes: Bytes of the array, or of the log.
        action: `joined` or `unchanged`.
    """

    name: str
    kind: str
    pieces: int
    shape: tuple[int, ...] | None
    bytes: int
    action: str


class Report(NamedTuple):
    """What a merge did.

    Attributes:
        run: Folder of the run.
        rows: One for each array and the log.
        nothing_to_do: Whether everything had been merged before.
        note: The same in a sentence.
    """

    run: str
    rows: tuple[Row, ...]
    nothing_to_do: bool
    note: str


def merge(path: str | os.PathLike[str], *, unfinished: bool = False) -> Report:
    """Make of all ranks' outputs what one process would have written.

    Arrays are joined into the run's `data/`, all ranks' messages into its `log.txt`. The ranks'
    own folders are left alone. A second call joins just what has changed since.

    Args:
        path: Folder of the run.
        unfinished: Whether a run is merged as far as it got, though it never closed, or one of its
            ranks failed, or left nothing and was not counted.

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
    plan = make_plan(run, unfinished=unfinished)
    _refuse(run, plan.problems)
    if plan.size == 1:
        return Report(run, (), True, "one rank: nothing to merge")
    plan = _merged(plan, unfinished)
    if not plan.outputs:
        return Report(run, (), True, "no rank but 0 wrote anything: nothing to merge")
    done = all(output.fresh for output in plan.outputs)
    rows = tuple(row for output in plan.outputs for row in _rows(run, output))
    joined = sum(row.action == "joined" for row in rows)
    note = "nothing to do: merged before" if done else f"joined {joined} of {len(rows)}"
    return Report(run, rows, done, note)


def _merged(plan: Plan, unfinished: bool) -> Plan:
    """Carry a plan out, unless there is nothing to do; gives the plan that was carried out."""
    if plan.metadata is None and all(output.fresh for output in plan.outputs):
        return plan
    with locked(os.path.join(plan.run, layout.RANKS, layout.MERGE_LOCK)):
        # Another merge may have been at work.
        plan = make_plan(plan.run, unfinished=unfinished, before=plan)
        _refuse(plan.run, plan.problems)
        if not all(output.fresh for output in plan.outputs):
            _carry_out(plan)
        if plan.metadata is not None:
            hosts.save(plan.run, plan.metadata)
    return plan


def _refuse(run: str, problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        told = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        raise MergeError(f"{run} can't be merged: {told}", found)


def _carry_out(plan: Plan) -> None:
    """Join everything that is not fresh, then put it in place."""
    run = plan.run
    stale = [output for output in plan.outputs if not output.fresh]
    temporaries: dict[str, str] = {}
    made: list[str] = []
    try:
        for output in stale:
            folder = os.path.dirname(os.path.join(run, output.file))
            made += _missing_folders(folder)
            os.makedirs(folder, exist_ok=True)
            temporaries[output.file] = os.path.join(folder, layout.temporary())
        join(run, [(o, temporaries[o.file]) for o in stale], None, lambda count: None)
        _put_in_place(plan, temporaries)
    except DamagedError as error:
        raise MergeError(f"{run} can't be merged: {error}", [str(error)]) from error
    finally:
        for temporary in temporaries.values():
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        for folder in reversed(made):
            with suppress(OSError):  # it is empty only if this merge came to nothing
                os.rmdir(folder)


def _missing_folders(path: str) -> list[str]:
    """Which of a folder and its parents have to be made, the outermost first."""
    missing: list[str] = []
    while not os.path.isdir(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    return missing


def _put_in_place(plan: Plan, temporaries: dict[str, str]) -> None:
    """Replace the targets.

    The record first says which files are about to be the merge's own. Cut off in between, the next
    merge knows them and makes them again.
    """
    path = os.path.join(plan.run, layout.MERGE_RECORD)
    merged = gather.merged_files(read_json(path))
    outputs: dict[str, Any] = {
        file: made for file, made in merged.items() if made and file not in temporaries
    }
    pending = sorted({*temporaries, *merged} - outputs.keys())
    _write_record(path, outputs, pending)
    for file, temporary in temporaries.items():
        os.replace(temporary, os.path.join(plan.run, file))
    for output in plan.outputs:
        if output.file in temporaries:
            made = gather.fingerprints(plan.run, [output.file])[output.file]
            outputs[output.file] = {"inputs": output.inputs, "self": made}
    _write_record(path, outputs, [])


def _write_record(path: str, outputs: dict[str, Any], pending: list[str]) -> None:
    record = {
        "format": layout.FORMAT_VERSION,
        "notata": __version__,
        "outputs": outputs,
        "pending": pending,
    }
    files.replace_bytes(path, json.dumps(record, indent=1, sort_keys=True).encode())


def _rows(run: str, output: Output) -> Iterable[Row]:
    action = "unchanged" if output.fresh else "joined"
    if output.is_log:
        size = os.stat(os.path.join(run, output.file)).st_size
        return [Row(output.file, "log", len(output.inputs) + 1, None, size, action)]
    return [_array_row(whole, action) for whole in output.wholes]


def _array_row(whole: Whole, action: str) -> Row:
    kind = "array" if whole.key is None else "bundle"
    return Row(whole.label, kind, len(whole.parts), whole.shape, bytes_of(whole), action)
