"""A rank's manifest, as the rank itself writes it: a line for each piece that is on disk."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from notata.descriptors import out_of_the_way, was_closed
from notata.disk import Disk
from notata.errors import DamagedError
from notata.pieces import Piece

# A manifest of so many lines is written anew once most of them count no more: a program that writes
# one array in each step would else leave megabytes, which each reader reads.
_LINES = 64
_TIMES = 4  # lines that a piece has then

_forks = 0
_rewriting = threading.RLock()  # no fork goes on while a manifest is written anew


def _after_fork_in_parent() -> None:
    global _forks
    _forks += 1
    _rewriting.release()


os.register_at_fork(
    before=_rewriting.acquire,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_rewriting.release,
)


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
        self._descriptor = -1
        self._lines = 0
        self._late: list[bytes] | None = None  # appended while it is written anew
        self._lock = threading.RLock()
        self._pid, self._forked = os.getpid(), _forks

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
        self._counts = dict(Counter(piece.file for piece in pieces))
        self._lines = len(pieces)

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
        self._enter(pieces)
        self._counts |= {piece.file: len(pieces) for piece in pieces}
        if self._lines >= max(_LINES, _TIMES * self.pieces) and self._is_mine:
            with self._lock:
                self._write_anew()

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
    def _is_mine(self) -> bool:
        """Whether no forked child can have the manifest open, and this is none."""
        return self._forked == _forks and os.getpid() == self._pid

    def _enter(self, pieces: Iterable[Piece]) -> None:
        lines = [piece.line() for piece in pieces]
        data = b"".join(lines)
        if os.getpid() != self._pid:  # a child, which may have been forked while another held it
            self._append(data)
            return
        with self._lock:  # until it is on disk: nobody writes the manifest anew meanwhile
            self._append(data)
            self._lines += len(lines)
            if self._late is not None:  # a signal's handler, in the middle of that
                self._late.append(data)

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

    # ----- leaving out what counts no more -----

    def _write_anew(self) -> None:
        """Put a file in the manifest's place that says the same in fewer lines.

        Whoever reads it has one or the other, as with all files here. What can't be done now is
        tried again when it is as long again: the pieces are on disk, and in the manifest.
        """
        self._lines = self.pieces
        with _rewriting:
            self._late = []
            try:
                with suppress(OSError, DamagedError, _NotNow):
                    self._replace()
            finally:
                late, self._late = self._late, None
                with suppress(OSError):
                    self.close()  # the next line goes into whichever file has the name by then
            for lines in late:
                self._append(lines)

    def _replace(self) -> None:
        from notata import manifests

        mine = os.fstat(self._descriptor)
        data = os.pread(self._descriptor, mine.st_size + 1, 0)
        shorter = manifests.shortened(data, self._path)
        # Synced, but where nothing is: else the loss of the node might take older lines, too.
        with self._disk.replacing(self._path, durable=self._disk.at_close) as file:
            file.write(shorter)
            now = os.stat(self._path)
            if not (os.path.samestat(mine, now) and len(data) == mine.st_size == now.st_size):
                raise _NotNow
            if not (self._is_newest() and self._is_mine) or self._late:
                raise _NotNow
