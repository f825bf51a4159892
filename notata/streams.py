"""All ranks' messages as one stream in time order."""

from __future__ import annotations

import heapq
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator

from notata import corrections, freshness, gather, layout, messages

_ALL = 64 << 20  # bytes of all logs that are held at once, as far as that goes
_LEAST, _CHUNK = 1 << 12, 1 << 16  # bytes of one that are read at a time


def _chunk(count: int) -> int:
    """How much of each of so many logs is read at a time."""
    return min(_CHUNK, max(_LEAST, _ALL // max(1, count)))


class _MovedError(Exception):
    """A log was replaced or taken away while it was read: a merge has put its records elsewhere."""


def _lines(path: str, size: int, *, is_there: bool = False) -> Iterator[bytes]:
    """Lines of a file that is not kept open, so that thousands can be read side by side.

    Args:
        path: The file.
        size: Bytes that are read at a time.
        is_there: Whether it was there a moment ago.

    Raises:
        _MovedError: If it is gone, or another one.
    """
    seen: os.stat_result | None = None
    offset, held = 0, 0
    parts: list[bytes] = []  # of a line that is longer than what is read
    while True:
        try:
            with open(path, "rb", buffering=0) as file:
                now = os.fstat(file.fileno())
                if seen is not None and not os.path.samestat(seen, now):
                    raise _MovedError
                seen = now
                file.seek(offset)
                chunk = file.read(max(size, held))
        except FileNotFoundError:
            if seen is not None or (is_there and not freshness.exists(path)):
                raise _MovedError from None
            chunk = b""
        if not chunk:
            if parts:
                yield b"".join(parts)
            return
        offset += len(chunk)
        for line in io.BytesIO(chunk):  # which gives one after another: a list needs more room
            if not line.endswith(b"\n"):
                parts.append(line)
                held += len(line)
            elif parts:
                whole = b"".join([*parts, line])
                parts, held = [], 0
                yield whole
            else:
                yield line


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
    given = Counter[int]()
    while True:
        left = given.copy()
        try:
            for block in _blocks(run, wanted):
                rank = block.rank or 0
                if left[rank]:  # given before the logs were merged or pruned
                    left[rank] -= 1
                    continue
                given[rank] += 1
                yield block
        except _MovedError:
            continue
        return


def _blocks(run: str, wanted: set[int] | None) -> Iterator[messages.Block]:
    """The records as they lie now.

    Raises:
        _MovedError: If they lie elsewhere by now. All are there still, and in the same order.
    """
    own = own_logs(run, gather.rank_folders(run) if wanted is None else wanted)
    shifts = corrections.of_run(run)
    size = _chunk(len(own) + 1)
    streams = [
        _timed(rank, messages.blocks(_lines(path, size, is_there=True), rank), shifts)
        for rank, path in own.items()
    ]
    if wanted is None or not wanted <= own.keys():
        shared = messages.blocks(_lines(os.path.join(run, layout.LOG), size))
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
