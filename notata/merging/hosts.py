"""What nobody could tell rank 0 of the ranks: their hosts, and the signals that came to them.

Where there was no communicator that is all of them; else what came too late, or where ranks ended
without closing the run together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from notata import files, layout, signalled, writers
from notata.errors import DamagedError
from notata.merging.refusals import naming
from notata.provenance import with_hosts
from notata.sealed import is_broken, sealed
from notata.stored import read_json


def completed(
    run: str, meta: Mapping[str, Any], records: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """The metadata with the hosts and signals that the ranks' own records tell.

    Args:
        run: Folder of the run.
        meta: Its metadata.
        records: The record of each rank that left a sound one.

    Returns:
        All of the metadata, or None if it knows these already.

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
    signals = _signals(meta, records)
    if is_broken(parallel):  # what is wrong with it would be sealed as right
        return None
    if known == parallel and signals == meta.get("signals", []):
        return None
    return {**meta, "parallel": sealed(known)} | ({"signals": signals} if signals else {})


def _signals(meta: Mapping[str, Any], records: Mapping[int, Mapping[str, Any]]) -> Any:
    noted = meta.get("signals", [])
    if not isinstance(noted, list):  # the program's own
        return noted
    told = {rank: record["signals"] for rank, record in records.items() if "signals" in record}
    told.pop(0, None)  # rank 0 wrote them where they belong
    attempts = meta.get("attempts")
    entries = [a for a in attempts if isinstance(a, dict)] if isinstance(attempts, list) else []
    return signalled.joined(noted, told, [str(one.get("start_time")) for one in entries])


def save(run: str, meta: Mapping[str, Any]) -> bool:
    """Put `completed` metadata in their place in a run that has ended, unless it has changed since.

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
            if not _has(meta, read_json(path) or {}):  # as late as can be
                raise _ChangedError
        with naming(run):
            files.sync(run)
        return True
    return False


class _ChangedError(Exception):
    """Somebody else has written the metadata meanwhile."""


def _has(meta: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether metadata say all that is there."""
    noted = _times(meta)
    return _others(meta) == _others(there) and all(one in noted for one in _times(there))


_RENEWED = {"hosts", "hosts_unknown", "checksum"}


def _others(meta: Mapping[str, Any]) -> dict[str, Any]:
    parallel = meta.get("parallel") or {}
    others = {key: parallel[key] for key in parallel.keys() - _RENEWED}
    return {key: meta[key] for key in meta.keys() - {"signals"}} | {"parallel": others}


def _times(meta: Mapping[str, Any]) -> list[Any]:
    """The signals, whichever ranks they came to."""
    noted = meta.get("signals", [])
    if not isinstance(noted, list):
        return [noted]
    return [
        {k: v for k, v in one.items() if k != "ranks"} if isinstance(one, dict) else one
        for one in noted
    ]
