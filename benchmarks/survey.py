"""What notata status, failed and index take on an experiment of 10,000 runs, of an array of tasks.

Usage: python benchmarks/survey.py [--repeat 3] [--folder DIR]

One run in twenty failed, and one in twenty was killed and could not say so: of these a `sacct` that
has its answer at hand tells. The whole command counts, from the start of Python. What it prints is
looked at. Bounds: 3 s for status, 5 s for index.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, arguments, best, folder, report

RUNS = 10_000


def make(base: Path) -> None:
    """Write the runs as notata does, but for their number, and the answer of `sacct`."""
    answers: list[str] = []
    died = time.mktime(time.strptime("2026-11-26T03:00:50", "%Y-%m-%dT%H:%M:%S"))
    metadata = {"run_id": "", "start_time": "2026-11-26T03:00:00", "runtime_sec": 12.5}
    for k in range(RUNS):
        run = base / "sweep" / "runs" / f"log_sweep_k_{k}"
        (run / "artifacts").mkdir(parents=True)
        job = {"name": "slurm", "job_id": str(5000 + k), "array_job_id": "4711"}
        job |= {"array_task_id": k, "array": {"min": 0, "max": RUNS - 1, "step": 1, "count": RUNS}}
        status = {5: "failed", 15: "initialized"}.get(k % 20, "complete")
        mine = metadata | {"run_id": f"sweep_k_{k}", "status": status, "scheduler": job}
        mine |= {"failure_reason": f"ValueError: {k} is odd"} if status == "failed" else {}
        (run / "metadata.json").write_text(json.dumps(mine, indent=2))
        (run / "log.txt").write_text("[2026-11-26T03:00:00] INFO Logbook initialized\n")
        (run / "params.yaml").write_text(f"dt: 0.5\nk: {k}\nscheme: rk4\n")
        (run / "artifacts" / "metrics.json").write_text(json.dumps({"loss": 1 / (k + 1)}))
        times = "2026-11-26T03:00:00|2026-11-26T03:01:00"
        for name in ("metadata.json", "log.txt"):  # its last sign of life
            os.utime(run / name, (died, died))
        if status == "initialized":
            told = f"4711_{k}|{5000 + k}|OUT_OF_MEMORY|0:125|n{k % 8}|{times}|hpc"
            answers.append(told)
    (base / "answer").write_text("\n".join(answers) + "\n")
    (base / "sacct").write_text(f"#!/bin/sh\ncat {base}/answer\n")
    (base / "sacct").chmod(0o755)


def command(base: Path, *words: str) -> tuple[tuple[float, float], str]:
    """Seconds that a command of notata takes, and of work, and what it prints."""
    path = f"{base}{os.pathsep}{os.environ['PATH']}"
    environ = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    began, worked = time.perf_counter(), _worked()
    line = [sys.executable, "-m", "notata", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environ, cwd=base)
    return (time.perf_counter() - began, _worked() - worked), done.stdout


def _worked() -> float:
    told = resource.getrusage(resource.RUSAGE_CHILDREN)
    return told.ru_utime + told.ru_stime


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    lost = failed = RUNS // 20
    with folder(args.folder) as base:
        make(base)
        known = json.loads(command(base, "status", "--json", "sweep")[1])
        if known["runs"] != RUNS or known["unsaid"] != lost or known["source"] != "sacct":
            raise SystemExit(f"status is wrong: {known['runs']}, {known['unsaid']}")
        again = command(base, "failed", "--array", "sweep")[1]
        if len(again.replace("\n", ",").strip(",").split(",")) != lost + failed:
            raise SystemExit(f"failed is wrong: {again}")
        words = (["status", "sweep"], ["failed", "--array", "sweep"], ["index", "sweep"])
        found = best(args.repeat, *(lambda w=one: command(base, *w)[0] for one in words))
        table = (base / "sweep" / "index.csv").read_text().count("\n")
        if table != RUNS - lost + 1:
            raise SystemExit(f"the table has {table} lines")
        rows = [
            [f"notata {what[0]}", RUNS, f"{seconds:.2f}", f"{work:.2f}", bound]
            for what, (seconds, work), bound in zip(words, found, (3, "", 5), strict=True)
        ]
        report("survey", ["command", "runs", "s", "CPU s", "bound s"], rows)


if __name__ == "__main__":
    main()
