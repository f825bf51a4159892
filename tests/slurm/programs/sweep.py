"""An array task: the runs of its points, each with a metric that its parameters fix."""

from __future__ import annotations

import os
import sys

from notata import Experiment


def main(base: str) -> None:
    task = int(os.environ["SLURM_ARRAY_TASK_ID"])
    with Experiment("sweep", base).add(task=task, name=f'task "{task}", of\nmany') as log:
        log.info(f"task {task} on {os.environ['SLURMD_NODENAME']}")
        log.json("metrics", {"square": task**2, f"odd_{task % 3}": task / 7})


if __name__ == "__main__":
    main(sys.argv[1])
