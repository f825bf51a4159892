"""Many processes on few locks, some of them killed while they hold one: never two at once.

NOTATA_TORTURE=27 makes 27 times as many rounds, 10,000 and more of each kind: `make torture`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torturer import Board

TIMES = int(os.environ.get("NOTATA_TORTURE", "1"))
PROGRAM = Path(__file__).with_name("torturer.py")

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")


class Tortured:
    """Processes at work on some locks, which are started again when they are killed."""

    def __init__(self, folder: Path, slots: int, locks: int, rounds: int, refused: str) -> None:
        self.folder, self.slots, self.locks, self.rounds = folder, slots, locks, rounds
        self.board = Board(folder, slots, locks)
        self.kills = 0
        self._refused = refused
        self._processes = [self._start(slot) for slot in range(slots)]

    def _start(self, slot: int) -> subprocess.Popen[bytes]:
        """Start a process. Of those that are refused flock, there is every one, or every second."""
        command = [sys.executable, "-B", str(PROGRAM), str(self.folder), str(slot)]
        command += map(str, (self.slots, self.locks, self.rounds))
        error, _, some = self._refused.partition(" ")
        if error and not (some and slot % 2):
            inject = ["-e", "trace=flock", "-e", f"inject=flock:error={error}"]
            command = [
                "strace",
                "-f",
                "--seccomp-bpf",
                "-qqq",
                "-o",
                "/dev/null",
                *inject,
                *command,
            ]
        self.board.put(slot, "pid", 0)
        environ = {k: v for k, v in os.environ.items() if not k.startswith("NOTATA_")}
        return subprocess.Popen(command, env=environ, cwd=self.folder)

    def run(self, kills: int, pause: float) -> None:
        """Wait for the end; meanwhile kill one now and then."""
        while running := [slot for slot, p in enumerate(self._processes) if p.poll() is None]:
            time.sleep(random.random() * pause)
            slot = random.choice(running)
            process, pid = self._processes[slot], self.board.get(slot, "pid")
            if self.kills < kills and pid and process.poll() is None:
                self._kill(slot, pid)
        assert [process.returncode for process in self._processes] == [0] * self.slots

    def _kill(self, slot: int, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # it has just ended by itself
        code = self._processes[slot].wait()
        if code != 0:
            self.kills += 1
            self._processes[slot] = self._start(slot)

    def total(self, field: str) -> int:
        return sum(self.board.get(slot, field) for slot in range(self.slots))

    def added(self) -> int:
        return sum(int((self.folder / f"number{n}").read_text()) for n in range(self.locks))


@pytest.mark.slow
@pytest.mark.timeout(300 * TIMES)
@pytest.mark.parametrize(
    ("refused", "slots", "locks", "rounds", "kills"),
    [
        pytest.param("", 8, 4, 40, 20, id="flock"),
        pytest.param("", 64, 1, 8, 10, id="flock, 64 processes"),
        pytest.param("ENOSYS", 8, 4, 20, 12, id="ENOSYS", marks=needs_strace),
        pytest.param("ENOLCK", 16, 2, 12, 12, id="ENOLCK", marks=needs_strace),
        pytest.param("ENOSYS some", 8, 20, 5, 8, id="ENOSYS for some", marks=needs_strace),
    ],
)
def test_never_two_at_once(
    tmp_path: Path, refused: str, slots: int, locks: int, rounds: int, kills: int
) -> None:
    tortured = Tortured(tmp_path, slots, locks, rounds * TIMES, refused)
    tortured.run(kills * TIMES, 0.4)
    done, kills = tortured.total("done"), tortured.kills
    print(f"{done} rounds, {kills} kills, {tortured.total('turns')} turns")
    assert done == slots * locks * rounds * TIMES
    assert tortured.total("overlaps") == 0
    assert tortured.total("timeouts") == 0
    # Whoever was killed between its addition and its word on the board did it once more.
    assert done <= tortured.added() <= done + kills
    assert kills > 0
    if refused and "some" not in refused:
        assert tortured.total("turns") >= done
    elif not refused:
        assert tortured.total("turns") == 0
    else:
        assert tortured.total("turns") > 0


def test_two_at_once_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a lock that lets everybody in, both detectors and the number tell."""
    (tmp_path / "notata").mkdir()
    (tmp_path / "notata" / "__init__.py").touch()
    (tmp_path / "notata" / "errors.py").write_text("class LockTimeoutError(Exception): pass\n")
    (tmp_path / "notata" / "lock.py").write_text(
        "import contextlib, types\n"
        "TURNS = 'turns'\n"
        "def locked(path): return contextlib.nullcontext(types.SimpleNamespace(kind='none'))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tortured = Tortured(tmp_path, 4, 1, 100, "")
    tortured.run(0, 0.1)
    assert tortured.total("overlaps") > 0
    assert tortured.added() < tortured.total("done") == 400
