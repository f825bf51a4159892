"""The end of a run's messages, and those that are being written: no file is read as a whole."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator

from notata import corrections, gather, layout, messages, streams

_END = 1 << 16  # bytes of each log in which its last messages are looked for at first
_FARTHEST = 1 << 24  # and at last, behind a message that is very long
_CHUNK = 1 << 16
_HEAD = 256  # bytes by which a log is known: the time of a rank's first message is among them


def last(run: str, count: int) -> list[messages.Record]:
    """The last messages of a run, in time order.

    Args:
        run: The run's folder.
        count: How many to give at most.

    Ranks: independent.
    """
    own = streams.own_logs(run, gather.rank_folders(run))
    shifts = corrections.of_run(run)
    found: list[tuple[int, int, messages.Block]] = []
    for rank, path in [*own.items(), (0, os.path.join(run, layout.LOG))]:
        latest = messages.LONG_AGO
        rows = []
        for block in _ending(path, rank, count):
            if rank or block.rank not in own:
                latest = max(latest, shifts.one(messages.ticks(block.stamp), block.rank))
                rows.append((latest, rank, block))
        found += rows[-count:] if count else []
    found.sort(key=lambda row: row[:2])
    return [messages.record(block) for _, _, block in (found[-count:] if count else [])]


def _ending(path: str, rank: int, count: int) -> list[messages.Block]:
    """The messages at the end of a log, so many if they don't lie too far from it."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            reach = _END
            while True:
                file.seek(max(0, size - reach))
                blocks = messages.blocks(_lines(file.read(reach)), rank or None)
                found = [block for block in blocks if block.stamp]
                if len(found) >= count or reach >= min(size, _FARTHEST):
                    return found
                reach *= 4
    except FileNotFoundError:
        return []


class Follower:
    """Reads what ranks add to their logs, again and again.

    A rank writes a message at once, so that one whose last line is whole is whole.
    """

    def __init__(self, run: str, ranks: Iterable[int] | None = None) -> None:
        """Prepare; nothing is read yet.

        Args:
            run: The run's folder.
            ranks: The ranks to read; all by default.
        """
        self._run = run
        self._wanted = None if ranks is None else set(ranks)
        self._logs: dict[int, _Log] = {}

    def new(self) -> Iterator[messages.Block]:
        """What was added since the last time, in time order, and of each rank in its own order.

        Ranks: independent.
        """
        shifts = corrections.of_run(self._run)
        own = streams.own_logs(self._run, gather.rank_folders(self._run))
        for rank, path in own.items():
            if self._wanted is None or rank in self._wanted:
                self._logs.setdefault(rank, _Log(path, rank))
        self._logs.setdefault(0, _Log(os.path.join(self._run, layout.LOG), 0))
        rows = (self._timed(rank, log, shifts) for rank, log in sorted(self._logs.items()))
        for _, _, block in heapq.merge(*rows, key=lambda row: row[:2]):
            yield block

    def rest(self) -> Iterator[messages.Block]:
        """Lines that a crash cut off, once nothing is added any more.

        Ranks: independent.
        """
        for log in self._logs.values():
            yield from log.torn()

    def _timed(
        self, rank: int, log: _Log, shifts: corrections.Corrections
    ) -> Iterator[tuple[int, int, messages.Block]]:
        for block in log.added():
            told = block.rank or 0
            if rank == 0 and (told in self._logs and told != 0):
                continue  # merged in the meantime; that rank's own log has it
            if self._wanted is not None and told not in self._wanted:
                continue
            moved = shifts.one(messages.ticks(block.stamp), block.rank)
            log.latest = max(log.latest, moved)
            yield log.latest, rank, block


class _Log:
    """One log file, read as far as it goes; it is not kept open, as there may be thousands."""

    def __init__(self, path: str, rank: int) -> None:
        self.latest = messages.LONG_AGO
        self._path, self._rank = path, rank
        self._file = (0, 0)
        self._offset = 0
        self._head = b""  # its first bytes
        self._held = b""  # what is not whole yet
        self._given, self._skip = 0, 0  # messages of rank 0: those given, and those given before

    def added(self) -> Iterator[messages.Block]:
        # As much again as is held of a message that is not whole: a long one is put together and
        # looked through a few times, however long it is.
        while chunk := self._read(size := max(_CHUNK, len(self._held))):
            lines = _lines(self._held + chunk)
            torn = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
            blocks = list(messages.blocks(lines, self._rank or None))
            if blocks and len(chunk) == size:
                torn = blocks.pop().raw + torn  # its other lines may be in the next chunk
            self._held = torn
            yield from self._fresh(blocks)

    def torn(self) -> Iterator[messages.Block]:
        held, self._held = self._held, b""
        yield from self._fresh(messages.blocks(_lines(held), self._rank or None))

    def _read(self, size: int) -> bytes:
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                if self._file != (status.st_dev, status.st_ino) or status.st_size < self._offset:
                    self._begin(status, file.read(len(self._head)))
                file.seek(self._offset)
                chunk = file.read(size)
        except FileNotFoundError:
            return b""
        if not self._offset:
            self._head = chunk[:_HEAD]
        self._offset += len(chunk)
        return chunk

    def _begin(self, status: os.stat_result, head: bytes) -> None:
        self._file = (status.st_dev, status.st_ino)
        if self._rank and self._head == head and 0 < self._offset <= status.st_size:
            return  # a newer attempt has copied it, to append to a file of its own
        # What a merge puts in its place begins with the same messages of rank 0; what is shorter
        # is another run's.
        self._skip = self._given if status.st_size >= self._offset else 0
        self._offset, self._held, self._given = 0, b"", 0

    def _fresh(self, blocks: Iterable[messages.Block]) -> Iterator[messages.Block]:
        for block in blocks:
            if not block.rank:
                self._given += 1
            if block.rank or self._given > self._skip:
                yield block


def _lines(data: bytes) -> list[bytes]:
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
