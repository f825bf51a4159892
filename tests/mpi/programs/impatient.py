"""Signals that reach ranks while they wait for others at the end of a run.

impatient.py MODE OUT WHO
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from mpi4py import MPI
from tell import main, tell

from notata import Logbook

WORLD = MPI.COMM_WORLD


def once_waiting(action, pause=0.3):
    """Call something once the main thread waits for the other ranks."""

    def look():
        main_thread = threading.main_thread().ident
        while True:
            frame = sys._current_frames().get(main_thread)
            while frame is not None:
                if frame.f_code.co_name == "_wait_for_all":
                    time.sleep(pause)
                    action()
                    return
                frame = frame.f_back
            time.sleep(0.01)

    threading.Thread(target=look, daemon=True).start()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def until_it_is_said(out, who):
    """Wait until the rank that was interrupted has told so."""
    path = Path(os.environ["TELL_DIR"], f"{who}.json")
    while not (path.exists() and "left" in json.loads(path.read_text())):
        time.sleep(0.05)


def others_come(out, who):
    """One rank is interrupted while it waits; rank 1 comes to the end after that."""
    who = int(who)
    try:
        with Logbook("run", base_dir=out) as log:
            log.info("here")
            if log.rank == who:
                once_waiting(interrupt)
            if log.rank == 1:
                until_it_is_said(out, who)
    except BaseException as error:
        tell(left=type(error).__name__, status=log.status)
        raise
    tell(left=None, status=log.status)


def one_never_comes(out, who):
    """One rank is interrupted while it waits for rank 1, which hangs."""
    with Logbook("run", base_dir=out) as log:
        log.info("here")
        if log.rank == int(who):
            once_waiting(interrupt)
        if log.rank == 1:
            time.sleep(3600)


def all_are_told_to_end(out, who):
    """The program's own handler exits; the signal reaches all ranks, one of which still works."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Logbook("run", base_dir=out) as log:
            log.info("here")
            if log.rank == 1:
                time.sleep(1)
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            pause = 0.6 if log.rank == 0 else 0.1  # its word would end the wait of the others
            once_waiting(lambda: os.kill(os.getpid(), signal.SIGTERM), pause)
    except SystemExit as end:
        tell(status=end.code)
        raise


def at_exit(out, who):
    """A rank that closed nothing is interrupted while the interpreter's end closes the run."""
    log = Logbook("run", base_dir=out)
    log.info("here")
    if log.rank == 1:
        time.sleep(3600)
    if log.rank == int(who):
        once_waiting(interrupt)


def before_it_tells(out, who):
    """One rank is interrupted while it writes down its end; the others hear of that at once."""
    try:
        with Logbook("run", base_dir=out) as log:
            log.info("here")
            if log.rank == int(who):
                log._session.folder.close = interrupt
    except BaseException as error:
        tell(left=type(error).__name__, status=log.status)
        raise


def while_it_agrees(out, who):
    """One rank is interrupted in `agree` that no other one calls; all come to the block's end."""
    with Logbook("run", base_dir=out) as log:
        log.info("here")
        if log.rank == int(who):
            once_waiting(interrupt)
            try:
                log.agree(True)
            except KeyboardInterrupt:
                tell(interrupted=True)
        WORLD.Barrier()
    tell(status=log.status)


def forked(out, who):
    """A child of rank 1 leaves the block, and one that has the run by hand says that it failed."""
    child = None
    with Logbook("run", base_dir=out) as log:
        if log.rank == 1:
            child = os.fork()
            if child:
                os.waitpid(child, 0)
    if child == 0:
        os._exit(0)  # else MPI would be finalised there
    by_hand = Logbook("by_hand", base_dir=out)
    if by_hand.rank == int(who):
        child = os.fork()
        if child == 0:
            by_hand.mark_failed("no convergence")
            os._exit(0)
        os.waitpid(child, 0)
    by_hand.mark_complete()
    tell(status=log.status, by_hand=by_hand.status)


modes = (
    forked,
    others_come,
    one_never_comes,
    all_are_told_to_end,
    at_exit,
    before_it_tells,
    while_it_agrees,
)
WORLD.Barrier()  # grace is for opening as well, and ranks start at different times
main({mode.__name__: mode for mode in modes})
