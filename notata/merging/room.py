"""Whether there is room on the disk for what is to be made."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from notata.merging.output import Output


def needed(output: Output) -> int:
    """Bytes that an output takes at least, as far as that can be known before it is made.

    Ranks: independent.
    """
    if output.kind == "bundle":
        return min(output.bytes, output.input_bytes)  # it may be compressed
    if output.kind == "mask" and output.wholes[0].key is not None:
        return 0  # it compresses to next to nothing
    return output.bytes if output.kind == "array" else output.size


def most(sizes: Iterable[tuple[int, int]]) -> int:
    """Bytes that are taken at once at most, while files are made one after another.

    Args:
        sizes: Of each file its bytes, and those that it takes beside them until it is made.

    Example:
        >>> most([(100, 50), (10, 0)]), most([(10, 0), (100, 50)])
        (150, 160)

    Ranks: independent.
    """
    total = peak = 0
    for size, beside in sizes:
        total += size
        peak = max(peak, total + beside)
    return peak


def check(path: str, count: int, what: str = "") -> None:
    """Make sure that a disk has room, as far as it says.

    Args:
        path: A folder on it.
        count: Bytes that are needed.
        what: What for.

    Raises:
        OSError: If it has less.

    Ranks: independent.
    """
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    if status.f_blocks and count > free:
        needed = f"{count} bytes are needed{what and ' '}{what}, {free} are free"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed}", path)
