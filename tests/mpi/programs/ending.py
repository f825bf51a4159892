"""Ways in which one rank of several ends, beside those of breaking.py; rank 1 is the one.

ending.py MODE OUT
"""

import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI
from tell import attempt, main, tell

from notata import Logbook, session

WORLD = MPI.COMM_WORLD
IT = WORLD.rank == 1


def interrupted(out):
    """One rank gets a KeyboardInterrupt, the others reach the end of the block."""

    def run():
        with Logbook("run", base_dir=out):
            if IT:
                raise KeyboardInterrupt

    try:
        tell(closing=attempt(run))
    except KeyboardInterrupt:
        tell(closing="interrupted")


def in_a_thread(out):
    """An exception in a thread of the program is not one of the block."""
    with Logbook("run", base_dir=out) as log:
        log.info("here")
        if IT:
            thread = threading.Thread(target=lambda: 1 / 0)
            thread.start()
            thread.join()
    tell(status=log.status)


def never_closed(out):
    """All ranks open a run, and none of them closes it."""
    log = Logbook("run", base_dir=out)
    log.array("x", np.array([log.rank]))


def never_closed_by_one(out):
    """One rank ends without closing what the others close by hand."""
    log = Logbook("run", base_dir=out)
    log.info("here")
    if not IT:
        log.mark_complete()
        tell(status=log.status)


def never_closed_while_others_wait(out):
    """One rank ends without closing the run while the others wait for it."""
    log = Logbook("run", base_dir=out)
    log.info("here")
    if not IT:
        WORLD.Barrier()


def raises_by_hand(out):
    """One rank ends by an exception outside of any block, while the others wait for it."""
    log = Logbook("run", base_dir=out)
    log.info("here")
    if IT:
        raise FloatingPointError("NaN in cell 7")
    WORLD.Barrier()


def aborts_at_once(out):
    """With on_failure="abort" nobody waits for anybody."""
    with Logbook("run", base_dir=out, on_failure="abort") as log:
        log.info("here")
        WORLD.Barrier()
        if IT:
            raise FloatingPointError("NaN in cell 7")
        WORLD.Barrier()


def never_aborts(out):
    """With on_failure="raise" the rank that broke goes on, and so do those that wait for it."""
    metadata = Path(out, "log_run", "metadata.json")
    WORLD.Barrier()  # grace is for opening as well, and ranks start at different times

    def run():
        with Logbook("run", base_dir=out, on_failure="raise", grace=2) as log:
            log.info("here")
            if IT:
                raise FloatingPointError("NaN in cell 7")
            WORLD.Barrier()  # of the rank that broke, too, once it has waited in vain
            log.meta(steps=12)
            tell(while_open=json.loads(metadata.read_text()))

    closing = attempt(run)
    if IT:
        tell(after=json.loads(metadata.read_text()))
        WORLD.Barrier()
    tell(closing=closing)


def many_break_at_once(out):
    """All ranks but 0 break at the same time, while rank 0 waits for a message of theirs."""
    with Logbook("run", base_dir=out) as log:
        log.info("here")
        WORLD.Barrier()
        if WORLD.rank > 0:
            raise FloatingPointError("NaN in cell 7")
        WORLD.recv(source=1)


def first_in_time(out):
    """The rank that failed first is named, though it has a higher number than another."""

    def run():
        with Logbook("run", base_dir=out):
            if WORLD.rank == 2:
                raise FloatingPointError("NaN in cell 7")
            if WORLD.rank == 1:
                time.sleep(0.5)
                raise ValueError("rank 2 sent nothing")

    tell(closing=attempt(run))


def never_comes(out):
    """The others are done, and wait for a rank that hangs for as long as their patience lasts."""
    session._PATIENCE = 3.0
    with Logbook("run", base_dir=out) as log:
        log.info("here")
        if IT:
            time.sleep(3600)


def leaves_quietly(out):
    """One rank leaves without any word, and with a status that looks well."""
    with Logbook("run", base_dir=out) as log:
        log.info("here")
        WORLD.Barrier()
        if IT:
            os._exit(0)


def answers_too_late(out):
    """What a rank sends when nobody waits for it any more is not taken for its word on the run."""
    with Logbook("run", base_dir=out) as log:
        log.info("here")
        if not log.is_root:  # as an answer on the time of this node is
            log._session._agreement._comm.Isend(bytes(8), 0, 0).Wait()
    tell(status=log.status)


def root_hangs(out):
    """Rank 0 hangs; rank 1 breaks, and rank 2 is done."""
    with Logbook("run", base_dir=out) as log:
        log.info("here")
        WORLD.Barrier()
        if WORLD.rank == 0:
            time.sleep(3600)
        if IT:
            raise FloatingPointError("NaN in cell 7")


def root_is_killed(out):
    """Rank 0 is killed while the others wait for it."""
    with Logbook("run", base_dir=out) as log:
        log.info("here")
        WORLD.Barrier()
        if WORLD.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        WORLD.Barrier()


def own_communicator(out):
    """A run of two of three ranks; the third one is busy elsewhere."""
    part = WORLD.Split(0 if WORLD.rank < 2 else 1, WORLD.rank)
    if WORLD.rank == 2:
        time.sleep(3600)
    with Logbook("run", base_dir=out, comm=part) as log:
        log.info("here")
        if IT:
            raise FloatingPointError("NaN in cell 7")
        part.Barrier()


def loses_lines(out):
    """Rank 1's log takes no more from some line on; the program goes on, and so do arrays."""
    with Logbook("run", base_dir=out) as log:
        log.info("here")
        log.array("x", np.array([log.rank]))
        if IT:
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            size = log.log_path.stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
            for _ in range(3):
                log.info("lost")
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        log.info("there")
    tell(status=log.status)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    modes = (
        interrupted,
        in_a_thread,
        never_closed,
        never_closed_by_one,
        never_closed_while_others_wait,
        raises_by_hand,
        aborts_at_once,
        never_aborts,
        many_break_at_once,
        first_in_time,
        never_comes,
        leaves_quietly,
        answers_too_late,
        root_hangs,
        root_is_killed,
        own_communicator,
        loses_lines,
    )
    main({mode.__name__: mode for mode in modes})
