"""Ways to end a run without MPI: ranks know of each other by the launcher's variables alone.

unconnected.py OUT
"""

import sys

from tell import attempt, tell

from notata import Logbook


class UnstableError(RuntimeError):
    """What the simulations below raise."""


def all_raise(out):
    with Logbook("all", base_dir=out) as log:
        log.array("x", [log.rank])
        raise UnstableError("dt is too large")


def root_marks_failed(out):
    with Logbook("marked", base_dir=out) as log:
        log.info("here")
        log.root.mark_failed("residual grows")


def one_raises(out):
    """Rank 1 alone breaks, and no rank had written anything."""
    with Logbook("one", base_dir=out) as log:
        if log.rank == 1:
            raise UnstableError("NaN in cell 7")


for play in (all_raise, root_marks_failed, one_raises):
    tell(**{play.__name__: attempt(lambda play=play: play(sys.argv[1]))})
tell(uses_mpi="mpi4py" in sys.modules)
