"""A damped oscillator for each point of a grid; each array task does its share."""

import numpy as np

from notata import Experiment

GRID = {"omega": [1.0, 2.0, 4.0], "gamma": [0.1, 0.2, 0.4, 0.8]}

for log in Experiment("sweep").sweep(GRID, mode="static", retry=("failed", "lost")):
    with log:
        omega, gamma = log.params["omega"], log.params["gamma"]
        t = np.linspace(0.0, 10.0, 1001)
        x = np.exp(-gamma * t) * np.cos(omega * t)
        log.array("x", x)
        log.json("metrics", {"energy": float(np.mean(x**2))})
