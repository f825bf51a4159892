"""Writes a run as all of its ranks, one after another, and copies of it: several.py BASE COPIES.

The copies are log_0, log_1 and so on. Hardly anything in it ends where a page of memory does. The
clock of rank 3 steps back, so that its log has to be read to find where ranges of time begin in it.
"""

import os
import shutil
import sys
import time

import numpy as np

clock, ahead = time.time, 0.0
time.time = lambda: clock() + ahead

from notata import Logbook  # noqa: E402

RANKS = 4
BASE, COPIES = sys.argv[1], int(sys.argv[2])


def write(log):
    global ahead
    rank = log.rank
    row, column = divmod(rank, 2)
    rows = np.array_split(np.arange(211), [40, 97, 151])[rank]
    log.array("rows", np.outer(rows + 0.5, np.arange(1, 97)), start=(rows[0], 0), shape=(211, 96))
    block = np.arange(101 * 203, dtype="f4").reshape(101, 203) + 1 + rank
    log.array("blocks", block, start=(101 * row, 203 * column), shape=(202, 406))
    turned = np.asfortranarray(block[:, :150])
    log.array("fortran", turned, start=(101 * row, 150 * column), shape=(202, 300))
    long = np.arange(1, 7 * 6001 + 1, dtype="i2").reshape(7, 6001)
    log.array("long", long + rank, start=(0, 6001 * rank), shape=(7, 24004))
    log.array("odd", np.full(20_001 + rank, 65 + rank, "u1"))
    log.arrays("bundle", x=block[:50] / 7, y=rows)
    log.json("metrics", {"solve": 1.0 + rank})
    log.text("notes", f"of {rank}\n")
    for number in range(500):
        ahead = 5.0 if rank == 3 and number < 250 else 0.0
        log.info(f"step {number} of rank {rank} {'.' * (number * 7 % 61)}")


for rank in range(RANKS):
    os.environ |= {"NOTATA_RANK": str(rank), "NOTATA_SIZE": str(RANKS), "NOTATA_LAUNCH": "1"}
    with Logbook("0", base_dir=BASE, params={"a": 1}) as log:
        write(log)
for copy in range(1, COPIES):
    shutil.copytree(f"{BASE}/log_0", f"{BASE}/log_{copy}")
