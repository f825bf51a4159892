"""A run whose life is kept by hand: heat spreads on a square plate.

Without a `with` block the program says itself how the run ended: here a scheme that blows up is no
exception, but the run has failed all the same, and its metadata say why.

    python examples/heat2d.py
    python examples/heat2d.py --out unstable --r 0.3
"""

import argparse

import numpy as np

from notata import Logbook


def main():
    parser = argparse.ArgumentParser(description="Heat on a plate, a Logbook by hand.")
    parser.add_argument("--out", default="outputs", help="folder of the runs (default: outputs)")
    parser.add_argument("--overwrite", action="store_true", help="replace the run if it exists")
    parser.add_argument("--r", type=float, default=0.2, help="kappa dt/dx2, stable up to 0.25")
    options = parser.parse_args()

    log = Logbook("heat2d", base_dir=options.out, overwrite=options.overwrite)
    nx = ny = 64
    kappa, dx, steps = 0.01, 1.0, 500
    log.params(nx=nx, ny=ny, kappa=kappa, dx=dx, dt=options.r * dx**2 / kappa, steps=steps)

    x, y = np.meshgrid(np.linspace(-1, 1, nx), np.linspace(-1, 1, ny), indexing="ij")
    temperature = np.exp(-6 * (x**2 + y**2))
    hottest = temperature.max()
    for step in range(1, steps + 1):
        # Each edge touches the one across: what leaves on one side comes in on the other.
        around = sum(np.roll(temperature, way, axis) for axis in (0, 1) for way in (1, -1))
        temperature += options.r * (around - 4 * temperature)
        if step % 100 == 0:
            log.array(f"states/T_step{step:03d}", temperature)
            log.info(f"step {step}: at most {temperature.max():.4f}")
            if temperature.max() > hottest:
                log.mark_failed(f"unstable: hotter at step {step} than it began, r={options.r}")
                print(f"Unstable. Run: {log.path}")
                return 1
    log.json("final_stats", {"max": temperature.max(), "mean": temperature.mean()})
    log.mark_complete()
    print(f"Cooled from {hottest:.3f} to {temperature.max():.3f}. Run: {log.path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
