"""A task of an array that takes its points of a sweep; task 2 ends between two, at first."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from notata import Experiment

POINTS, ENDS, STATUS = 12, 2, 3


def main(base: str, mode: str) -> None:
    between, go = Path(base, "between"), Path(base, "go")
    for log in Experiment("sweep", base).sweep({"k": range(POINTS)}, mode=mode):
        log.mark_complete()
        if os.environ["SLURM_ARRAY_TASK_ID"] == str(ENDS) and not between.exists():
            between.touch()
            while not go.exists():
                time.sleep(0.1)
            os._exit(STATUS)


if __name__ == "__main__":
    main(*sys.argv[1:])
