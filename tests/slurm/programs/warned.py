"""Steps until it should stop, and says why it did.

warned.py BASE RUN_ID [mpi]
"""

from __future__ import annotations

import os
import sys
import time

from notata import Logbook


def main(base: str, run_id: str, *options: str) -> None:
    comm = None
    if "mpi" in options:
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
    with Logbook(run_id, base, margin=0, comm=comm) as log:
        log.info(f"restart {os.environ.get('SLURM_RESTART_COUNT', '0')}")
        if comm is not None:
            comm.Barrier()  # a signal is for those that have opened the run
        log.json("ready", log.time_left())
        end = time.monotonic() + 300
        while not log.should_stop and time.monotonic() < end:
            if "SLURM_RESTART_COUNT" in os.environ:
                break
            time.sleep(0.05)
        log.info("left its loop")


if __name__ == "__main__":
    main(*sys.argv[1:])
