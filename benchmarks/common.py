"""What the benchmarks share: runs to merge, a yardstick beside them, and a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".venv/peers/notata-0.3.0"

PEERS = Path(os.environ.get("NOTATA_BENCH_PEERS", ROOT / ".venv/peers"))  # a folder for each peer
PICTURES = ROOT / "docs" / "pictures"

JOIN = """
import os, resource, sys, time
from notata import files
from notata.merging.crew import crew
from notata.merging.joining import join
from notata.merging.plan import make_plan
run, target, jobs = sys.argv[1:]
(output,) = [out for out in make_plan(run).outputs if out.file == target]
made = os.path.join(run, "joined.tmp")
began = time.perf_counter()
with crew(int(jobs)) as workers:
    join(run, [(output, made)], workers.executor, lambda count: None)
    seconds = time.perf_counter() - began
files.sync(made)
synced = time.perf_counter() - began
# Not that of getrusage(), which begins with what this one's parent had.
with open("/proc/self/status") as status:
    memory = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
if workers.executor:
    memory += workers.size * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(seconds, synced, memory // 1024)
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


def joined(run: Path, target: str, jobs: int = 1) -> tuple[float, float, int]:
    """Seconds to join one output in a process of its own, and until it is on disk; megabytes.

    With several jobs that process starts as many others, and the seconds are until they are done.
    """
    made = run / "joined.tmp"
    made.unlink(missing_ok=True)
    command = [sys.executable, "-c", JOIN, str(run), target, str(jobs)]
    # Whoever made the run was each of its ranks in turn; the join is none of them.
    environ = {k: v for k, v in os.environ.items() if k not in ("NOTATA_RANK", "NOTATA_SIZE")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    seconds, synced, megabytes = done.stdout.split()
    return float(seconds), float(synced), int(megabytes)


def peer(name: str, requirement: str) -> tuple[Path, str] | str:
    """A library in a folder of its own, installed if need be, and its version; or why not."""
    home = PEERS / name
    if not list(home.glob("*.dist-info")):
        print(f"installing {requirement} in {home}", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        done = subprocess.run([*pip, "--target", str(home), requirement], capture_output=True)
        if done.returncode:
            shutil.rmtree(home, ignore_errors=True)
            return f"pip install {requirement} failed"
    (told,) = home.glob(f"{name}-*.dist-info")
    return home, told.name.removesuffix(".dist-info").rpartition("-")[2]


def cpu_seconds(who: int = resource.RUSAGE_CHILDREN) -> float:
    """Seconds of work, user and system, of this process or of its children that have ended."""
    told = resource.getrusage(who)
    return told.ru_utime + told.ru_stime


def picture(name: str, draw: Callable[[Any], None], size: tuple[float, float] = (6, 3.2)) -> None:
    """Draw into one set of axes, and keep the picture with the documentation."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "notata", "font.size": 9, "axes.spines.top": False}
    mpl.rcParams |= {"axes.spines.right": False, "lines.linewidth": 1.2, "lines.markersize": 4}
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=size, layout="constrained")
    draw(axes)
    figure.savefig(PICTURES / f"bench-{name}.svg", metadata={"Date": None})
    plt.close(figure)


def timed(command: Sequence[str], cwd: Path, **env: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, cwd=cwd, env=os.environ | env)
    return time.perf_counter() - began


def best(count: int, *what: Callable[[], Any], rested: bool = False) -> list[Any]:
    """The best outcome of each, taken by turns, so that a noisy minute meets all of them.

    Every second round goes backwards: who comes second may find memory that the first one has just
    fetched from the host. Of outcomes that have several numbers, the best of each number. With
    `rested`, each turn waits until it is not slowed by what earlier ones left behind.
    """
    rounds = []
    for number in range(count):
        outcomes: dict[int, Any] = {}
        for place in range(len(what))[:: -1 if number % 2 else 1]:
            rest() if rested else os.sync()
            outcomes[place] = what[place]()
        rounds.append([outcomes[place] for place in range(len(what))])
    return [_least(outcomes) for outcomes in zip(*rounds, strict=True)]


REST = 65.0  # seconds


def rest(seconds: float = REST) -> None:
    """Wait until the file system has got over files that were deleted or replaced.

    ext4 gives the number of a deleted file to no new one for a minute, and looks at all such
    numbers, one by one, whenever it makes a file: after some thousand it takes ten times as long.
    """
    os.sync()
    time.sleep(seconds)


def _least(outcomes: Sequence[Any]) -> Any:
    if isinstance(outcomes[0], tuple):
        return tuple(map(min, zip(*outcomes, strict=True)))
    return min(outcomes)


def report(
    name: str, header: Sequence[str], rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()
) -> None:
    """Print a table and what is to be said of it, and keep them as JSON beside the program."""
    texts = [[*header], *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    for note in notes:
        print(note)
    found = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "load": round(os.getloadavg()[0], 1),
        "notes": list(notes),
        "rows": [dict(zip(header, row, strict=True)) for row in rows],
    }
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


__all__ = [
    *(
        "PEER",
        "PEERS",
        "REST",
        "ROOT",
        "arguments",
        "best",
        "cpu_seconds",
        "folder",
        "joined",
        "peer",
    ),
    *("peer", "picture", "report", "rest", "timed"),
]
