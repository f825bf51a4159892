"""A run that goes on step by step until a line comes on stdin: steady.py BASE NAME RUN."""

import json
import sys
import threading
import time

import numpy as np

from notata import Experiment

base, name, run = sys.argv[1:]
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()

log = Experiment(name, base_dir=base).add(run=run)
print(json.dumps("ready"), flush=True)
step, longest = 0, 0.0
with log:
    while not stop.is_set():
        began = time.monotonic()
        log.info(f"step {step}")
        log.array(f"T_{step}", np.full(1000, step))
        longest = max(longest, time.monotonic() - began)
        step += 1
        time.sleep(0.05)
    log.json("metrics", {"steps": step})
print(json.dumps({"steps": step, "longest": longest, "run_id": log.run_id}), flush=True)
