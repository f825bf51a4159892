"""Signals and limits.

signals.py MODE OUT
"""

import json
import os
import signal
import threading
import time

import numpy as np
from mpi4py import MPI
from tell import attempt, main, tell

from notata import Logbook

WORLD = MPI.COMM_WORLD


def blocked(out):
    """Rank 1 waits for a message, and is sent SIGUSR1 meanwhile: rank 0 looks into its log."""
    with Logbook("a", base_dir=out) as log:
        pid = WORLD.bcast(os.getpid(), root=1)
        if log.rank == 0:
            time.sleep(0.5)  # until it is in the call
            os.kill(pid, signal.SIGUSR1)
            path, said = log.path / "ranks" / "rank_00001" / "log.txt", ""
            end = time.monotonic() + 20
            while "received" not in said and time.monotonic() < end:
                said = path.read_text() if path.exists() else ""
                time.sleep(0.01)
            tell(said=said)
            WORLD.send("now", dest=1)
        if log.rank == 1:
            tell(before=log.should_stop, got=WORLD.recv(source=0), after=log.should_stop)
        WORLD.Barrier()


def all_warned(out):
    """Every rank is warned at once, rank 2 twice; rank 0 looks what the metadata say before."""
    with Logbook("a", base_dir=out) as log:
        WORLD.Barrier()
        for number in (signal.SIGUSR1, signal.SIGUSR2)[: 1 + (log.rank == 2)]:
            os.kill(os.getpid(), number)
            end = time.monotonic() + 20
            while not log.should_stop and time.monotonic() < end:
                time.sleep(0.01)
        path, said = log.path / "metadata.json", {}
        end = time.monotonic() + 20
        while log.rank == 0 and "signals" not in said and time.monotonic() < end:
            said = json.loads(path.read_text())
            time.sleep(0.01)
        tell(said=said.get("signals"))
        WORLD.Barrier()


def ended(out):
    """Rank 1 is sent SIGTERM while it waits for a message that never comes; so do all others."""
    log = Logbook("a", base_dir=out)
    pid = WORLD.bcast(os.getpid(), root=1)
    if log.rank == log.size - 1:
        time.sleep(0.5)
        os.kill(pid, signal.SIGTERM)
    WORLD.recv(source=MPI.ANY_SOURCE, tag=7)


def leaving(out):
    """One rank is warned; all leave in the same step, wherever they are."""
    with Logbook("a", base_dir=out) as log:
        for step in range(1000):
            if log.rank == 1 and step == 17:
                os.kill(os.getpid(), signal.SIGUSR1)
            if log.agree(log.should_stop):
                break
            time.sleep(0.001 * log.rank)
        tell(step=step, warned=log.should_stop)


def one_stays_away(out):
    """Rank 2 never calls agree, and is in no hurry: the others are told who waits for what."""
    WORLD.Barrier()  # grace is for opening as well, and ranks start at different times
    with Logbook("a", base_dir=out, grace=2) as log:
        if log.rank != 2:
            log.agree(False)
        else:
            time.sleep(4)
            log.agree(True)
        tell(left=True)


def one_breaks(out):
    """Rank 2 breaks while the others wait in agree."""

    def run():
        with Logbook("a", base_dir=out) as log:
            log.info("here")
            WORLD.Barrier()
            if log.rank == 2:
                raise RuntimeError("NaN in cell 7")
            log.agree(False)

    tell(ending=attempt(run))


def off_the_main_thread(out):
    """The whole run is another thread's on all ranks: nothing is installed, and all else works."""

    def state():
        return [signal.getsignal(number) for number in range(1, 32)]

    def run():
        with Logbook("a", base_dir=out) as log:
            tell(same=state() == before, warned=log.should_stop, agreed=log.agree(log.rank == 1))
            log.array("x", np.array([log.rank]))
        tell(status=log.status)

    before = state()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    tell(after=state() == before)


modes = (blocked, all_warned, ended, leaving, one_stays_away, one_breaks, off_the_main_thread)
main({mode.__name__: mode for mode in modes})
