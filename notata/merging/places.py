"""Reading and writing at places in files, of which few are open at once."""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from notata import files, freshness, layout

_HANDLES = 64  # files open at once


class Handles:
    """Open files, of which those that were used last stay open."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Handles:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def of(self, path: str) -> int:
        """A descriptor to read a file by; it may be closed at the next call.

        Raises:
            OSError: If the file can't be opened.
        """
        descriptor = self._open.get(path)
        if descriptor is None:
            if len(self._open) >= _HANDLES:
                os.close(self._open.popitem(last=False)[1])
            descriptor = self._open[path] = freshness.opener(path, os.O_RDONLY)
        self._open.move_to_end(path)
        return descriptor

    def drop(self, path: str) -> None:
        """Close a file that is not needed any more."""
        descriptor = self._open.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)


def read_at(descriptor: int, at: int, into: memoryview) -> None:
    """Fill a buffer from a place in a file.

    Raises:
        EOFError: If the file ends before.
    """
    while into:
        count = os.preadv(descriptor, [into], at)
        if count == 0:
            raise EOFError("the file ends too early")
        at, into = at + count, into[count:]


class Spill:
    """A file without a name, for what can't be read in the order in which it is needed.

    Room that was let go is given again: the system then has its pages at hand.
    """

    def __init__(self, folder: str) -> None:
        """Prepare; the file is made when room in it is first asked for.

        Args:
            folder: Where to make it: beside the file that is being joined.
        """
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._sizes: dict[int, int] = {}  # of each room, by where it begins
        self._free: list[int] = []

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def room(self, size: int) -> tuple[int, int]:
        """A descriptor, and where in it there is room for so many bytes."""
        if self._file is None:
            # Where no file can be without a name (NFS), it has one for a moment: one that the next
            # merge takes away, if this one is killed just then.
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 - closed by __exit__
                buffering=0, dir=self._folder, prefix=layout.MERGE_PREFIX
            )
        free = [at for at in self._free if self._sizes[at] >= size]
        if free:
            at = min(free, key=lambda at: self._sizes[at])
            self._free.remove(at)
        else:
            at = sum(self._sizes.values())
            self._sizes[at] = size
        return self._file.fileno(), at

    def let_go(self, at: int) -> None:
        """Give back the room that begins there."""
        self._free.append(at)


def write_at(descriptor: int, at: int, data: memoryview) -> None:
    """Write all of a buffer to a place in a file.

    Raises:
        OSError: If the disk takes no more.
    """
    os.lseek(descriptor, at, os.SEEK_SET)
    files.write_all(descriptor, data)


def begin_shared(path: str, size: int, head: bytes = b"") -> None:
    """Make a file that several processes write to, of the size that it will have.

    Else an NFS client that writes behind what it takes for the file's end would fill the page up
    with zeros from its beginning on, and send these too: over what another node wrote there.

    Args:
        path: The file; what it held before is gone.
        size: Its bytes.
        head: What it begins with.

    Raises:
        OSError: If it can't be made.

    Ranks: independent.
    """
    with open(path, "wb", buffering=0) as file:
        os.ftruncate(file.fileno(), size)  # first: the head's page is shared as well
        files.write_all(file.fileno(), head)


@contextmanager
def writing(path: str, *, shared: bool = False) -> Iterator[int]:
    """A descriptor that writes to a file that is there.

    It can't read: NFS then never takes in a page that another node writes to.

    Args:
        path: The file.
        shared: Whether processes of other nodes write to it as well, or read it next. They can't
            sync what this node still holds in memory, nor hear that it could not be written.

    Ranks: independent.
    """
    descriptor = freshness.opener(path, os.O_WRONLY)
    try:
        yield descriptor
        if shared:
            os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)  # on NFS this is where a full disk is met
