"""What the watchdog, the heartbeat and a tick cost, beside doing without.

Usage: python benchmarks/watching.py [--full] [--repeat 3] [--folder DIR]

A process opens a run and then sleeps: with neither, with a sign of life each second (the default is
one a minute), with a watchdog of 10 s (it looks every 2.5 s), with both. CPU time and context
switches are those of the sleep, per hour. Then a loop that logs, and one that ticks, with and
without a watchdog, per call. No bounds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from common import ROOT, arguments, best, folder, report

SLEEPER = """
import resource, sys, time
from notata import Logbook
log = Logbook("x", sys.argv[1], comm=None)
if sys.argv[2] != "0":
    log.watch(float(sys.argv[2]))
log.info("ready")
seconds = float(sys.argv[3])
def used():
    told = resource.getrusage(resource.RUSAGE_SELF)
    return told.ru_utime + told.ru_stime, told.ru_nvcsw + told.ru_nivcsw
time.sleep(0.2)
before, until = used(), time.monotonic() + seconds
time.sleep(seconds)
after = used()
print((after[0] - before[0]) * 3600 / seconds, (after[1] - before[1]) * 3600 / seconds)
log.mark_complete()
"""

LOOPS = """
import sys, time
from notata import Logbook
log = Logbook("x", sys.argv[1], comm=None)
if sys.argv[2] != "0":
    log.watch(float(sys.argv[2]))
class Empty:
    def tick(self): pass
def best(call, *given):
    costs = []
    for _ in range(100):
        began = time.perf_counter()
        for _ in range(2000):
            call(*given)
        costs.append((time.perf_counter() - began) / 2000 * 1e6)
    return min(costs)
print(best(log.info, "step=100"), best(log.tick), best(Empty().tick))
log.mark_complete()
"""


def run(parent: Path, program: str, watch: str, heartbeat: str, *more: str) -> tuple[float, ...]:
    with folder(os.fspath(parent)) as base:
        environ = os.environ | {"PYTHONPATH": str(ROOT), "NOTATA_HEARTBEAT": heartbeat}
        command = [sys.executable, "-c", program, str(base), watch, *more]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    return tuple(map(float, done.stdout.split()))


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    seconds = "60" if args.full else "10"
    ways = {
        "neither": ("0", "0"),
        "a sign of life each second": ("0", "1"),
        "a watchdog of 10 s": ("10", "0"),
        "both": ("10", "1"),
    }
    with folder(args.folder) as parent:
        told = best(
            args.repeat, *[lambda w=way: run(parent, SLEEPER, *w, seconds) for way in ways.values()]
        )
        loops = best(args.repeat, *[lambda w=w: run(parent, LOOPS, w, "0") for w in ("0", "10")])
    report(
        "watching",
        ["beside the program", "CPU s an hour", "switches an hour"],
        [[name, f"{cpu:.2f}", f"{n:.0f}"] for name, (cpu, n) in zip(ways, told, strict=True)],
    )
    report(
        "ticks",
        ["watchdog", "log.info µs", "log.tick µs", "an empty method µs"],
        [
            [name, *(f"{us:.3f}" for us in costs)]
            for name, costs in zip(("none", "10 s"), loops, strict=True)
        ],
    )


if __name__ == "__main__":
    main()
