"""An array task whose first attempts fail, some of them without a word."""

from __future__ import annotations

import os
import signal
import sys

from notata import Experiment, Logbook

FAILURES = {2: 1, 5: 2, 7: 1}  # how many attempts of a task fail


def main(base: str) -> None:
    task = int(os.environ["SLURM_ARRAY_TASK_ID"])
    experiment = Experiment("sweep", base)
    params = {"task": task}
    log = Logbook(f"task_{task}", experiment.runs_dir, params=params, resume=True)
    attempt = len(list(log.path.glob(".attempt-*")))
    if attempt < FAILURES.get(task, 0):
        if task == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        log.mark_failed(f"attempt {attempt} of task {task}")
        experiment.record(log)
        sys.exit(1)
    log.json("metrics", {"square": task**2})
    log.mark_complete()
    experiment.record(log)


if __name__ == "__main__":
    main(sys.argv[1])
