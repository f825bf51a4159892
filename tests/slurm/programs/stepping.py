"""Ranks that step together and save; the job's first start is left to be started again.

stepping.py BASE STEPS
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

from notata import Logbook

HALF_WAY = 5


def main(base: str, steps: str) -> None:
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    with Logbook("stepping", base) as log:
        saved = log.rank_dir / "data" / "state.npy"
        step = int(np.load(saved)[0]) if saved.exists() else 0
        log.info(f"restart {restart} from step {step}")
        while step < int(steps):
            step += 1
            log.array("state", np.array([step, log.rank]), join="none")
            log.array(f"T_{step}", np.full(2, 10 * step + log.rank))
            MPI.COMM_WORLD.Barrier()
            if restart == "0" and step == HALF_WAY:
                Path(f"{base}/half-way.{log.rank}").touch()
                time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
