"""A log, read forwards in parts, and the records in each part."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from notata import checksums, corrections, freshness, messages, streams
from notata.errors import DamagedError
from notata.merging.anyheads import Heads
from notata.merging.heads import BEFORE, BEHIND, find_heads

if TYPE_CHECKING:
    from notata.npy import Array

LEAST = 256  # bytes of a part: more than the head of a record
_PART = 1 << 22  # bytes of a log that is looked at by itself
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
    """Records in a part of a log, or the rest of one that began before.

    Attributes:
        starts: Where each begins in the buffer.
        ends: Where each ends.
        ticks: What orders them: never less than those of the record above.
        signed: Those that are not to be written as they are, by their number.
    """

    starts: Array
    ends: Array
    ticks: Array
    signed: dict[int, bytes]


class Log:
    """One log, read forwards in parts. It is open only while it is read.

    A part holds whole lines, unless a line does not fit: that comes in several parts.

    Attributes:
        span: What is read of it.
        next: The byte of the file that is read next.
        latest: The ticks that no record that is still to be read comes before.
        within: Whether the part that was read last began within a line.
        goes_on_within: Whether the next one does.
        as_is: Whether all that was read is to be written as it is.
    """

    def __init__(self, run: str, span: Span, shifts: corrections.Corrections) -> None:
        self.span = span
        self.next = span.begin
        self.latest = messages.LONG_AGO
        self.within = False
        self.goes_on_within = False
        self.as_is = True
        self._shifts = shifts
        self._run = run
        self._rank = span.rank
        self._begun = self._preambled = False
        self._hashed = checksums.hasher()

    @property
    def at_end(self) -> bool:
        """Whether all of it has been read."""
        return self.next >= self.span.end

    def checksum(self) -> str:
        """Of what has been read."""
        return checksums.text_of(self._hashed)

    def read(self, buffer: bytearray, at: int, room: int) -> int:
        """Read the next part.

        Args:
            buffer: Takes it.
            at: Where in it.
            room: How many bytes there are for it, more than `LEAST`.

        Returns:
            How many bytes it has. A last line that was torn got its line break.

        Raises:
            DamagedError: If the file has become shorter.
        """
        left = self.span.end - self.next
        size = min(room - 1, left)
        with memoryview(buffer) as whole, whole[at : at + size] as view:
            self._fill(view)
            self.within, self.goes_on_within = self.goes_on_within, False
            if size < left:
                line_break = buffer.rfind(b"\n", at, at + size)
                self.goes_on_within = line_break < 0
                size = size if line_break < 0 else line_break + 1 - at
            self._hashed.update(view[:size])
        self.next += size
        if size and size == left and buffer[at + size - 1] != ord("\n"):
            buffer[at + size] = ord("\n")
            size += 1
        return size

    def _fill(self, view: memoryview) -> None:
        path, at = self.span.path, self.next
        descriptor = freshness.opener(path, os.O_RDONLY)
        try:
            while view:
                count = os.preadv(descriptor, [view], at)
                if not count:
                    raise DamagedError(f"{path} became shorter while it was joined")
                at, view = at + count, view[count:]
        finally:
            os.close(descriptor)

    def items(self, buffer: bytearray, begin: int, end: int, heads: Heads) -> Items:
        """The records in the part that was read last.

        Args:
            buffer: Where it was read into.
            begin: Where it begins in that.
            end: Where it ends.
            heads: The heads of records in it, by rank 0's clock.
        """
        import numpy as np

        starts, ticks, ranks = heads
        own = self.span.rank
        signed: dict[int, bytes] = {}
        rest = begin < end and not (len(starts) and starts[0] == begin)
        mine = self._rank if self._rank is not None else -1
        if rest:  # of the record that the lines above ended with, or of none
            starts, ticks = np.append(begin, starts), np.append(self.latest, ticks)
            ranks = np.append(mine, ranks)
        ends = np.empty_like(starts)
        ends[:-1], ends[-1:] = starts[1:], end
        if own is None:
            if len(ranks):
                self._rank = int(ranks[-1])
            keep = ~np.isin(ranks, list(self.span.without))
            if not keep.all():
                self.as_is = False
                starts, ends, ticks = starts[keep], ends[keep], ticks[keep]
        else:
            if rest and not self._begun:
                signed[0] = self._preamble(bytes(buffer[begin : ends[0]]), own)
            strange = ranks != own
            for i in np.flatnonzero(strange).tolist() if strange.any() else ():
                raw = bytes(buffer[starts[i] : ends[i]])
                made = messages.signed(messages.Block(raw[1:20], own, raw), b"")
                signed[i] = made if raw.endswith(b"\n") else made[:-1]
        self.as_is = self.as_is and not signed
        self._begun = self._begun or len(starts) > rest
        if len(ticks):
            if ticks[0] < self.latest or (ticks[1:] < ticks[:-1]).any():
                ticks = np.maximum.accumulate(np.maximum(ticks, self.latest))
            self.latest = int(ticks[-1])
        return Items(starts, ends, ticks, signed)

    def corrected(self, heads: Heads) -> Heads:
        """Heads by rank 0's clock."""
        import numpy as np

        if not self._shifts:
            return heads
        if self.span.rank is not None:
            return heads._replace(ticks=self._shifts.many(heads.ticks, self.span.rank))
        ticks = heads.ticks.copy()
        for rank in np.unique(heads.ranks).tolist():
            mine = heads.ranks == rank
            ticks[mine] = self._shifts.many(ticks[mine], max(rank, 0))
        return heads._replace(ticks=ticks)

    def plain(self, items: Items) -> Items:
        """What `items` gives where there is nothing odd: see `items_of`."""
        self._begun = True
        self.latest = int(items.ticks[-1])
        return items

    def _preamble(self, lines: bytes, rank: int) -> bytes:
        """Lines above the first record: one message, whose first line is to name the rank."""
        whole = lines.endswith(b"\n")
        if self._preambled:
            text = lines[:-1] if whole else lines
            text = text.replace(b"\n", b"\n" + _INDENT) + lines[len(text) :]
            return text if self.within else _INDENT + text
        self._preambled = True
        made = messages.signed(messages.Block(b"", rank, lines), _start(self._run))
        return made if whole else made[:-1]


def _start(run: str) -> bytes:
    """The time stamp of the run's first record."""
    return next((b.stamp for b in streams.blocks_in_order(run) if b.stamp), _LONG_AGO)


def break_before(log: Log) -> bytes:
    """What has to stand before the next part of a log, for its heads to be found.

    Ranks: independent.
    """
    return b" " if log.goes_on_within else b"\n"


def items_of(
    logs: Sequence[Log], buffer: bytearray, begins: Sequence[int], ends: Sequence[int]
) -> Iterator[Items]:
    """The records in the parts of several logs that were read last.

    Most parts have nothing odd: they are of a rank's own log, begin with a record, and all records
    name that rank and are in order. Which ones these are is found out for all of them at once.

    Args:
        logs: The logs.
        buffer: Where they were read into.
        begins: Where the part of each begins in it, one byte behind that of the log above.
        ends: Where it ends.

    Ranks: independent.
    """
    import numpy as np

    ranks = [log.span.rank or 0 for log in logs]
    heads = find_heads(buffer, ends, ranks)
    cuts = np.searchsorted(heads.starts, [0, *ends])
    starts, ticks, named = heads
    sliced = [Heads(starts[a:b], ticks[a:b], named[a:b]) for a, b in pairwise(cuts.tolist())]
    parts = [log.corrected(part) for log, part in zip(logs, sliced, strict=True)]
    if any(part is not one for part, one in zip(parts, sliced, strict=True)):
        ticks = np.concatenate([part.ticks for part in parts])
    some = np.diff(cuts) > 0
    strange = named != np.repeat(ranks, np.diff(cuts))
    falls = np.append(False, ticks[1:] < ticks[:-1])[: len(ticks)]
    falls[cuts[:-1][some]] = False
    odd = {*(np.searchsorted(cuts, np.flatnonzero(strange | falls), "right") - 1).tolist()}
    behind = np.append(starts[1:], 0)[: len(ticks)]
    behind[cuts[1:][some] - 1] = np.array(ends)[some]
    for number, (log, part) in enumerate(zip(logs, parts, strict=True)):
        begin, end = begins[number], ends[number]
        if (
            log.span.rank is not None
            and number not in odd
            and some[number]
            and part.starts[0] == begin
            and part.ticks[0] >= log.latest
        ):
            mine = behind[cuts[number] : cuts[number + 1]]
            yield log.plain(Items(part.starts, mine, part.ticks, {}))
        else:
            yield log.items(buffer, begin, end, part)


def parts_of(log: Log) -> Iterator[tuple[int, Items, Array]]:
    """A log by itself, part by part.

    Yields:
        Where the part begins in the file, its records from there, and how many bytes are written of
        each.

    Ranks: independent.
    """
    room = max(LEAST, min(_PART, log.span.end - log.next)) + 1
    buffer = bytearray(BEFORE + room + BEHIND)
    while not log.at_end:
        at = log.next
        buffer[:BEFORE] = b"\n" * BEFORE
        buffer[BEFORE - 1 : BEFORE] = break_before(log)
        end = BEFORE + log.read(buffer, BEFORE, room)
        heads = log.corrected(find_heads(buffer, [end], [log.span.rank or 0]))
        items = log.items(buffer, BEFORE, end, heads)
        lengths = items.ends - items.starts
        for number, signed in items.signed.items():
            lengths[number] = len(signed)
        yield at, items._replace(starts=items.starts - BEFORE, ends=items.ends - BEFORE), lengths
