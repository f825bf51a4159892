"""Rank 2 alone writes into its own folder.

some_write.py OUT mpi|launcher
"""

import sys

import numpy as np

if sys.argv[2] == "mpi":
    import mpi4py.MPI  # noqa: F401 - its import starts MPI

from tell import tell

from notata import Logbook

with Logbook("some", base_dir=sys.argv[1], params={"a": 1}) as log:
    log.root.info("rank 0's lines are the run's")
    log.root.array("energy", np.arange(3.0))
    log.debug("below the level")
    if log.rank == 2:
        log.info("a line")
tell(rank=log.rank)
