"""A run of several ranks, one of which is killed while the others wait for it."""

from __future__ import annotations

import os
import signal
import sys

from mpi4py import MPI

from notata import Logbook

with Logbook("dies", sys.argv[1]) as log:
    log.info("here")
    MPI.COMM_WORLD.Barrier()
    if log.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    MPI.COMM_WORLD.Barrier()
