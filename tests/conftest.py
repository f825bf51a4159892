"""What all tests share."""

from __future__ import annotations

import compileall
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import notata
from notata import signals, speaking, vigil

# The same examples each time, and as much time as a busy machine takes for one.
settings.register_profile(
    "notata",
    deadline=None,
    derandomize=True,
    max_examples=80,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("notata")

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Started as a program of its own; it loads a library that not every machine has.
collect_ignore = ["fuse_locks.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package before anything runs: programs whose calls are counted read it, too."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(notata.__file__).parent, quiet=2)


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """Let what goes on beside a run that a test leaves open end with the test."""
    yield
    for listener in list(signals._listeners):
        listener.stop()
    vigil._tasks.clear()
    speaking._rootless.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Let no test leave variables that make a rank of each process after it."""
    yield
    left = [name for name in ("NOTATA_RANK", "NOTATA_SIZE", "NOTATA_LAUNCH") if name in os.environ]
    for name in left:
        del os.environ[name]
    assert not left, f"the test has left {', '.join(left)}"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for runs, not made yet, away from the working directory, which is empty."""
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return tmp_path / "runs"


FuseServer = tuple[Path, "subprocess.Popen[bytes]"]


@pytest.fixture
def fuse_server(tmp_path: Path) -> Iterator[Callable[[str], FuseServer]]:
    """Mounts one folder any number of times, each by a server of its own.

    Each has locks of the kind that is asked for.
    """
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not find_spec("mfusepy"):
        pytest.skip("needs root, /dev/fuse, Debian's fuse3 and mfusepy")
    shown = tmp_path / "shown"
    shown.mkdir()
    with ExitStack() as mounts:

        def mount(kind: str) -> FuseServer:
            point = tmp_path / f"mount-{len(os.listdir(tmp_path))}"
            point.mkdir()
            program = [sys.executable, str(Path(__file__).parent / "fuse_locks.py")]
            server = subprocess.Popen([*program, str(shown), str(point), kind])
            mounts.callback(_unmount, server, point)
            while not os.path.ismount(point):
                if server.poll() is not None:
                    pytest.skip(
                        "FUSE can't be mounted here: Debian's fuse3 is missing, or forbidden"
                    )
                time.sleep(0.02)
            return point, server

        yield mount


@pytest.fixture
def fuse_mount(fuse_server: Callable[[str], FuseServer]) -> Callable[[str], Path]:
    """The same, for those that need the folders alone."""
    return lambda kind: fuse_server(kind)[0]


def _unmount(server: subprocess.Popen[bytes], point: Path) -> None:
    subprocess.run(["umount", "-l", str(point)], check=False)
    server.kill()
    server.wait()
