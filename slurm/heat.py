"""Heat in a rod, on any number of ranks; warned by SIGUSR1, it saves and goes on next time."""

import sys
import time

import numpy as np
from mpi4py import MPI  # noqa: F401  # so that the ranks can agree

from notata import Logbook

STEPS, POINTS = 2000, 400
GO_ON = 85  # the exit status that asks slurm/requeue.sbatch for another attempt

params = {"steps": STEPS, "points": POINTS}
with Logbook("heat", params=params, resume=True, margin=5) as log:  # seconds before the limit
    rows = np.array_split(np.arange(POINTS), log.size)[log.rank]
    saved = log.rank_dir / "data" / "saved.npy"
    step, T = 0, np.sin(np.pi * rows / POINTS)
    if saved.exists():
        packed = np.load(saved)
        step, T = int(packed[0]), packed[1:]
        log.info(f"going on at step {step}")
    stop = False
    while step < STEPS and not stop:
        T *= 0.999
        step += 1
        if step % 10 == 0:
            time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0)
            stop = log.agree(log.should_stop)  # after a warning, all ranks stop at the same step
    if stop and step < STEPS:
        log.array("saved", np.concatenate([[step], T]), join="none")
        log.mark_failed(f"stopped at step {step}, to go on")
    else:
        log.array("T", T)
sys.exit(GO_ON if stop and step < STEPS else 0)
