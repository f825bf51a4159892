"""Ranks of three nodes that write in turns; the clock of one is five seconds ahead, of one behind.

There is one machine here: each rank says which node it is on, and what its clock shows. A turn
takes a second by all clocks, and next to nothing in truth, so that a busy machine can't change
the order.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

from mpi4py import MPI
from tell import tell

from notata import Logbook, clocks, lifecycle

world = MPI.COMM_WORLD
rank = world.Get_rank()
node = rank // 2
lifecycle.hostname = lambda: f"node{node}"
ahead, turn = (0, 5, -2)[node], 0
of_day, of_day_ns, spelled = time.time, time.time_ns, time.strftime
# All functions of the clock that notata calls.
time.time = lambda: of_day() + ahead + turn
time.time_ns = lambda: of_day_ns() + (ahead + turn) * 1_000_000_000
time.strftime = lambda how, when=None: spelled(how, when or time.localtime(time.time()))

clocks._PATIENCE = 30.0  # all rounds are counted, whatever else this machine does
sent: list[Counter[int]] = []  # of each comparison, how many messages went to which rank


class Counting:
    """A communicator that counts what is sent over it."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm = comm
        self.Irecv, self.Isend = comm.Irecv, self.send

    def send(self, buffer: Any, other: int, tag: int) -> MPI.Request:
        sent[-1][other] += 1
        return self.comm.Isend(buffer, other, tag)


def counted(comm: MPI.Comm, *others: Any) -> dict[int, clocks.Sample]:
    sent.append(Counter())
    return compare(Counting(comm), *others)


compare, clocks.compare = clocks.compare, counted
with Logbook("run", sys.argv[1]) as log:
    for turn in range(1, 19):  # which the clocks show
        world.Barrier()
        if rank == (0, 2, 4, 1, 3, 5)[turn % 6]:
            log.info(f"turn {turn}")
        world.Barrier()
tell(sent=[dict(one) for one in sent])
