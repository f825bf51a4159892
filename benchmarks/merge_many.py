"""Merging a run of very many ranks, by one process, several, and a second time: memory of each.

With --full, 4,096 ranks with 12 GB of arrays and 5 GB of logs, which need 40 GB of disk; else 256
ranks with a sixteenth of it. Bound: 300 MB for each process, and no more than 1,024 files open.
"""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import arguments, folder, report

from notata import Logbook, layout

SMALL = 20  # arrays of a few numbers
LOG = 1_200_000  # bytes of each rank's log
FILES = 1024  # that may be open
_RANK = b"[rank 9999999]"


def messages(number: int) -> bytes:
    """The lines of a log, as one rank in 64 writes them."""
    chance = random.Random(number)
    micros, lines, size = number, [], 0
    while size < LOG:
        micros += chance.randrange(1, 400_000)
        seconds, fraction = divmod(micros, 1_000_000)
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        text = f"step={len(lines)} residual={chance.random():.{chance.randrange(4, 14)}f}\n"
        lines.append(f"[2100-01-01T{clock}.{fraction:06d}] INFO {_RANK.decode()} {text}")
        size += len(lines[-1])
    return "".join(lines).encode()


def write(base: Path, ranks: int) -> Path:
    """A run with arrays of several kinds, a bundle, JSON and logs."""
    texts = [messages(number) for number in range(64)]
    across = 1 << ((ranks.bit_length() - 1) // 2)
    rows, block = np.random.default_rng(0).random((192, 1024)), np.ones((352, 352))
    for rank in range(ranks):
        os.environ |= {"NOTATA_RANK": str(rank), "NOTATA_SIZE": str(ranks)}
        with Logbook("many", base) as log:
            i, j = divmod(rank, ranks // across)
            log.array("rows", rows, start=(192 * rank, 0), shape=(192 * ranks, 1024))
            shape = (352 * across, 352 * (ranks // across))
            log.array("blocks", block, start=(352 * i, 352 * j), shape=shape)
            column = np.asfortranarray(rows[:32].T)
            log.array("columns", column, start=(0, 32 * rank), shape=(1024, 32 * ranks))
            for number in range(SMALL):
                log.array(f"small/{number}", np.full(16, rank + number))
            log.arrays("bundle", u=rows[:32], v=[rank])
            log.json("metrics", {"solve": 1.0 + rank % 7, "wait": rank / ranks})
            log.text("notes", f"of {rank}")
        # Behind what is said of the run: time steps back in no log. What a rank noted of its log
        # at its end is as before; this was appended after.
        path = Path(log.path, layout.rank_dir(rank) if rank else "", layout.LOG)
        with path.open("ab") as file:
            file.write(texts[rank % 64].replace(_RANK, b"[rank %d]" % rank))
    return Path(base, "log_many")


def measured(*command: str) -> tuple[float, list[int], int]:
    """Seconds, the megabytes of each process at its largest, and the most files that one had."""
    environ = {k: v for k, v in os.environ.items() if k not in ("NOTATA_RANK", "NOTATA_SIZE")}
    began = time.perf_counter()
    limit = (FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        env=environ,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limit),
    )
    most: dict[int, int] = {}
    opened = 0
    while process.poll() is None:
        for pid in _tree(process.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                opened = max(opened, len(os.listdir(f"/proc/{pid}/fd")))
            except OSError:  # it has ended
                continue
            for line in status.splitlines():
                if line.startswith("VmHWM"):
                    most[pid] = int(line.split()[1]) // 1024
        time.sleep(0.05)
    if process.returncode != 0:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return time.perf_counter() - began, sorted(most.values()), opened


def _tree(pid: int) -> list[int]:
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [one for child in path.read_text().split() for one in _tree(int(child))]
        except OSError:
            continue
    return found


def main() -> None:
    args = arguments(__doc__ or "", repeat=1)
    ranks = 4096 if args.full else 256
    rows = []
    with folder(args.folder) as base:
        run = os.fspath(write(base, ranks))
        merge = [sys.executable, "-m", "notata", "merge", "--quiet"]
        for what, options in (
            ("plan", ["--dry-run"]),
            ("one process", []),
            ("again", []),
            ("verify", ["--verify"]),
            ("prune", ["--prune"]),
        ):
            seconds, memory, opened = measured(*merge, *options, run)
            rows.append([ranks, what, f"{seconds:.1f}", memory[-1], sum(memory), opened])
    header = ["ranks", "what", "seconds", "memory MB", "in sum", "files open"]
    report("merge_many", header, rows)


if __name__ == "__main__":
    main()
