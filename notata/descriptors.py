"""Files that stay open: known again, should the program close what it did not open.

Programs that become daemons close every number that they find (`os.closerange`). The next file that
is opened gets the lowest one that is free.
"""

from __future__ import annotations

import os
from contextlib import suppress

_HIGH = 64  # numbers that no file gets of itself while a program has few open


def identity(descriptor: int) -> tuple[int, int] | None:
    """Which file an open one is, to know it again; None if it is closed.

    Ranks: independent.
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def out_of_the_way(descriptor: int) -> int:
    """Give an open file a number that no other soon gets, should the program close it.

    Returns:
        The number that it has now: the old one, where so many files may not be open.

    Ranks: independent.
    """
    import fcntl

    try:
        high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    except OSError:
        return descriptor
    with suppress(OSError):  # nothing was written by it
        os.close(descriptor)
    return high
