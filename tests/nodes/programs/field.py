"""A program whose outputs are the same on any number of ranks: field.py BASE RUN [mpi].

With MPI each step is logged by all ranks at once, and a fifth of a second after the one before. A
node's clock is AHEAD seconds ahead. That is imitated, since all nodes here have one kernel, and
under libfaketime `time.sleep` fails (Python 3.11, EINVAL).
"""

import os
import sys
import time

import numpy as np

clock, ahead = time.time, float(os.environ.get("AHEAD", 0))
time.time = lambda: clock() + ahead

from notata import Logbook  # noqa: E402

STEPS, ROWS, COLUMNS = 5, 64, 48


def whole(step):
    return np.sin(np.arange(ROWS * COLUMNS, dtype=float)).reshape(ROWS, COLUMNS) * (step + 1)


def write(log, barrier):
    mine = np.array_split(np.arange(ROWS), log.size)[log.rank]
    for step in range(STEPS):
        barrier()
        log.info(f"step {step}")
        block = whole(step)[mine]
        log.array(f"T/{step}", block, start=(int(mine[0]), 0), shape=(ROWS, COLUMNS))
        time.sleep(0.2)
    log.array("line", mine)
    log.arrays("bundle", x=mine / 7.0, y=mine * 2)
    log.root.array("energy", np.linspace(0, 1, 5))
    log.root.json("metrics", {"steps": STEPS})


def main(base, run, kind=""):
    barrier = lambda: None  # noqa: E731
    if kind == "mpi":
        from mpi4py import MPI

        barrier = MPI.COMM_WORLD.Barrier
    with Logbook(run, base_dir=base, params={"rows": ROWS, "kappa": 0.01}) as log:
        write(log, barrier)


main(*sys.argv[1:])
