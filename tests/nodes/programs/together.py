"""The command `notata merge`, with parts so small that most pages hold bytes of several of them.

together.py HOW ARGUMENT… [then ARGUMENT…]: HOW is `plain`; or `die=RANK`, whose process is killed
when some parts are done; or `wait`, with which rank 0 then says that it is ready, and waits for a
line on stdin. What comes behind `then` are the arguments of another merge, after the first.
"""

import functools
import json
import os
import signal
import sys

from mpi4py import MPI

from notata.cli import main
from notata.merging import arrays, joining, logs, slabs

PARTS = 5  # that are done before something happens

joining._LARGE, slabs.SLAB, arrays._TASK = 10_000, 5_000, 1
logs.RANGE, logs._OF_EACH, logs._SAMPLE, logs._BATCH = 5_000, 1, 1_000, 50_000


def some_calls_later(act, happens):
    """The same function, but something happens within one of its calls."""
    calls = 0

    @functools.wraps(act)
    def acting(*args):
        nonlocal calls
        calls += 1
        if calls == PARTS:
            happens(*args)
        return act(*args)

    return acting


def in_the_middle(happens):
    """Let it happen in rank 0, which hears of each part that is done."""
    carry_out = joining.carry_out
    joining.carry_out = lambda jobs, executor, progress: carry_out(
        jobs, executor, some_calls_later(progress, lambda count: happens())
    )


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def wait():
    print(json.dumps("ready"), flush=True)
    sys.stdin.readline()


how, _, rank = sys.argv[1].partition("=")
if how == "wait":
    in_the_middle(wait)
elif rank == "0" == str(MPI.COMM_WORLD.rank):
    in_the_middle(die)
elif rank == str(MPI.COMM_WORLD.rank):
    write_at = arrays.write_at

    def write_half(descriptor, at, data):
        write_at(descriptor, at, data[: len(data) // 2])
        die()

    arrays.write_at = some_calls_later(write_at, write_half)

merges = [[]]
for argument in sys.argv[2:]:
    if argument == "then":
        merges.append([])
    else:
        merges[-1].append(argument)
statuses = [main(["merge", *arguments], standalone_mode=False) for arguments in merges]
sys.exit(max(status or 0 for status in statuses))
