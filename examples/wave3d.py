"""A wave in a box on a 3-D grid of ranks, which goes on after a requeue, on any number of ranks.

Each rank holds a block of the grid with one layer of its neighbours' cells around it, and every few
steps writes its block as a piece. A run that is not at its end when it is called again goes on from
its newest whole snapshot: each rank reads its own block of it with `region`, from whatever pieces
the earlier ranks left, so that the number of ranks may be another one.

    mpiexec -n 4 python examples/wave3d.py --stop-after 20    (as if the job's time was over)
    mpiexec -n 2 python examples/wave3d.py                    (goes on from step 20)
    notata merge outputs/log_wave3d_2
    notata plot outputs/log_wave3d_2 u_0040

The end is the same to the last bit, however often and on however many ranks it was continued. A
number of ranks belongs to a run, so that each continuation is a run of its own, and says from which
it goes on.
"""

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from notata import Logbook, LogReader
from notata.errors import NotataError

SPEED = 0.5  # cells a step; below 1 / sqrt(3), so that it is stable


class Blocks:
    """A grid of cells, cut into a block for each rank."""

    def __init__(self, comm, shape):
        self.shape = shape
        self.comm = comm.Create_cart(MPI.Compute_dims(comm.size, 3), periods=[True] * 3)
        cuts = [
            (n * c // d, n * (c + 1) // d)
            for n, c, d in zip(shape, self.comm.coords, self.comm.dims, strict=True)
        ]
        self.start = tuple(low for low, _ in cuts)
        self.region = tuple(slice(low, high) for low, high in cuts)
        self.padded = tuple(high - low + 2 for low, high in cuts)

    def exchange(self, field):
        """Fill the outer layer with the neighbours' cells, around the box's ends too."""
        for axis in range(3):
            below, above = self.comm.Shift(axis, 1)
            layers = np.moveaxis(field, axis, 0)
            for leaving, entering, to, from_ in ((-2, 0, above, below), (1, -1, below, above)):
                got = np.empty_like(layers[entering], order="C")
                self.comm.Sendrecv(np.ascontiguousarray(layers[leaving]), to, 0, got, from_, 0)
                layers[entering] = got


def pulse(blocks):
    """A smooth bump in the middle, at rest."""
    axes = [np.arange(n)[part] - n / 2 for n, part in zip(blocks.shape, blocks.region, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    field = np.zeros(blocks.padded)
    field[1:-1, 1:-1, 1:-1] = np.exp(-(x**2 + y**2 + z**2) / 8.0)
    return field


def advance(before, now):
    """One step of the leapfrog method, of the inner cells."""
    inner = now[1:-1, 1:-1, 1:-1]
    around = (
        (now[:-2, 1:-1, 1:-1] + now[2:, 1:-1, 1:-1])
        + (now[1:-1, :-2, 1:-1] + now[1:-1, 2:, 1:-1])
        + (now[1:-1, 1:-1, :-2] + now[1:-1, 1:-1, 2:])
    )
    after = np.zeros_like(now)
    after[1:-1, 1:-1, 1:-1] = 2 * inner - before[1:-1, 1:-1, 1:-1] + SPEED**2 * (around - 6 * inner)
    return after


def name_of(number):
    return "wave3d" if number == 0 else f"wave3d_{number + 1}"


def earlier(out):
    """How many runs of this program are there: the first is free."""
    number = 0
    while (Path(out) / f"log_{name_of(number)}").exists():
        number += 1
    return number


def newest(runs, blocks):
    """This rank's blocks of the newest whole snapshot, its step, and the run that has it."""
    for run in reversed(runs):
        steps = sorted({int(name[-4:]) for name in run.arrays if name[0] == "u"}, reverse=True)
        for step in steps:
            try:
                pair = []
                for name in (f"before_{step:04d}", f"u_{step:04d}"):
                    field = np.zeros(blocks.padded)
                    field[1:-1, 1:-1, 1:-1] = run.load_array(name, region=blocks.region)
                    pair.append(field)
                whole = True
            except NotataError:  # a rank was killed before it wrote its piece
                whole = False
            if blocks.comm.allreduce(whole, op=MPI.LAND):
                return *pair, step, run.run_id
    field = pulse(blocks)
    return field, field.copy(), 0, None


def main():
    parser = argparse.ArgumentParser(description="A wave in a box, on a 3-D grid of ranks.")
    parser.add_argument("--out", default="outputs", help="folder of the runs (default: outputs)")
    parser.add_argument("--cells", type=int, default=32, help="along each axis (default: 32)")
    parser.add_argument("--steps", type=int, default=40, help="steps in all (default: 40)")
    parser.add_argument("--every", type=int, default=10, help="steps between two snapshots")
    parser.add_argument("--stop-after", type=int, default=0, help="end after so many steps")
    options = parser.parse_args()

    blocks = Blocks(MPI.COMM_WORLD, (options.cells, options.cells + 4, options.cells - 3))
    count = blocks.comm.bcast(earlier(options.out) if blocks.comm.rank == 0 else None)
    runs = [LogReader(Path(options.out) / f"log_{name_of(number)}") for number in range(count)]
    before, now, first, origin = newest(runs, blocks)
    params = {
        "cells": options.cells,
        "steps": options.steps,
        "from_run": origin,
        "from_step": first,
    }
    last = min(options.steps, first + (options.stop_after or options.steps))
    with Logbook(name_of(count), base_dir=options.out, params=params) as log:
        place = {"start": blocks.start, "shape": blocks.shape, "halo": 1}
        for step in range(first + 1, last + 1):
            blocks.exchange(now)
            before, now = now, advance(before, now)
            if step % options.every == 0 or step == last:
                log.array(f"before_{step:04d}", before, **place)
                log.array(f"u_{step:04d}", now, **place)
                log.info(f"step {step}")
        energy = blocks.comm.allreduce(float(np.sum(now[1:-1, 1:-1, 1:-1] ** 2)))
        log.root.json("metrics", {"step": last, "square": energy})
    if blocks.comm.rank == 0:
        print(f"{log.path}: steps {first + 1} to {last} on {blocks.comm.size} ranks")


if __name__ == "__main__":
    main()
