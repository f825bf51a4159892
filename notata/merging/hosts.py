"""The hosts of ranks, which nobody could tell rank 0 where there was no communicator."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from notata import files, layout, writers
from notata.errors import DamagedError
from notata.provenance import with_hosts


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


def save(run: str, meta: Mapping[str, Any]) -> None:
    """Replace the metadata of a run that has ended, so that nobody else writes it.

    Ranks: root only.
    """
    data = writers.json_bytes(meta, "meta")
    path = os.path.join(run, layout.METADATA)
    files.replace_bytes(path, data, durable=True, temporary=layout.merge_temporary())
