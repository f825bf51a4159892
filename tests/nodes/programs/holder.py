"""A node's part at the lock of one table; what to do comes as lines on stdin: holder.py SHARED.

`hold NAME` takes the lock and keeps it, `add NAME K` adds a run, `rows NAME` reads the table. Each
is answered by a line of JSON.
"""

import json
import os
import sys
from contextlib import ExitStack

from notata import Experiment, LogReader, layout
from notata.lock import locked

SHARED = sys.argv[1]
KEPT = ExitStack()


def hold(name):
    held = KEPT.enter_context(locked(Experiment(name, SHARED).exp_dir / layout.INDEX_LOCK))
    return {"kind": held.kind, "host": os.uname().nodename, "pid": os.getpid()}


def add(name, k):
    with Experiment(name, SHARED).add(k=int(k)) as log:
        log.json("metrics", {"k2": int(k) ** 2})
    return {"warnings": [m.message for m in LogReader(log.path).messages(level="WARNING")]}


def rows(name):
    return [(row["k"], row["k2"], row["run_status"]) for row in Experiment(name, SHARED).rows()]


print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    command, *args = line.split()
    print(json.dumps({"hold": hold, "add": add, "rows": rows}[command](*args)), flush=True)
