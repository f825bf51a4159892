"""Joining logs: all ranks' records in time order in one file."""

from __future__ import annotations

from notata import messages, streams

_LONG_AGO = b"1970-01-01T00:00:00"  # where nobody wrote a time stamp


def join_logs(run: str, temporary: str) -> None:
    """Write all ranks' records in time order; within a rank the order stays.

    Args:
        run: Folder of the run.
        temporary: Path of the file to make.

    Raises:
        OSError: If the file can't be written.

    Ranks: independent.
    """
    start = b""
    with open(temporary, "xb") as file:
        for block in streams.blocks_in_order(run):
            if not (block.stamp or start):
                start = _start(run)
            file.write(messages.signed(block, start))


def _start(run: str) -> bytes:
    """The time stamp of the run's first record."""
    return next((b.stamp for b in streams.blocks_in_order(run) if b.stamp), _LONG_AGO)
