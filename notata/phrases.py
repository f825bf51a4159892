"""Sizes, times and names as people read them: in one line, in few letters."""

from __future__ import annotations

import os
import re


def printable(text: str) -> str:
    r"""Put text on one line, without anything that a terminal would obey.

    Example:
        >>> printable("log_a\nb")
        'log_a\\nb'

    Ranks: independent.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def size_text(count: int) -> str:
    """Bytes as people say them.

    Example:
        >>> size_text(999), size_text(1_109_056)
        ('999 B', '1.1 MB')

    Ranks: independent.
    """
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.5:
            return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"
    return f"{value / 1000:.1f} TB"


_ENDLESS = 1e12  # seconds, 30,000 years

# A unit and its seconds, the next smaller unit and its seconds.
_SCALES = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))


def duration_text(seconds: float, *, coarse: bool = False) -> str:
    """Seconds as people say them.

    Args:
        seconds: How long it took, or how long ago it was.
        coarse: Whether the larger unit is enough.

    Example:
        >>> duration_text(3.21), duration_text(7380), duration_text(7380, coarse=True)
        ('3.2 s', '2 h 03 min', '2 h')
        >>> duration_text(float("nan"))  # of metadata that somebody edited
        '?'

    Ranks: independent.
    """
    if not abs(seconds) < _ENDLESS:  # NaN isn't either
        return "?"
    if round(seconds) < 60:
        return f"{seconds:.0f} s" if coarse or seconds >= 9.95 else f"{seconds:.1f} s"
    whole = round(seconds)
    unit, length, part, below = next(scale for scale in _SCALES if whole >= scale[1])
    count, rest = divmod(whole, length)
    return f"{count} {unit}" if coarse else f"{count} {unit} {rest // below:02d} {part}"


_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(sec|s|min|m|h|d)?\s*")


def duration_of(text: str) -> float:
    """The seconds that people mean.

    Raises:
        ValueError: If it is no duration.

    Example:
        >>> duration_of("90"), duration_of("10m"), duration_of("1h 30min")
        (90.0, 600.0, 5400.0)

    Ranks: independent.
    """
    parts = list(_DURATION.finditer(text.strip()))
    if not parts or "".join(part[0] for part in parts) != text.strip():
        raise ValueError(f"{text!r} is no duration; one looks like '90s', '10m', '1h 30m' or '2d'")
    return float(sum(float(part[1]) * _UNITS[part[2] or "s"] for part in parts))


def counted(count: int, what: str) -> str:
    """So many of a thing.

    Example:
        >>> counted(1, "run"), counted(3, "run")
        ('1 run', '3 runs')

    Ranks: independent.
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def error_text(error: Exception) -> str:
    """An error in a line: of one of the system, which file, and what about it.

    Example:
        >>> error_text(PermissionError(13, "Permission denied", "x"))
        'x: Permission denied'

    Ranks: independent.
    """
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__
