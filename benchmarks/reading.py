"""What it takes to look at the runs of an experiment, beside pandas and notata 0.3.0.

Usage: python benchmarks/reading.py [--full] [--repeat 3] [--folder DIR]

`ExperimentReader.to_dataframe` stands beside `pandas.read_csv` of the same table, and parameters
and metadata of all runs, from the runs themselves, beside the reader of notata 0.3.0, which is
looked for in .venv/peers, where `make test` puts it. There are 2,000 runs, or 10,000 with --full.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

from common import arguments, best, folder, report

from notata import Experiment

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".venv/peers/notata-0.3.0"

# The first time counts for nothing: it loads what pandas and notata load as they are needed.
TIMED = """
import sys, time
sys.path.insert(0, sys.argv[1])
import pandas
from notata import ExperimentReader
path = sys.argv[2]
for _ in range({times}):
    began, worked = time.perf_counter(), time.process_time()
    {code}
    print(time.perf_counter() - began, time.process_time() - worked, found)
"""
FRAME = "found = len(ExperimentReader(path).to_dataframe())"
CSV = "found = len(pandas.read_csv(path + '/index.csv'))"
RUNS = (
    "found = 0\n"
    "    for run in ExperimentReader(path):\n"
    "        found += run.params['k'] >= 0 and run.meta['status'] == 'complete'"
)


def seconds(code: str, library: Path, experiment: Path, expected: int) -> tuple[float, float]:
    """Seconds, and seconds of work, that some code takes in a process of its own."""
    times = 1 if code == RUNS else 5
    program = TIMED.format(code=code, times=times)
    command = [sys.executable, "-c", program, str(library), str(experiment)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    told = [line.split() for line in done.stdout.splitlines()]
    assert all(int(found) == expected for *_, found in told)
    return min(float(took) for took, *_ in told), min(float(work) for _, work, _ in told)


def made(base: Path, number: int) -> Path:
    """An experiment of so many runs; all but the first are copies with other values."""
    experiment, values = Experiment("sweep", base), random.Random(1)
    with experiment.add(k=0, omega=0.5, scheme="rk4") as first:
        first.json("metrics", {"energy": values.random(), "drift": 1e-9 * values.random()})
    told = json.loads((first.path / "metadata.json").read_text())
    for k in range(1, number):
        run = experiment.runs_dir / f"log_sweep_{k}"
        shutil.copytree(first.path, run)
        mine = {"run_id": f"sweep_{k}", "runtime_sec": round(values.random(), 6)}
        (run / "metadata.json").write_text(json.dumps(told | mine, indent=2))
        (run / "params.yaml").write_text(f"k: {k}\nomega: {k / 2}\nscheme: rk4\n")
        metrics = {"energy": values.random(), "drift": 1e-9 * values.random()}
        (run / "artifacts/metrics.json").write_text(json.dumps(metrics))
    experiment.rebuild_index()
    return base / "sweep"


def main() -> None:
    given = arguments(__doc__.splitlines()[0])
    number = 10_000 if given.full else 2_000
    with folder(given.folder) as base:
        sweep = made(base, number)
        pairs = {
            "the table as a frame": ((FRAME, ROOT), ("pandas.read_csv", CSV, ROOT)),
            "parameters and metadata of each run": ((RUNS, ROOT), ("notata 0.3.0", RUNS, PEER)),
        }
        rows = []
        for what, ((code, library), (peer, other, elsewhere)) in pairs.items():
            ours, theirs = best(
                given.repeat,
                lambda c=code, at=library: seconds(c, at, sweep, number),
                lambda c=other, at=elsewhere: seconds(c, at, sweep, number),
            )
            for kind, mine, other in zip(("time", "CPU"), ours, theirs, strict=True):
                told = [f"{1000 * mine:.1f}", peer, f"{1000 * other:.1f}", f"{mine / other:.2f}"]
                rows.append([what, number, kind, *told])
    report("reading", ["what", "runs", "of", "notata ms", "peer", "peer ms", "times"], rows)


if __name__ == "__main__":
    main()
