"""Ways to end a run.

closing.py MODE OUT
"""

import time

import numpy as np
from mpi4py import MPI
from tell import attempt, main, tell

from notata import Logbook

WORLD = MPI.COMM_WORLD


class UnstableError(RuntimeError):
    """What the simulations below raise."""


def all_raise(out):
    def run():
        with Logbook("broken", base_dir=out) as log:
            log.array("x", np.array([WORLD.rank]))
            raise UnstableError("dt is too large")

    tell(closing=attempt(run))


def root_marks_failed(out):
    def run():
        with Logbook("marked", base_dir=out) as log:
            log.info("here")
            log.root.mark_failed("residual grows")
        tell(status=log.status)

    tell(closing=attempt(run))


def one_raises(out):
    """Rank 1 alone breaks; the others come to the end of the block."""

    def run():
        with Logbook("one", base_dir=out) as log:
            log.info("stepping")
            if WORLD.rank == 1:
                raise UnstableError("NaN in cell 7")
        tell(reached="the line behind the block")

    tell(closing=attempt(run))


def one_raises_by_itself(out):
    """Rank 1 alone breaks while the others wait for it, outside of notata."""
    with Logbook("stuck", base_dir=out) as log:
        log.info("stepping")
        WORLD.Barrier()
        if WORLD.rank == 1:
            tell(raised_at=time.time())
            raise UnstableError("NaN in cell 7")
        WORLD.Barrier()


def one_marks_failed_by_hand(out):
    """Life by hand: one rank says failed, the others complete."""

    def run():
        log = Logbook("by_hand", base_dir=out)
        if WORLD.rank == 2:
            log.mark_failed("probe broke")
        else:
            log.mark_complete()
        tell(status=log.status)

    tell(closing=attempt(run))


def callbacks(out):
    """The callback is called on rank 0 alone, when the run's outcome is known."""
    calls = []
    with Logbook("called", base_dir=out, callback=lambda log: calls.append(log.status)):
        pass
    tell(calls=calls)


if __name__ == "__main__":
    modes = (
        all_raise,
        root_marks_failed,
        one_raises,
        one_raises_by_itself,
        one_marks_failed_by_hand,
        callbacks,
    )
    main({mode.__name__: mode for mode in modes})
