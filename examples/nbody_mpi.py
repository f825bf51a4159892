"""Particles that move between ranks: pieces whose length changes from one snapshot to the next.

Bodies swing in the field of a heavy, softened centre. Space is cut into vertical strips, a rank
each, and a body belongs to the rank in whose strip it is: those that leave are handed over after
each step. A snapshot is whatever a rank holds at that time; `join="concat"` puts the pieces one
below the other, and the column of identities tells who is who in the merged array.

    mpiexec -n 4 python examples/nbody_mpi.py
    notata merge outputs/log_nbody

It runs alone too, and its bodies end up in the same places to the last bit.
"""

import argparse

import numpy as np
from mpi4py import MPI

from notata import Logbook

BODY = np.dtype([("id", "i8"), ("x", "f8", 2), ("v", "f8", 2)])
WIDTH = 2.0  # strips divide -WIDTH < x < WIDTH; the outer two reach beyond


def disc(count, seed=7):
    """Bodies in a disc, almost on circles around the centre; the same on every rank."""
    random = np.random.default_rng(seed)
    bodies = np.empty(count, BODY)
    bodies["id"] = np.arange(count)
    radius, angle = np.sqrt(random.uniform(0.2, 1.0, count)), random.uniform(0, 2 * np.pi, count)
    bodies["x"] = (radius * [np.cos(angle), np.sin(angle)]).T
    around = np.column_stack([-bodies["x"][:, 1], bodies["x"][:, 0]])
    bodies["v"] = around * random.uniform(0.8, 1.2, (count, 1))
    return bodies


def pull(x):
    return -x / (np.sum(x**2, axis=1, keepdims=True) + 0.05) ** 1.5


def strip_of(bodies, size):
    place = (bodies["x"][:, 0] + WIDTH) / (2 * WIDTH) * size
    return np.clip(place.astype(int), 0, size - 1)


def hand_over(bodies, comm):
    """Send each body to the rank whose strip it is in; give back those that are here now."""
    home = strip_of(bodies, comm.size)
    order = np.argsort(home, kind="stable")
    sent = np.bincount(home, minlength=comm.size)
    received = np.empty_like(sent)
    comm.Alltoall(sent, received)
    here = np.empty(received.sum(), BODY)
    size = BODY.itemsize
    comm.Alltoallv(
        [bodies[order].view(np.uint8), sent * size, MPI.BYTE],
        [here.view(np.uint8), received * size, MPI.BYTE],
    )
    return here


def main():
    parser = argparse.ArgumentParser(description="Bodies around a centre, on strips of space.")
    parser.add_argument("--bodies", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=50, help="steps between snapshots")
    parser.add_argument("--out", default="outputs", help="folder of the runs (default: outputs)")
    parser.add_argument("--overwrite", action="store_true", help="replace the run if it exists")
    options = parser.parse_args()

    comm, dt = MPI.COMM_WORLD, 0.01
    params = {"bodies": options.bodies, "steps": options.steps, "dt": dt}
    with Logbook("nbody", options.out, params, overwrite=options.overwrite, comm=comm) as log:
        bodies = disc(options.bodies)
        bodies = bodies[strip_of(bodies, comm.size) == comm.rank]
        for step in range(options.steps + 1):
            if step % options.every == 0:
                log.array(f"bodies/step_{step:05d}", bodies, join="concat")
                log.info(f"step {step}: {len(bodies)} bodies here")
            half = bodies["v"] + 0.5 * dt * pull(bodies["x"])
            bodies["x"] += dt * half
            bodies["v"] = half + 0.5 * dt * pull(bodies["x"])
            bodies = hand_over(bodies, comm)
        left = comm.reduce(len(bodies))
        log.root.json("metrics", {"bodies_left": left})
    if comm.rank == 0:
        print(f"{left} bodies on {comm.size} ranks. Run: {log.path}")


if __name__ == "__main__":
    main()
