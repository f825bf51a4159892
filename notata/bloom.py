"""A Bloom filter in a file: which runs have no row in a table, told without reading the table.

It says of a run that the table has no row of it, or that it may have one; the latter is wrong for
one in some ten thousand. It is of a table of a certain size and end. Of one that has others by now,
which somebody wrote to who knows nothing of the filter, it says nothing, and is made anew. Only who
holds the table's lock may use it.

It is a hint, and never synced but where nodes would not see it else: what the loss of power leaves
of it is nearly always of another table, and if not, a run that is done again may have two rows
until the table is made anew.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from typing import NamedTuple

from notata import checksums, files, freshness

TAIL = 64  # bytes of a table's end
# What it is; the table's bytes, and its end; rows in the filter; its blocks.
_HEAD = struct.Struct(f"<8sQ{TAIL}sQQ")
_MAGIC = b"bloom 1\n"
_BLOCK = 64  # bytes; all bits of a run are in one block, so that one read and one write will do
_BITS = 6  # of each run
_ROWS = 16  # that a block is for: 32 bits a row
_LEAST = 64  # blocks


class Table(NamedTuple):
    """Which table it is.

    Attributes:
        size: Its bytes.
        tail: The last ones of them.
    """

    size: int
    tail: bytes

    def and_(self, more: bytes) -> Table:
        """The table with more behind it."""
        return Table(self.size + len(more), (self.tail + more)[-TAIL:])


class Bloom:
    """The filter of a table.

    Args:
        path: Its file, which is made when it is first needed.
        shared: Whether this node has to be told to forget what it remembers of the file, and to
            send what it writes, as on a FUSE file system.
    """

    def __init__(self, path: str, *, shared: bool = False) -> None:
        self._path, self._shared = path, shared

    def enter(self, run_id: str, before: Table, after: Table) -> bool | None:
        """Note that a run is about to get a row.

        Args:
            run_id: The run's id.
            before: The table as it is now.
            after: The table with the row.

        Returns:
            Whether it may have one already; None where the filter is not of this table, or full.

        Raises:
            OSError: If it can't be read or written.

        Ranks: root only.
        """
        try:
            if self._shared:
                freshness.ask_anew(self._path)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            head = os.pread(descriptor, _HEAD.size, 0)
            magic, size, tail, rows, blocks = _HEAD.unpack(head.ljust(_HEAD.size, b"\0"))
            if magic != _MAGIC or (size, tail) != (before.size, before.tail.ljust(TAIL, b"\0")):
                return None
            there = os.fstat(descriptor).st_size
            if rows >= _ROWS * blocks or there != _HEAD.size + _BLOCK * blocks:
                return None
            number, bits = _place(run_id, blocks)
            block = os.pread(descriptor, _BLOCK, _HEAD.size + _BLOCK * number)
            known = int.from_bytes(block, "little")
            marked = (known | bits).to_bytes(_BLOCK, "little")
            os.pwrite(descriptor, marked, _HEAD.size + _BLOCK * number)
            os.pwrite(descriptor, _HEAD.pack(_MAGIC, *after, rows + 1, blocks), 0)
            if self._shared:
                os.fsync(descriptor)
            return known & bits == bits
        finally:
            os.close(descriptor)

    def make(self, run_ids: Collection[str], table: Table) -> None:
        """Make the filter anew, with room for twice as many rows.

        It is written in place, where it may be a colleague's whose folder lets nobody replace it.

        Args:
            run_ids: The runs that have a row.
            table: The table.

        Raises:
            OSError: If it can't be written.

        Ranks: root only.
        """
        blocks = max(_LEAST, 2 * len(run_ids) // _ROWS + 1)
        filled = [0] * blocks
        for run_id in run_ids:
            number, bits = _place(run_id, blocks)
            filled[number] |= bits
        data = b"".join(block.to_bytes(_BLOCK, "little") for block in filled)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            files.share(self._path)
            files.write_all(descriptor, bytes(_HEAD.size) + data)  # of no table until it is whole
            os.ftruncate(descriptor, _HEAD.size + len(data))
            os.pwrite(descriptor, _HEAD.pack(_MAGIC, *table, len(run_ids), blocks), 0)
            if self._shared:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """Let the filter be of no table, before its own is written anew.

        The file stays, unless its owner alone may write to it: of one that is removed and made
        again, other nodes keep a stale idea.

        Raises:
            OSError: If it can be neither written nor removed.

        Ranks: root only.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except PermissionError:
            os.unlink(self._path)
            return
        try:
            os.pwrite(descriptor, bytes(_HEAD.size), 0)
            if self._shared:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _place(run_id: str, blocks: int) -> tuple[int, int]:
    """The block of a run, and its bits there."""
    number = checksums.number_of(run_id.encode("utf-8", "surrogateescape"))
    bits, rest = 0, number >> 64
    for _ in range(_BITS):
        bits |= 1 << (rest & 511)
        rest >>= 9
    return (number & (1 << 64) - 1) % blocks, bits
