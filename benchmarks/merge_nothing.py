"""A merge that finds nothing to do on a run of 512 ranks, beyond the start of Python.

Bound: 0.5 s.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from common import arguments, best, folder, report, timed

import notata
from notata import Logbook


def main() -> None:
    args = arguments(__doc__ or "")
    with folder(args.folder) as base:
        for rank in range(512):
            os.environ |= {"NOTATA_RANK": str(rank), "NOTATA_SIZE": "512"}
            with Logbook("bench", base) as log:
                log.array("T", np.full(8, float(rank)))
                log.info("x")
        for name in ("NOTATA_RANK", "NOTATA_SIZE"):
            del os.environ[name]
        run = base / "log_bench"
        notata.merge(run)
        again = [sys.executable, "-c", f"import notata; notata.merge({os.fspath(run)!r})"]
        start = [sys.executable, "-c", "import notata.merging, numpy"]
        cwd = Path.cwd()
        merge, empty = best(args.repeat, lambda: timed(again, cwd), lambda: timed(start, cwd))
    row = [512, f"{merge:.2f}", f"{empty:.2f}", f"{merge - empty:.2f}"]
    report("merge_nothing", ["ranks", "merge s", "start s", "beyond it s"], [row])


if __name__ == "__main__":
    main()
