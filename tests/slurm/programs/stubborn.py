"""A run whose process won't end when it is asked to, and writes on.

stubborn.py BASE
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from notata import Experiment


def main(base: str) -> None:
    log = Experiment("sweep", base).add(k=0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(base, "begun").touch()
    for step in range(6000):
        log.info(f"step {step}")
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
