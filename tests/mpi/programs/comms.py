"""Runs on communicators of many kinds.

comms.py OUT
"""

import gc
import os
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI
from tell import attempt, tell

from notata import Logbook

WORLD = MPI.COMM_WORLD


def each_alone(out):
    """comm=None: each rank has a run of its own, and nobody waits for anybody."""
    with Logbook(f"own_{WORLD.rank}", base_dir=out, comm=None) as log:
        log.info(f"rank {WORLD.rank} on its own")
        log.array("x", np.arange(WORLD.rank + 1))
    return {"rank": log.rank, "size": log.size, "root": log.is_root}


def on_self(out):
    """COMM_SELF: a communicator of one rank gives the plain tree."""
    with Logbook(f"self_{WORLD.rank}", base_dir=out, comm=MPI.COMM_SELF) as log:
        log.array("x", np.arange(3))
    return {"rank": log.rank, "size": log.size, "status": log.status}


def an_ensemble(out):
    """Members on ranks of their own, open at once with a run of all ranks."""
    colour = WORLD.rank % 2
    member = WORLD.Split(colour, key=-WORLD.rank)  # ranks in the opposite order
    with (
        Logbook("whole", base_dir=out, comm=WORLD) as everybody,
        Logbook(f"member_{colour}", base_dir=out, comm=member) as log,
    ):
        for step in range(3):
            everybody.array(f"s{step}", np.array([WORLD.rank]))
            log.array(f"s{step}", np.array([WORLD.rank]))
        log.info(f"world rank {WORLD.rank} is rank {log.rank} of member {colour}")
    facts = {"colour": colour, "rank": log.rank, "size": log.size, "status": log.status}
    member.Free()
    return facts


def not_in_it(out):
    """A communicator that leaves some ranks out: they have COMM_NULL, and are told so."""
    colour = 0 if WORLD.rank == 0 else MPI.UNDEFINED
    some = WORLD.Split(colour)
    outcome = attempt(lambda: Logbook("some", base_dir=out, comm=some).mark_complete())
    if some != MPI.COMM_NULL:
        some.Free()
    return outcome


def two_at_once(out):
    """Two runs on one communicator, with messages of the program between their ranks."""
    left = (WORLD.rank - 1) % WORLD.size
    right = (WORLD.rank + 1) % WORLD.size
    with Logbook("first", base_dir=out) as first, Logbook("second", base_dir=out) as second:
        came = WORLD.sendrecv(WORLD.rank, dest=right, source=left)
        first.array("came", np.array([came]))
        second.array("rank", np.array([WORLD.rank]))
    return {"status": [first.status, second.status]}


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def many_in_turn(out):
    """Thirty runs one after the other, with a log and a piece each."""
    counts, made, freed = [], [], []
    # MPI passes an attribute on to each duplicate, and drops it when the duplicate is freed.
    mark = MPI.Comm.Create_keyval(
        copy_fn=lambda comm, key, value: made.append(value) or value,
        delete_fn=lambda comm, key, value: freed.append(value),
    )
    comm = WORLD.Dup()
    comm.Set_attr(mark, "a duplicate")
    for number in range(30):
        with Logbook(f"turn_{number}", base_dir=out, comm=comm) as log:
            log.info("here")
            log.array("x", np.array([WORLD.rank]))
        counts.append(descriptors())
    facts = {"first": counts[0], "last": counts[-1], "made": len(made), "freed": len(freed)}
    comm.Free()
    MPI.Comm.Free_keyval(mark)
    return facts


def by_hand(out):
    """No with block; mark_complete is collective, and nothing was passed through __exit__."""
    log = Logbook("by_hand", base_dir=out)
    log.array("x", np.array([WORLD.rank]))
    log.mark_complete()
    return {"status": log.status}


def with_a_plot(out):
    """A picture from rank 0: the others draw nothing, and don't load what draws."""
    figure = None
    if WORLD.rank == 0:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([0, 1], [1, 0])
    with Logbook("plotted", base_dir=out) as log:
        log.root.plot("line", figure)
    return {"matplotlib": "matplotlib" in sys.modules}


def main(out):
    for play in (
        each_alone,
        on_self,
        an_ensemble,
        not_in_it,
        two_at_once,
        many_in_turn,
        by_hand,
        with_a_plot,
    ):
        tell(**{play.__name__: play(Path(out, play.__name__))})
        WORLD.Barrier()


main(sys.argv[1])
