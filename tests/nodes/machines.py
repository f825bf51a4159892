"""Two nodes on one machine, whose files are really elsewhere: by NFS, and by GlusterFS.

A session of steps (`programs/session.py`) is played on them in the background, and tells a JSON
line for each step. Several are played side by side.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOOLS = ROOT / ".nodes"
LINUX = TOOLS / "root" / "usr" / "bin" / "linux.uml"
REGISTERS = TOOLS / "registers.so"  # where this processor needs it
SESSION = HERE / "programs" / "session.py"


_STANDSTILL = 90  # seconds in which a guest's kernel gives no sign of life, on the busiest machine


class Told(dict[str, Any]):
    """What a step told of itself."""


class StepError(AssertionError):
    """A step that did not come to its end, with all that the machine said."""


class Machine:
    """Plays steps on two nodes, and gives what each told."""

    def __init__(self, steps: Sequence[str], seconds: float = 1000) -> None:
        """Name the steps; nothing starts yet.

        Args:
            steps: Names of functions of the session, with `=N` for a number.
            seconds: After which all of it is ended.
        """
        self.steps = steps
        self._seconds = seconds
        self.folder = Path(tempfile.mkdtemp(prefix="notata-nodes-", dir="/tmp"))
        self._told = self.folder / "told.jsonl"
        self._log = self.folder / "log.txt"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._began = time.monotonic()

    def start(self) -> None:
        """Start; returns while the steps are being played."""
        raise NotImplementedError

    def _spawn(self, command: Sequence[str | Path], **env: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8", **env},
            )
        self._processes.append(process)
        return process

    def _session(self, told: str, nodes: str, shared: str) -> list[str]:
        mpiexec = str(Path(sys.executable).parent / "mpiexec")
        notata = f"PYTHONPATH={ROOT}"
        return [
            "env",
            notata,
            sys.executable,
            str(SESSION),
            told,
            nodes,
            shared,
            mpiexec,
            *self.steps,
        ]

    def told(self, step: str) -> Told:
        """Wait for a step's end.

        Raises:
            StepError: If it failed, or never came.
        """
        while True:
            ended = not self._playing()  # asked first: what is told last is read after it
            lines = self._told.read_text().splitlines() if self._told.exists() else []
            for told in map(json.loads, lines):
                if told["step"] == step:
                    if "error" in told:
                        raise StepError(f"{told['error']}\n{self._said()}")
                    return Told(told)
            if ended:
                raise StepError(f"the machine went off before {step!r} was done\n{self._said()}")
            time.sleep(0.2)

    def _playing(self) -> bool:
        late = time.monotonic() - self._began > self._seconds
        if late:
            self._say(f"ended: not done after {self._seconds:g} s")
            self._end_processes()
        return not late and self._processes[-1].poll() is None

    def _say(self, text: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{text}\n")

    def _said(self) -> str:
        return self._log.read_text(errors="replace")

    def _end_processes(self) -> None:
        for how, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            for process in reversed(self._processes):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, how)
            for process in self._processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(patience)

    def stop(self) -> None:
        """End everything that was started, and take its files away."""
        self._end_processes()
        shutil.rmtree(self.folder, ignore_errors=True)


class NFS(Machine):
    """A machine in User Mode Linux with the kernel's own NFS server, and its two clients.

    That kernel itself has been seen to stand still, with all that ran on it. Then it is booted
    again, once, and what was not told is played anew; the log says so.
    """

    _boots = 0

    def start(self) -> None:
        """Boot it: some eight seconds."""
        self._boots += 1
        self._told.touch()
        (self.folder / "alive").touch()
        self._memory = Path(tempfile.mkdtemp(prefix="notata-nodes-", dir="/dev/shm"))
        for name, size in (("shared", "256M"), ("full", "4M")):
            disk = self._memory / name
            with disk.open("wb") as file:
                file.truncate(int(size[:-1]) << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", disk], check=True)
        session = self._session("/run/state/told.jsonl", "/run/nodes", "/mnt/shared")
        (self.folder / "command").write_text(
            f"cd {shlex.quote(str(ROOT))}; {shlex.join(session)}\n"
        )
        init = self.folder / "init"
        guest = shlex.quote(str(HERE / "guest.sh"))
        init.write_text(f"#!/bin/bash\nexec bash {guest}\n")
        init.chmod(0o755)
        self._spawn(
            [
                *(LINUX, "mem=1G", "umid=nodes", f"uml_dir={self.folder}/", "quiet", "panic=1"),
                *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
                *("con=null", "con0=null,fd:1", f"init={init}"),
                *(f"ubd0={self._memory}/shared", f"ubd1={self._memory}/full"),
                *(f"STATE={self.folder}", f"TOOLS={TOOLS}"),
            ],
            TMPDIR=str(self._memory),  # the machine's own memory is a file there
            LD_PRELOAD=str(REGISTERS) if REGISTERS.exists() else "",
        )

    def _playing(self) -> bool:
        playing = super()._playing()
        silent = time.time() - (self.folder / "alive").stat().st_mtime
        if not playing or silent < _STANDSTILL or self._boots > 1:
            return playing
        self._say(f"the kernel of the two nodes stands still since {silent:.0f} s: booted again")
        self._end_processes()
        for folder in (self._memory, self.folder / "nodes"):  # its memory, and its own files
            shutil.rmtree(folder, ignore_errors=True)
        done = [json.loads(line)["step"] for line in self._told.read_text().splitlines()]
        self.steps = [step for step in self.steps if step.partition("=")[0] not in done]
        self.start()
        return True

    def stop(self) -> None:
        """Switch it off."""
        super().stop()
        shutil.rmtree(self._memory, ignore_errors=True)


_SERVER = """
volume posix
  type storage/posix
  option directory {folder}/brick
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume brick
  type performance/io-threads
  subvolumes locks
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port {port}
  option auth.addr.brick.allow 127.0.0.1
  subvolumes brick
end-volume
"""
_CLIENT = """
volume client
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port {port}
  option remote-subvolume brick
end-volume
"""
# The caches that `gluster volume create` turns on, the one nearest to the server first.
_CACHES = "write-behind read-ahead readdir-ahead io-cache quick-read open-behind md-cache"


class Gluster(Machine):
    """A GlusterFS server of one brick, and two nodes that mount it, with their own host names."""

    def start(self) -> None:
        """Start the server and the nodes."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for name in ("brick", "shared"):
            (self.folder / name).mkdir()
        client, below = _CLIENT.format(port=port), "client"
        for cache in _CACHES.split():
            client += f"volume {cache}\n  type performance/{cache}\n"
            client += f"  subvolumes {below}\nend-volume\n"
            below = cache
        (self.folder / "server.vol").write_text(_SERVER.format(folder=self.folder, port=port))
        (self.folder / "client.vol").write_text(client)
        self._spawn(["glusterfsd", "-N", "-f", self.folder / "server.vol", *self._files("server")])
        self._wait_for(lambda: self._answers(port), "the server")
        # Addresses of this machine, which MPI takes for two others.
        places = {"nodea": "127.0.0.2", "nodeb": "127.0.0.3"}
        nodes = [self._node(name, address) for name, address in places.items()]
        (self.folder / "nodes").write_text("".join(nodes))
        shared = str(self.folder / "shared")
        self._spawn(self._session(str(self._told), str(self.folder / "nodes"), shared))

    def _files(self, name: str) -> list[str]:
        return ["-l", f"{self.folder}/{name}.log", "-p", f"{self.folder}/{name}.pid"]

    def _node(self, name: str, address: str) -> str:
        """Make a node: name spaces of host name and mounts, held by a process that sleeps."""
        shared = self.folder / "shared"
        volume = str(self.folder / "client.vol")
        mount = shlex.join(["glusterfs", "-N", "-f", volume, *self._files(name), str(shared)])
        setting = f"hostname {name} && {{ {mount} & exec sleep infinity; }}"
        holder = self._spawn(
            ["unshare", "--uts", "--mount", "--propagation", "private", "sh", "-c", setting]
        )
        inside = Path(f"/proc/{holder.pid}/root{shared}")
        self._wait_for(lambda: os.path.ismount(inside), f"the mount of {name}")
        return f"{name} {holder.pid} {address} lo\n"

    def _wait_for(self, ready: Any, what: str) -> None:
        limit = time.monotonic() + 60
        while not ready():
            if time.monotonic() > limit:
                raise StepError(f"GlusterFS: {what} was not there after 60 s\n{self._said()}")
            time.sleep(0.05)

    def _answers(self, port: int) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False
