"""A job array with `Experiment.sweep`: when does the Lorenz system become chaotic?

Each run integrates two neighbouring states for one value of rho, keeps the trajectory, and says as
metrics how fast they part (the largest Lyapunov exponent: above 0 is chaos) and how high z goes.
For rho around 20 the motion looks chaotic for long before it comes to rest: give it more --steps.
Alone it does all points; as the tasks of a job array each does the next that nobody has claimed,
and a second call does what is left or failed. Then look at the whole sweep:

    python examples/lorenz_sweep.py
    sbatch --array=0-3 --wrap "python examples/lorenz_sweep.py"
    notata ls outputs/lorenz --where 'lyapunov > 0.1' --sort rho --columns rho,lyapunov
    python examples/lorenz_sweep.py --draw
    notata plot outputs/lorenz --x rho --y lyapunov
"""

import argparse

import numpy as np

from notata import Experiment

SIGMA, BETA = 10.0, 8.0 / 3.0
DT, APART = 0.01, 1e-8


def change(state, rho):
    """The right-hand side, for any number of states side by side."""
    x, y, z = state
    return np.array([SIGMA * (y - x), x * (rho - z) - y, x * y - BETA * z])


def step(state, rho):
    """One step of the classical Runge-Kutta method."""
    k1 = change(state, rho)
    k2 = change(state + 0.5 * DT * k1, rho)
    k3 = change(state + 0.5 * DT * k2, rho)
    k4 = change(state + DT * k3, rho)
    return state + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def part(rho, steps):
    """Follow two neighbours; give the trajectory of one and the rate at which they part."""
    pair = np.array([[1.0, 1.0], [1.0, 1.0], [20.0, 20.0]])
    for _ in range(steps // 4):  # onto the attractor
        pair = step(pair, rho)
    pair[:, 1] = pair[:, 0] + APART / np.sqrt(3)
    path, growth = np.empty((steps, 3)), 0.0
    for k in range(steps):
        pair = step(pair, rho)
        path[k] = pair[:, 0]
        distance = np.linalg.norm(pair[:, 1] - pair[:, 0])
        if not np.isfinite(distance) or distance == 0.0:
            raise FloatingPointError(f"the neighbours are {distance} apart after step {k}")
        growth += np.log(distance / APART)
        pair[:, 1] = pair[:, 0] + (pair[:, 1] - pair[:, 0]) * (APART / distance)
    return path, growth / (steps * DT)


def draw(experiment):
    """Draw the sweep from the experiment's table, into the experiment's folder."""
    from matplotlib.figure import Figure

    rows = sorted(experiment.rows(), key=lambda row: row["rho"])
    rho = [row["rho"] for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0.0, color="grey", linewidth=1)
    axes.plot(rho, [row["lyapunov"] for row in rows], "o-")
    axes.set_xlabel("rho")
    axes.set_ylabel("largest Lyapunov exponent")
    picture = experiment.exp_dir / "lyapunov.png"
    figure.savefig(picture)
    return picture


def main():
    parser = argparse.ArgumentParser(description="The Lorenz system for many values of rho.")
    parser.add_argument("--out", default="outputs", help="folder of the runs (default: outputs)")
    parser.add_argument("--points", type=int, default=12, help="values of rho (default: 12)")
    parser.add_argument("--steps", type=int, default=4000, help="steps of 0.01 (default: 4000)")
    parser.add_argument("--draw", action="store_true", help="draw the sweep that is there")
    options = parser.parse_args()

    experiment = Experiment("lorenz", base_dir=options.out)
    if options.draw:
        print(f"Picture: {draw(experiment)}")
        return
    grid = {"rho": np.linspace(10.0, 50.0, options.points).round(3).tolist()}
    for log in experiment.sweep(grid, retry=("failed", "lost")):
        with log:
            path, lyapunov = part(log.params["rho"], options.steps)
            log.array("path", path)
            log.json("metrics", {"lyapunov": lyapunov, "highest": float(path[:, 2].max())})
            log.info("chaos" if lyapunov > 0.1 else "order")
    print(f"Table: {experiment.index_file}")


if __name__ == "__main__":
    main()
