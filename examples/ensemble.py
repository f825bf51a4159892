"""An ensemble in one MPI job: several runs at once, each on ranks of its own.

A gene spreads along a line (Fisher's equation, du/dt = D d2u/dx2 + r u (1 - u)): a front forms and
runs at a speed near 2 sqrt(r D). Each member of the ensemble has another r. The job's ranks are
split into groups of two, and each group computes one member in a run of its own, half of the line
on each rank. Any number of ranks will do; if it is odd, the last member has one rank.

    mpiexec -n 4 python examples/ensemble.py
    notata merge outputs/ensemble/log_member_*
"""

import argparse
from pathlib import Path

import numpy as np
from mpi4py import MPI

from notata import Logbook

CELLS, DX, DT, STEPS = 401, 0.5, 0.05, 800
SPREAD = 1.0  # D


def fill_halo(u, comm):
    """Fill the ghost cell at each end from the neighbouring rank, or so that nothing flows."""
    left = comm.rank - 1 if comm.rank > 0 else MPI.PROC_NULL
    right = comm.rank + 1 if comm.rank < comm.size - 1 else MPI.PROC_NULL
    u[0], u[-1] = u[1], u[-2]  # stays so at the ends of the line, where nothing arrives
    comm.Sendrecv(u[1:2], dest=left, recvbuf=u[-1:], source=right)
    comm.Sendrecv(u[-2:-1], dest=right, recvbuf=u[:1], source=left)


def run_member(log, comm, rate):
    """Compute one member on the ranks of its communicator; return the measured speed."""
    first, last = (CELLS * rank // comm.size for rank in (comm.rank, comm.rank + 1))
    x = DX * np.arange(first, last)
    u = np.pad(np.where(x < 20, 1.0, 0.0), 1)

    def front():
        # Behind the front u is 1, before it 0: the sum says how far it has come.
        return comm.allreduce(float(u[1:-1].sum()) * DX)

    for step in range(1, STEPS + 1):
        fill_halo(u, comm)
        growth = rate * u[1:-1] * (1 - u[1:-1])
        u[1:-1] += DT * (SPREAD * np.diff(u, 2) / DX**2 + growth)
        if step == STEPS // 2:
            halfway = front()
            log.root.info(f"step {step}: front at {halfway:.2f}")
    speed = (front() - halfway) / (DT * (STEPS - STEPS // 2))
    # Pieces without a place are joined end to end, in the order of the ranks.
    log.array("x", x)
    log.array("u", u, halo=1)
    log.root.json("metrics", {"speed": speed, "theory": 2 * np.sqrt(rate * SPREAD)})
    return speed


def main():
    parser = argparse.ArgumentParser(description="Several runs in one MPI job.")
    parser.add_argument("--out", default="outputs", help="folder of the runs (default: outputs)")
    parser.add_argument("--overwrite", action="store_true", help="replace runs that exist")
    options = parser.parse_args()

    world = MPI.COMM_WORLD
    member, members = world.rank // 2, (world.size + 1) // 2
    group = world.Split(color=member, key=world.rank)
    rate = (member + 1) / members
    with Logbook(
        f"member_{member:03d}",
        base_dir=Path(options.out) / "ensemble",
        params={"rate": rate, "spread": SPREAD, "dx": DX, "dt": DT, "steps": STEPS},
        overwrite=options.overwrite,
        comm=group,
    ) as log:
        speed = run_member(log, group, rate)

    row = f"{log.path}: {log.size} rank(s), r={rate:.2f}, speed {speed:.3f}"
    rows = world.gather(row if log.is_root else None)
    if world.rank == 0:
        print("\n".join(filter(None, rows)))


if __name__ == "__main__":
    main()
