"""Steps until it is ended, and notes each step in a file of its own once notata has it.

limited.py BASE RUN_ID [mpi]
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
    rank = comm.rank if comm is not None else 0
    told = os.open(f"{base}/{run_id}.{rank}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    with Logbook(run_id, base, comm=comm) as log:
        end = time.monotonic() + 300
        step = 0
        while time.monotonic() < end:
            log.info(f"step {step}")
            log.json("last", {"step": step})
            os.write(told, b"%d\n" % step)
            step += 1
            time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
