"""Opens a run, logs a line, saves a number, and tells what it took itself for.

alone.py OUT mpi|launcher [TEXT [overwrite]]
"""

import sys

if sys.argv[2] == "mpi":
    import mpi4py.MPI  # noqa: F401 - its import starts MPI

from tell import attempt, tell

from notata import Logbook

text, *more = [*sys.argv[3:], "here"]


def run():
    with Logbook("alone", base_dir=sys.argv[1], overwrite="overwrite" in more) as log:
        log.info(text)
        log.array("x", log.rank)
        tell(rank=log.rank, size=log.size)


tell(opening=attempt(run))
