"""Joining an array or a bundle, beside `cp` of the same bytes on the same disk.

Bounds: at least 0.8 of the speed of `cp` for blocks of rows, 0.5 for blocks of rows and columns,
and less than 300 MB of memory whatever the size. Beside it, both until their file is on disk
(`sync FILE`), as a merge has it before it puts it in place.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from common import arguments, best, folder, joined, report, timed

from notata import Logbook


def write(base: Path, name: str, side: int, blocks: tuple[int, int], order: str) -> Path:
    """A square array of doubles, written as so many blocks by the ranks of a run."""
    rows, columns = (np.array_split(np.arange(side), count) for count in blocks)
    boxes = [(r, c) for r in rows for c in columns]
    for rank, (r, c) in enumerate(boxes):
        os.environ |= {"NOTATA_RANK": str(rank), "NOTATA_SIZE": str(len(boxes))}
        with Logbook(name, base) as log:
            values = r[:, None] * float(side) + c
            block = (
                np.asfortranarray(values) if order == "F" or rank % 2 * (order == "CF") else values
            )
            if order == "npz":  # one behind another
                log.arrays("T", False, u=values, step=rank)
            else:
                log.array("T", block, start=(r[0], c[0]), shape=(side, side))
    return base / f"log_{name}"


def main() -> None:
    args = arguments(__doc__ or "")
    side = 32768 if args.full else 11585
    rows = []
    for name, blocks, order in (
        ("rows", (64, 1), "C"),
        ("rows, Fortran", (1, 64), "F"),
        ("blocks", (8, 8), "C"),
        ("columns", (1, 64), "C"),
        ("blocks, mixed orders", (8, 8), "CF"),
        ("bundle of rows", (16, 1), "npz"),
        ("bundle of rows of many ranks", (512, 1), "npz"),
    ):
        with folder(args.folder) as base:
            run = write(base, "bench", side, blocks, order)
            made, copy = run / "joined.tmp", run / "copy.tmp"
            target = "data/T.npz" if order == "npz" else "data/T.npy"
            joined(run, target)  # so that the copy has something to copy

            def copied(
                made: Path = made, copy: Path = copy, run: Path = run
            ) -> tuple[float, float]:
                copy.unlink(missing_ok=True)
                seconds = timed(["cp", str(made), str(copy)], run)
                return seconds, seconds + timed(["sync", str(copy)], run)

            ((cp, cp_synced), (seconds, synced, memory)) = best(
                args.repeat, copied, lambda run=run, target=target: joined(run, target)
            )
            size = side * side * 8 / 1e6
            told = [f"{size / seconds:.0f}", f"{size / cp:.0f}", f"{cp / seconds:.2f}"]
            told += [f"{cp_synced / synced:.2f}", str(memory)]
            rows.append([name, f"{size:.0f}", *told])
    header = ["pieces", "MB", "join MB/s", "cp MB/s", "ratio", "ratio on disk", "memory MB"]
    report("merge_arrays", header, rows)


if __name__ == "__main__":
    main()
