"""An experiment: one run for each time step, one of which fails.

A ball falls from 100 m for 100 steps. With steps of 0.5 s it is in the ground before they are over,
and its run ends with an exception. That run is recorded as failed, the next ones go on, and
index.csv has a row for each. A second call runs only what is not there yet.

    python examples/falling_ball.py
"""

import argparse

from notata import Experiment

GRAVITY = 9.81  # m/s2


def fall(dt, steps=100, height=100.0):
    """Height and speed of the ball after the last step."""
    speed = 0.0
    for step in range(1, steps + 1):
        speed += GRAVITY * dt
        height -= speed * dt
        if height < 0:
            raise RuntimeError(f"in the ground after {step * dt:.2f} s (height {height:.2f} m)")
    return height, speed


def main():
    parser = argparse.ArgumentParser(description="A falling ball, an experiment of two runs.")
    parser.add_argument("--out", default="outputs", help="folder of the runs (default: outputs)")
    options = parser.parse_args()

    experiment = Experiment("falling_ball", base_dir=options.out)
    for dt in (0.01, 0.5):
        log = experiment.add(dt=dt, skip_existing=True)
        if log is None:
            print(f"dt={dt}: there already")
            continue
        try:
            with log:
                height, speed = fall(dt)
                log.json("metrics", {"final_height": height, "final_speed": speed})
        except RuntimeError as error:  # recorded in the run; the others go on
            print(f"dt={dt}: {error}")
    print(f"Table: {experiment.index_file}")
    print(experiment.index_file.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
