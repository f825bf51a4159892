"""A file server that pauses: ranks that compute on live, and those that stand still are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from simulated import ROOT, program

from notata import LogReader

FuseServer = tuple[Path, "subprocess.Popen[bytes]"]

# Where what a rank says as it is ended can't be written, it is ended after a second, and not two
# minutes.
BEGINNING = """
import faulthandler, os, sys, threading, time
from notata import Logbook, vigil, watchdog
watchdog._LAST_WORDS = 1.0
"""
# The longest that faulthandler's timer runs here: 2 s, three looks and 4 s.
LONGER = 8.0


@contextmanager
def running(code: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that has said that it is ready; at the end it is killed if it still runs."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NOTATA_HEARTBEAT": "0.05"}
    with subprocess.Popen(
        [sys.executable, "-c", BEGINNING + textwrap.dedent(code)],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@contextmanager
def paused(server: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let a file server give no answer."""
    server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


def mtime(run: Path) -> int:
    return (run / "metadata.json").stat().st_mtime_ns


@pytest.mark.parametrize("abort", [True, False])
def test_a_rank_that_ticks_lives_while_its_file_server_pauses(
    fuse_server: Callable[[str], FuseServer], tmp_path: Path, abort: bool
) -> None:
    point, server = fuse_server("local")
    code = f"""
    log = Logbook("a", {str(point)!r})
    log.watch(2, abort={abort})
    print("ready", flush=True)
    while not os.path.exists("go"):
        log.tick()
        time.sleep(0.02)
    log.mark_complete()
    """
    kept = tmp_path / "shown" / "log_a"  # past the server
    with running(code, tmp_path) as process:
        with paused(server):
            time.sleep(0.5)
            given = mtime(kept)
            time.sleep(LONGER)
            assert mtime(kept) == given  # the thread that gives the signs of life waits
            assert process.poll() is None
        (tmp_path / "go").touch()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    assert LogReader(kept).meta["status"] == "complete"
    assert sorted(path.name for path in kept.iterdir()) == ["log.txt", "metadata.json"]


@pytest.mark.parametrize("stands", ["time.sleep(3600)", "os.mkdir(log.path / 'own')"])
def test_a_silent_rank_is_ended_while_its_file_server_pauses(
    fuse_server: Callable[[str], FuseServer], tmp_path: Path, stands: str
) -> None:
    """It computes for ever, or waits for that server itself."""
    point, server = fuse_server("local")
    code = f"""
    log = Logbook("a", {str(point)!r})
    log.watch(0.5, abort=True)
    print("ready", flush=True)
    while not os.path.exists("go"):
        log.tick()
        time.sleep(0.02)
    {stands}
    """
    with running(code, tmp_path) as process:
        with paused(server):
            (tmp_path / "go").touch()
            assert process.stderr is not None
            told = process.stderr.readline().rstrip()
            # What the server had begun to answer as it was stopped, the kernel waits for.
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 1
    assert told.startswith("notata: ending the job: rank 0 gave no sign of life for ")
    assert told.endswith(" s, and a disk no answer")
    meta = LogReader(tmp_path / "shown" / "log_a").meta
    assert meta["status"] == "initialized"  # as of one that was killed


# ----- the same on any machine: the thread that may touch files waits -----

WAITS = """
never = threading.Event()
class Waits:
    waiting = False
    def wait(self, _):
        self.waiting = True
        never.wait()
blocks = Waits()
log = Logbook("a")
log.watch(2, abort={abort})
task = vigil.Task(blocks.wait, 0)
task.start()
while not blocks.waiting:
    log.tick()
"""


@pytest.mark.parametrize("abort", [True, False])
def test_a_rank_that_ticks_lives_while_a_file_is_waited_for(tmp_path: Path, abort: bool) -> None:
    code = BEGINNING + WAITS.format(abort=abort)
    more = f"""
end = time.monotonic() + {LONGER}
while time.monotonic() < end:
    log.tick()
    time.sleep(0.02)
never.set()
log.mark_complete()
"""
    done = program(code + more, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    run = tmp_path / "outputs" / "log_a"
    assert LogReader(run).meta["status"] == "complete"
    assert sorted(path.name for path in run.iterdir()) == ["log.txt", "metadata.json"]


def test_a_silent_rank_is_ended_while_a_file_is_waited_for(tmp_path: Path) -> None:
    done = program(BEGINNING + WAITS.format(abort=True) + "time.sleep(3600)", tmp_path)
    assert done.returncode == 1
    assert "s, and a disk no answer" in done.stderr


def test_standard_error_that_takes_nothing_keeps_nobody_from_ending_a_silent_rank(
    tmp_path: Path,
) -> None:
    code = """
reading, writing = os.pipe()
os.set_blocking(writing, False)
try:
    while True:
        os.write(writing, bytes(65536))
except BlockingIOError:
    os.set_blocking(writing, True)
os.dup2(writing, 2)
watchdog._MOMENT = 1.0
time.sleep(3600)
"""
    done = program(BEGINNING + WAITS.format(abort=True) + code, tmp_path)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_run_that_ends_while_a_file_was_waited_for_is_let_live(tmp_path: Path) -> None:
    """It is silent since, but waits for nobody but the disk."""
    code = """
log._session._watchdog.spare()  # as where it waits for other ranks
time.sleep(4)
never.set()
log.mark_complete()
"""
    done = program(BEGINNING + WAITS.format(abort=True) + code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert LogReader(tmp_path / "outputs" / "log_a").meta["status"] == "complete"
