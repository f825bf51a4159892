"""How many runs a second end up in the table, beside notata 0.3.0; and how long a rebuild takes.

Usage: python benchmarks/table.py [--processes 8] [--runs 2000] [--rebuild 10000] [--json FILE]

8 processes at once add 2,000 runs each, whose parameters and metrics differ in their columns. Each
library does so in turn, each time in a new folder and rested (see `common.rest`), and the better of
two goes counts. Rows are then counted: those that are well formed, with their run's own values.
notata 0.3.0 is looked for in .venv/peers, where `make test` puts it. As it syncs nothing, notata
runs once with durability "process" and once with its default.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import PEER, REST, ROOT, cpu_seconds, folder, report, rest

WORKER = """
import os, sys, time
from notata import Experiment
task, runs, base = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
exp = Experiment("sweep", base)
open(os.path.join(base, f"ready_{task}"), "w").close()
while not os.path.exists(os.path.join(base, "go")):
    time.sleep(0.001)
for k in range(runs):
    log = exp.add(task=task, k=k, **{f"p{k % 3}": k * 0.5})
    log.json("metrics", {f"m{(task + k) % 5}": k, "loss": 1.0 / (k + 1)})
    log.mark_complete()
"""


def go(
    parent: Path, library: Path, processes: int, runs: int, durability: str = "process"
) -> dict[str, Any]:
    """Let processes add runs at once; gives the rate, and what stands in the table."""
    base = Path(tempfile.mkdtemp(dir=parent))
    environ = {k: v for k, v in os.environ.items() if not k.startswith("NOTATA_")}
    environ |= {"PYTHONPATH": str(library), "NOTATA_DURABILITY": durability}
    command = [sys.executable, "-c", WORKER]
    tasks = [
        subprocess.Popen([*command, str(task), str(runs), str(base)], env=environ, cwd=base)
        for task in range(processes)
    ]
    while len(list(base.glob("ready_*"))) < processes:
        time.sleep(0.01)
    began, worked = time.perf_counter(), cpu_seconds()
    (base / "go").touch()
    if any(task.wait() for task in tasks):
        raise SystemExit("a process failed")
    seconds = time.perf_counter() - began
    good, bad = rows(base / "sweep" / "index.csv")
    return {
        "runs_per_second": round(processes * runs / seconds, 1),
        "seconds": round(seconds, 2),
        "cpu_ms_per_run": round(1000 * (cpu_seconds() - worked) / (processes * runs), 2),
        "runs": processes * runs,
        "rows": good,
        "broken_rows": bad,
    }


def rows(table: Path) -> tuple[int, int]:
    """The rows of a table that hold their run's values under their columns, and the others."""
    with table.open(newline="") as file:
        header, *lines = csv.reader(file)
    good = set()
    for line in lines:
        row = dict(zip(header, line, strict=False))
        if len(line) == len(header) and is_right(row):
            good.add(row["run_id"])
    return len(good), len(lines) - len(good)


def is_right(row: dict[str, str]) -> bool:
    try:
        task, k = int(row["task"]), int(row["k"])
        told = float(row[f"p{k % 3}"]), int(row[f"m{(task + k) % 5}"]), float(row["loss"])
    except (KeyError, ValueError):
        return False
    others = [row.get(f"p{n}", "") for n in range(3) if n != k % 3]
    others += [row.get(f"m{n}", "") for n in range(5) if n != (task + k) % 5]
    return told == (k * 0.5, k, 1.0 / (k + 1)) and not any(others)


def rebuild(number: int) -> dict[str, Any]:
    """Make the table of so many runs anew."""
    from notata import Experiment

    with folder(None) as base:
        exp = Experiment("sweep", base)
        first = exp.add(k=0, omega=0.5, scheme="rk4")
        assert first is not None
        first.json("metrics", {"energy": 1.5, "drift": 1e-9})
        first.mark_complete()
        for k in range(1, number):
            shutil.copytree(first.path, exp.runs_dir / f"log_sweep_{k}")
        began = time.perf_counter()
        made = exp.rebuild_index()
        return {"runs": number, "rows": made, "seconds": round(time.perf_counter() - began, 2)}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--runs", type=int, default=2000, help="runs of each process")
    parser.add_argument("--rebuild", type=int, default=10_000, help="runs of the rebuilt table")
    parser.add_argument("--goes", type=int, default=2, help="the best of so many counts")
    parser.add_argument("--rest", type=float, default=REST, help="seconds before each go")
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    parser.add_argument("--full", action="store_true", help="it is so already")
    given = parser.parse_args(arguments)
    found: dict[str, Any] = {"cpus": os.cpu_count(), "processes": given.processes}
    synced = "notata, synced at close"
    goes: dict[str, list[dict[str, Any]]] = {"notata": [], synced: [], "notata 0.3.0": []}
    with folder(None) as parent:
        contestants = {
            "notata 0.3.0": (PEER, "process"),
            "notata": (ROOT, "process"),
            synced: (ROOT, "close"),
        }
        for _ in range(given.goes):
            for name, (library, durability) in contestants.items():
                rest(given.rest)
                size = given.processes, given.runs
                goes[name].append(go(parent, library, *size, durability))
    for name, told in goes.items():
        found[name] = max(told, key=lambda one: one["runs_per_second"])
    found["rebuild"] = rebuild(given.rebuild)
    told = found["rebuild"]
    print(f"rebuild of {told['runs']} runs: {told['seconds']} s, {told['rows']} rows")
    report("table", ["by", *found["notata"]], [[name, *found[name].values()] for name in goes])
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    main()
