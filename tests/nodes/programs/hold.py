"""Keeps a run open, and goes on with it as it is told by lines on stdin: hold.py BASE RUN [resume].

`write N` logs N lines and saves an array, `json` saves a metric, `say S` logs ten lines a second
for S seconds, `close` ends the run. Each is answered by a line of JSON with what was raised; `say`
also with how many lines it said, and after how many seconds it was told to write no more. With
`resume` it goes on in the run that is there.
"""

import io
import json
import sys
import time
from contextlib import redirect_stderr

import numpy as np

from notata import Logbook


def tell(action):
    try:
        said = action() or {}
        raised = None
    except Exception as error:
        said, raised = {}, f"{type(error).__name__}: {error}"
    print(json.dumps({"raised": raised, **said}), flush=True)


def write(log, age, count):
    for line in range(count):
        log.info(f"{age} line {line}")
    log.array(age, np.zeros(10))


def say(log, age, seconds):
    began, lines, noticed = time.monotonic(), 0, None
    with redirect_stderr(io.StringIO()) as told:
        while (since := time.monotonic() - began) < seconds:
            log.info(f"{age} says {lines}")
            lines += 1
            if noticed is None and "writes there no more" in told.getvalue():
                noticed = since
            time.sleep(0.1)
    return {"lines": lines, "noticed": noticed}


def main(base, run, how=""):
    age = "new" if how == "resume" else "old"
    log = Logbook(run, base_dir=base, params={"age": "old"}, resume=how == "resume")
    tell(lambda: write(log, age, 3))
    for line in sys.stdin:
        command, *args = line.split()
        if command == "write":
            tell(lambda count=int(args[0]): write(log, age, count))
        elif command == "say":
            tell(lambda seconds=float(args[0]): say(log, age, seconds))
        elif command == "json":
            tell(lambda: log.json("metrics", {age: 1}) and None)
        else:
            tell(lambda: log.mark_complete() and None)


main(*sys.argv[1:])
