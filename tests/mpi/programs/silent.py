"""Opens and closes a run and writes nothing.

silent.py OUT mpi|launcher
"""

import sys

if sys.argv[2] == "mpi":
    import mpi4py.MPI  # noqa: F401 - its import starts MPI

from tell import tell

from notata import Logbook

with Logbook("silent", base_dir=sys.argv[1], params={"a": 1}) as log:
    pass
tell(rank=log.rank, size=log.size)
