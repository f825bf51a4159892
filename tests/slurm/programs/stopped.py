"""A sweep whose job is started again in its third point; the first point fails.

stopped.py BASE MODE
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from notata import Experiment

POINTS = 5


def main(base: str, mode: str) -> None:
    start = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    for log in Experiment(mode, base).sweep({"k": range(POINTS)}, mode=mode):
        k = log.params["k"]
        with Path(base, f"{mode}.begun").open("a") as file:
            file.write(f"{start} {k}\n")
        if k == 0:
            log.mark_failed("diverged")
            continue
        with log:
            while start == 0 and k == 2 and not log.should_stop:
                time.sleep(0.05)
            if log.should_stop:
                log.mark_failed("stopped, to go on")
                sys.exit(85)
            log.json("metrics", {"square": k**2})


if __name__ == "__main__":
    main(*sys.argv[1:])
