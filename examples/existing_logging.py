"""A program that logs with the standard library and reads its options with argparse.

It is a Metropolis simulation of the Ising model as somebody may have written it years ago. An
import, the option --out and three lines, marked below, make a run of it: its options are the
parameters, what it logged so far goes to the run as well as to the terminal, and its result is
kept.

    python examples/existing_logging.py --temperature 2.0
"""

import argparse
import logging

import numpy as np

from notata import Logbook

logger = logging.getLogger("ising")


def sweep(spins, temperature, random):
    """Offer every spin one flip, those of the two colours of a chessboard in turn."""
    colour = np.indices(spins.shape).sum(axis=0) % 2
    for now in (0, 1):
        around = sum(np.roll(spins, step, axis) for step in (1, -1) for axis in (0, 1))
        accept = random.random(spins.shape) < np.exp(-2 * spins * around / temperature)
        spins[accept & (colour == now)] *= -1


def simulate(size, temperature, sweeps, seed):
    random = np.random.default_rng(seed)
    spins = np.ones((size, size), dtype=np.int8)
    magnetisation = np.empty(sweeps)
    for step in range(sweeps):
        sweep(spins, temperature, random)
        magnetisation[step] = spins.mean()
        if (step + 1) % 100 == 0:
            logger.info("sweep %d: magnetisation %+.3f", step + 1, magnetisation[step])
    if temperature > 2.269:
        logger.warning("above the critical temperature: no order will last")
    return magnetisation


def main():
    parser = argparse.ArgumentParser(description="The Ising model on a square lattice.")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=2.0)
    parser.add_argument("--sweeps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="outputs", help="folder of the runs (default: outputs)")
    options = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    # 1: a run, with its name, its place and its parameters
    with Logbook(f"ising_T{options['temperature']:g}", options.pop("out"), params=options) as log:
        logging.getLogger().addHandler(log.handler())  # 2: what is logged goes there too
        magnetisation = simulate(**options)
        log.array("magnetisation", magnetisation)  # 3: the result
    half = magnetisation[len(magnetisation) // 2 :]
    print(f"Mean magnetisation {half.mean():+.3f}. Run: {log.path}")


if __name__ == "__main__":
    main()
