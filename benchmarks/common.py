"""What the benchmarks share: runs to merge, a yardstick beside them, and a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".peers" / "notata-0.3.0"

JOIN = """
import os, resource, sys, time
from notata import files
from notata.merging.joining import join
from notata.merging.plan import make_plan
run, target = sys.argv[1:]
(output,) = [out for out in make_plan(run).outputs if out.file == target]
made = os.path.join(run, "joined.tmp")
began = time.perf_counter()
join(run, [(output, made)], None, lambda count: None)
seconds = time.perf_counter() - began
files.sync(made)
synced = time.perf_counter() - began
print(seconds, synced, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def arguments(what: str, repeat: int = 3) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--full", action="store_true", help="the sizes that the bounds name")
    parser.add_argument("--repeat", type=int, default=repeat, help="how often; the best counts")
    parser.add_argument("--folder", help="where to write; a temporary folder by default")
    return parser.parse_args()


@contextmanager
def folder(parent: str | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="notata-bench-", dir=parent) as name:
        yield Path(name)


def joined(run: Path, target: str) -> tuple[float, float, int]:
    """Seconds to join one output in a process of its own, and until it is on disk; megabytes."""
    made = run / "joined.tmp"
    made.unlink(missing_ok=True)
    command = [sys.executable, "-c", JOIN, str(run), target]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, synced, megabytes = done.stdout.split()
    return float(seconds), float(synced), int(megabytes)


def timed(command: Sequence[str], cwd: Path, **env: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, cwd=cwd, env=os.environ | env)
    return time.perf_counter() - began


def best(count: int, *what: Callable[[], Any]) -> list[Any]:
    """The best outcome of each, taken by turns, so that a noisy minute meets all of them.

    Of outcomes that have several numbers, the best of each number.
    """
    rounds = []
    for _ in range(count):
        outcomes = []
        for one in what:
            os.sync()
            outcomes.append(one())
        rounds.append(outcomes)
    return [_least(outcomes) for outcomes in zip(*rounds, strict=True)]


def _least(outcomes: Sequence[Any]) -> Any:
    if isinstance(outcomes[0], tuple):
        return tuple(map(min, zip(*outcomes, strict=True)))
    return min(outcomes)


def report(name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table, and keep it as JSON beside the program."""
    texts = [[*header], *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    found = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "rows": [dict(zip(header, row, strict=True)) for row in rows],
    }
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


__all__ = ["PEER", "ROOT", "arguments", "best", "folder", "joined", "report", "timed"]
