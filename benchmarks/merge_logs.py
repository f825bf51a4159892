"""Joining logs, beside `LC_ALL=C sort -m` over the same files.

Bounds: at least twice the speed of `sort -m`, with the same lines out, and less than 300 MB of
memory whatever the size. `sort -m` has one thread. One process of ours has two; with `--jobs` there
are as many processes as the machine has processors, and starting them counts.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

from common import arguments, best, folder, joined, report, timed

from notata import Logbook, layout


def write(base: Path, ranks: int, size: int) -> Path:
    """A run whose ranks wrote so many bytes of messages, all of them at the same time."""
    chance = random.Random(3)
    for rank in (0, 1):
        os.environ |= {"NOTATA_RANK": str(rank), "NOTATA_SIZE": str(ranks)}
        with Logbook("bench", base) as log:
            log.info("x")
    run = base / "log_bench"
    for rank in range(ranks):
        path = run / (f"{layout.rank_dir(rank)}/log.txt" if rank else "log.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        written, micros, step, lines = 0, rank, 0, []
        while written < size // ranks:
            micros += chance.randrange(1, 20_000)
            seconds, fraction = divmod(micros, 1_000_000)
            clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
            text = f"step={step} residual={chance.random():.{chance.randrange(4, 14)}f}"
            lines.append(f"[2026-11-23T{clock}.{fraction:06d}] INFO [rank {rank}] {text}\n")
            written, step = written + len(lines[-1]), step + 1
        path.write_text("".join(lines))
    record = run / layout.rank_dir(1) / layout.RANK_RECORD  # which knows of another log
    told = json.loads(record.read_text())
    record.write_text(json.dumps(told | {"files": {}, "checksum": None}))
    meta = json.loads((run / layout.METADATA).read_text())  # and so do these
    meta["parallel"] |= {"files": {}, "checksum": None}
    (run / layout.METADATA).write_text(json.dumps(meta))
    return run


def outcome(run: Path, jobs: int) -> tuple[float, float, int]:
    """Join the log; whoever does it, and however often, it holds the same bytes."""
    told = joined(run, "log.txt", jobs)
    made, first = run / "joined.tmp", run / "first.tmp"
    if first.exists():
        timed(["cmp", made.name, first.name], run)
    else:
        made.rename(first)
    return told


# The lines of `sort -m`, which orders those of one stamp by their text, in the order of stamps.
CHECK = """
sort -c -s -k 1,1 first.tmp && sort first.tmp > a.tmp && sort sorted.tmp > b.tmp && cmp a.tmp b.tmp
"""


def main() -> None:
    args = arguments(__doc__ or "")
    size = 2_000_000_000 if args.full else 200_000_000
    several = sorted({1, len(os.sched_getaffinity(0))})
    rows = []
    for ranks in (16, 512):
        with folder(args.folder) as base:
            run = write(base, ranks, size)
            script = "sort -m -o sorted.tmp log.txt ranks/*/log.txt"

            def merged(run: Path = run, script: str = script) -> float:
                return timed(["sh", "-c", script], run, LC_ALL="C")

            sort, *joins = best(
                args.repeat,
                merged,
                *(lambda run=run, jobs=jobs: outcome(run, jobs) for jobs in several),
            )
            timed(["sh", "-c", CHECK], run, LC_ALL="C")
            for jobs, (seconds, _, memory) in zip(several, joins, strict=True):
                told = [f"{size / 1e6 / t:.0f}" for t in (seconds, sort)]
                sizes = [ranks, f"{size / 1e6:.0f}", jobs]
                rows.append([*sizes, *told, f"{sort / seconds:.2f}", memory])
    columns = ["ranks", "MB", "jobs", "join MB/s", "sort -m MB/s", "ratio", "memory MB"]
    report("merge_logs", columns, rows)


if __name__ == "__main__":
    main()
