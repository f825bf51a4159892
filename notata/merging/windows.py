"""All ranks' records in time order, a window of all logs at a time.

The order is that of `streams.blocks_in_order`, by which readers read. There each record is looked
at by itself; here all records of a window are found and sorted at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from typing import TYPE_CHECKING, NamedTuple

from notata import checksums, clocks, messages, streams
from notata.errors import DamagedError
from notata.merging.heads import BEFORE, BEHIND, Heads, find_heads

if TYPE_CHECKING:
    from notata.npy import Array

WINDOW = 3 << 23  # bytes of all logs that are looked at together
_LEAST = 1 << 13  # bytes of one log
_PART = 1 << 22  # bytes of a log that is looked at by itself
_SHORT = 128  # bytes up to which records are copied together
_AT_ONCE = 1 << 13  # of them
_INDENT = b"    "
_LONG_AGO = b"1970-01-01T00:00:00"  # where nobody wrote a time stamp


class Span(NamedTuple):
    """A part of a log, from one line's beginning to another's.

    Attributes:
        path: The log.
        rank: Whose own log it is, or None for the run's `log.txt`.
        begin: Byte of the file where the part begins.
        end: Where it ends.
        without: In the run's log, the ranks whose records are left out.
    """

    path: str
    rank: int | None
    begin: int
    end: int
    without: Set[int]


class Items(NamedTuple):
    """Records of some lines of one log, or the rest of one that began before.

    Attributes:
        starts: Where each begins in the lines.
        ends: Where each ends.
        ticks: What orders them: never less than those of the record above.
        signed: Those that are not to be written as they are, by their number.
    """

    starts: Array
    ends: Array
    ticks: Array
    signed: dict[int, bytes]


class Log:
    """One log, read forwards in parts of whole lines that are not kept open.

    Attributes:
        span: What is read of it.
        next: The byte of the file that is read next.
    """

    def __init__(self, run: str, span: Span, shifts: clocks.Corrections) -> None:
        self.span = span
        self._shifts = shifts
        self.next = span.begin
        self._run = run
        self._latest = messages.LONG_AGO
        self._rank = span.rank
        self._begun = self._preambled = False
        self._hashed = checksums.hasher()

    @property
    def at_end(self) -> bool:
        """Whether all of it has been read."""
        return self.next >= self.span.end

    @property
    def latest(self) -> int:
        """The ticks that no record that is still to be read comes before."""
        return self._latest

    def checksum(self) -> str:
        """Of what has been read."""
        return checksums.text_of(self._hashed)

    def read(self, size: int) -> bytes:
        """The next lines: about so many bytes, but at least one whole line.

        Raises:
            DamagedError: If the file has become shorter.
        """
        path, _, _, end, _ = self.span
        with open(path, "rb", buffering=0) as file:
            while True:
                size = min(size, end - self.next)
                lines = os.pread(file.fileno(), size, self.next)
                if len(lines) < size:
                    raise DamagedError(f"{path} became shorter while it was joined")
                if self.next + size < end:
                    lines = lines[: lines.rfind(b"\n") + 1]
                if lines or not size:
                    break
                size *= 2
        self.next += len(lines)
        self._hashed.update(lines)
        return lines if lines.endswith(b"\n") or not lines else lines + b"\n"

    def items(self, lines: bytes, starts: Array, ticks: Array, ranks: Array) -> Items:
        """The records in the lines that were read last.

        Args:
            lines: The lines.
            starts: Where records begin in them.
            ticks: What orders these.
            ranks: The ranks that they name, or -1.
        """
        import numpy as np

        signed: dict[int, bytes] = {}
        if self._shifts:
            ticks = self._shifted(ticks, ranks)
        rest = bool(lines) and not (len(starts) and starts[0] == 0)
        mine = self._rank if self._rank is not None else -1
        if rest:  # of the record that the lines above ended with, or of none
            starts, ticks = np.append(0, starts), np.append(self._latest, ticks)
            ranks = np.append(mine, ranks)
        ends = np.concatenate((starts[1:], [len(lines)] if len(starts) else starts))
        own = self.span.rank
        if own is None:
            if len(ranks):
                self._rank = int(ranks[-1])
            keep = ~np.isin(ranks, list(self.span.without))
            starts, ends, ticks = starts[keep], ends[keep], ticks[keep]
        else:
            if rest and not self._begun:
                signed[0] = self._preamble(lines[: ends[0]], own)
            strange = ranks != own
            for i in np.flatnonzero(strange).tolist() if strange.any() else ():
                raw = lines[starts[i] : ends[i]]
                signed[i] = messages.signed(messages.Block(raw[1:20], own, raw), b"")
        self._begun = self._begun or len(starts) > rest
        ticks = np.maximum.accumulate(np.maximum(ticks, self._latest))
        if len(ticks):
            self._latest = int(ticks[-1])
        return Items(starts, ends, ticks, signed)

    def _shifted(self, ticks: Array, ranks: Array) -> Array:
        """The ticks on rank 0's clock."""
        import numpy as np

        if self.span.rank is not None:
            return self._shifts.many(ticks, self.span.rank)
        ticks = ticks.copy()
        for rank in np.unique(ranks).tolist():
            mine = ranks == rank
            ticks[mine] = self._shifts.many(ticks[mine], max(rank, 0))
        return ticks

    def _preamble(self, lines: bytes, rank: int) -> bytes:
        """Lines above the first record: one message, whose first line is to name the rank."""
        if self._preambled:
            return _INDENT + lines[:-1].replace(b"\n", b"\n" + _INDENT) + b"\n"
        self._preambled = True
        return messages.signed(messages.Block(b"", rank, lines), _start(self._run))


def _start(run: str) -> bytes:
    """The time stamp of the run's first record."""
    return next((b.stamp for b in streams.blocks_in_order(run) if b.stamp), _LONG_AGO)


class _Held:
    """What is held of a log: records that were read and not yet written."""

    def __init__(self, log: Log) -> None:
        import numpy as np

        self.log = log
        self._data = b""
        self._starts = self._ends = self._ticks = np.zeros(0, np.int64)

    @property
    def size(self) -> int:
        """Bytes that are held."""
        return len(self._data) - int(self._starts[0]) if len(self._starts) else 0

    def add(self, lines: bytes, items: Items) -> None:
        """Put records behind those that are held."""
        import numpy as np

        rest = self._data[len(self._data) - self.size :]
        lines, starts, ends = _rewritten(lines, items)
        gone = int(self._starts[0]) if len(self._starts) else 0
        self._data = rest + lines
        self._starts = np.concatenate((self._starts - gone, starts + len(rest)))
        self._ends = np.concatenate((self._ends - gone, ends + len(rest)))
        self._ticks = np.concatenate((self._ticks, items.ticks))

    def take(self, until: int, inclusive: bool) -> _Taken:
        """Take the records that come before some ticks, or at them too."""
        side = "right" if inclusive else "left"
        count = int(self._ticks.searchsorted(until, side))  # type: ignore[call-overload]
        begin = int(self._starts[0]) if count else 0
        end = int(self._ends[count - 1]) if count else 0
        starts, ends, ticks = self._starts[:count], self._ends[:count], self._ticks[:count]
        self._starts, self._ends = self._starts[count:], self._ends[count:]
        self._ticks = self._ticks[count:]
        return _Taken(self._data[begin:end], starts - begin, ends - begin, ticks)


class _Taken(NamedTuple):
    data: bytes
    starts: Array
    ends: Array
    ticks: Array


def _rewritten(lines: bytes, items: Items) -> tuple[bytes, Array, Array]:
    """The lines with those records replaced that are not to be written as they are."""
    import numpy as np

    if not items.signed:
        return lines, items.starts, items.ends
    spans = zip(items.starts.tolist(), items.ends.tolist(), strict=True)
    parts = [items.signed.get(i) or lines[a:b] for i, (a, b) in enumerate(spans)]
    ends = np.cumsum([len(part) for part in parts])
    return b"".join(parts), np.append(0, ends[:-1]), ends


def in_order(logs: Sequence[Log]) -> Iterator[memoryview]:
    """All logs' records in time order, some megabytes at a time.

    Args:
        logs: The logs, by rank; the run's `log.txt` first.

    Raises:
        DamagedError: If a log becomes shorter.
        OSError: If one can't be read.

    Ranks: independent.
    """
    held = [_Held(log) for log in logs]
    share = max(_LEAST, WINDOW // max(1, len(held)))
    while True:
        _fill(held, share)
        open_ones = [(h.log.latest, number) for number, h in enumerate(held) if not h.log.at_end]
        # What is still to be read of a log does not come before the last record read of it.
        until, last = min(open_ones, default=(1 << 62, len(held)))
        taken = (h.take(until, number <= last) for number, h in enumerate(held))
        found = [some for some in taken if some.data]
        if found:
            yield _interleaved(found)
        if not open_ones:
            return


def parts_of(log: Log) -> Iterator[tuple[int, Items, Array]]:
    """A log by itself, part by part.

    Yields:
        Where the part begins in the file, its records, and how many bytes are written of each.

    Ranks: independent.
    """
    while not log.at_end:
        at = log.next
        lines = log.read(_PART)
        items = log.items(lines, *_heads([lines])[0])
        lengths = items.ends - items.starts
        for number, signed in items.signed.items():
            lengths[number] = len(signed)
        yield at, items, lengths


def _fill(held: Sequence[_Held], share: int) -> None:
    """Read on in the logs so that as much is held of each, and find all new records at once."""
    some = [h for h in held if not h.log.at_end and h.size <= share - share // 8]
    parts = [h.log.read(max(1, share - h.size)) for h in some]
    for h, lines, heads in zip(some, parts, _heads(parts), strict=True):
        h.add(lines, h.log.items(lines, *heads))


def _heads(parts: Sequence[bytes]) -> list[Heads]:
    """The heads of all records in the lines of several logs."""
    import numpy as np

    heads = find_heads(b"".join([b"\n" * BEFORE, *parts, bytes(BEHIND)]))
    begins = np.cumsum([BEFORE, *map(len, parts)])
    cuts = np.searchsorted(heads.starts, begins).tolist()
    found = []
    for begin, a, b in zip(begins[:-1], cuts, cuts[1:], strict=False):
        starts, ticks, ranks = (column[a:b] for column in heads)
        found.append(Heads(starts - begin, ticks, ranks))
    return found


def _interleaved(taken: Sequence[_Taken]) -> memoryview:
    """Records of several logs by time; of the same time, by rank."""
    import numpy as np

    data = b"".join([*(some.data for some in taken), bytes(_SHORT)])
    sizes = [len(some.data) for some in taken]
    shift = np.repeat(np.cumsum([0, *sizes[:-1]]), [len(some.ticks) for some in taken])
    order = np.argsort(np.concatenate([some.ticks for some in taken]), kind="stable")
    starts = (np.concatenate([some.starts for some in taken]) + shift)[order]
    ends = (np.concatenate([some.ends for some in taken]) + shift)[order]
    apart = starts[1:] != ends[:-1]
    starts, ends = starts[np.append(True, apart)], ends[np.append(apart, True)]
    return _gathered(data, starts, ends - starts)


def _gathered(data: bytes, starts: Array, sizes: Array) -> memoryview:
    """Put runs of bytes one behind another.

    The short ones are copied with what follows them, all as long as the longest, which the next
    ones then write over. The long ones are copied as they are, after that.
    """
    import numpy as np

    ends = np.cumsum(sizes)
    into = ends - sizes
    made = bytearray(int(ends[-1]) + _SHORT)
    source: Array = np.ndarray((len(data) - _SHORT + 1,), f"V{_SHORT}", data, strides=(1,))
    target: Array = np.ndarray((len(made) - _SHORT + 1,), f"V{_SHORT}", made, strides=(1,))
    for i in range(0, len(starts), _AT_ONCE):
        some = slice(i, i + _AT_ONCE)
        short = sizes[some] <= _SHORT
        target[into[some][short]] = source[starts[some][short]]
    view, whole = memoryview(data), memoryview(made)
    for i in np.flatnonzero(sizes > _SHORT).tolist():
        whole[into[i] : ends[i]] = view[starts[i] : starts[i] + sizes[i]]
    return whole[: len(made) - _SHORT]
