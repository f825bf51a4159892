"""A run that meets a fate: it ends in the way that its argument names, mostly without a word."""

from __future__ import annotations

import os
import signal
import sys
import time

from notata import Experiment


def main(base: str, fate: str) -> None:
    log = Experiment("fates", base).add(fate=fate)
    log.info(f"restart {os.environ.get('SLURM_RESTART_COUNT', '0')}")
    log.json("metrics", {"length": len(fate)})
    if fate == "exit":
        os._exit(1)
    if fate == "silent":
        os._exit(0)
    if fate == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "raises":
        with log:
            raise ValueError("diverged at step 7")
    if fate == "well" or "SLURM_RESTART_COUNT" in os.environ:
        log.mark_complete()
        return
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
