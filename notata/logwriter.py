"""Log lines, out: the writer that simulations wait for."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from notata import files
from notata.descriptors import out_of_the_way, was_closed
from notata.messages import INDENT, INFO, level_name, level_number
from notata.parking import Lock, held

if TYPE_CHECKING:
    import logging

    from notata.disk import Disk

_LOOK_EVERY = 10  # seconds
_TRIES = 10  # a program that closes all descriptors may do so again before the line is written


class LogWriter:
    """Appends records to one log file, each with a single write.

    A record is with the operating system when the call returns: `tail -f` shows it, and it
    survives the death of the process. The file is made by the first record. A record that can't be
    written never stops the program: it is counted in `lost` and said once on standard error.

    Attributes:
        path: The log file.
        level: Records below this level are dropped.
        signs: How many signs of life the program gave: records, written or dropped, and others.
    """

    def __init__(
        self,
        path: str,
        rank: int | None = None,
        level: str | int = INFO,
        opener: Callable[[str], int] = files.open_append,
        look: Callable[[], object] | None = None,
        sync_from: int | None = None,
    ) -> None:
        """Prepare to write; no file is made yet.

        Args:
            path: The log file.
            rank: The rank to name in each record, or None in a run of one rank.
            level: The lowest level that is written.
            opener: Opens the file to append to, and makes what it needs.
            look: Called before a record where it was not called for ten seconds; may `mute`.
            sync_from: Records of this level and above are synced before the call returns.
        """
        self.path = path
        self._opener = opener
        self.level = level_number(level)
        self._losses = [0]  # shared with those `apart`
        self.signs = 0
        self._tag = "" if rank is None else f"[rank {rank}] "
        self._fine = rank is not None
        self._joined = rank == 0  # whether a merge may put a file of all ranks in its place
        self._descriptor = -1  # of no file: the first write fails, and opens it
        self._keep_open = True
        self._opening = Lock()  # of one thread at a time; a signal's handler may come in between
        # A second, its end, and of each level what surrounds a fraction; replaced as one.
        self._stamp: tuple[int, float, dict[int, tuple[str, str]]] = (0, 0.0, {})
        self._look, self._looked = look, 0
        self._sync_from = sys.maxsize if sync_from is None else sync_from
        self._synced = 0  # signs of life up to which the file was synced
        self._named = False  # whether its name was

    def write(self, level: int, message: object) -> None:
        """Append one record.

        Args:
            level: Its level.
            message: Its text; anything else is turned into text.
        """
        # Simulations wait for this: no call that can be spared, nothing made twice in a second.
        self.signs += 1
        if level < self.level:
            return
        try:
            text = f"{message!s}"
        except Exception as error:
            text = _wordless(message, error)
        if "\n" in text:
            text = text.replace("\n", INDENT)
        now = time.time()
        second, until, heads = self._stamp
        if not second <= now < until:
            second, heads = self._begin_second(now)
            if level < self.level:  # muted just now
                return
        try:
            stamp, head = heads[level]
        except KeyError:
            stamp, head = heads[level] = self._surroundings(second, level)
        if self._fine:
            stamp = f"{stamp}.{int((now - second) * 1e6):06d}"
        try:
            data = f"{stamp}{head}{text}\n".encode()
        except UnicodeEncodeError:
            data = _awkward(f"{stamp}{head}{text}\n")
        try:
            if os.write(self._descriptor, data) != len(data):
                self._cut_off()
        except OSError as error:
            self._write_otherwise(data, error)
        if level >= self._sync_from:
            self._sync_or_lose()

    def _begin_second(self, now: float) -> tuple[int, dict[int, tuple[str, str]]]:
        second = int(now)
        heads: dict[int, tuple[str, str]] = {}
        self._stamp = second, second + 1.0, heads
        if self._look is not None and not 0 <= second - self._looked < _LOOK_EVERY:
            self._looked = second
            self._look()
            if self._joined and self._descriptor >= 0:
                self._find_again()
        return second, heads

    def _surroundings(self, second: int, level: int) -> tuple[str, str]:
        stamp = time.strftime("[%Y-%m-%dT%H:%M:%S", time.localtime(second))
        return stamp, f"] {level_name(level)} {self._tag}"

    def _write_otherwise(self, data: bytes, error: OSError) -> None:
        """Write to a file that is not open; if it is, the disk takes no more."""
        with held(self._opening):
            try:
                if self._descriptor >= 0 and not was_closed(error):
                    raise error
                taken = self._write_anew(data)
                if taken != len(data):
                    self._cut_off()
                if not self._keep_open:
                    self.close()
            except OSError as another:
                self._lose(another)

    def _write_anew(self, data: bytes) -> int:
        """Write to a file that may have to be opened first; gives how many bytes were taken."""
        tries = 0
        while True:
            try:
                if self._descriptor < 0:  # else another thread has opened it meanwhile
                    self._open()
                return os.write(self._descriptor, data)
            except OSError as error:
                tries += 1
                if not was_closed(error) or tries == _TRIES:
                    raise
                self._descriptor = -1  # the program has closed it, with all that it knew nothing of

    def _open(self) -> None:
        descriptor = self._opener(self.path)
        self._descriptor = out_of_the_way(descriptor) if self._keep_open else descriptor

    def _cut_off(self) -> None:
        """Let go of a file that ends within a line: whoever opens it to append ends that line."""
        self._lose(OSError("only a part of the line was taken; the disk may be full"))
        self.release()

    def _find_again(self) -> None:
        """Let go of a file that a merge has replaced: the next record goes into the one there now.

        A merge refuses a run that goes on, as far as it can tell. What replaced the file of a run
        that was overwritten is not ours.
        """
        with suppress(OSError):  # nothing is there any more, or the disk is away for a while
            if os.path.samestat(os.fstat(self._descriptor), os.stat(self.path)):
                return
            from notata import mergerecord

            folder, name = os.path.split(self.path)
            if name in mergerecord.read(folder).files:
                self.release()

    def apart(self) -> LogWriter:
        """A writer for another thread, which shares nothing with this one but the file."""
        import copy

        other = copy.copy(self)
        other._descriptor, other._keep_open = -1, False
        other._stamp, other._opening = (0, 0.0, {}), Lock()
        return other

    def take_over(self, disk: Disk) -> None:
        """Put the log in a file that no process of an older attempt has open.

        What two nodes append to one file by NFS, they write over each other's. On a file system of
        one node nothing is lost, and the file stays as it is.
        """
        from notata.mounts import mount_of

        if mount_of(self.path).local:
            return
        self.release()
        with suppress(OSError):  # no room, or no right: the lines of both are better than none
            files.renew(self.path, durable=disk.at_close)

    def mute(self) -> None:
        """Write no more: the file has become another's."""
        self.level = sys.maxsize

    @property
    def lost(self) -> int:
        """How many records could not be written, here or by a writer `apart`."""
        return self._losses[0]

    def _lose(self, error: OSError) -> None:
        self._losses[0] += 1
        if self.lost == 1:
            with suppress(Exception):
                print(
                    f"notata: a log line could not be written to {self.path}: {error}; the program "
                    "goes on, further losses are only counted",
                    file=sys.stderr,
                )

    def release(self) -> None:
        """Let go of the file, which may be refused, until the next record."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                os.close(descriptor)
            except OSError as error:
                if not was_closed(error):  # NFS had taken lines that its server has no room for
                    self._lose(error)

    def fileno(self) -> int:
        """The descriptor of the file, or -1 where it is not open."""
        return self._descriptor

    def sync(self) -> None:
        """Have what was written survive the loss of this node.

        Raises:
            OSError: If the disk can't promise it.
        """
        signs = self.signs
        if signs == self._synced:
            return
        with suppress(FileNotFoundError):  # nothing was written
            if self._descriptor < 0 or not self._sync_open():
                files.sync(self.path)
            if not self._named:
                files.sync(os.path.dirname(self.path) or ".")
            self._synced, self._named = signs, True

    def _sync_open(self) -> bool:
        """Whether the file is still open, and was synced by that."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            if not was_closed(error):
                raise
            return False
        return True

    def settle(self, disk: Disk) -> None:
        """Sync what was written, where the run's durability says so at its end.

        Lines that the disk can't promise are lost: counted, and said once.
        """
        if disk.at_close:
            self._named = True  # whoever syncs the record beside it syncs the folder
            self._sync_or_lose()

    def _sync_or_lose(self) -> None:
        try:
            self.sync()
        except OSError as error:  # the disk may have forgotten it
            self._lose(error)

    def close(self) -> None:
        """Let go of the file. A later record opens it for itself alone."""
        self._keep_open = False
        self.release()

    @property
    def closed(self) -> bool:
        """Whether the run has let go of the file."""
        return not self._keep_open

    def logger(self, name: str) -> logging.Logger:
        """A standard logger whose records go into this log.

        It belongs to no hierarchy: two runs of the same name in different folders don't meet.

        Args:
            name: The logger's name.
        """
        import logging

        logger = logging.Logger(name, self.level)
        logger.addHandler(_handler(self.write))
        return logger

    def handler(self) -> logging.Handler:
        """A standard handler whose records go into this log, as long as it is open."""
        return _handler(self.write, lambda: self.closed)


def _handler(
    write: Callable[[int, str], object], over: Callable[[], bool] = bool
) -> logging.Handler:
    """A standard handler that gives its records to a function as level and text, until it is over.

    In a sweep one such handler may stay behind for each run: then it wants no more records.
    """
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if over():
                self.setLevel(sys.maxsize)
                return
            try:
                write(record.levelno, self.format(record))
            except Exception:  # as every handler of the standard library does
                self.handleError(record)

    return Handler()


def _wordless(message: object, error: Exception) -> str:
    """What is logged of an object that can't be turned into text: no message ends a program."""
    return f"a {type(message).__name__} that has no text: {type(error).__name__} in its __str__"


def _awkward(line: str) -> bytes:
    """A line with what UTF-8 can't hold: bytes of a file name as they are, else spelled out."""
    try:
        return line.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return line.encode("utf-8", "backslashreplace")
