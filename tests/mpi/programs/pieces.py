"""Writes one run with every kind of piece, whatever the number of ranks.

    pieces.py OUT mpi|launcher

`mpi` uses mpi4py; `launcher` never imports it, so that ranks are known by the launcher's variables.
"""

import sys

import numpy as np
from tell import tell

if sys.argv[2] == "mpi":
    import mpi4py.MPI  # noqa: F401 - its import starts MPI

from notata import Logbook

ROWS, COLUMNS = 11, 7


def share(length, rank, size):
    """First and last index of a rank's part; some parts are empty if ranks are many."""
    return length * rank // size, length * (rank + 1) // size


def framed(block, before, after):
    """A block with ghost cells that must never be seen in the whole."""
    return np.pad(block, list(zip(before, after, strict=True)), constant_values=-999)


def write_placed(log, rank, size):
    first, last = share(ROWS, rank, size)
    grid = np.sqrt(np.arange(ROWS * COLUMNS, dtype=float)).reshape(ROWS, COLUMNS)
    block = grid[first:last]
    for step in (0, 100):
        log.array(
            f"states/T_step{step}",
            framed(block + step, (1, 1), (1, 1)),
            start=(first, 0),
            shape=grid.shape,
            halo=1,
        )
    log.array(
        "per_axis", framed(block, (0, 2), (0, 2)), start=(first, 0), shape=grid.shape, halo=(0, 2)
    )
    left, right = share(COLUMNS, rank, size)
    log.array(
        "per_side",
        framed(grid[:, left:right], (1, 0), (0, 3)),
        start=(0, left),
        shape=grid.shape,
        halo=((1, 0), (0, 3)),
    )
    cube = np.arange(2 * ROWS * 3, dtype=np.complex64).reshape(2, ROWS, 3)
    log.array("cube", cube[:, first:last], start=(0, first, 0), shape=cube.shape)
    log.array("fortran", np.asfortranarray(grid[first:last]), start=(first, 0), shape=grid.shape)
    low, high = share(3, rank, size)  # on five ranks, two have nothing
    log.array("short", np.arange(3, dtype="i2")[low:high], start=low, shape=3)


def write_joined(log, rank, size):
    low, high = share(17, rank, size)
    log.array("line", np.arange(17)[low:high])
    low, high = share(2, rank, size)
    log.array("mostly_empty", np.arange(8.0).reshape(2, 4)[low:high])
    log.array("row", np.arange(4) + 10 * rank, join="stack")
    log.array("kept", np.full(rank + 1, rank), join="none")
    log.array("scalar", 0.5 + rank)
    if rank % 2 == 0:
        log.array("even", np.array([rank, rank]))


def write_bundles(log, rank, size):
    low, high = share(17, rank, size)
    log.arrays("bundle", x=np.linspace(0, 1, 17)[low:high], mean=float(rank))
    log.arrays(
        "nested/mixed",
        compressed=False,
        part=framed(np.arange(17.0)[low:high], (1,), (1,)),
        row=np.array([rank, size]),
        start={"part": low},
        shape={"part": 17},
        halo={"part": 1},
        join={"row": "stack"},
    )


def main(out):
    with Logbook("pieces", base_dir=out, params={"rows": ROWS, "kappa": 0.01}) as log:
        rank, size = log.rank, log.size
        log.info(f"rank {rank} of {size} is here")
        write_placed(log, rank, size)
        write_joined(log, rank, size)
        write_bundles(log, rank, size)
        log.warning(
            f"rank {rank} says\ntwo lines, with “quotes” [2026-01-01T00:00:00] ERROR forged"
        )
        log.debug("never seen")
        log.json("mine", {"rank": rank})
        log["notes/deep/own.txt"].write_text(f"rank {rank}\n")
        log.root.info("root alone")
        log.root.array("energy", np.linspace(1, 2, 5))
        log.root.json("metrics", {"loss": 0.25})
        log.root["notes/root.txt"].write_text(f"by rank {rank}\n")
        log.root.meta(operator="ada")
        log.root.params(added="later")
        log.meta(seen_by="rank 0")
        log.info(f"rank {rank} is done")
    tell(
        rank=log.rank,
        size=log.size,
        is_root=log.is_root,
        status=log.status,
        path=str(log.path),
        rank_dir=str(log.rank_dir),
        mpi="mpi4py.MPI" in sys.modules,
    )


main(sys.argv[1])
