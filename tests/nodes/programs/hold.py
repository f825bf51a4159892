"""Keeps a run open, and goes on with it as it is told by lines on stdin: hold.py BASE RUN.

`write N` logs N lines and saves an array, `close` ends the run. Each is answered by a line of JSON
with what was raised.
"""

import json
import sys

import numpy as np

from notata import Logbook


def tell(action):
    try:
        action()
        said = None
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps({"raised": said}), flush=True)


def write(log, count):
    for line in range(count):
        log.info(f"old line {line}")
    log.array("old", np.zeros(10))


def main(base, run):
    log = Logbook(run, base_dir=base, params={"age": "old"})
    tell(lambda: write(log, 3))
    for line in sys.stdin:
        command, *args = line.split()
        if command == "write":
            tell(lambda count=int(args[0]): write(log, count))
        else:
            tell(log.mark_complete)


main(*sys.argv[1:])
