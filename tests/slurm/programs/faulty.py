"""slurm/sweep.py in the mode that is asked for; in the first rounds tasks die and a point fails.

faulty.py MODE
"""

from __future__ import annotations

import itertools
import os
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from notata import Experiment, Logbook

TASKS = 6
LEAVES, DIES, FAILS = "leaves without a word between two points", "dies", "fails, and goes on"
# By mode, round and task: what happens at which of the points that the task gets.
FATES: dict[str, dict[int, dict[int, dict[int, str]]]] = {
    "static": {
        0: {1: {1: LEAVES}, 2: {1: DIES}, 3: {0: FAILS}, 5: {1: LEAVES}},
        1: {1: {0: LEAVES}},
    },
    "claim": {0: {task: {1: LEAVES} for task in range(TASKS)} | {2: {0: DIES}}},
}
FATES["claim"][0][3][0] = FAILS
ORIGINAL = Experiment.sweep


def sweep(experiment: Experiment, grid: Any, mode: str, **how: Any) -> Iterator[Logbook]:
    mode, number, task = sys.argv[1], int(os.environ["ROUND"]), os.environ["SLURM_ARRAY_TASK_ID"]
    fates = FATES[mode].get(number, {}).get(int(task), {})
    logs = ORIGINAL(experiment, grid, mode, **how)
    for point in itertools.count():
        if fates.get(point) == LEAVES:
            os._exit(3)
        log = next(logs, None)
        if log is None:
            return
        if number == point == 0:  # each task gets one, before any gets a second
            Path(f"begun_{task}").touch()
            while len(list(Path().glob("begun_*"))) < TASKS:
                time.sleep(0.05)
        if fates.get(point) == DIES:
            os.kill(os.getpid(), signal.SIGKILL)
        if fates.get(point) == FAILS:
            log.mark_failed("diverged")
            continue
        yield log


if __name__ == "__main__":
    Experiment.sweep = sweep  # type: ignore[assignment]
    runpy.run_path("slurm/sweep.py")
