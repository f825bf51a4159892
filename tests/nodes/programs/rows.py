"""A node's part of many runs that share one experiment; what to do comes as lines on stdin.

rows.py SHARED FIRST STEP PROCESSES RUNS: of all PROCESSES, those numbered FIRST, FIRST + STEP, …
are this node's. `add NAME` makes their runs, `race NAME COUNT` lets each of them add the same ones,
`check NAME COUNT` and `rows NAME COUNT` read the table as any reader does, once so many rows are
there or some seconds over, `rebuild NAME` makes it anew. Each is answered by a line of JSON.
"""

from __future__ import annotations

import csv
import gc
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from notata import Experiment

SHARED = Path(sys.argv[1])
FIRST, STEP, PROCESSES, RUNS = map(int, sys.argv[2:])
TEXT = 'a, "b"\nü'


def params_of(worker: int, run: int) -> dict[str, Any]:
    return {"worker": worker, "run": run, f"p{worker % 3}": worker * run}


def metrics_of(worker: int, run: int) -> dict[str, Any]:
    """A column that is new for all comes up every few runs, on either node.

    A row of several lines is appended in another way than one of a single line.
    """
    return {f"m{worker % 4}_{run // 10}": worker + run, "text": TEXT if run % 2 else "plain"}


def add_runs(exp: Experiment, worker: int, runs: int) -> None:
    for run in range(runs):
        log = exp.add(**params_of(worker, run))
        assert log is not None
        with log:
            log.json("metrics", metrics_of(worker, run))
        if worker < 2 and run % 10 == 9:  # one process of each node
            exp.record(log)  # a second result, which takes the place of the first


def add(name: str) -> dict[str, Any]:
    """Run this node's processes to their end."""
    return in_processes(lambda worker: add_runs(Experiment(name, base_dir=SHARED), worker, RUNS))


def in_processes(work: Callable[[int], None]) -> dict[str, Any]:
    pids = []
    for worker in range(FIRST, PROCESSES, STEP):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                work(worker)
                status = 0
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        pids.append(pid)
    return {"failed": sum(os.waitpid(pid, 0)[1] != 0 for pid in pids)}


def race(name: str, count: str) -> dict[str, Any]:
    """Let every process add the same points, and tell what each came to: a line of JSON."""
    exp = Experiment(name, base_dir=SHARED)
    with tempfile.TemporaryFile("a+") as told:
        failed = in_processes(lambda worker: add_same(exp, worker, int(count), told))
        told.seek(0)
        return failed | {"outcomes": [json.loads(line) for line in told]}


def add_same(exp: Experiment, worker: int, count: int, told: IO[str]) -> None:
    """Add points that all others add, too; every second one may be there already."""
    outcomes = []
    for point in range(count):
        try:
            log = exp.add(point=point, skip_existing=point % 2 == 0)
        except FileExistsError:
            outcomes.append("refused")
            continue
        if log is None:
            outcomes.append("skipped")
            continue
        with log:
            log.json("metrics", {"worker": worker})
        outcomes.append(worker)
    told.write(json.dumps(outcomes) + "\n")
    told.flush()


def rows_of(name: str) -> list[dict[str, str]]:
    try:
        with open(SHARED / name / "index.csv", newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def check(name: str, count: str) -> dict[str, Any]:
    """Compare the table with what was added, once all of it is seen or some time is over."""
    patience = time.monotonic() + 10
    while True:
        found = compared(rows_of(name))
        whole = found["rows"] >= int(count) and not found["wrong"]
        if whole or time.monotonic() > patience:
            return found
        time.sleep(0.5)  # what another node wrote may be seen late, or in part, which is no loss


def rows_in_time(name: str, count: str) -> list[dict[str, str]]:
    """The rows, once so many are seen or some time is over."""
    patience = time.monotonic() + 10
    while len(rows := rows_of(name)) < int(count) and time.monotonic() < patience:
        time.sleep(0.5)
    return rows


def compared(rows: list[dict[str, str]]) -> dict[str, Any]:
    wrong = []
    seen: set[tuple[int, int]] = set()
    for row in rows:
        try:
            worker, run = int(row["worker"]), int(row["run"])
            said = {"status": "complete", "run_status": "complete", "failure_reason": ""}
            expected = {**params_of(worker, run), **metrics_of(worker, run), **said}
            cells = {k: v for k, v in row.items() if v or k in expected}
            for ours in ("run_id", "start_time", "runtime_sec"):
                assert cells.pop(ours)
            assert cells == {key: str(value) for key, value in expected.items()}
            seen.add((worker, run))
        except (AssertionError, KeyError, TypeError, ValueError):
            wrong.append(row)
    return {"rows": len(rows), "runs": len(seen), "wrong": wrong[:3]}


def warnings(name: str) -> dict[str, Any]:
    """Which warnings the runs' logs hold, and in how many of them."""
    found: dict[str, int] = {}
    for log in (SHARED / name / "runs").glob("log_*/log.txt"):
        for line in log.read_text().splitlines():
            if " WARNING " in line:
                text = line.partition(" WARNING ")[2]
                found[text] = found.get(text, 0) + 1
    return found


def rebuild(name: str) -> dict[str, Any]:
    return {"count": Experiment(name, base_dir=SHARED).rebuild_index()}


COMMANDS = {
    "add": add,
    "race": race,
    "rows": rows_in_time,
    "check": check,
    "warnings": warnings,
    "rebuild": rebuild,
}

if __name__ == "__main__":
    # Whatever notata loads, it loads now, so that the processes do nothing but add runs.
    with tempfile.TemporaryDirectory() as folder:
        warm = Experiment("warm", base_dir=folder)
        add_runs(warm, 0, 1)
        warm.rebuild_index()
    gc.freeze()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        command, *args = line.split()
        print(json.dumps(COMMANDS[command](*args)), flush=True)
