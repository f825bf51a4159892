"""What each durability costs: milliseconds a call, and a run.

Usage: python benchmarks/durability.py [--repeat 3] [--folder DIR]

A run of each durability in turn writes arrays of 1 MB, small JSON, messages and warnings; the
median of each kind of call counts, and the best of the goes. Then runs of an experiment are opened,
given their metrics and closed. --folder says on which file system; what a sync costs is its
business.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, folder, report

from notata import Experiment, Logbook

NAMES = ("process", "close", "node")
CALLS = 30


def median(call: Callable[[int], Any]) -> float:
    """Milliseconds of a call that is made many times."""
    taken = []
    for number in range(CALLS):
        began = time.perf_counter()
        call(number)
        taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def verbs(base: Path, durability: str) -> list[float]:
    block = np.zeros(125_000)
    log = Logbook("run", base, overwrite=True, durability=durability)
    found = [
        median(lambda n: log.array(f"T{n}", block)),
        median(lambda n: log.json("metrics", {"step": n})),
        median(lambda n: log.info(f"step {n}")),
        median(lambda n: log.warning(f"hot {n}")),
    ]
    log.mark_complete()
    return found


def runs(base: Path, durability: str, go: int) -> float:
    exp = Experiment(f"{durability}-{go}", base)

    def one(number: int) -> None:
        log = exp.add(durability=durability, k=number)
        assert log is not None
        log.json("metrics", {"m": number})
        log.mark_complete()

    return median(one)


def main() -> None:
    given = arguments(__doc__.splitlines()[0])
    best: dict[str, list[float]] = {}
    with folder(given.folder) as base:
        for go in range(given.repeat):
            for name in NAMES:  # by turns, so that a noisy minute meets all of them
                found = [*verbs(base, name), runs(base, name, go)]
                best[name] = [min(pair) for pair in zip(found, best.get(name, found), strict=True)]
    header = ["durability", "array of 1 MB", "json", "info", "warning", "run of a sweep"]
    report("durability", header, [[n, *(f"{ms:.3f}" for ms in best[n])] for n in NAMES])


if __name__ == "__main__":
    main()
