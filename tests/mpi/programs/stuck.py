"""Ranks that wait for one that is elsewhere, in a run that is watched from before its first line.

stuck.py MODE OUT
"""

import ctypes
import os
import sys
import time

from mpi4py import MPI
from tell import main, tell

from notata import Logbook, watchdog
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


def count_opens(out):
    """Have each file of another rank that this one opens in a list of its own."""
    listed = os.open(f"{out}/opened-{WORLD.rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    mine = f"{WORLD.rank:05d}"

    def hook(event, given):
        if event == "open" and isinstance(given[0], str):
            name = given[0].partition("/log_run/ranks/")[2]
            if name.startswith(("rank_", ".notata-stacks/")) and mine not in name:
                os.write(listed, f"{name}\n".encode())

    sys.addaudithook(hook)


def all_can_run_python(out):
    log = Logbook("run", base_dir=out)
    count_opens(out)
    log.watch(timeout=1.0, abort=True)
    hangs()


def all_but_rank_0_can_run_python(out):
    log = Logbook("run", base_dir=out)
    count_opens(out)
    log.watch(timeout=1.0, abort=True)
    if WORLD.rank == 0:
        holds_the_lock()
    hangs()


def the_one_that_looks_is_dead(out):
    """It had time for its claim, and no more."""
    watchdog._COLLECTING = 1.0
    log = Logbook("run", base_dir=out)
    count_opens(out)
    if WORLD.rank == 0:
        os.makedirs(log.path / "ranks", exist_ok=True)
        (log.path / "ranks" / ".notata-stuck-1").touch()
    WORLD.barrier()
    log.watch(timeout=1.0, abort=True)
    hangs()


def hangs():
    time.sleep(3600)


def one_can_run_python(out):
    """All are stuck, and one of them can write down why the job is ended."""
    log = Logbook("run", base_dir=out)
    log.watch(timeout=1.0, abort=True)
    if WORLD.rank == 2:
        hangs()
    holds_the_lock()


def none_can_run_python(out):
    Logbook("run", base_dir=out).watch(timeout=1.0, abort=True)
    holds_the_lock()


def holds_the_lock():
    ctypes.PyDLL(None).sleep(3600)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    modes = [before_the_first_line, one_can_run_python, none_can_run_python]
    modes += [all_can_run_python, all_but_rank_0_can_run_python, the_one_that_looks_is_dead]
    main({mode.__name__: mode for mode in modes})
