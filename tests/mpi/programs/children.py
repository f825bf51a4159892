"""Children that are forked off ranks, and open runs of their own there.

children.py OUT
"""

import multiprocessing
import os
import sys

from mpi4py import MPI
from tell import tell

from notata import Logbook

WORLD = MPI.COMM_WORLD
OUT = sys.argv[1]


def error_of(work):
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def alone(name):
    """A run of a child alone, while the parent's other ranks know nothing of it."""
    with Logbook(name, base_dir=OUT, grace=5) as log:
        log.array("x", [1])
    return log.rank, log.size


def in_child(pipe, parents):
    given = error_of(lambda: Logbook("given", base_dir=OUT, comm=WORLD))
    agreed = error_of(lambda: parents.agree(True))
    os.write(pipe, repr((alone(f"child_{WORLD.rank}"), given, agreed)).encode())


with Logbook("main", base_dir=OUT) as log:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            in_child(writing, log)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        names = [f"pool_{2 * WORLD.rank + i}" for i in range(2)]
        pooled = pool.map_async(alone, names).get(timeout=40)
    agreed = log.agree(WORLD.rank == 1)
tell(said=said, pooled=pooled, agreed=agreed, status=log.status)
