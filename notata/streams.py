"""All ranks' messages as one stream in time order."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator

from notata import gather, layout, messages

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


def blocks_in_order(run: str) -> Iterator[messages.Block]:
    """All ranks' records in time order; within a rank the order is never changed.

    A rank's records come from its own log where it has one, else from the run's `log.txt`, which
    holds rank 0's and, once merged, everybody's.

    Args:
        run: The run's folder.

    Ranks: independent.
    """
    own = {
        rank: os.path.join(folder, layout.LOG)
        for rank, folder in gather.rank_folders(run).items()
        if rank != 0 and os.path.exists(os.path.join(folder, layout.LOG))
    }
    streams = [_timed(0, _without(os.path.join(run, layout.LOG), own.keys()))]
    streams += [_timed(rank, messages.blocks(_lines(path))) for rank, path in own.items()]
    for _, _, block in heapq.merge(*streams, key=lambda item: item[:2]):
        yield block


def _without(path: str, ranks: Iterable[int]) -> Iterator[messages.Block]:
    elsewhere = set(ranks)
    return (b for b in messages.blocks(_lines(path)) if b.rank not in elsewhere)


def _timed(
    rank: int, blocks: Iterator[messages.Block]
) -> Iterator[tuple[bytes, int, messages.Block]]:
    """Give each record the time that orders it: its own, but never before the one above it."""
    latest = b""
    for block in blocks:
        latest = max(latest, block.stamp)
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
    wanted = None if ranks is None else set(ranks)
    return (
        found
        for block in blocks_in_order(run)
        if (wanted is None or (block.rank or 0) in wanted)
        and ((found := messages.record(block)) and (least <= 0 or _level(found.level) >= least))
    )


def _level(name: str) -> int:
    try:
        return messages.LEVELS.get(name) or int(name.removeprefix("Level "))
    except ValueError:
        return 0
