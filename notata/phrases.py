"""Sizes, times and names as people read them: in one line, in few letters."""

from __future__ import annotations


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

    Ranks: independent.
    """
    if round(seconds) < 60:
        return f"{seconds:.0f} s" if coarse or seconds >= 9.95 else f"{seconds:.1f} s"
    whole = round(seconds)
    unit, length, part, below = next(scale for scale in _SCALES if whole >= scale[1])
    count, rest = divmod(whole, length)
    return f"{count} {unit}" if coarse else f"{count} {unit} {rest // below:02d} {part}"


def counted(count: int, what: str) -> str:
    """So many of a thing.

    Example:
        >>> counted(1, "run"), counted(3, "run")
        ('1 run', '3 runs')

    Ranks: independent.
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
