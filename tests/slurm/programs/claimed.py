"""A task of an array that takes points of a sweep; at first one is killed, and one point fails."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from notata import Experiment

POINTS, KILLED, FAILS = 6, 2, 4


def main(base: str, last: str) -> None:
    task = os.environ["SLURM_ARRAY_TASK_ID"]
    experiment = Experiment("sweep", base)
    marks = Path(base)
    for log in experiment.sweep({"k": range(POINTS)}, mode="claim", retry=("failed", "lost")):
        k = log.params["k"]
        is_first = not (log.path / ".attempt-2").exists()
        if is_first and k == KILLED:
            # The others find that it lives, and end; only then it is killed.
            while len(list(marks.glob("ended_*"))) < int(last):
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        if is_first and k == FAILS:
            log.mark_failed("diverged")
            continue
        log.json("metrics", {"square": k**2})
        log.mark_complete()
    (marks / f"ended_{os.environ['SLURM_ARRAY_JOB_ID']}_{task}").touch()


if __name__ == "__main__":
    main(*sys.argv[1:])
