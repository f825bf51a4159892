"""A program that uses every verb, each twice, and says what it was given back from.

allverbs.py KIND BASE TOLD [OPTION…]

KIND is `first` (a run of an experiment), `resumed` or `overwrite` (of a run that is there), or
`sweep` (points of an experiment, and then its table, in few verbs each). It appends a line of JSON
to TOLD for each call that returned, or that an OSError left, where the option is `tolerant`.
`node`, `close` or `process`: the durability. `unsynced`: nothing is synced, whatever notata does.
`halfway`: it is killed after the first of two versions. With `mpi` it is one of several ranks.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from notata import Experiment, Logbook

# The points of a sweep, and how they end: by leaving their block, or as the run is told.
GRID = {"k": [1, 2, 3]}
FAILS, MARKED = 2, 3
HOW = {"resumed": "resume", "overwrite": "overwrite"}
CELLS = 600  # of an array on each rank


class Figure:
    """What log.plot needs of a figure, at once."""

    def __init__(self, version: int) -> None:
        self.data = f"figure {version}\n".encode() * 500

    def savefig(self, file: Any, **options: Any) -> None:
        file.write(self.data)


def _record(message: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": message, "levelno": logging.WARNING})


def verbs(log: Any, version: int) -> dict[str, Callable[[], object]]:
    """Each verb, with contents that tell which version they are."""
    v = version
    place = {"start": (CELLS * log.rank,), "shape": (CELLS * log.size,)} if log.size > 1 else {}
    return {
        "info": lambda: log.info(f"line {v}"),
        "array": lambda: log.array("a/T", np.full(CELLS, float(v)), **place),
        "warning": lambda: log.warning(f"hot {v}"),
        "arrays": lambda: log.arrays("b", u=np.full(CELLS, v), w=np.arange(v)),
        "json": lambda: log.json("metrics", {"m": v}),
        "text": lambda: log.text("notes", f"{v}\n" * 500),
        "bytes": lambda: log.bytes("raw.bin", bytes([v]) * 5000),
        "pickle": lambda: log.pickle("object", [v] * 500),
        "plot": lambda: log.plot("p", Figure(v)),
        "params": lambda: log.params(p=v),
        "params_json": lambda: log.params(ext="json", q=v),
        "meta": lambda: log.meta(note=v),
        "path": lambda: log["artifacts/own/x.txt"],
        "root_array": lambda: log.root.array("energy", np.full(CELLS, v)),
        "root_json": lambda: log.root.json("summary", {"v": v}),
        "watch": lambda: log.watch(timeout=600 * v),
        "tick": log.tick,
        "debug": lambda: log.debug(f"dropped {v}"),
        "note": lambda: log.note(f"noted {v}", logging.ERROR),
        "error": lambda: log.error(f"bad {v}"),
        "logger": lambda: log.logger.warning(f"told {v}"),
        "handler": lambda: log.handler().handle(_record(f"handled {v}")),
        "time_left": log.time_left,
        "agree": lambda: log.size > 1 or log.agree(True),  # for which ranks would wait in vain
        "last": lambda: log.warning(f"end of {v}"),
    }


def sweep(exp: Experiment, durability: str, attempt: Callable[..., Any]) -> None:
    """Do a sweep's points and what concerns its table; what returned is told with its point."""
    points = exp.sweep(GRID, durability=durability)
    while (log := attempt("open", lambda: next(points, None))) is not None:
        k = log.params["k"]
        with log:
            attempt("info", lambda k=k: log.info(f"line {k}"), k)
            attempt("json", lambda k=k: log.json("metrics", {"m": k}), k)
            if k == FAILS:
                attempt("mark_failed", lambda: log.mark_failed("wanted"), k)
            if k == MARKED:
                attempt("mark_complete", log.mark_complete, k)
        attempt("close", lambda: exp.record(log), k)
    attempt("rows", exp.rows)
    attempt("rebuild_index", exp.rebuild_index)


def main(kind: str, base: str, told: str, *options: str) -> None:
    durability = next((o for o in options if o in ("node", "close", "process")), "close")
    if "unsynced" in options:
        os.fsync = lambda descriptor: None  # type: ignore[assignment]
    comm, rank = None, 0
    if "mpi" in options:
        from mpi4py import MPI

        comm, rank = MPI.COMM_WORLD, MPI.COMM_WORLD.rank
    descriptor = os.open(f"{told}.{rank}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def tell(**what: Any) -> None:
        os.write(descriptor, json.dumps(what).encode() + b"\n")

    def attempt(verb: str, call: Callable[[], object], version: int = 0) -> Any:
        try:
            found = call()
        except OSError as error:
            if "tolerant" not in options:
                raise
            tell(verb=verb, version=version, errno=error.errno, error=str(error))
            return None
        tell(verb=verb, version=version)
        return found

    def opened() -> Any:
        more = {"signals": (), "durability": durability, "comm": comm, "grace": 5.0}
        runs = os.path.join(base, "s", "runs")
        if kind == "first":
            exp = Experiment("s", base, comm=comm)
            # `add` has no `signals`; the run's sign of life is turned off by its variable.
            return exp.add(durability=durability, k=1)
        return Logbook("s_k_1", runs, **{HOW[kind]: True}, **more)

    if kind == "sweep":
        sweep(Experiment("s", base), durability, attempt)
        os.close(descriptor)
        print("done")
        return
    log = attempt("open", opened)
    if log is not None:
        for version in (1, 2):
            for verb, call in verbs(log, version).items():
                attempt(verb, call, version)
            if "halfway" in options:
                os.kill(os.getpid(), signal.SIGKILL)
        attempt("close", log.mark_complete)
    ended = {"lost": log._log.lost, "status": log.status} if log is not None else {"lost": 0}
    tell(**ended)
    os.close(descriptor)
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
