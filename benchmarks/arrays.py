"""What it costs to write arrays, and to read a part of one, beside plain numpy.

Usage: python benchmarks/arrays.py [--repeat 5] [--folder DIR]

An array of 64 MB and 10,000 of 100 numbers are written by `log.array` and by `numpy.save`, by a run
of one rank and by a rank of two, which computes checksums. A region of an array that 16 ranks wrote
is read before the merge by `load_array`, and of the whole array by `numpy.load` with
`mmap_mode="r"`. Neither side of a pair syncs anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import arguments, best, folder, report

from notata import Logbook, LogReader

SMALL = 10_000
RANKS, ROWS, COLUMNS = 16, 4096, 4096  # 128 MB of doubles


def seconds(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def written(parent: str | None) -> dict[str, tuple[Callable[[], float], Callable[[], float]]]:
    """For each size of array, how long notata and numpy take."""
    large, small = np.random.default_rng(1).random(8 << 20), np.arange(100.0)

    def ours(count: int, values: np.ndarray, size: int = 1) -> float:
        with folder(parent) as here:
            os.environ |= {"NOTATA_RANK": "0", "NOTATA_SIZE": str(size)}
            with Logbook("x", here) as log:
                del os.environ["NOTATA_RANK"], os.environ["NOTATA_SIZE"]
                return seconds(lambda: [log.array(f"a{n}", values) for n in range(count)])

    def numpys(count: int, values: np.ndarray) -> float:
        with folder(parent) as here:
            return seconds(lambda: [np.save(here / f"a{n}.npy", values) for n in range(count)])

    return {
        "write 64 MB": (lambda: ours(1, large), lambda: numpys(1, large)),
        "write 64 MB of two ranks": (lambda: ours(1, large, 2), lambda: numpys(1, large)),
        f"write {SMALL} of 800 bytes": (lambda: ours(SMALL, small), lambda: numpys(SMALL, small)),
        f"write {SMALL} of two ranks": (
            lambda: ours(SMALL, small, 2),
            lambda: numpys(SMALL, small),
        ),
    }


def write_pieces(here: Path) -> tuple[LogReader, Path]:
    """An array in blocks of rows, as ranks wrote it, and the same in one file."""
    whole = np.random.default_rng(2).random((ROWS, COLUMNS))
    np.save(here / "whole.npy", whole)
    rows = ROWS // RANKS
    for rank in range(RANKS):
        os.environ |= {"NOTATA_RANK": str(rank), "NOTATA_SIZE": str(RANKS)}
        with Logbook("x", here) as log:
            piece = whole[rank * rows : (rank + 1) * rows]
            log.array("T", piece, start=(rank * rows, 0), shape=(ROWS, COLUMNS))
    del os.environ["NOTATA_RANK"], os.environ["NOTATA_SIZE"]
    return LogReader(here / "log_x"), here / "whole.npy"


def read(run: LogReader, whole: Path) -> dict[str, tuple[Callable[[], float], Callable[[], float]]]:
    """For each region, how long the reader of pieces and a mapped file take."""
    regions = {
        "2 MB within one rank's rows": np.s_[10:74, :],
        "2 MB across two ranks": np.s_[224:288, :],
        "16 MB across all ranks": np.s_[:, 1000:1512],
        "100 MB": np.s_[100:3300, :],
    }

    def ours(region: tuple[slice, ...]) -> float:
        return seconds(lambda: run.load_array("T", region=region))

    def numpys(region: tuple[slice, ...]) -> float:
        return seconds(lambda: np.array(np.load(whole, mmap_mode="r")[region]))

    return {
        f"read {name}": (lambda r=region: ours(r), lambda r=region: numpys(r))
        for name, region in regions.items()
    }


def main() -> None:
    given = arguments(__doc__.splitlines()[0], repeat=5)
    with folder(given.folder) as here:
        run, whole = write_pieces(here)
        pairs = written(given.folder) | read(run, whole)
        told = best(given.repeat, *[one for pair in pairs.values() for one in pair])
    rows = [
        [name, f"{1000 * ours:.1f}", f"{1000 * numpys:.1f}", f"{ours / numpys:.2f}"]
        for name, ours, numpys in zip(pairs, told[::2], told[1::2], strict=True)
    ]
    report("arrays", ["what", "notata ms", "numpy ms", "times"], rows)


if __name__ == "__main__":
    main()
