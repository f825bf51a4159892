"""Where ranges of time begin in a log, and how much is written of it for each.

A log is searched in the belief that its time never steps back and that its records are written as
they are. Whoever joins a range finds out whether that held: `Log.as_is` and `Log.latest` say so.
A log of which it does not hold is read from beginning to end instead.
"""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from itertools import pairwise
from typing import NamedTuple

from notata import corrections, freshness, messages
from notata.merging.logparts import Log, Span, parts_of

_PEEKS = (1 << 9, 1 << 13, 1 << 17)  # bytes that are read to find a record, more and more
_NEAR = 1 << 16  # bytes that are read at once when a range is known to begin among them
_FEW = 1 << 9  # bytes in which record after record is looked at
_HEAD = 120  # bytes that tell whether a line is a record


class Cut(NamedTuple):
    """Where the ranges of time begin in one log.

    Attributes:
        offsets: The byte of the file, for each range but the first.
        sizes: Bytes that are written of it for each range.
        sure: Whether all of the log was read to find them.
    """

    offsets: list[int]
    sizes: list[int]
    sure: bool


def find_cuts(
    run: str, spans: Sequence[Span], ticks: Sequence[int], exact: Set[str] = frozenset()
) -> list[Cut]:
    """Find where ranges of time begin in logs.

    Args:
        run: Folder of the run.
        spans: The logs.
        ticks: Where each range but the first begins.
        exact: Paths of those that have to be read from beginning to end.

    Raises:
        OSError: If one can't be read.

    Ranks: independent.
    """
    shifts = corrections.of_run(run)
    found = (None if span.path in exact else _searched(span, shifts, ticks) for span in spans)
    return [
        cut or _read_through(Log(run, span, shifts), ticks)
        for span, cut in zip(spans, found, strict=True)
    ]


def _read_through(log: Log, ticks: Sequence[int]) -> Cut:
    """What there is to find, whatever the log is like."""
    offsets: list[int] = []
    sizes = [0]
    for at, items, lengths in parts_of(log):
        marks = items.ticks.searchsorted(ticks[len(offsets) :], "left").tolist()
        done = 0
        for mark in marks:
            if mark == len(items.ticks):
                break
            offsets.append(at + int(items.starts[mark]))
            sizes[-1] += int(lengths[done:mark].sum())
            sizes.append(0)
            done = mark
        sizes[-1] += int(lengths[done:].sum())
    missing = len(ticks) - len(offsets)
    return Cut(offsets + [log.span.end] * missing, sizes + [0] * missing, True)


def _searched(span: Span, shifts: corrections.Corrections, ticks: Sequence[int]) -> Cut | None:
    """What a few bytes of the log tell, unless they tell that it has to be read."""
    descriptor = freshness.opener(span.path, os.O_RDONLY)
    try:
        search = _Search(descriptor, span, shifts)
        if span.end and search.record(0, 1) is None:
            return None  # lines above the first record are written as one
        if span.without and search.holds_others(min(span.end, _NEAR)):
            return None
        offsets = search.offsets(ticks, 0, span.end)
        torn = bool(span.end) and search.bytes_at(span.end - 1, 1) != b"\n"
    except _UnclearError:
        return None
    finally:
        os.close(descriptor)
    marks = [0, *offsets, span.end]
    sizes = [end - begin for begin, end in pairwise(marks)]
    if torn:  # it is given its line break
        sizes[max(i for i, size in enumerate(sizes) if size)] += 1
    return Cut(offsets, sizes, False)


class _UnclearError(Exception):
    """A few bytes don't tell."""


class _Search:
    """Looks for records in a log whose time never steps back."""

    def __init__(self, descriptor: int, span: Span, shifts: corrections.Corrections) -> None:
        self._descriptor = descriptor
        self._span = span
        self._shifts = shifts
        self._held = b""
        self._held_at = 0

    def offsets(self, ticks: Sequence[int], low: int, high: int) -> list[int]:
        """Where the first record that does not come before each of some ticks begins.

        Args:
            ticks: What to look for, in order.
            low: A record, or the log's beginning.
            high: A record, or the log's end, that does not come before any of the ticks.
        """
        if not ticks:
            return []
        middle = len(ticks) // 2
        at = self._first(ticks[middle], low, high)
        below = self.offsets(ticks[:middle], low, at)
        return [*below, at, *self.offsets(ticks[middle + 1 :], at, high)]

    def holds_others(self, end: int) -> bool:
        """Whether some bytes from the beginning on hold records that are not written."""
        lines = self.bytes_at(0, end).splitlines(keepends=True)
        return any(block.rank in self._span.without for block in messages.blocks(lines))

    def _first(self, ticks: int, low: int, high: int) -> int:
        bound = high  # what begins from here on and before `high` is no record
        while bound - low > _FEW:
            if bound - low <= _NEAR:
                self._hold(low, bound + _HEAD)
            middle = (low + bound) // 2
            found = self.record(middle, bound)
            if found is None:
                bound = middle
            elif found[1] >= ticks:
                bound, high = middle, found[0]
            else:
                low = found[0]
        while found := self.record(low, bound):
            if found[1] >= ticks:
                return found[0]
            low = found[0] + 1
        return high

    def record(self, begin: int, end: int) -> tuple[int, int] | None:
        """The first record that begins in some bytes, and its ticks, if there is one.

        Raises:
            _UnclearError: If there is none for long, or one that is not written.
        """
        above = b"" if begin else b"\n"  # a record begins behind a line break
        for size in _PEEKS:
            last = min(end + _HEAD, self._span.end, begin + size)
            data = above + self.bytes_at(begin - 1 + len(above), last - begin + 1 - len(above))
            at = data.find(b"\n[")
            while 0 <= at < end - begin:
                head = data[at + 1 : at + 1 + _HEAD]
                if len(head) < _HEAD and last < self._span.end:
                    break
                (block,) = messages.blocks([head[: head.find(b"\n") + 1] or head])
                if block.stamp:
                    return begin + at, self._ticks(block)
                at = data.find(b"\n[", at + 1)
            else:
                if at >= 0 or last >= min(end + _HEAD, self._span.end):
                    return None
        raise _UnclearError

    def _ticks(self, block: messages.Block) -> int:
        rank = self._span.rank
        if block.rank in self._span.without:
            raise _UnclearError
        return self._shifts.one(messages.ticks(block.stamp), block.rank if rank is None else rank)

    def _hold(self, begin: int, end: int) -> None:
        """Read what is looked at next, unless it is held already."""
        begin, end = max(0, begin - 1), min(end, self._span.end)
        if not self._held_at <= begin <= end <= self._held_at + len(self._held):
            self._held, self._held_at = self.bytes_at(begin, end - begin), begin

    def bytes_at(self, at: int, size: int) -> bytes:
        """Bytes of the log.

        Raises:
            _UnclearError: If it has become shorter.
        """
        begin = at - self._held_at
        if begin >= 0 and begin + size <= len(self._held):
            return self._held[begin : begin + size]
        data = os.pread(self._descriptor, size, at)
        if len(data) < size:
            raise _UnclearError
        return data
