"""Two nodes, and programs that are started on them."""

from __future__ import annotations

import json
import select
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

PROGRAMS = Path(__file__).parent
PATIENT = ["NOTATA_GRACE=120"]  # four ranks may take a minute to start on the one processor
LONG = 300  # seconds, within which any program here has ended on the slowest machine


class Node(NamedTuple):
    """A node, held by a process."""

    name: str
    holder: str
    address: str
    interface: str  # by which this machine reaches it

    def command(self, *args: object) -> list[str]:
        """A command line that runs another one on the node."""
        inside = ["nsenter", "-t", self.holder, "-n", "-u", "-m"]
        return [*inside, *map(str, args)]

    def python(self, program: str, *args: object, **env: object) -> list[str]:
        """A command line that runs one of these programs on the node, with more variables."""
        variables = [f"{name}={value}" for name, value in env.items()]
        path = PROGRAMS / f"{program}.py"
        return self.command("env", *variables, sys.executable, path, *args)


class Talk:
    """A program on a node that answers each line with a line of JSON."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, *words: object) -> None:
        """Tell it to do something."""
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)

    def hear(self) -> Any:
        """Wait for its answer.

        Raises:
            TimeoutError: If none comes; what all processes are waiting for is printed.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], LONG + 60)[0]:
            subprocess.run(["ps", "-eo", "pid,ppid,stat,wchan:32,etimes,args"], check=False)
            raise TimeoutError(f"no answer from {self._process.args}")
        return json.loads(self._process.stdout.readline())

    def ask(self, *words: object) -> Any:
        """Do both."""
        self.say(*words)
        return self.hear()

    def has_spoken(self) -> bool:
        """Whether there is an answer to hear."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Let it come to its end, or make it."""
        try:
            self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()


@contextmanager
def talking(*commands: list[str]) -> Iterator[list[Talk]]:
    """Programs that run for the length of a `with` block, and have said that they are ready."""
    with ExitStack() as stack:
        talks = []
        for command in commands:
            talks.append(Talk(command))
            stack.callback(talks[-1].end)
        for talk in talks:
            talk.hear()
        yield talks


class Nodes:
    """All nodes, and how programs are run on them."""

    def __init__(self, nodes: str, shared: str, mpiexec: str) -> None:
        self.nodes = [Node(*line.split()) for line in Path(nodes).read_text().splitlines()]
        self.shared = shared
        self.mpiexec = mpiexec

    def _mpiexec(self, ranks: int, ahead: int, program: str, *args: str) -> list[str]:
        """A command line that starts a program on all nodes, with so many ranks on each.

        Each node's clock is so many seconds ahead of that of the one before.
        """
        launcher = Path(tempfile.mkdtemp()) / "launcher"
        cases = ""
        for place, node in enumerate(self.nodes):
            command = shlex.join(node.command("env", f"AHEAD={ahead * place}", *PATIENT))
            cases += f'{node.address}) exec {command} sh -c "$*";;\n'
        launcher.write_text(
            "#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\nhost=$1; shift\n"
            f"case $host in\n{cases}esac\n"
        )
        launcher.chmod(0o755)
        launch = [self.mpiexec, "-launcher", "ssh", "-launcher-exec", str(launcher)]
        hosts = ",".join(f"{node.address}:{ranks}" for node in self.nodes)
        launch += ["-iface", self.nodes[0].interface, "-hosts", hosts]
        launch += ["-n", str(ranks * len(self.nodes))]
        return [*launch, sys.executable, str(PROGRAMS / f"{program}.py"), *args]

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LONG, check=True)
        return done.stdout

    def _look(self, node: Node, *paths: str) -> list[dict[str, Any]]:
        return list(json.loads(self._run(node.python("look", *paths))))
