"""What ranks said of a run that nobody closed, and which said nothing as all were asked to end.

A launcher that misses one of its ranks ends the others. Where it asks them by a signal (Open MPI),
each writes that down; a rank that was killed before can't have. On other nodes a launcher may kill
without asking, so that a rank is named only where another one of its node was asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from notata import layout, rankfiles, signalled, stored
from notata.ranges import expand, ranks_text

_MOST = 4  # that are named: where more are silent, ranks were killed without being asked
_UNTOLD = "initialized"


def explained(reason: str | None, run: stored.StrPath, meta: Mapping[str, Any]) -> str | None:
    """Why a run failed or was lost, with the ranks that said nothing, where that tells something.

    Args:
        reason: Why, so far.
        run: The run's folder.
        meta: Its metadata.

    Ranks: independent.
    """
    if meta.get("status") != _UNTOLD and "ended by SIG" not in (reason or ""):
        return reason
    try:
        silent, said = fell_silent(run, meta), said_failed(run, meta)
    except (OSError, ValueError):  # a damaged archive says nothing
        silent = said = None
    return "; ".join(text for text in (reason, silent, said) if text) or None


def said_failed(run: stored.StrPath, meta: Mapping[str, Any]) -> str | None:
    """Name the first rank that marked the run as failed, and ended before all could close it.

    Args:
        run: The run's folder.
        meta: Its metadata.

    Ranks: independent.
    """
    for rank in range(1, _size(meta.get("parallel"))):
        files = rankfiles.files_of(os.fspath(run), rank)
        told = stored.json_object(files.read(layout.RANK_RECORD)) or {}
        if told.get("status") == _UNTOLD and told.get("failure_reason"):
            return f"rank {rank} had marked it failed: {told['failure_reason']}"
    return None


def _size(parallel: object) -> int:
    size = parallel.get("size") if isinstance(parallel, dict) else None
    return size if isinstance(size, int) else 0


def fell_silent(run: stored.StrPath, meta: Mapping[str, Any]) -> str | None:
    """Name the ranks that said nothing when all the others noted a signal that ended them.

    Args:
        run: The run's folder.
        meta: Its metadata.

    Returns:
        Such as `rank 1 said nothing when the others were ended by SIGTERM`; None where there is no
        such rank, or where ranks were not asked to end, so that nothing can be known.

    Ranks: independent.
    """
    parallel = meta.get("parallel")
    if not isinstance(parallel, dict) or parallel.get("communicator") is not True:
        return None  # a rank that never opened the run is silent, too
    if meta.get("attempts"):
        return None  # what signals are noted may be of an older attempt
    nodes = {rank: host for host, told in _texts(parallel.get("hosts")) for rank in expand(told)}
    silent: list[int] = []
    asked: set[str | None] = set()  # the nodes
    signals: set[str] = set()
    for rank in range(_size(parallel)):
        files = rankfiles.files_of(os.fspath(run), rank)
        record = stored.json_object(files.read(layout.RANK_RECORD))
        if record is None and rank == 0:  # it has none unless it wrote an array
            record = {"signals": signalled.came_to(0, meta.get("signals"))}
        told = record or {}
        if end := _signal_that_ended(told):
            signals.add(end)
            asked.add(nodes.get(rank))
        elif told.get("status", _UNTOLD) == _UNTOLD and len(silent) < _MOST:
            silent.append(rank)
        else:
            return None  # it ended by itself; or nobody was asked
    silent = [rank for rank in silent if nodes.get(rank) in asked]
    if not silent:
        return None
    who, ends = ranks_text(silent), ", ".join(sorted(signals))
    return f"{who} said nothing when the others were ended by {ends}"


def _texts(told: object) -> list[tuple[str, str]]:
    pairs = told.items() if isinstance(told, dict) else ()
    return [(host, text) for host, text in pairs if isinstance(text, str)]


def _signal_that_ended(record: Mapping[str, Any]) -> str | None:
    told = record.get("signals")
    notes = [note for note in told if isinstance(note, dict)] if isinstance(told, list) else []
    return next((str(note.get("signal")) for note in notes if note.get("ends")), None)
