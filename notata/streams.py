"""All ranks' messages as one stream in time order."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator

from notata import corrections, freshness, gather, layout, messages

_CHUNK = 1 << 16


def _lines(path: str) -> Iterator[bytes]:
    """Lines of a file that is not kept open, so that thousands can be read side by side."""
    offset, rest = 0, b""
    while True:
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                chunk = file.read(_CHUNK)
        except FileNotFoundError:
            chunk = b""
        if not chunk:
            if rest:
                yield rest
            return
        offset += len(chunk)
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"


def blocks_in_order(run: str, ranks: Iterable[int] | None = None) -> Iterator[messages.Block]:
    """Ranks' records in time order; within a rank the order is never changed.

    A rank's records come from its own log where it has one, and all of that log is the rank's. Else
    they come from the run's `log.txt`, which holds rank 0's and, once merged, everybody's.

    Args:
        run: The run's folder.
        ranks: The ranks; all by default. No other rank's own log is opened.

    Ranks: independent.
    """
    wanted = None if ranks is None else set(ranks)
    own = own_logs(run, gather.rank_folders(run) if wanted is None else wanted)
    shifts = corrections.of_run(run)
    streams = [
        _timed(rank, messages.blocks(_lines(path), rank), shifts) for rank, path in own.items()
    ]
    if wanted is None or not wanted <= own.keys():
        shared = messages.blocks(_lines(os.path.join(run, layout.LOG)))
        rest = (
            block
            for block in shared
            if block.rank not in own and (wanted is None or (block.rank or 0) in wanted)
        )
        streams.append(_timed(0, rest, shifts))
    for _, _, block in heapq.merge(*streams, key=lambda item: item[:2]):
        yield block


def own_logs(run: str, ranks: Iterable[int]) -> dict[int, str]:
    """The logs in folders of ranks; rank 0's is the run's `log.txt`.

    Ranks: independent.
    """
    paths = {
        rank: os.path.join(run, layout.rank_dir(rank), layout.LOG)
        for rank in sorted(ranks)
        if rank != 0
    }
    return {rank: path for rank, path in paths.items() if freshness.exists(path)}


def _timed(
    rank: int, blocks: Iterator[messages.Block], shifts: corrections.Corrections
) -> Iterator[tuple[int, int, messages.Block]]:
    """Give each record the time that orders it, on rank 0's clock as far as that is known.

    It is never before that of the record above it.
    """
    latest = messages.LONG_AGO
    for block in blocks:
        latest = max(latest, shifts.one(messages.ticks(block.stamp), block.rank))
        yield latest, rank, block


def read_messages(
    run: str, level: str | int = 0, ranks: Iterable[int] | None = None
) -> Iterator[messages.Record]:
    """The messages of some ranks from a level on, in time order.

    Args:
        run: The run's folder.
        level: The lowest level, by name or number.
        ranks: The ranks; all by default.

    Raises:
        ValueError: If there is no such level.

    Ranks: independent.
    """
    least = messages.level_number(level)
    found = map(messages.record, blocks_in_order(run, ranks))
    return (record for record in found if least <= 0 or level_of(record.level) >= least)


def level_of(name: str) -> int:
    """The number of the level that a record names; 0 where it names none.

    Ranks: independent.
    """
    try:
        return messages.LEVELS.get(name) or int(name.removeprefix("Level "))
    except ValueError:
        return 0
