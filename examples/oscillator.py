"""One run, one process: a harmonic oscillator, stepped with velocity Verlet.

Shows what a Logbook keeps of a run (parameters, messages, a bundle of arrays, one array, a JSON
file) and that leaving the `with` block marks the run as complete, or as failed after an exception.

    python examples/oscillator.py
"""

import argparse

import numpy as np

from notata import Logbook


def verlet(omega, dt, steps):
    """Yield position and velocity after each step, from x = 1 at rest."""
    x, v = 1.0, 0.0
    for _ in range(steps):
        v_half = v - 0.5 * dt * omega**2 * x
        x += dt * v_half
        v = v_half - 0.5 * dt * omega**2 * x
        yield x, v


def main():
    parser = argparse.ArgumentParser(description="A harmonic oscillator, one run.")
    parser.add_argument("--out", default="outputs", help="folder of the runs (default: outputs)")
    parser.add_argument("--overwrite", action="store_true", help="replace the run if it exists")
    options = parser.parse_args()

    params = {"omega": 2.0, "dt": 1e-3, "steps": 10_000}
    with Logbook("oscillator", options.out, params, overwrite=options.overwrite) as log:
        x, v = np.array(list(verlet(**params))).T
        energy = 0.5 * (v**2 + (params["omega"] * x) ** 2)
        for n in range(1999, params["steps"], 2000):
            log.info(f"step {n + 1}: x={x[n]:+.4f} v={v[n]:+.4f} energy={energy[n]:.6f}")
        log.arrays("trajectory", x=x, v=v)
        log.array("energy", energy)
        log.json("final_state", {"x": x[-1], "v": v[-1], "energy": energy[-1]})
    print(f"Energy stayed within {np.ptp(energy):.1e} of 2. Run: {log.path}")


if __name__ == "__main__":
    main()
