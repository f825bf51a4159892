"""Joining logs: all ranks' records in time order in one file."""

from __future__ import annotations

from notata import streams


def join_logs(run: str, temporary: str) -> None:
    """Write all ranks' records in time order; within a rank the order stays.

    Args:
        run: Folder of the run.
        temporary: Path of the file to make.

    Raises:
        OSError: If the file can't be written.

    Ranks: independent.
    """
    with open(temporary, "xb") as file:
        for block in streams.blocks_in_order(run):
            file.write(block.raw)
            if not block.raw.endswith(b"\n"):
                file.write(b"\n")  # a line that a crash cut off
