"""Ranks that wait for one that is elsewhere, in a run that is watched from before its first line.

stuck.py MODE OUT
"""

import sys
import time

from mpi4py import MPI
from tell import main, tell

from notata import Logbook
from notata.stacks import survey

WORLD = MPI.COMM_WORLD


def elsewhere(run):
    """Wait until all ranks are known to be stuck, this one too, and end the job."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = survey(run, WORLD.size)
        if not found.silent:
            break
        time.sleep(0.1)
    tell(groups=[[stand.rank for stand in group] for group in found.groups])
    tell(places=[[frame.function for frame in group[0].own] for group in found.groups])
    WORLD.Abort(1)


def reduces():
    """The very first call of its kind holds Python's lock while it waits, with some MPIs."""
    WORLD.allreduce(1.0)


def before_the_first_line(out):
    log = Logbook("run", base_dir=out)
    log.watch(timeout=1.0)
    if WORLD.rank == 2:
        elsewhere(str(log.path))
    reduces()


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    main({before_the_first_line.__name__: before_the_first_line})
