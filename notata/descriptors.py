"""Descriptors that stay open while the program runs, out of the way of its own files.

A program may close descriptors that it never opened: to become a daemon, or before it starts
another one (`os.closerange`). The system gives the lowest free number to the next file, so that a
number of ours would soon be a file of the program's, and our next line would go there. Numbers that
are far up stay free, and a write to them fails, which can be noticed and mended.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

# Below 64, to which the system has room for in each process: to make more takes 20 ms where there
# are threads.
FILES = 40
# A number that C writes to where Python can't must not be one that a log had, as far as that goes.
STACKS = 48
# Those that Python writes to by itself, when a signal comes, are apart: a file of ours has such a
# number only where more than 16 are open at once.
BELLS = 56


def out_of_the_way(descriptor: int, lowest: int = FILES) -> int:
    """Move a descriptor to a number that the program's files get only if it has very many open.

    Args:
        descriptor: The descriptor; it is closed.
        lowest: The lowest number that it may have: `FILES`, `STACKS` or `BELLS`.

    Returns:
        The new one, or the same where there is no such number to be had.

    Ranks: independent.
    """
    import fcntl

    try:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, lowest)
    except OSError:  # as many files are open as may be
        return descriptor
    with suppress(OSError):  # the file is open still: whatever is wrong with it shows there
        os.close(descriptor)
    return moved


def was_closed(error: OSError) -> bool:
    """Whether a descriptor is of no file, though nobody here has closed it.

    Ranks: independent.
    """
    return error.errno == errno.EBADF
