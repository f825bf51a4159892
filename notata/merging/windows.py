"""All ranks' records in time order, a window of all logs at a time.

The order is that of `streams.blocks_in_order`, by which readers read. There each record is looked
at by itself; here all records of a window are found and sorted at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from notata.merging.ahead import ahead
from notata.merging.heads import BEFORE
from notata.merging.interleaving import BEHIND, Batch, Interleaver
from notata.merging.logparts import LEAST, Items, Log, break_before, items_of

WINDOW = 3 << 23  # bytes of all logs that are looked at together
_LEAST = 1 << 12  # bytes of one log
_MOST = 1 << 19  # bytes of one log, unless the others wait for it or logs are few
_FEW = 1 << 22  # bytes of all logs, if these are few
_FAR = 1 << 62  # ticks behind all others


def in_order(logs: Sequence[Log], *, threads: bool = False) -> Iterator[Iterator[memoryview]]:
    """All logs' records in time order, some megabytes at a time, in parts.

    Args:
        logs: The logs, by rank; the run's `log.txt` first.
        threads: Whether to read on in a second thread.

    Yields:
        The next lines; what comes after a part overwrites it.

    Raises:
        DamagedError: If a log becomes shorter.
        OSError: If one can't be read.

    Ranks: independent.
    """
    import numpy as np

    # Once so much was let go, glibc keeps what is let go later. Otherwise it gives the arrays of a
    # window back to the system, which has to zero them again for the next one.
    np.empty(WINDOW, np.uint8)
    batches = _batches(logs)
    interleaver = Interleaver()
    for batch in ahead(batches) if threads else batches:
        yield interleaver.parts_of(batch)


class _Held:
    """What is held of a log: records that were read and not yet given."""

    def __init__(self, number: int, log: Log, quota: int) -> None:
        import numpy as np

        none = np.zeros(0, np.int64)
        self.number = number
        self.log = log
        self.quota = quota  # bytes to hold of it
        self.data: bytes | memoryview = b""
        self.size = 0  # of the data
        self.items = Items(none, none, none, {})

    def until(self, ticks: int) -> tuple[int, int]:
        """How many records come before or at some ticks, and their bytes."""
        count = _count(self.items, ticks, True)
        return count, int(self.items.ends[count - 1]) if count else 0

    def drop(self, count: int) -> None:
        """Let go of so many records."""
        if count:
            begin = int(self.items.ends[count - 1])
            self.data = memoryview(self.data)[begin:]
            self.size -= begin
            self.items = _moved(_from(self.items, count), -begin)

    def keep(self, buffer: bytearray, lent: Items, read: Items) -> None:
        """Hold these records of a buffer, and no others."""
        import numpy as np

        kept = [some for some in (lent, read) if len(some.ticks)] or [read]
        data, moved = [], []
        self.size = 0
        for starts, ends, ticks, _ in kept:
            begin, end = (int(starts[0]), int(ends[-1])) if len(ticks) else (0, 0)
            by = self.size - begin
            data.append(bytes(memoryview(buffer)[begin:end]))
            moved.append((starts + by, ends + by, ticks.copy()))
            self.size += end - begin
        if len(kept) == 1:
            self.data, self.items = data[0], Items(*moved[0], {})
        else:
            self.data = b"".join(data)
            starts, ends, ticks = (np.concatenate(pair) for pair in zip(*moved, strict=True))
            self.items = Items(starts, ends, ticks, {})


class _Pool:
    """The logs by what each needs next, so that a batch costs as much as the logs that it touches.

    Attributes:
        share: Bytes to hold of each log.
        needy: Those of which more is to be read, by number.
    """

    def __init__(self, held: Sequence[_Held], share: int) -> None:
        self.share = share
        self.needy = [h for h in held if not h.log.at_end]
        self._reading = {h.number for h in self.needy}
        self._held = held
        self._size = 0  # of all that is held
        self._most = max(WINDOW, share * len(held) + WINDOW // 8)
        self._first: list[tuple[int, int]] = []  # heap: ticks of the first record held, and number
        self._latest: list[tuple[int, int]] = []  # heap: what is read later comes at these ticks

    @property
    def is_empty(self) -> bool:
        return not (self.needy or self._first)

    def rooms(self) -> list[int]:
        """How many bytes to read of each that is needy.

        What is left of the window goes to those that all others wait for.
        """
        waited_for = sum(h.quota > self.share for h in self.needy)
        spare = self._most - self._size - self.share * len(self.needy)
        most = self.share + max(0, spare) // max(1, waited_for)
        return [max(LEAST, min(h.quota, most) - h.size) + 1 for h in self.needy]

    def bound(self) -> tuple[int, int]:
        """The ticks that no record of those comes before that are not needy, and whose they are."""
        while self._latest:
            ticks, number = self._latest[0]
            log = self._held[number].log
            if not log.at_end and log.latest == ticks and number not in self._reading:
                return ticks, number
            heappop(self._latest)
        return _FAR, len(self._held)

    def lenders(self) -> list[tuple[_Held, int, int]]:
        """Those that are needy, and those held of which records may be given: how many, and bytes.

        What is still to be read of a log does not come before the last record read of it.
        """
        found = [(h, len(h.items.ticks), h.size) for h in self.needy]
        until = self.bound()[0]
        while self._first and self._first[0][0] <= until:
            h = self._held[heappop(self._first)[1]]
            found.append((h, *h.until(until)))
        self._size -= sum(h.size for h, _, _ in found)
        return sorted(found, key=lambda one: one[0].number)

    def put_back(self, lenders: Sequence[tuple[_Held, int, int]]) -> None:
        """Take those back that were lent, of which less or more is held now."""
        read, self.needy = self._reading, []
        for h, _, _ in lenders:
            self._size += h.size
            if not h.log.at_end and h.size <= self.share // 2:
                self.needy.append(h)
                continue
            if h.size:
                heappush(self._first, (int(h.items.ticks[0]), h.number))
            if not h.log.at_end and h.number in read:
                heappush(self._latest, (h.log.latest, h.number))
        self._reading = {h.number for h in self.needy}


def _batches(logs: Sequence[Log]) -> Iterator[Batch]:
    count = max(1, len(logs))
    share = max(_LEAST, min(WINDOW // count, max(_MOST, _FEW // count)))
    pool = _Pool([_Held(number, log, share) for number, log in enumerate(logs)], share)
    buffers = [bytearray(), bytearray()]  # one is filled while the other is used
    while not pool.is_empty:
        rooms, lenders = pool.rooms(), pool.lenders()
        size = BEFORE + sum(rooms) + len(rooms) + sum(size for _, _, size in lenders) + 2 * BEHIND
        if len(buffers[0]) < size:
            buffers[0] = bytearray(size + size // 4)
        buffer, lent, read = _filled(buffers[0], pool.needy, rooms, lenders)
        batch = Batch(buffer, [], [], [])
        until, last = min(
            (pool.bound(), *((h.log.latest, h.number) for h in pool.needy if not h.log.at_end))
        )
        for h, _, _ in lenders:
            old, new = lent[h.number], read.get(h.number)
            count = _count(old, until, h.number <= last)
            _give(batch, old, count)
            if new is None:
                h.drop(count)
                continue
            more = _count(new, until, h.number <= last)
            _give(batch, new, more)
            h.keep(buffer, _from(old, count), _from(new, more))
            # Where all others wait for one log, more of it is read at once.
            h.quota = share if h.size else min(2 * h.quota, WINDOW // 2)
        pool.put_back(lenders)
        if batch.ticks:
            yield batch
            buffers.reverse()  # whoever took the batch may still be at work on it


def _filled(
    buffer: bytearray,
    needy: Sequence[_Held],
    rooms: Sequence[int],
    lenders: Sequence[tuple[_Held, int, int]],
) -> tuple[bytearray, dict[int, Items], dict[int, Items]]:
    """Records that were held and new ones, by the number of the log, and where they are.

    In the buffer the new ones come first, where their heads are found, then those that were held.
    Records that are not written as they are come last, in a buffer that has room for them.
    """
    begins, ends, at = [], [], BEFORE
    buffer[:BEFORE] = b"\n" * BEFORE
    for h, room in zip(needy, rooms, strict=True):
        if buffer[at - 1 : at] != break_before(h.log):
            buffer[at : at + 1] = break_before(h.log)
            at += 1
        begins.append(at)
        at += h.log.read(buffer, at, room)
        ends.append(at)
    parts = items_of([h.log for h in needy], buffer, begins, ends) if needy else iter(())
    at += BEHIND
    lent: dict[int, Items] = {}
    with memoryview(buffer) as view:
        for h, count, size in lenders:
            view[at : at + size] = memoryview(h.data)[:size]
            lent[h.number] = _moved(_upto(h.items, count), at)
            at += size
    read: dict[int, Items] = {}
    written: list[bytes] = []
    for h, items in zip(needy, parts, strict=True):
        if items.signed:
            data, items = _rewritten(buffer, items)
            written.append(data)
            items, at = _moved(items, at), at + len(data)
        read[h.number] = items
    if written:
        head = at - sum(map(len, written))
        buffer = bytearray(b"".join([memoryview(buffer)[:head], *written, bytes(BEHIND)]))
    return buffer, lent, read


def _rewritten(buffer: bytearray, items: Items) -> tuple[bytes, Items]:
    """The records with those replaced that are not to be written as they are."""
    import numpy as np

    spans = zip(items.starts.tolist(), items.ends.tolist(), strict=True)
    parts = [items.signed.get(i) or bytes(buffer[a:b]) for i, (a, b) in enumerate(spans)]
    ends = np.cumsum([len(part) for part in parts])
    return b"".join(parts), Items(np.append(0, ends[:-1]), ends, items.ticks, {})


def _give(batch: Batch, items: Items, count: int) -> None:
    if count:
        batch.starts.append(items.starts[:count])
        batch.ends.append(items.ends[:count])
        batch.ticks.append(items.ticks[:count])


def _count(items: Items, until: int, inclusive: bool) -> int:
    """How many records come before some ticks, or at them too."""
    side = "right" if inclusive else "left"
    return int(items.ticks.searchsorted(until, side))  # type: ignore[call-overload]


def _upto(items: Items, count: int) -> Items:
    return Items(items.starts[:count], items.ends[:count], items.ticks[:count], {})


def _from(items: Items, count: int) -> Items:
    return Items(items.starts[count:], items.ends[count:], items.ticks[count:], {})


def _moved(items: Items, by: int) -> Items:
    return Items(items.starts + by, items.ends + by, items.ticks, items.signed)
