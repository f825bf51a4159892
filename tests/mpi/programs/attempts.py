"""Attempts at a run.

attempts.py MODE OUT
"""

import os
import signal
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI
from tell import attempt, main, tell

from notata import Logbook

WORLD = MPI.COMM_WORLD


def killed(out):
    """All ranks write a step, then rank 1 dies."""
    log = Logbook("a", base_dir=out, params={"dt": 0.1})
    log.array("T_1", np.full(2, 10 + log.rank))
    if log.rank != 2:
        log.array("last", np.full(2, log.rank))
    WORLD.Barrier()
    if log.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    WORLD.Barrier()


def resumed(out):
    def run():
        with Logbook("a", base_dir=out, params={"tol": 1e-6}, resume=True) as log:
            tell(params=dict(log.params), number=log._session.attempt.number)
            log.array("T_2", np.full(2, 20 + log.rank))
            log.array("last", np.full(2, 100 + log.rank))

    tell(resuming=attempt(run))


def silent(out):
    def run():
        with Logbook("a", base_dir=out, resume=True):
            pass

    tell(resuming=attempt(run))


def older(out):
    """All ranks have the run open until the test says so, and then write on."""
    log = Logbook("a", base_dir=out, params={"dt": 0.1})
    log.array("T_1", np.full(2, 10 + log.rank))
    WORLD.Barrier()
    if log.rank == 0:
        Path(out, "open").touch()
    while not Path(out, "go").exists():
        time.sleep(0.02)
    tell(late=attempt(lambda: log.array("T_2", np.zeros(2))))
    log.info("too late")
    tell(closing=attempt(log.mark_complete))


def one_cannot(out):
    """Rank 2's manifest is damaged: no rank goes on."""
    tell(resuming=attempt(lambda: Logbook("a", base_dir=out, resume=True)))


main({f.__name__: f for f in (killed, resumed, silent, older, one_cannot)})
