"""Processes that do what they are told, a line of JSON each: what kills them is a real signal.

obeying.py SOCKET: each connection to the socket gets a process of its own, forked with notata
loaded, so that many can be had. An order is a dict with `do`, and what that needs; the answer has
`raised`, the name of the error, or None. An order with `die_at` N kills the process at its Nth call
that changes the disk, before it does anything; where it is a write, with `torn`, half way.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import notata
from notata import Logbook

ROOT = Path(__file__).parents[1]
_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.utime"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Process:
    """A process that obeys, from outside."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(address)
        self._file = self._socket.makefile("rw")
        self.pid = int(self._file.readline())

    def tell(self, do: str, **order: Any) -> dict[str, Any] | None:
        """Give an order; the answer, or None if the process died over it."""
        self._file.write(json.dumps({"do": do, **order}) + "\n")
        self._file.flush()
        answer = self._file.readline()
        if not answer:
            self.close()
            return None
        return dict(json.loads(answer))

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self._file.read() == ""  # it is gone once its end is closed
        self.close()

    def exit(self) -> None:
        """Let the program end, without another word."""
        self._socket.shutdown(socket.SHUT_WR)
        assert self._file.read() == ""
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@contextmanager
def obedience(folder: Path) -> Iterator[Callable[[], Process]]:
    """What makes processes that obey."""
    address = os.fspath(folder / "orders")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NOTATA_", "SLURM_", "PMI"))}
    told = {"PYTHONPATH": os.fspath(ROOT), "NOTATA_HEARTBEAT": "0", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, address]
    with open(folder / "said", "wb") as said:
        server = subprocess.Popen(command, env=kept | told, stderr=said, cwd=folder)
    try:
        for _ in range(3000):
            if os.path.exists(address):
                break
            assert server.poll() is None, (folder / "said").read_text()
            time.sleep(0.02)
        yield lambda: Process(address)
    finally:
        server.kill()
        server.wait()


# ----- the process itself -----


class Death:
    """Kills this process at a call that changes the disk."""

    def __init__(self) -> None:
        self.left, self.torn = 0, False
        sys.addaudithook(self._hear)
        write = os.write

        def dying(descriptor: int, data: Any) -> int:
            if self.left == 1 and self.torn:
                write(descriptor, bytes(data)[: len(data) // 2])
            self._count()
            return write(descriptor, data)

        os.write = dying

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.left and (event in _CHANGES or (event == "open" and (arguments[2] or 0) & WRITES)):
            self._count()

    def _count(self) -> None:
        if self.left:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def array_of(log: Logbook, order: dict[str, Any]) -> None:
    place = {"start": (2 * log.rank,), "shape": (2 * log.size,)} if log.size > 1 else {}
    log.array(order["name"], np.full(2, order["v"]), **place)


def bundle_of(log: Logbook, order: dict[str, Any]) -> None:
    place = {"start": (2 * log.rank,), "shape": (2 * log.size,)} if log.size > 1 else {}
    log.arrays("b", **place, **{key: np.full(2, order["v"]) for key in order["keys"]})


VERBS: dict[str, Callable[[Logbook, dict[str, Any]], object]] = {
    "line": lambda log, o: log.note(o["text"], o["level"]),
    "array": array_of,
    "arrays": bundle_of,
    "json": lambda log, o: log.json("metrics", {"v": o["v"]}),
    "text": lambda log, o: log.text("notes", f"{o['v']}\n" * 300),
    "bytes": lambda log, o: log.bytes("raw/x.bin", b"%d " % o["v"] * 2000),
    "whole": lambda log, o: log.root.array("energy", np.full(3, o["v"])),
    "params": lambda log, o: log.params(**o["params"]),
    "meta": lambda log, o: log.meta(**{o["field"]: o["v"]}),
    "complete": lambda log, o: log.mark_complete(),
    "failed": lambda log, o: log.mark_failed(o["reason"]),
}


_kept: list[Any] = []  # open until the process is gone


def obey(connection: socket.socket) -> None:
    file = connection.makefile("rw")
    _kept.append((connection, file))

    def answer(told: Any) -> None:
        file.write(json.dumps(told) + "\n")
        file.flush()

    answer(os.getpid())
    death, log = Death(), None
    for line in file:
        order = json.loads(line)
        told: dict[str, Any] = {"raised": None}
        death.left, death.torn = order.get("die_at", 0), order.get("torn", False)
        try:
            if order["do"] == "open":
                os.environ.update(order["environ"])
                log = Logbook("run", order["base"], signals=(), **order["options"])
                told["params"] = dict(log.params)
            elif order["do"] == "merge":
                notata.merge(order["run"], unfinished=True, prune=order["prune"])
            else:
                assert log is not None
                VERBS[order["do"]](log, order)
        except Exception as error:
            told |= {"raised": type(error).__name__, "said": str(error)}
        death.left = 0
        answer(told)


def warm_up() -> None:
    """Load what a run and its merge need, for all processes at once."""
    with tempfile.TemporaryDirectory(prefix="notata-test-") as base:
        for rank in (0, 1):
            os.environ |= {"NOTATA_RANK": f"{rank}", "NOTATA_SIZE": "2", "NOTATA_LAUNCH": "warm"}
            with Logbook("run", base, signals=(), params={"p": 1}) as log:
                array_of(log, {"name": "T", "v": 1})
                bundle_of(log, {"keys": "uw", "v": 1})
                log.json("metrics", {"v": 1})
        notata.merge(f"{base}/log_run", prune=True)
    for name in ("NOTATA_RANK", "NOTATA_SIZE", "NOTATA_LAUNCH"):
        del os.environ[name]


def serve(address: str) -> None:
    warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks what became of them
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{address}.new")
    listener.listen()
    os.rename(f"{address}.new", address)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            obey(connection)
            return  # to the end of the program, as any other
        connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
