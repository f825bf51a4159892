"""A table, changed in place: a rename would lose rows that other nodes append (NFS)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from notata import files

MARK = b"#"  # stands in the first place of a table that is half written


def append(path: str, line: bytes, *, durable: bool) -> None:
    """Append a row.

    Args:
        path: The table, which is there.
        line: The row with its line break, and maybe some within.
        durable: Whether to wait until it is on disk.

    Raises:
        OSError: If it can't be written.

    Ranks: root only; called under the table's lock.
    """
    if line.count(b"\n") == 1:  # cut off, it lacks its line break, which the next writer sees
        _write_at_end(path, line, durable)
        return
    with _marked(path, durable):
        _write_at_end(path, line, durable)


def rewrite(path: str, data: bytes, *, durable: bool) -> None:
    """Put other bytes into the table's place.

    Args:
        path: The table; it is made if it is missing.
        data: All that it is to hold.
        durable: Whether to wait until it is on disk.

    Raises:
        OSError: If it can't be written.

    Ranks: root only; called under the table's lock.
    """
    with _marked(path, durable, data[:1]) as descriptor:
        _overwrite(descriptor, data, len(data))


def _overwrite(descriptor: int, data: bytes, size: int) -> None:
    """Put all of these bytes but the first at their places, and end the table at a size."""
    view, offset = memoryview(data)[1:], 1
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
    os.ftruncate(descriptor, size)


def _write_at_end(path: str, line: bytes, durable: bool) -> None:
    # Through an open of its own that reads nothing, or rows of other nodes are lost (NFS).
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        files.write_all(descriptor, line)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _marked(path: str, durable: bool, first: bytes | None = None) -> Iterator[int]:
    """Let the table say in its first byte that it is half written, until the block ends well.

    Then the first byte is that given, where all of the table is written, or what it was.
    The next writer makes it anew from the runs if this one dies, or, where it is durable, if
    its node does. After an error the table is what it was, if the disk takes that.
    """
    sync: Callable[[int], object] = os.fsync if durable else bool
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        files.share(path)
        size = os.fstat(descriptor).st_size
        kept = size if first else min(size, 1)
        before = os.pread(descriptor, kept, 0)
        try:
            os.pwrite(descriptor, MARK, 0)
            sync(descriptor)
            yield descriptor
            sync(descriptor)
            os.pwrite(descriptor, first or before, 0)
            sync(descriptor)
        except BaseException:
            if len(before) == kept:
                with suppress(OSError):
                    _overwrite(descriptor, before, size)
                    sync(descriptor)
                    os.pwrite(descriptor, before[:1], 0)
            raise
    finally:
        os.close(descriptor)
