"""The hosts of ranks, which nobody could tell rank 0 where there was no communicator."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from notata import files, layout, writers
from notata.errors import DamagedError
from notata.provenance import with_hosts
from notata.stored import read_json


def completed(
    run: str, meta: Mapping[str, Any], records: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The metadata with the hosts that the ranks' own records tell.

    Args:
        run: Folder of the run.
        meta: Its metadata.
        records: The record of each rank that left one.

    Returns:
        All of the metadata, or None if it knows these hosts already.

    Raises:
        DamagedError: If it does not say what it says of hosts.

    Ranks: root only.
    """
    parallel = meta["parallel"]
    told = {rank: str(record["host"]) for rank, record in records.items() if record.get("host")}
    try:
        known = with_hosts(parallel, told)
    except ValueError as error:
        path = os.path.join(run, layout.METADATA)
        raise DamagedError(f"{path} is damaged: {error}") from None
    return None if known == parallel else {**meta, "parallel": known}


def save(run: str, meta: Mapping[str, Any]) -> bool:
    """Put the hosts into the metadata of a run that has ended, unless it has changed since.

    A rank that fails late, and the next attempt, write the metadata, too: theirs stay.

    Args:
        run: Folder of the run.
        meta: What `completed` gave.

    Returns:
        Whether they were put there. If not, a later merge finds them as well.

    Ranks: root only.
    """
    path = os.path.join(run, layout.METADATA)
    with suppress(_ChangedError):
        with files.replacing(path, temporary=layout.merge_temporary()) as file:
            file.write(writers.json_bytes(meta, "meta"))
            file.flush()
            os.fsync(file.fileno())
            if _but_hosts(read_json(path) or {}) != _but_hosts(meta):  # as late as can be
                raise _ChangedError
        files.sync(run)
        return True
    return False


class _ChangedError(Exception):
    """Somebody else has written the metadata meanwhile."""


def _but_hosts(meta: Mapping[str, Any]) -> dict[str, Any]:
    parallel = meta.get("parallel") or {}
    others = {key: parallel[key] for key in parallel.keys() - {"hosts", "hosts_unknown"}}
    return {**meta, "parallel": others}
