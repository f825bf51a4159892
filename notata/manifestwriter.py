"""A rank's manifest, as the rank itself writes it: a line for each piece that is on disk."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import BinaryIO

from notata import files
from notata.descriptors import out_of_the_way, was_closed
from notata.disk import Disk
from notata.errors import DamagedError
from notata.pieces import Piece

# A manifest of so many lines is written anew once most of them count no more: a program that writes
# one array in each step would else leave megabytes, which each reader reads.
_LINES = 64
_TIMES = 4  # lines that a piece has then


class _NotNow(Exception):  # noqa: N818
    """Somebody else may have appended to the manifest, or replaced it."""


class ManifestWriter:
    """Appends to a rank's manifest, and leaves out of it now and then what counts no more."""

    def __init__(self, path: str, disk: Disk, is_newest: Callable[[], bool]) -> None:
        """Prepare; nothing is made yet.

        Args:
            path: The manifest; its folder is made before the first line.
            disk: The disk.
            is_newest: Says whether the manifest is still this process's, as no newer attempt at the
                run goes on.
        """
        self._path, self._disk, self._is_newest = path, disk, is_newest
        self._counts: dict[str, int] = {}  # of pieces in each file
        self._total = 0  # of them all, as far as threads of a forked child don't disturb it
        self._descriptor = -1
        self._lines = 0
        self._took_over = self._rewriting = False
        self._lock = threading.RLock()
        self._pid = os.getpid()

    @property
    def pieces(self) -> int:
        """How many pieces the rank's files hold."""
        return sum(self._counts.values())

    def take_over(self, pieces: Sequence[Piece], lines: bytes) -> None:
        """Put the manifest in a file that no process of an older attempt has open.

        Ranks: independent.
        """
        if pieces:
            self._disk.replace(self._path, lines)
        self._took_over = True
        self._counts = dict(Counter(piece.file for piece in pieces))
        self._lines = self._total = len(pieces)

    def begin(self, pieces: Sequence[Piece]) -> None:
        """Say which pieces are about to take the place of older ones in a file.

        Whoever finds the file after a kill then knows that it may hold either. A file that the
        manifest doesn't list counts for nothing until it does.

        Ranks: independent.
        """
        if any(piece.file in self._counts for piece in pieces):
            self._enter([piece._replace(begun=True) for piece in pieces])

    def add(self, pieces: Sequence[Piece]) -> None:
        """Enter the pieces of a file that is on disk.

        Ranks: independent.
        """
        self._enter(pieces, done=True)

    def close(self) -> None:
        """Let go of the manifest.

        Ranks: independent.
        """
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                os.close(descriptor)
            except OSError as error:
                if not was_closed(error):
                    self._disk.explain(error, self._path)
                    raise

    # ----- appending -----

    @property
    def _is_child(self) -> bool:
        return os.getpid() != self._pid

    def _enter(self, pieces: Sequence[Piece], *, done: bool = False) -> None:
        data = b"".join(piece.line() for piece in pieces)
        if self._is_child:  # which may have been forked while another thread held the lock
            self._append(data)
            if done:
                self._count(pieces)
            return
        with self._lock:  # until it is on disk: nobody writes the manifest anew meanwhile
            self._append(data)
            self._lines += len(pieces)
            if done:
                self._count(pieces)
                if self._lines >= max(_LINES, _TIMES * self._total) and not self._rewriting:
                    self._write_anew()

    def _count(self, pieces: Sequence[Piece]) -> None:
        held = len(pieces)
        for file in {piece.file for piece in pieces}:
            before = self._counts.get(file, 0)
            self._counts[file] = held
            self._total += held - before

    def _append(self, lines: bytes) -> None:
        try:
            self._append_once(lines)
        except OSError as error:
            if not was_closed(error):
                raise
            self._append_once(lines)  # the program has closed it, and all that it knew nothing of

    def _append_once(self, lines: bytes) -> None:
        if self._descriptor < 0:
            self._descriptor = out_of_the_way(self._disk.open_append(self._path))
        try:
            self._disk.append(self._descriptor, self._path, lines)
        except OSError:  # a line may be cut off: whoever opens the file again ends it
            with suppress(OSError):
                self.close()
            raise
        if self._is_displaced() and self._is_newest():
            self.close()  # the file that has the name now has its other lines
            self._append_once(lines)

    def _is_displaced(self) -> bool:
        """Whether another process may have put another file in the place of the open one, and has.

        A child's parent may have written it anew; so may a process of an older attempt that was
        stopped in the middle of that.
        """
        if not (self._is_child or self._took_over):
            return False
        there = _status(self._path)
        return there is not None and not os.path.samestat(os.fstat(self._descriptor), there)

    # ----- leaving out what counts no more -----

    def _write_anew(self) -> None:
        """Put a file in the manifest's place that says the same in fewer lines.

        Whoever reads it has one or the other, as with all files here. What can't be done now is
        tried again when it is as long again: the pieces are on disk, and in the manifest.
        """
        self._lines = self._total = self.pieces
        self._rewriting = True  # a signal's handler in the middle of it only appends
        try:
            late = self._replace()
        finally:
            self._rewriting = False
        if late:
            self._append(late)

    def _replace(self) -> bytes:
        """Replace it, if that can be done now; gives lines that came too late to be in it."""
        try:
            old = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return self._replace_one(old)
        finally:
            os.close(old)

    def _replace_one(self, old: int) -> bytes:
        mine = os.fstat(old)
        data = os.pread(old, mine.st_size + 1, 0)
        new: os.stat_result | None = None
        with suppress(OSError, DamagedError, _NotNow):
            with files.replacing(self._path) as file:
                status = self._fill(file, data)
                # As late as can be: nothing that may take long follows but the rename.
                self._check(os.fstat(old), len(data))
                new = status
            if self._disk.at_close:
                files.sync(os.path.dirname(self._path))
        # An error does not tell: a server may have renamed it, and its answer may be lost.
        there = _status(self._path)
        if there is None or os.path.samestat(mine, there):
            return b""  # the lines are in the open file, and its closing tells if they are not
        if new is None or not os.path.samestat(new, there):
            self.close()  # somebody else's has the name
            return b""
        with suppress(OSError):  # what the older one has lost is in the new one
            self.close()
        # An attempt that has begun since the check takes over the new file; if it had done so with
        # the older one, `_is_displaced` tells it. This process is told now.
        with suppress(OSError):
            self._is_newest()
        # Whoever appends to the older one from now on sees that it has lost its name.
        late = os.pread(old, os.fstat(old).st_size, len(data))
        return late[: late.rfind(b"\n") + 1]

    def _fill(self, file: BinaryIO, data: bytes) -> os.stat_result:
        from notata import manifests

        if not data.endswith(b"\n"):  # a child is in the middle of a line
            raise _NotNow
        file.write(manifests.shortened(data, self._path))
        file.flush()
        # Synced, but where nothing is: else the loss of the node might take older lines, too.
        if self._disk.at_close:
            os.fsync(file.fileno())
        status = os.fstat(file.fileno())
        file.close()  # NFS sends what was written
        return status

    def _check(self, old: os.stat_result, size: int) -> None:
        """Make sure that the file that was read is the one that has the name, and as long."""
        mine, there = os.fstat(self._descriptor), os.stat(self._path)
        if not (os.path.samestat(mine, old) and os.path.samestat(mine, there)):
            raise _NotNow
        if not (size == old.st_size == there.st_size and self._is_newest()) or self._is_child:
            raise _NotNow


def _status(path: str) -> os.stat_result | None:
    with suppress(OSError):
        return os.stat(path)
    return None
