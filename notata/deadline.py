"""How long may this process still run: the scheduler's time limit."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping

from notata.errors import SettingError

# Seconds since the epoch. PBS, LSF, Flux and Slurm 22.05 don't tell a job when it ends; a batch
# script can:
# export NOTATA_END_TIME=$(($(date +%s) + 3600)). Where both are set, the program's own counts.
_VARIABLES = ("NOTATA_END_TIME", "SLURM_JOB_END_TIME")


def end_time(environ: Mapping[str, str] | None = None) -> float | None:
    """When the job's time is up, in seconds since the epoch, or None where nobody says.

    Raises:
        SettingError: If `NOTATA_END_TIME` is not a number of seconds.

    Example:
        >>> end_time({"SLURM_JOB_END_TIME": "1795651200"})
        1795651200.0

    Ranks: independent.
    """
    told = os.environ if environ is None else environ
    for name in _VARIABLES:
        text = told.get(name)
        if not text:
            continue
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if math.isfinite(seconds):
            return seconds
        if name == _VARIABLES[0]:
            raise SettingError(f"{name}={text!r} is not a number of seconds since 1970")
    return None


def seconds_left() -> float:
    """Seconds until the job's time is up: below 0 once it is, infinite where nobody says.

    Raises:
        SettingError: If `NOTATA_END_TIME` is not a number of seconds.

    Ranks: independent.
    """
    end = end_time()
    return math.inf if end is None else end - time.time()
