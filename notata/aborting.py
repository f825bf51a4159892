"""How a job of several ranks ends when some of them never come."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from notata import exits

_PASSING_ON = 0.3  # seconds for launchers to pass on what was printed, which an abort may drop
_LAST_LOOK = 0.5  # seconds that MPI has at exit for what has arrived meanwhile


def end_job(comm: Any, why: str) -> None:
    """End all ranks of a communicator at once, by `MPI_Abort`: it does not return.

    MPI libraries end the whole job, also where the communicator has a part of its ranks. Without a
    communicator this process ends, with status 1; most launchers then end the others.

    Args:
        comm: The communicator, or None.
        why: What to say on standard error.

    Ranks: independent; the last call of all ranks.
    """
    print(f"notata: {why}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, full, or replaced by the program
            stream.flush()
    time.sleep(_PASSING_ON)
    if comm is not None:
        mpi = sys.modules["mpi4py.MPI"]
        if mpi.Is_thread_main() or mpi.Query_thread() == mpi.THREAD_MULTIPLE:
            comm.Abort(1)
    os._exit(1)


# What MPI may still write to: requests with their buffers; the communicator whose ranks may be
# ended for their sake; and the time before which they may not.
_abandoned: list[tuple[Any, Sequence[Any], Any, float]] = []


def abandon(comm: Any, requests: Sequence[Any], buffers: Any, spare: float = 0.0) -> None:
    """Wait no more for requests that may never complete, until the interpreter exits.

    Args:
        comm: The communicator whose ranks may be ended for that; None if they may not.
        requests: The requests.
        buffers: What they read and write, which has to stay as long as they are pending.
        spare: Seconds from now before which no rank is ended.

    Ranks: independent.
    """
    exits.add(_abort_if_stuck, _abort_if_stuck, last=True)
    _abandoned.append((comm, requests, buffers, time.monotonic() + spare))


def _abort_if_stuck() -> None:
    """End the job when ranks are still missing as the interpreter exits.

    MPI can't be finalised with an operation that never completes, so the exit would hang for as
    long as the allocation lasts. Registered only once a rank was waited for in vain.
    """
    mpi = sys.modules["mpi4py.MPI"]
    told = "some ranks never came to open or close a run that this one waited for"
    for comm, requests, buffers, spared in _abandoned:
        if mpi.Is_finalized() or _complete(requests, spared if comm is not None else 0.0):
            continue
        if comm is not None:
            end_job(comm, f"{told}; ending the job, since MPI could not be finalised")
        print(f"notata: {told}, so that MPI may not be finalised", file=sys.stderr, flush=True)
        _keep_for_ever(buffers)


def _complete(requests: Sequence[Any], spared: float) -> bool:
    """Whether requests are complete, once MPI had the time for what has arrived meanwhile."""
    deadline = max(spared, time.monotonic() + _LAST_LOOK)
    done = False
    with suppress(BaseException):  # of a signal: who is tired of waiting wants the job to end
        while not (done := bool(sys.modules["mpi4py.MPI"].Request.Testall(requests))):
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
    return done


def _keep_for_ever(buffers: Any) -> None:
    """Keep memory beyond the interpreter's end: MPI writes to it while it is finalised."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(buffers))
