"""Writes what the scheduler knows into runs that never got to say it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from notata import files, freshness, history, layout, lifecycle, pulse, writers
from notata.cells import RUN_ID, encode_own
from notata.index import Index
from notata.lock import locked
from notata.messages import began
from notata.outcomes import Survey, survey
from notata.rows import row_of
from notata.stored import StrPath, parse_json
from notata.tables import read_table
from notata.verdicts import COMPLETE, FAILED, Outcome


class Reconciled(NamedTuple):
    """What a reconciliation did.

    Attributes:
        survey: What was found.
        written: The runs that were marked as failed.
        skipped: The runs that went on or said how they ended in the meantime.
        rows: How many rows the table has if it was made anew, else None.
    """

    survey: Survey
    written: list[Outcome]
    skipped: list[Outcome]
    rows: int | None


def reconcile(folder: StrPath) -> Reconciled:
    """Mark the runs as failed that ended without a word, as the scheduler knows; and their rows.

    A run that ended by itself, one that still runs and one that only the lack of signs of life
    speaks against stay as they are. A second call finds nothing to do.

    Args:
        folder: The experiment's folder, or that of one run.

    Raises:
        RunNotFoundError: If there is no such folder (a `FileNotFoundError`).
        NotARunError: If it holds no runs (a `ValueError`).
        LockTimeoutError: If another process reconciles it all the time.

    Ranks: independent; one process is enough.
    """
    folder = os.fspath(folder)
    found = survey(folder)
    is_run = freshness.exists(os.path.join(folder, layout.METADATA))
    home = _home(folder) if is_run else os.path.abspath(folder)
    written: list[Outcome] = []
    skipped: list[Outcome] = []
    unsaid = [outcome for outcome in found.outcomes if outcome.unsaid]
    if unsaid:
        with locked(os.path.join(home, layout.RECONCILE_LOCK)):
            for outcome in unsaid:
                source = found.answer.source or ""
                (written if _write(outcome, source) else skipped).append(outcome)
    rows = None
    told = {outcome.run_id: _Told(outcome.recorded, outcome.reason) for outcome in found.outcomes}
    if is_run:
        _renew_row(home, folder)
    elif written or _is_behind(home, told):
        rows = Index(home).rebuild()
    return Reconciled(found, written, skipped, rows)


def _home(run: str) -> str:
    """The experiment of a run, or the folder of one that is in none."""
    parent = os.path.dirname(os.path.abspath(run))
    return os.path.dirname(parent) if os.path.basename(parent) == layout.RUNS else parent


class _Changed(Exception):  # noqa: N818
    """The run has moved on."""


def _write(outcome: Outcome, source: str) -> bool:
    """Mark a run as failed, unless it has changed since it was looked at.

    Only the run itself writes its metadata otherwise, and its job is over; so what can come between
    is a process that outlived its job, or the next attempt. Both would be seen: the first by the
    time of its last sign, the second by the file that claims an attempt. Should one still come in
    the instant between the last look and the rename, it loses nothing, since it holds its metadata
    in memory and writes all of them when it ends.
    """
    path = os.path.join(outcome.path, layout.METADATA)
    try:
        seen = os.stat(path)
        data = files.read_bytes(path)
        meta = parse_json(data, path) if data else {}
        if not _is_as_seen(meta, outcome):
            return False
        values = writers.json_bytes(_ended(meta, outcome, source), "meta")
        with files.replacing(path) as file:
            file.write(values)
            now = os.stat(path)
            same = (now.st_ino, now.st_mtime_ns, now.st_size)
            if same != (seen.st_ino, seen.st_mtime_ns, seen.st_size):
                raise _Changed
            if pulse.last_sign(outcome.path) != outcome.sign:
                raise _Changed
            if _newest_attempt(outcome.path) > _attempt(meta):
                raise _Changed
    except (_Changed, FileNotFoundError):
        return False
    return True


def _is_as_seen(meta: dict[str, Any], outcome: Outcome) -> bool:
    if meta.get("status") != lifecycle.INITIALIZED or meta.get("scheduler") != outcome.facts:
        return False
    moved = pulse.last_sign(outcome.path) != outcome.sign
    return not moved and _newest_attempt(outcome.path) <= _attempt(meta)


def _attempt(meta: dict[str, Any]) -> int:
    told = meta.get("attempts")
    return len(told) if isinstance(told, list) and told else 1


def _newest_attempt(run: str) -> int:
    numbers = map(layout.attempt_of, os.listdir(run))
    return max((number for number in numbers if number is not None), default=1)


def _ended(meta: dict[str, Any], outcome: Outcome, source: str) -> dict[str, Any]:
    end = outcome.ended if outcome.ended is not None else time.time()
    fields: dict[str, Any] = {
        "status": FAILED,
        "failure_reason": outcome.reason,
        "end_time": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(end)),
        "reconciled": {"source": source, "time": time.strftime("%Y-%m-%dT%H:%M:%S")},
    }
    if (start := began(meta)) is not None:
        fields["runtime_sec"] = max(0.0, end - start)
    return history.mirrored(meta | fields)


class _Told(NamedTuple):
    """What a run's metadata say, and its row should."""

    status: object
    reason: object


def _renew_row(experiment: str, run: str) -> None:
    """Put a run's row into its experiment's table, if there is one that says something else."""
    if freshness.exists(os.path.join(experiment, layout.INDEX)):
        row = row_of(run)
        told = _Told(row.run.get("run_status"), row.run.get("failure_reason"))
        if _is_behind(experiment, {row.run_id: told}):
            Index(experiment).add(row)


def _is_behind(experiment: str, told: Mapping[str, _Told]) -> bool:
    """Whether the row of a run that has ended is missing, or is that of an earlier attempt.

    A crash between the run's end and its row leaves it so, and a table that was held for too long.
    """
    ended = {
        run_id: (told.status, encode_own(told.reason))
        for run_id, told in told.items()
        if told.status in (COMPLETE, FAILED)
    }
    if not ended:
        return False
    try:
        _, rows = read_table(os.path.join(experiment, layout.INDEX))
    except (OSError, ValueError):
        return True
    there = {row.get(RUN_ID): (row.get("run_status"), row.get("failure_reason")) for row in rows}
    return any(there.get(run_id) != cells for run_id, cells in ended.items())
