"""What a log line costs inside the time step, beside notata 0.3.0, `logging` and a bare write.

Usage: python benchmarks/log_lines.py [--repeat 7] [--full] [--folder DIR]

Each contestant writes the same text in a process of its own, 2,000 lines at a time; all take their
turns, and the best 2,000 of each count, which other work on the machine disturbs least. notata
0.3.0 is looked for in .venv/peers, where `make test` puts it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from common import arguments, best, folder, report

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".venv/peers/notata-0.3.0"

LOOP = """
import sys, time
sys.path.insert(0, sys.argv[1])
lines = int(sys.argv[2])
{setup}
def loop(first, last):
    residual = 3.2e-6
    for step in range(first, last):
        {line}
costs = []
for first in range(0, lines, 2000):
    began = time.perf_counter()
    loop(first, first + 2000)
    costs.append((time.perf_counter() - began) / 2000 * 1e6)
print(min(costs))
{check}
"""
TEXT = 'f"step={step} residual={residual:.2e}"'
OPEN = "from notata import Logbook\nlog = Logbook('x'); log.__enter__()"
COUNT = "assert sum(1 for _ in open(log.log_path)) >= lines"
BARE = "[2026-11-25T10:00:00] INFO step=1234 residual=3.20e-06\\n"

NOTATA = "notata, log.info"
CONTESTANTS = {
    NOTATA: (ROOT, OPEN, f"log.info({TEXT})", COUNT),
    "the same on a rank": (
        ROOT,
        "from notata.logwriter import LogWriter\nfrom notata.messages import INFO\n"
        "log = LogWriter('rank.txt', 3)",
        f"log.write(INFO, {TEXT})",
        "",
    ),
    "notata 0.3.0, log.info": (PEER, OPEN, f"log.info({TEXT})", COUNT),
    "logging.FileHandler": (
        ROOT,
        "import logging\nlog = logging.Logger('x', logging.INFO)\n"
        "handler = logging.FileHandler('x.txt')\n"
        "handler.setFormatter(logging.Formatter('[%(asctime)s] %(levelname)s %(message)s'))\n"
        "log.addHandler(handler)",
        f"log.info({TEXT})",
        "",
    ),
    "os.write of a ready line": (
        ROOT,
        "import os\nfd = os.open('bare.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        f"data = '{BARE}'.encode()",
        "os.write(fd, data)",
        "",
    ),
    "notata, log.debug below the level": (ROOT, OPEN, f"log.debug({TEXT})", ""),
    "an empty method": (
        ROOT,
        "class Empty:\n    def debug(self, msg): pass\nlog = Empty()",
        f"log.debug({TEXT})",
        "",
    ),
}


def cost(name: str, parent: Path, lines: int) -> float:
    """Microseconds a line."""
    library, setup, line, check = CONTESTANTS[name]
    with folder(str(parent)) as here:
        code = LOOP.format(setup=setup, line=line, check=check)
        command = [sys.executable, "-c", code, str(library), str(lines)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=here)
    return float(done.stdout.split()[-1])


def main() -> None:
    given = arguments(__doc__.splitlines()[0], repeat=7)
    lines = 1_000_000 if given.full else 100_000
    with folder(given.folder) as parent:
        told = best(given.repeat, *[lambda n=name: cost(n, parent, lines) for name in CONTESTANTS])
    costs = dict(zip(CONTESTANTS, told, strict=True))
    rows = [[name, f"{us:.2f}", f"{us / costs[NOTATA]:.2f}"] for name, us in costs.items()]
    report("log_lines", ["what", "µs a line", "in terms of log.info"], rows)
    bare, debug = costs["os.write of a ready line"], costs["notata, log.debug below the level"]
    print(f"log.info costs {costs[NOTATA] / bare:.2f} times the bare write")
    print(f"log.debug costs {debug - costs['an empty method']:.3f} µs more than an empty method")


if __name__ == "__main__":
    main()
