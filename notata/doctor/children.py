"""Processes that may be given up on: a lock or an MPI can hang, the examination must not."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from typing import Any

import notata

Told = dict[str, Any]


class Child:
    """A module of this package that runs in a process of its own and tells one JSON object.

    It waits for a line on standard input before it begins, so that several begin together.
    """

    def __init__(self, module: str, *args: object) -> None:
        """Start it.

        Args:
            module: Name of the module in this package.
            *args: Its arguments.
        """
        home = os.path.dirname(os.path.dirname(os.path.abspath(notata.__file__)))
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"notata.doctor.{module}", *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            close_fds=False,  # a launcher talks to MPI over a descriptor that it hands on
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    def ready(self, seconds: float) -> bool:
        """Wait until it is about to begin.

        Ranks: independent.
        """
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], seconds)
        return bool(readable) and self._process.stdout.readline() == b"ready\n"

    def begin(self) -> None:
        """Let it begin.

        Ranks: independent.
        """
        assert self._process.stdin is not None
        with suppress(OSError):  # it has died; `told` says how
            self._process.stdin.write(b"go\n")
            self._process.stdin.flush()

    def told(self, seconds: float) -> Told:
        """What it tells at its end, or `{"error": …}` where it hangs or dies.

        Ranks: independent.
        """
        try:
            out, err = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._end()
            return {"error": f"no answer within {seconds:g} s"}
        # MPI libraries may print too.
        for line in reversed(out.decode(errors="replace").splitlines()):
            with suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict):
                    return told
        said = err.decode(errors="replace").strip().splitlines()
        return {"error": f"ended with status {self._process.returncode}: {' '.join(said[-3:])}"}

    def _end(self) -> None:
        """Kill it; one that hangs in the kernel is left to itself."""
        with suppress(OSError):
            self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()


def wait_for_start() -> None:
    """In the child: say that it is ready, and wait for the line that starts it.

    Ranks: independent.
    """
    print("ready", flush=True)
    sys.stdin.readline()


def tell(told: Told) -> None:
    """In the child: tell the outcome.

    Ranks: independent.
    """
    print(json.dumps(told), flush=True)
