"""Ranks that write messages and metrics and no array; rank 2 is silent.

words.py OUT
"""

import sys

import mpi4py.MPI  # noqa: F401 - its import starts MPI
from tell import tell

from notata import Logbook

with Logbook("words", base_dir=sys.argv[1]) as log:
    if log.rank != 2:
        for step in range(20):
            log.info(f"step {step} of rank {log.rank}")
        log.json("metrics", {"solve": 1.0 + log.rank})
tell(rank=log.rank)
