"""What importing notata takes, beyond the start of Python.

Usage: python benchmarks/imports.py [--repeat 3]

The compiled modules are there already, as after the first import. Bounds: 15 ms for
`import notata`, 40 ms for `from notata import Logbook`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from common import ROOT, arguments, best, cpu_seconds, folder, report

STATEMENTS = (
    "pass",
    "import notata",
    "from notata import Logbook",
    "from notata import Experiment",
    "from notata import LogReader",
)
ROUNDS = 10  # of each repetition


def go(statement: str, environ: dict[str, str]) -> tuple[float, float]:
    """Seconds, and seconds of work, that a fresh interpreter takes for a statement."""
    before, began = cpu_seconds(), time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=environ, cwd="/")
    return time.perf_counter() - began, cpu_seconds() - before


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    with folder(args.folder) as base:
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environ |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(base)}
        for statement in STATEMENTS:
            go(statement, environ)
        steps = [lambda s=statement: go(s, environ) for statement in STATEMENTS]
        found = best(args.repeat * ROUNDS, *steps)
    start, work = found[0]
    rows = [
        [
            statement,
            f"{1000 * one:.1f}",
            f"{1000 * (one - start):.1f}",
            f"{1000 * (worked - work):.1f}",
        ]
        for statement, (one, worked) in zip(STATEMENTS, found, strict=True)
    ]
    report("imports", ["statement", "ms", "beyond the start", "of that work"], rows)


if __name__ == "__main__":
    main()
