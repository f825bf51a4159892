"""Rows a second of the table with 1 to 64 writers, beside SQLite and csv under a bare lock.

Usage: python benchmarks/inserts.py [--full] [--repeat 2] [--folder DIR]

Processes put rows of 8 columns into one table at once, each row by itself: notata's table, a table
of SQLite in WAL mode, and a CSV file under `flock` that each row opens anew. Each does so once with
the promise that a row outlives the node (`fsync`, `synchronous=FULL`), and once without. All rows
are counted afterwards. Then: what a row costs in a table of 100,000 beside one of 100.

Bound: 1.2 times for the latter; the rest is reported. A CSV file under a bare lock loses rows where
nodes don't see each other's locks, and keeps what a killed process wrote in half.
"""

from __future__ import annotations

import csv
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, arguments, best, cpu_seconds, folder, picture, report

WORKER = """
import os, sys, time
kind, durable, base = sys.argv[1], sys.argv[2] == "1", sys.argv[5]
task, rows = map(int, sys.argv[3:5])
def values(k):
    return f"sweep_{task}_{k}", task, k, "complete", 1.0 / (k + 1), "complete", "2026-01-01", 0.5
if kind == "notata":
    from notata.columns import Row
    from notata.index import Index
    index = Index(base)
    def put(k):
        name, task, k, status, loss, ended, start, took = values(k)
        run = {"run_status": ended, "start_time": start, "runtime_sec": took}
        row = Row(name, {"task": task, "k": k}, status, {"loss": loss}, run)
        index.add(row, durable=durable)
elif kind == "SQLite":
    import sqlite3
    store = sqlite3.connect(base + "/runs.db", timeout=600, isolation_level=None)
    store.execute(f"pragma synchronous={'full' if durable else 'off'}")
    def put(k):
        store.execute("insert into runs values (?, ?, ?, ?, ?, ?, ?, ?)", values(k))
else:
    import csv, fcntl
    def put(k):
        with open(base + "/lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with open(base + "/runs.csv", "a", newline="") as file:
                csv.writer(file).writerow(values(k))
                file.flush()
                if durable:
                    os.fsync(file.fileno())
put(rows)  # loads what is needed
open(f"{base}/ready_{task}", "w").close()
while not os.path.exists(base + "/go"):
    time.sleep(0.002)
for k in range(rows):
    put(k)
"""
KINDS = ("notata", "SQLite", "csv and flock")
COLUMNS = "run_id,task,k,status,loss,run_status,start_time,runtime_sec"


def counted(kind: str, base: Path) -> int:
    if kind == "SQLite":
        with sqlite3.connect(base / "runs.db") as store:
            return int(store.execute("select count(distinct run_id) from runs").fetchone()[0])
    name, head = ("index.csv", 1) if kind == "notata" else ("runs.csv", 0)
    with (base / name).open(newline="") as file:
        return len({line[0] for line in csv.reader(file)}) - head


def go(parent: Path, kind: str, durable: bool, writers: int, rows: int) -> tuple[float, float]:
    """Milliseconds, and milliseconds of work, that a row takes all writers together."""
    each = max(1, rows // writers)
    with folder(os.fspath(parent)) as base:
        (base / "runs").mkdir()
        if kind == "SQLite":
            with sqlite3.connect(base / "runs.db") as store:
                store.execute("pragma journal_mode=wal")
                store.execute(f"create table runs ({COLUMNS})")
        environ = {k: v for k, v in os.environ.items() if not k.startswith("NOTATA_")}
        environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NOTATA_LOCK_TIMEOUT": "600"}
        command = [sys.executable, "-c", WORKER, kind, str(int(durable))]
        tasks = [
            subprocess.Popen([*command, str(task), str(each), str(base)], env=environ)
            for task in range(writers)
        ]
        while len(list(base.glob("ready_*"))) < writers:
            time.sleep(0.01)
        # Their start is paid for by then, and counted by the kernel as theirs.
        ticks, began = sum(_ticks(task.pid) for task in tasks), time.perf_counter()
        worked = cpu_seconds()
        (base / "go").touch()
        if any(task.wait() for task in tasks):
            raise SystemExit(f"a writer of {kind} failed")
        took = time.perf_counter() - began
        work = cpu_seconds() - worked - ticks / os.sysconf("SC_CLK_TCK")
        expected = (each + 1) * writers
        if counted(kind, base) != expected:
            raise SystemExit(f"{kind} lost rows: {counted(kind, base)} of {expected}")
    return 1000 * took / (each * writers), 1000 * work / (each * writers)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


GROWN = """
import sys, time
from notata.columns import Row
from notata.index import Index
index, first = Index(sys.argv[1]), int(sys.argv[2])
def row(k):
    run = {"run_status": "complete", "start_time": "2026-01-01", "runtime_sec": 0.5}
    return Row(f"sweep_{k}", {"task": 0, "k": k}, "complete", {"loss": 1.0 / (k + 1)}, run)
def put(k):
    index.add(row(k), durable=False)
put(0)
with open(sys.argv[1] + "/index.csv", "rb+") as table:
    line = table.read().splitlines(True)[1]
    for k in range(1, first):
        table.write(line.replace(b"sweep_0", b"sweep_%d" % k))
for k in range(first, first + 20):
    put(k)
began, worked = time.perf_counter(), time.process_time()
for k in range(first + 20, first + 520):
    put(k)
print(2 * (time.perf_counter() - began), 2 * (time.process_time() - worked))
"""


def grown(parent: Path, rows: int) -> tuple[float, float]:
    """Milliseconds, and milliseconds of work, that a row takes in a table of so many."""
    with folder(os.fspath(parent)) as base:
        (base / "runs").mkdir()
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", GROWN, str(base), str(rows)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
        if counted("notata", base) != rows + 520:
            raise SystemExit("rows are missing")
    took, worked = map(float, done.stdout.split())
    return took, worked


def main() -> None:
    args = arguments(__doc__.splitlines()[0], repeat=2)
    counts = (1, 2, 4, 8, 16, 32, 64)
    rows = 6400 if args.full else 1280
    table, rates = [], {}
    with folder(args.folder) as parent:
        for durable in (False, True):
            for writers in counts:
                told = best(
                    args.repeat,
                    *[lambda k=k, d=durable, w=writers: go(parent, k, d, w, rows) for k in KINDS],
                )
                for kind, (ms, cpu) in zip(KINDS, told, strict=True):
                    promise = "synced" if durable else "not synced"
                    table.append([kind, promise, writers, f"{1000 / ms:.0f}", f"{cpu:.2f}"])
                    rates.setdefault((kind, durable), []).append(1000 / ms)
        report("inserts", ["table", "rows are", "writers", "rows/s", "CPU ms a row"], table)
        few, many = best(3, lambda: grown(parent, 100), lambda: grown(parent, 100_000))
    report(
        "append",
        ["rows in the table", "ms a row", "CPU ms"],
        [[n, f"{ms:.3f}", f"{cpu:.3f}"] for n, (ms, cpu) in ((100, few), (100_000, many))],
        notes=[f"a row among 100,000 costs {many[1] / few[1]:.2f} of one among 100, by CPU time"],
    )

    def draw(axes) -> None:
        for (kind, durable), found in rates.items():
            colour, style = f"C{KINDS.index(kind)}", "-" if durable else ":"
            label = f"{kind}, {'synced' if durable else 'not synced'}"
            axes.plot(counts, found, style, marker="o", color=colour, label=label)
        axes.set(xscale="log", yscale="log", xlabel="writers", ylabel="rows/s")
        axes.set_xticks(counts, counts)
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=7, ncols=2)

    picture("inserts", draw)


if __name__ == "__main__":
    main()
