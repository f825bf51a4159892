"""A run with two parameters, a metric and a row: `Experiment.add` beside other tools.

Usage: python benchmarks/tools.py [--full] [--repeat 3] [--folder DIR]

signac 2, Sacred and MLflow are installed by the program, each into a folder of its own in
.venv/peers (`NOTATA_BENCH_PEERS`); notata 0.3.0 is there after `make test`. Each does some runs in
a process of its own, by turns, and the best counts; imports and the first runs don't. What each
leaves is looked at afterwards. None of the others syncs its files, but SQLite does, so that notata
is told twice. Reported, without a bound: the tools promise different things.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from common import PEER, ROOT, arguments, best, folder, peer, picture, report

LOOP = """
import os, sys, time
runs, base = int(sys.argv[1]), sys.argv[2]
{setup}
def one(k):
{run}
for k in range(5):  # imports, and what is looked for once
    one(k)
began, worked = time.perf_counter(), time.process_time()
for k in range(5, 5 + runs):
    one(k)
print(time.perf_counter() - began, time.process_time() - worked)
"""

NOTATA = LOOP.format(
    setup="from notata import Experiment\nexp = Experiment('sweep', base)",
    run="""
    log = exp.add(k=k, omega=k * 0.5)
    log.json("metrics", {"loss": 1.0 / (k + 1)})
    log.mark_complete()
""",
)
SIGNAC = LOOP.format(
    setup="import signac\nproject = signac.init_project(base)",
    run="""
    job = project.open_job({"k": k, "omega": k * 0.5})
    job.init()
    job.doc["loss"] = 1.0 / (k + 1)
""",
)
SACRED = LOOP.format(
    setup="""
from sacred import SETTINGS, Experiment
from sacred.observers import FileStorageObserver
SETTINGS["CAPTURE_MODE"] = "no"
SETTINGS["HOST_INFO"]["INCLUDE_GPU_INFO"] = False
exp = Experiment("sweep", save_git_info=False, interactive=True)
exp.logger = __import__("logging").Logger("quiet", 40)
exp.observers.append(FileStorageObserver(base))
exp.add_config(k=0, omega=0.0)
@exp.main
def main(k, omega):
    return 1.0 / (k + 1)
""",
    run="""
    exp.run(config_updates={"k": k, "omega": k * 0.5})
""",
)
MLFLOW = LOOP.format(
    setup="""
import mlflow
mlflow.set_tracking_uri(f"sqlite:///{base}/mlflow.db")
mlflow.create_experiment("sweep", f"file://{base}/artifacts")
mlflow.set_experiment("sweep")
""",
    run="""
    with mlflow.start_run(run_name=f"k_{k}"):
        mlflow.log_params({"k": k, "omega": k * 0.5})
        mlflow.log_metric("loss", 1.0 / (k + 1))
""",
)


def rows(base: Path) -> int:
    with (base / "sweep" / "index.csv").open(newline="") as file:
        return sum(
            abs(float(r["loss"]) * (int(r["k"]) + 1) - 1) < 1e-9 for r in csv.DictReader(file)
        )


def jobs(base: Path) -> int:
    found = (json.loads(p.read_text()) for p in base.glob("workspace/*/signac_job_document.json"))
    return sum("loss" in told for told in found)


def sacred_runs(base: Path) -> int:
    found = (json.loads(path.read_text()) for path in base.glob("[0-9]*/run.json"))
    return sum(told["status"] == "COMPLETED" and "result" in told for told in found)


def mlflow_runs(base: Path) -> int:
    with sqlite3.connect(base / "mlflow.db") as store:
        return int(store.execute("select count(*) from metrics where key='loss'").fetchone()[0])


Tool = tuple[str, str, Path, str, Callable[[Path], int], int]  # the last is how many times fewer


def tools() -> tuple[list[Tool], list[str]]:
    """What can be tried here, and why others can't."""
    found: list[Tool] = [
        ("notata", NOTATA, ROOT, "process", rows, 1),
        ("notata, synced at close", NOTATA, ROOT, "close", rows, 1),
        ("notata 0.3.0", NOTATA, PEER, "", rows, 1),
    ]
    missing = []
    for name, requirement, program, check, fewer in (
        ("signac", "signac>=2,<3", SIGNAC, jobs, 1),
        ("Sacred", "sacred", SACRED, sacred_runs, 4),
        ("MLflow", "mlflow", MLFLOW, mlflow_runs, 10),
    ):
        there = peer(name.lower(), requirement)
        if isinstance(there, str):
            missing.append(f"{name} was not tried: {there}")
            continue
        home, version = there
        found.append((f"{name} {version}", program, home, "", check, fewer))
    return found, missing


def go(parent: Path, tool: Tool, runs: int) -> tuple[float, float]:
    """Milliseconds, and milliseconds of work, that a run takes."""
    name, program, library, durability, check, fewer = tool
    runs = max(10, runs // fewer)
    with folder(os.fspath(parent)) as base:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("NOTATA_")}
        environ |= {"PYTHONPATH": str(library), "GIT_PYTHON_REFRESH": "quiet"}
        environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        environ |= {"NOTATA_DURABILITY": durability} if durability else {}
        command = [sys.executable, "-W", "ignore", "-c", program, str(runs), str(base)]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=base)
        if done.returncode or check(base) != runs + 5:
            raise SystemExit(f"{name} did not do its runs: {done.stderr[-2000:]}")
        took, worked = map(float, done.stdout.split()[-2:])
    return 1000 * took / runs, 1000 * worked / runs


def draw(axes, names: list[str], told: list[tuple[float, float]]) -> None:
    """Dots, as a bar's length means nothing on a logarithmic axis."""
    time, cpu = zip(*told, strict=True)
    axes.hlines(names, cpu, time, color="0.8", zorder=1)
    axes.plot(time, names, "o", color="0.45", markersize=6, label="time")
    axes.plot(cpu, names, "o", color="C0", markersize=6, label="of which CPU")
    axes.set(xscale="log", xlabel="ms a run (logarithmic)")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(axis="x", alpha=0.3)
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="lower left")


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    runs = 1000 if args.full else 200
    there, missing = tools()
    with folder(args.folder) as parent:
        told = best(args.repeat, *[lambda t=tool: go(parent, t, runs) for tool in there])
    ours = told[0]
    names = [name for name, *_ in there]
    report(
        "tools",
        ["by", "ms a run", "CPU ms", "times ours", "CPU times ours"],
        [
            [name, f"{ms:.2f}", f"{cpu:.2f}", f"{ms / ours[0]:.1f}", f"{cpu / ours[1]:.1f}"]
            for name, (ms, cpu) in zip(names, told, strict=True)
        ],
        notes=missing,
    )

    picture("tools", lambda axes: draw(axes, names, told))


if __name__ == "__main__":
    main()
