"""Open a run, save parameters and one metric, close it: alone and by Experiment.add.

Usage: python benchmarks/runs.py [--full] [--repeat 3] [--folder DIR]

Beside notata 0.3.0, and beside the bare system calls that make the same files. Each library does
some hundred runs in a process of its own, by turns; the best counts. All files are looked at
afterwards. notata 0.3.0 syncs nothing, so that notata runs once with NOTATA_DURABILITY=process.

Bounds: 1.8 times faster than notata 0.3.0 alone, 1.5 times by Experiment.add.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from common import PEER, ROOT, arguments, best, folder, report

WORKER = """
import os, sys, time
what, runs, base = sys.argv[1], int(sys.argv[2]), sys.argv[3]
from notata import Experiment, Logbook
exp = Experiment("sweep", base)

def open_one(k):
    if what == "add":
        return exp.add(k=k, omega=k * 0.5)
    return Logbook(f"sweep_{k}", base_dir=exp.runs_dir, params={"k": k, "omega": k * 0.5})

def one(k):
    log = open_one(k)
    log.json("metrics", {"loss": 1.0 / (k + 1)})
    log.mark_complete()

for k in range(20):  # imports, and what is looked for once
    one(k)
began, worked = time.perf_counter(), time.process_time()
for k in range(20, 20 + runs):
    one(k)
print(time.perf_counter() - began, time.process_time() - worked)
"""

BARE = """
import os, sys, time
runs, base = int(sys.argv[2]), sys.argv[3]

def put(path, size):
    file = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(file, b"x" * size)
    os.close(file)
    os.rename(path + ".tmp", path)

def one(k):
    run = f"{base}/log_{k}"
    os.mkdir(run)
    put(f"{run}/params.yaml", 20)
    log = os.open(f"{run}/log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, b"x" * 60)
    put(f"{run}/metadata.json", 600)
    os.write(log, b"x" * 50)
    os.mkdir(f"{run}/artifacts")
    put(f"{run}/artifacts/metrics.json", 30)
    os.write(log, b"x" * 70)
    put(f"{run}/metadata.json", 660)
    os.write(log, b"x" * 45)
    os.close(log)

for k in range(20):
    one(k)
began, worked = time.perf_counter(), time.process_time()
for k in range(20, 20 + runs):
    one(k)
print(time.perf_counter() - began, time.process_time() - worked)
"""

# Name, program, library, durability.
LIBRARIES = (
    ("notata 0.3.0", WORKER, PEER, ""),
    ("notata", WORKER, ROOT, "process"),
    ("notata, synced at close", WORKER, ROOT, "close"),
    ("bare system calls", BARE, ROOT, ""),
)


def go(
    parent: Path, what: str, program: str, library: Path, durability: str, runs: int
) -> tuple[float, float]:
    """Seconds, and seconds of work, that some runs take."""
    with folder(os.fspath(parent)) as base:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("NOTATA_")}
        environ |= {"PYTHONPATH": str(library)}
        environ |= {"NOTATA_DURABILITY": durability} if durability else {}
        command = [sys.executable, "-c", program, what, str(runs), str(base)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
        if program == WORKER:
            check(base / "sweep", what, runs + 20)
        seconds, work = map(float, done.stdout.split())
        return seconds, work


def check(experiment: Path, what: str, runs: int) -> None:
    """See that every run is there, complete, with its metric and its row."""
    for k in range(runs):
        name = f"k_{k}_omega_{k * 0.5:.5g}" if what == "add" else str(k)
        run = experiment / "runs" / f"log_sweep_{name}"
        status = json.loads((run / "metadata.json").read_text())["status"]
        metrics = json.loads((run / "artifacts" / "metrics.json").read_text())
        if status != "complete" or metrics != {"loss": 1.0 / (k + 1)}:
            raise SystemExit(f"{run} is not as it should be")
    if what == "add" and (experiment / "index.csv").read_text().count("\n") != runs + 1:
        raise SystemExit("rows are missing")


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    runs, rows = 1000 if args.full else 200, []
    with folder(args.folder) as base:
        for what in ("open", "add"):
            chosen = [one for one in LIBRARIES if what == "open" or one[1] == WORKER]
            steps = [
                lambda rest=rest: go(base, what, *rest, runs)  # noqa: B023
                for _, *rest in chosen
            ]
            found = best(args.repeat, *steps)
            peer = found[0][0]
            for (name, *_), (seconds, work) in zip(chosen, found, strict=True):
                told = [f"{1000 * seconds / runs:.2f}", f"{1000 * work / runs:.2f}"]
                rows.append([what, name, *told, f"{peer / seconds:.2f}"])
    report("runs", ["what", "by", "ms a run", "CPU ms", "times faster"], rows)


if __name__ == "__main__":
    main()
