"""What a log line is, and the parser of what was written.

A record is one line, `[2026-11-23T03:00:00] LEVEL message` in a run of one rank, and
`[2026-11-23T03:00:00.123456] LEVEL [rank 3] message` in a run of several. The lines that continue
a message are indented by four blanks, so that no message can pass for a record.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

DEBUG, INFO, WARNING, ERROR, CRITICAL = 10, 20, 30, 40, 50
LEVELS = {"DEBUG": DEBUG, "INFO": INFO, "WARNING": WARNING, "ERROR": ERROR, "CRITICAL": CRITICAL}
_NAMES = {number: name for name, number in LEVELS.items()}
INDENT = "\n    "


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


# Patterns are compiled by those who read, not by each rank that writes.
@cache
def _record() -> re.Pattern[bytes]:
    return re.compile(
        rb"\[(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?)\]"
        rb" (Level -?\d{1,20}|[^ \n]{1,64}) (.*)",
        re.DOTALL,
    )


@cache
def _rank() -> re.Pattern[bytes]:
    return re.compile(rb"\[rank (\d{1,9})\] (.*)", re.DOTALL)


def now() -> str:
    """The present as metadata has it: local time, ISO 8601, to the second.

    Ranks: independent.
    """
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def stamp_seconds(stamp: str) -> float:
    """Seconds since the epoch of a time stamp in this machine's local time.

    Ranks: independent.
    """
    whole, _, fraction = stamp.partition(".")
    seconds = time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds + (float(f"0.{fraction}") if fraction else 0.0)


_ENDLESS = 1e12  # no time of a run, in seconds


def began(meta: Mapping[str, Any]) -> float | None:
    """When a run began, in seconds since the epoch, or None where its metadata don't say.

    Of a run of before `start_epoch` was written, that is what its stamp means in this machine's
    local time, which need not have been that of the run.

    Args:
        meta: Its metadata.

    Ranks: independent.
    """
    told = meta.get("start_epoch")
    if not isinstance(told, int | float):
        try:
            told = stamp_seconds(str(meta.get("start_time")))
        except (ValueError, OverflowError):
            return None
    return float(told) if abs(told) < _ENDLESS else None  # NaN isn't either


def abroad(meta: Mapping[str, Any]) -> float:
    """Seconds by which a run's stamps are ahead of this machine's local time.

    That is of another time zone, of which all are whole quarters of an hour.

    Args:
        meta: Its metadata; 0 where they don't tell.

    Ranks: independent.
    """
    told = meta.get("start_epoch")
    try:
        ahead = stamp_seconds(str(meta.get("start_time"))) - float(told or "")
        return 900.0 * round(ahead / 900)
    except (TypeError, ValueError, OverflowError):
        return 0.0


LONG_AGO = -1  # the ticks of lines before the first record: before all others


def ticks(stamp: bytes) -> int:
    """What orders records: half microseconds on the calendar that the stamp is written in.

    A stamp of whole seconds comes just before those of the same second that have a fraction.

    Example:
        >>> ticks(b"2026-11-23T03:00:00.000001") - ticks(b"2026-11-23T03:00:00")
        3

    Ranks: independent.
    """
    if not stamp:
        return LONG_AGO
    micros = int(stamp[17:19]) * 1_000_000 + int(stamp[20:26] or 0)
    return minute_ticks(stamp[:16]) + 2 * micros + (len(stamp) > 19)


def minute_ticks(minute: bytes) -> int:
    """The ticks at which a minute begins, such as `2026-11-23T03:00`.

    Months that there are not, which no writer of ours writes, count as the nearest.

    Ranks: independent.
    """
    year, month, day = int(minute[:4]), int(minute[5:7]), int(minute[8:10])
    from datetime import date

    days = date(max(year, 1), min(max(month, 1), 12), 1).toordinal() + day
    return 2 * 60_000_000 * ((days * 24 + int(minute[11:13])) * 60 + int(minute[14:16]))


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
        match = _record().match(line) if line.startswith(b"[") else None
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
    tagged = _rank().match(match[4]) if match[2] else None
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
    match = _record().match(raw) if block.stamp else None
    if block.rank is None or (match and _tagged(match)[0] == block.rank):
        return raw
    if match:
        stamp, level, text = match[1], match[3], match[4]
    else:
        stamp, level = start, b"UNKNOWN"
        text = raw[:-1].replace(b"\n", INDENT.encode()) + b"\n"
    fine = stamp if b"." in stamp else stamp + b".000000"
    return b"[%b] %b [rank %d] %b" % (fine, level, block.rank, text)


def record(block: Block) -> Record:
    """Read a block of bytes as a message.

    Bytes that are not UTF-8 come back as Python's surrogate escapes.

    Ranks: independent.
    """
    first, *rest = block.raw.removesuffix(b"\n").split(b"\n")
    level = b""
    match = _record().match(first) if block.stamp else None
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
