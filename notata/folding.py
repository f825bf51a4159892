"""The same message from many ranks as one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from notata import messages

WINDOW = 1.0  # seconds that the same message may be apart on two ranks


class Folded(NamedTuple):
    """A message, and who wrote it.

    Attributes:
        first: The message as the first rank wrote it.
        ranks: The ranks that wrote it, sorted; empty in a run of one rank.
    """

    first: messages.Record
    ranks: list[int]


class _Group:
    def __init__(self, number: int, ticks: int, record: messages.Record) -> None:
        self.number, self.ticks, self.record = number, ticks, record
        self.ranks = set() if record.rank is None else {record.rank}

    @property
    def key(self) -> tuple[str, str]:
        return self.record.level, self.record.message


class Fold:
    """Takes messages in time order and gives them back, those of many ranks as one.

    A message stands where the first rank wrote it. Another rank's joins it within the window, and
    only where that rank's own order stays what it was.

    Example:
        >>> fold = Fold()
        >>> for rank in (0, 1, 2):
        ...     done = list(fold.add(messages.Record("", "INFO", rank, "ready")))
        >>> [folded.ranks for folded in fold.rest()]
        [[0, 1, 2]]
    """

    def __init__(self, window: float = WINDOW) -> None:
        """Prepare.

        Args:
            window: Seconds that the same message may be apart on two ranks.
        """
        self._window = int(window * 2e6)
        self._open: deque[_Group] = deque()
        self._by_key: dict[tuple[str, str], _Group] = {}
        self._place: dict[int, int] = {}  # of each rank's last message
        self._count = 0
        self._now = messages.LONG_AGO
        self._older = 0  # groups that were open at the last call of `settled`

    def add(self, record: messages.Record) -> Iterator[Folded]:
        """Take a message; give those that nothing can join any more.

        Ranks: independent.
        """
        self._now = max(self._now, messages.ticks(record.time.encode()))
        while self._open and self._open[0].ticks < self._now - self._window:
            yield self._pop()
        group = self._by_key.get((record.level, record.message))
        rank = record.rank
        if group is None or rank is None or group.number <= self._place.get(rank, -1):
            group = _Group(self._count, self._now, record)
            self._count += 1
            self._open.append(group)
            self._by_key[group.key] = group
        if rank is not None:
            group.ranks.add(rank)
            self._place[rank] = group.number

    def settled(self) -> Iterator[Folded]:
        """Give those that were open at the last call already: for a stream that stands still.

        Ranks: independent.
        """
        for _ in range(self._older):
            yield self._pop()
        self._older = len(self._open)

    def rest(self) -> Iterator[Folded]:
        """Give all that is left.

        Ranks: independent.
        """
        while self._open:
            yield self._pop()

    def _pop(self) -> Folded:
        group = self._open.popleft()
        self._older = max(0, self._older - 1)
        if self._by_key.get(group.key) is group:
            del self._by_key[group.key]
        return Folded(group.record, sorted(group.ranks))


def folded(records: Iterable[messages.Record]) -> Iterator[Folded]:
    """Fold messages that are in time order.

    Ranks: independent.
    """
    fold = Fold()
    for record in records:
        yield from fold.add(record)
    yield from fold.rest()
