"""A sweep of which each point is done by all ranks; then one of which each rank has its own points.

sweeping.py OUT
"""

import sys

import numpy as np
from mpi4py import MPI
from tell import tell

from notata import Experiment

WORLD = MPI.COMM_WORLD


def together(out):
    """All ranks open each point's run together, in an order on which rank 0 decides."""
    done = []
    for log in Experiment("together", out).sweep({"k": range(4)}):
        with log:
            log.array("x", np.full(2, log.params["k"]))
            log.root.json("metrics", {"m": log.params["k"]})
        done.append([log.params["k"], log.size])
    return done


def again(out):
    """Nothing is left of it, for any rank; a failed point is done again by all."""
    exp = Experiment("together", out)
    left = [log.run_id for log in exp.sweep({"k": range(4)})]
    with exp.add(k=9) as log:
        log.mark_failed("diverged")
    WORLD.Barrier()
    retried = []
    for log in exp.sweep({"k": [1, 9]}, retry="failed"):
        with log:
            retried.append(log.params["k"])
    return left + retried


def each_alone(out):
    """comm=None: each rank claims points for itself."""
    exp = Experiment("alone", out, comm=None)
    WORLD.Barrier()
    done = []
    for log in exp.sweep({"k": range(12)}, comm=None):
        with log:
            log.json("metrics", {"m": log.params["k"]})
        done.append(log.params["k"])
    return done


for play in (together, again, each_alone):
    tell(**{play.__name__: play(sys.argv[1])})
