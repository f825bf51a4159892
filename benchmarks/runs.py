"""Open a run, save parameters and one metric, close it: alone, by Experiment.add, as a program.

Usage: python benchmarks/runs.py [--full] [--repeat 3] [--folder DIR]

Beside notata 0.3.0, and beside the bare system calls that make the same files. Each library does
some hundred runs in a process of its own, by turns; the best counts. Then each run is a program of
its own, as in a job array, and all that it takes counts, from the start of Python and the import
of numpy, which any such program has, to its end. All files are looked at afterwards. notata 0.3.0
syncs nothing, so that notata runs once with NOTATA_DURABILITY=process.

Bounds: 1.8 times faster than notata 0.3.0 alone, 1.5 times by Experiment.add.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import PEER, ROOT, arguments, best, cpu_seconds, folder, report

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

PROGRAM = """
import sys, numpy
from notata import Experiment, Logbook
base, k = sys.argv[1], int(sys.argv[2])
if {add}:
    log = Experiment("sweep", base).add(k=k, omega=k * 0.5)
else:
    log = Logbook(f"sweep_{{k}}", base_dir=base + "/sweep/runs", params=dict(k=k, omega=k * 0.5))
with log:
    log.json("metrics", dict(loss=1.0 / (k + 1)))
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

# All that a program of the same start does without a run.
EMPTY = "import numpy"

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
    """Seconds, and seconds of work, that some runs take, in a folder that stays."""
    base = Path(tempfile.mkdtemp(dir=parent))
    environ = environment(library, durability)
    # Not from here: Python looks for modules in the folder that it is started in first.
    command = [sys.executable, "-c", program, what, str(runs), str(base)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environ, cwd=base
    )
    if program == WORKER:
        check(base / "sweep", what, runs + 20)
    seconds, work = map(float, done.stdout.split())
    return seconds, work


def environment(library: Path, durability: str) -> dict[str, str]:
    """The variables of a program that takes this library."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("NOTATA_")}
    environ |= {"PYTHONPATH": str(library)}
    return environ | ({"NOTATA_DURABILITY": durability} if durability else {})


def go_as_programs(
    parent: Path, what: str, code: str, library: Path, durability: str, runs: int
) -> tuple[float, float]:
    """Seconds, and seconds of work, that some programs of one run each take, one by one."""
    with folder(os.fspath(parent)) as base:
        environ = environment(library, durability)
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        environ["PYTHONPYCACHEPREFIX"] = str(parent / "compiled")
        program = code.format(add=what == "add")
        began, worked = time.perf_counter(), cpu_seconds()
        for k in range(-1, runs):
            if k == 0:  # compiled modules are there now, as after the first import
                began, worked = time.perf_counter(), cpu_seconds()
            command = [sys.executable, "-c", program, str(base), str(k % (runs + 1))]
            subprocess.run(command, check=True, env=environ, cwd=base)
        seconds, work = time.perf_counter() - began, cpu_seconds() - worked
        if code == PROGRAM:
            check(base / "sweep", what, runs + 1)
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


def measured_programs(base: Path, what: str, runs: int, repeat: int) -> list[list[str]]:
    """Rows of the table: each library's runs as programs, and programs without a run."""
    chosen = [(name, PROGRAM, *rest) for name, program, *rest in LIBRARIES if program == WORKER]
    chosen.append(("no run", EMPTY, ROOT, ""))
    steps = [lambda rest=rest: go_as_programs(base, what, *rest, runs) for _, *rest in chosen]
    found = best(repeat, *steps)
    peer = found[0][0]
    return [
        [
            f"program, {what}",
            name,
            f"{1000 * seconds / runs:.0f}",
            f"{1000 * work / runs:.0f}",
            f"{peer / seconds:.2f}",
        ]
        for (name, *_), (seconds, work) in zip(chosen, found, strict=True)
    ]


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
            found = best(args.repeat, *steps, rested=True)
            peer = found[0][0]
            for (name, *_), (seconds, work) in zip(chosen, found, strict=True):
                told = [f"{1000 * seconds / runs:.2f}", f"{1000 * work / runs:.2f}"]
                rows.append([what, name, *told, f"{peer / seconds:.2f}"])
        for what in ("open", "add"):
            rows += measured_programs(base, what, 60 if args.full else 20, args.repeat)
    report("runs", ["what", "by", "ms a run", "CPU ms", "times faster"], rows)


if __name__ == "__main__":
    main()
