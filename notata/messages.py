"""Log lines out and in: the writer that simulations wait for, and the parser of what it wrote.

A record is one line, `[2026-11-23T03:00:00] LEVEL message` in a run of one rank, and
`[2026-11-23T03:00:00.123456] LEVEL [rank 3] message` in a run of several. The lines that continue
a message are indented by four blanks, so that no message can pass for a record.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from notata import files

if TYPE_CHECKING:
    import logging

DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50
LEVELS = {"DEBUG": DEBUG, "INFO": INFO, "WARNING": WARNING, "ERROR": ERROR, "CRITICAL": CRITICAL}
_NAMES = {number: name for name, number in LEVELS.items()}
_INDENT = "\n    "


def level_number(level: str | int) -> int:
    """The number of a level given by name or number.

    Example:
        >>> level_number("warning")
        30

    Raises:
        ValueError: If there is no such level.

    Ranks: independent.
    """
    if isinstance(level, int):
        return int(level)
    number = LEVELS.get(str(level).upper())
    if number is None:
        raise ValueError(f"level {level!r}: give one of {', '.join(LEVELS)}, or a number")
    return number


def level_name(number: int) -> str:
    """The name that a record of this level carries, as the standard library names it.

    Ranks: independent.
    """
    return _NAMES.get(number) or f"Level {number}"


class LogWriter:
    """Appends records to one log file, each with a single write.

    A record is with the operating system when the call returns: `tail -f` shows it, and it
    survives the death of the process. The file is made by the first record. A record that can't be
    written never stops the program: it is counted in `lost` and said once on standard error.

    Attributes:
        path: The log file.
        level: Records below this level are dropped.
        lost: How many records could not be written.
    """

    def __init__(
        self,
        path: str,
        rank: int | None = None,
        level: str | int = INFO,
        opener: Callable[[str], int] = files.open_append,
    ) -> None:
        """Prepare to write; no file is made yet.

        Args:
            path: The log file.
            rank: The rank to name in each record, or None in a run of one rank.
            level: The lowest level that is written.
            opener: Opens the file to append to, and makes what it needs.
        """
        self.path = path
        self._opener = opener
        self.level = level_number(level)
        self.lost = 0
        self._tag = "" if rank is None else f"[rank {rank}] "
        self._fine = rank is not None
        self._descriptor = -1  # of no file: the first write fails, and opens it
        self._keep_open = True
        self._until = 0.0  # when the stamp of this second is out of date
        self._second = 0
        self._heads: dict[int, str] = {}  # of each level: the line up to its text, or to the rank's

    def write(self, level: int, message: object) -> None:
        """Append one record.

        Args:
            level: Its level.
            message: Its text; anything else is turned into text.
        """
        # Simulations wait for this: no call that can be spared, nothing made twice in a second.
        if level < self.level:
            return
        now = time.time()
        if not self._second <= now < self._until:
            self._begin_second(now)
        text = str(message)
        if "\n" in text:
            text = text.replace("\n", _INDENT)
        head = self._heads.get(level) or self._head(level)
        if self._fine:
            fraction = int((now - self._second) * 1e6)
            line = f"{head[:20]}.{fraction:06d}{head[20:]}{text}\n"
        else:
            line = f"{head}{text}\n"
        try:
            data = line.encode()
        except UnicodeEncodeError:
            data = _awkward(line)
        try:
            written = os.write(self._descriptor, data)
        except OSError as error:
            self._write_otherwise(data, error)
        else:
            if written != len(data):
                self._cut_off()

    def _begin_second(self, now: float) -> None:
        self._second = int(now)
        self._until = self._second + 1.0
        self._heads.clear()

    def _head(self, level: int) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(self._second))
        head = self._heads[level] = f"[{stamp}] {level_name(level)} {self._tag}"
        return head

    def _write_otherwise(self, data: bytes, error: OSError) -> None:
        """Write to a file that is not open; if it is, the disk takes no more."""
        if self._descriptor >= 0:
            self._lose(error)
            return
        try:
            self._descriptor = self._opener(self.path)
            if os.write(self._descriptor, data) != len(data):
                self._cut_off()
            if not self._keep_open:
                self.close()
        except OSError as another:
            self._lose(another)

    def _cut_off(self) -> None:
        """Let go of a file that ends within a line: whoever opens it to append ends that line."""
        self._lose(OSError("only a part of the line was taken; the disk may be full"))
        self._let_go()

    def _lose(self, error: OSError) -> None:
        self.lost += 1
        if self.lost == 1:
            with suppress(Exception):
                print(
                    f"notata: a log line could not be written to {self.path}: {error}; the program "
                    "goes on, further losses are only counted",
                    file=sys.stderr,
                )

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with suppress(OSError):
                os.close(descriptor)

    def close(self) -> None:
        """Let go of the file. A later record opens it for itself alone."""
        self._keep_open = False
        self._let_go()

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
        logger.addHandler(handler(self.write))
        return logger


def handler(write: Callable[[int, str], object]) -> logging.Handler:
    """A standard handler that gives its records to a function as level and text.

    Ranks: independent.
    """
    import logging

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                write(record.levelno, self.format(record))
            except Exception:  # as every handler of the standard library does
                self.handleError(record)

    return Handler()


def _awkward(line: str) -> bytes:
    """A line with what UTF-8 can't hold: bytes of a file name as they are, else spelled out."""
    try:
        return line.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return line.encode("utf-8", "backslashreplace")


class Record(NamedTuple):
    """One message of a log.

    Attributes:
        time: Its time stamp as written, in the writer's local time, or `""` for lines before
            the first record.
        level: Name of its level, or `""`.
        rank: The rank that wrote it, or None in a run of one rank.
        message: Its text.
    """

    time: str
    level: str
    rank: int | None
    message: str

    @property
    def seconds(self) -> float | None:
        """Its time in seconds since the epoch, or None where it has none."""
        return stamp_seconds(self.time) if self.time else None


_RECORD = re.compile(
    rb"\[(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?)\] (Level -?\d+|[^ \n]+) (.*)", re.DOTALL
)
_RANK = re.compile(rb"\[rank (\d{1,9})\] (.*)", re.DOTALL)


def stamp_seconds(stamp: str) -> float:
    """Seconds since the epoch of a time stamp in this machine's local time.

    Ranks: independent.
    """
    whole, _, fraction = stamp.partition(".")
    seconds = time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds + (float(f"0.{fraction}") if fraction else 0.0)


class Block(NamedTuple):
    """The bytes of one record as they stand in the file, with what orders it."""

    stamp: bytes  # empty for lines before the first record
    rank: int | None
    raw: bytes


def blocks(lines: Iterable[bytes], rank: int | None = None) -> Iterator[Block]:
    """Cut a log into records without changing a byte of it.

    Args:
        lines: The lines of the log, with their line breaks, as an open binary file gives them.
        rank: The rank whose own log it is: all of it is that rank's, torn lines too. Without it,
            a record is of the rank that it names.

    Yields:
        Each record, with the lines that continue it.

    Ranks: independent.
    """
    stamp, owner = b"", rank
    held: list[bytes] = []
    for line in lines:
        match = _RECORD.match(line) if line.startswith(b"[") else None
        if match is None:
            held.append(line)
            continue
        if held:
            yield Block(stamp, owner, b"".join(held))
        stamp, owner, held = match[1], _tagged(match)[0] if rank is None else rank, [line]
    if held:
        yield Block(stamp, owner, b"".join(held))


def _tagged(match: re.Match[bytes]) -> tuple[int | None, bytes]:
    """The rank that a record names, and its text; only runs of several ranks have fine stamps."""
    tagged = _RANK.match(match[4]) if match[2] else None
    return (int(tagged[1]), tagged[2]) if tagged else (None, match[4])


def signed(block: Block, start: bytes) -> bytes:
    """A block as it stands in the log of all ranks, where every record has to name its rank.

    Args:
        block: The block. One that has no rank is rank 0's, and stays as it is.
        start: The time stamp to give to lines before the first record.

    Returns:
        Lines that are read back as the same message of the same rank: the block itself, unless a
        crash cut off its head.

    Ranks: independent.
    """
    raw = block.raw if block.raw.endswith(b"\n") else block.raw + b"\n"
    match = _RECORD.match(raw) if block.stamp else None
    if block.rank is None or (match and _tagged(match)[0] == block.rank):
        return raw
    if match:
        stamp, level, text = match[1], match[3], match[4]
    else:
        stamp, level = start, b"UNKNOWN"
        text = raw[:-1].replace(b"\n", _INDENT.encode()) + b"\n"
    fine = stamp if b"." in stamp else stamp + b".000000"
    return b"[%b] %b [rank %d] %b" % (fine, level, block.rank, text)


def record(block: Block) -> Record:
    """Read a block of bytes as a message.

    Bytes that are not UTF-8 come back as Python's surrogate escapes.

    Ranks: independent.
    """
    first, *rest = block.raw.removesuffix(b"\n").split(b"\n")
    level = b""
    match = _RECORD.match(first) if block.stamp else None
    if match is not None:
        level, first = match[3], match[4]
        tag, text = _tagged(match)
        if tag is not None and tag == block.rank:
            first = text
        if all(line.startswith(b"    ") for line in rest):
            rest = [line[4:] for line in rest]  # notata 0.3.0 didn't indent: leave its lines alone
    whole = b"\n".join([first, *rest]).decode("utf-8", "surrogateescape")
    name = level.decode("utf-8", "surrogateescape")
    return Record(block.stamp.decode(), name, block.rank, whole)
