"""Whether there is room on the disk for what is to be made."""

from __future__ import annotations

import errno
import os

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


def check(path: str, count: int) -> None:
    """Make sure that a disk has room, as far as it says.

    Args:
        path: A folder on it.
        count: Bytes that are needed.

    Raises:
        OSError: If it has less.

    Ranks: independent.
    """
    status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    if status.f_blocks and count > free:
        told = f"{os.strerror(errno.ENOSPC)}: {count} bytes are needed, {free} are free"
        raise OSError(errno.ENOSPC, told, path)
