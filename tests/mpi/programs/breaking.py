"""One rank breaks, once every rank has finished its files.

breaking.py HOW WHERE WHO OUT

HOW it breaks, a name below; WHERE the others are then: in a `collective` of the program, or
`outside`, on their way to the end of the block; WHO it is.
"""

import ctypes
import os
import signal
import sys
import time

import numpy as np
from mpi4py import MPI
from tell import tell

from notata import Logbook

WORLD = MPI.COMM_WORLD


def raises():
    raise FloatingPointError("NaN in cell 7")


def exits():
    sys.exit(3)


def dies():
    os._exit(1)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def segfaults():
    ctypes.string_at(0)


def terminated():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3600)


def hangs():
    while True:
        time.sleep(3600)


def work(log):
    log.info("all is well")
    log.array("x", np.full(4, log.rank))
    log.json("config/own", {"rank": log.rank})


def main(how, where, who, out):
    who = int(who)
    with Logbook("run", base_dir=out) as log:
        if how == "hangs":
            log.watch(timeout=log_grace(), abort=True)
        work(log)
        if WORLD.rank != who:
            log.array("y", np.full(2, log.rank))  # which the rank that breaks never comes to
        WORLD.Barrier()
        if WORLD.rank == who:
            tell(broke_at=time.time())
            globals()[how]()
        if where == "collective":
            WORLD.Barrier()


def log_grace():
    return float(os.environ["NOTATA_GRACE"])


if __name__ == "__main__":
    main(*sys.argv[1:])
