"""Joining logs: all ranks' records in time order in one file."""

from __future__ import annotations

import os

from notata import checksums, gather, layout, messages, streams
from notata.merging.tasks import Made, Told, silent

_LONG_AGO = b"1970-01-01T00:00:00"  # where nobody wrote a time stamp


def join_logs(run: str, temporary: str, progress: Told = silent) -> Made:
    """Write all ranks' records in time order; within a rank the order stays.

    Args:
        run: Folder of the run.
        temporary: Path of the file to make.
        progress: Called with the number of bytes joined since it was called last.

    Raises:
        OSError: If the file can't be written.

    Ranks: independent.
    """
    start = b""
    with open(temporary, "xb") as file:
        for block in streams.blocks_in_order(run):
            if not (block.stamp or start):
                start = _start(run)
            line = messages.signed(block, start)
            file.write(line)
            progress(len(line))
    own = {f"{layout.rank_dir(r)}/{layout.LOG}" for r in gather.rank_folders(run) if r}
    inputs = {
        name: checksums.of_file(os.path.join(run, name))
        for name in own
        if os.path.exists(os.path.join(run, name))
    }
    return Made(checksums.of_file(temporary), inputs)


def _start(run: str) -> bytes:
    """The time stamp of the run's first record."""
    return next((b.stamp for b in streams.blocks_in_order(run) if b.stamp), _LONG_AGO)
