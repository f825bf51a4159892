"""A run on two nodes, the clock of the second of which is five seconds ahead.

There is one machine here: each rank says which node it is on, and what its clock shows. Once more,
it is on other nodes, where the second clock is seven seconds ahead.
"""

from __future__ import annotations

import sys
import time

from mpi4py import MPI
from tell import tell

from notata import Logbook, lifecycle
from notata.agreement import Agreement

rank = MPI.COMM_WORLD.Get_rank()
again = "again" in sys.argv
lifecycle.hostname = lambda: f"{'other' if again else 'node'}{rank // 2}"
if rank >= 2:
    right = time.time_ns
    time.time_ns = lambda: right() + (7 if again else 5) * 1_000_000_000
if "deaf" in sys.argv and rank == 2:
    Agreement.compare_clocks = lambda self, metadata, asked=None: None
began = time.monotonic()
if "failing" in sys.argv and rank >= 2:
    fitting = time.time
    time.time = lambda: fitting() + 5
with Logbook("run", sys.argv[1], resume=again) as log:
    log.info("x")
    if "failing" in sys.argv:
        time.sleep(0.0 if rank == 2 else 1.0)
        raise RuntimeError("the cause" if rank == 2 else "a consequence")
tell(seconds=time.monotonic() - began)
