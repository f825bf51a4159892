"""What a run holds, for a process that never saw it: look.py RUN…, a line of JSON for all.

A run of an experiment comes with its rows in the table.
"""

import csv
import hashlib
import json
import sys
from pathlib import Path

from notata import LogReader


def look(path):
    run = LogReader(path)
    files = {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(Path(path).rglob("*"))
        if file.is_file()
    }
    rows = []
    table = Path(path).parents[1] / "index.csv"
    if table.exists():
        with table.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["run_id"] == run.meta["run_id"]]
    return {
        "rows": rows,
        "meta": run.meta,
        "params": run.params,
        "files": files,
        "messages": [[record.rank, record.message] for record in run.messages()],
        "sums": {name: float(run.load_array(name).sum()) for name in run.arrays},
    }


print(json.dumps([look(path) for path in sys.argv[1:]]))
