"""The command `notata`, which divides what is small as it divides what is large.

Each process says in a file below `shares/`, named by its number in the step, on which node it was
and how many parts of outputs it wrote.
"""

import os
import socket
import sys
from pathlib import Path

from notata.cli import main
from notata.merging import arrays, joining, logs, slabs

joining._LARGE, slabs.SLAB, arrays._TASK = 10_000, 5_000, 1
logs.RANGE, logs._OF_EACH, logs._SAMPLE, logs._BATCH = 5_000, 1, 1_000, 50_000

write_at, written = arrays.write_at, 0


def counting(*args):
    """Write a part."""
    global written
    written += 1
    write_at(*args)


arrays.write_at = logs.write_at = counting
try:
    sys.exit(main())
finally:
    if "merge" in sys.argv:
        os.makedirs("shares", exist_ok=True)
        share = Path("shares", os.environ["SLURM_PROCID"])
        share.write_text(f"{socket.gethostname()} {written}")
