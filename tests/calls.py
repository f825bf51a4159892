"""The system calls of a program that touch some folder; and the program stopped at one of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from simulated import ROOT

# What puts something on disk or takes it away, or makes sure that it is there.
CHANGES = [
    *("open", "openat", "creat", "write", "pwrite64", "writev", "pwritev", "sendfile"),
    *("copy_file_range", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "unlink"),
    *("unlinkat", "rmdir", "link", "linkat", "symlink", "symlinkat", "truncate", "ftruncate"),
    *("fallocate", "fsync", "fdatasync", "utimensat", "chmod", "fchmod", "fchmodat"),
]
# What a disk, or a server of files, answers to calls that it does not want; and no locks.
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "ESTALE")
_OF_LOOKS = ("EIO", "ESTALE")
# What only looks: a file or folder that this fails on is there all the same. lseek asks no disk.
LOOKS = ["stat", "lstat", "newfstatat", "statx", "fstat", "read", "pread64", "getdents64"]
REFUSABLE = [*CHANGES, *LOOKS, "close", "flock"]
# Of so many calls one is tried; make sweep tries each.
STRIDE = int(os.environ.get("NOTATA_SWEEP", "16"))
_BY_OPENING = re.compile("O_CREAT|O_TRUNC|O_WRONLY|O_RDWR")


class Point(NamedTuple):
    """A system call of a program."""

    call: str
    number: int  # of this kind of call of its thread, from 1
    line: str

    def __str__(self) -> str:
        return f"{self.call} {self.number}: {self.line}"


def errors_of(point: Point) -> tuple[str, ...]:
    """The errors with which a call is refused: all of them where each call is tried, else one."""
    if point.call == "flock":
        return ("ENOSYS",)
    errors = _OF_LOOKS if point.call in LOOKS else ERRORS
    return errors if STRIDE == 1 else (errors[point.number % len(errors)],)


def need_strace() -> None:
    if shutil.which("strace") is None:
        if os.environ.get("CI"):
            pytest.fail("strace is missing")
        pytest.skip("no strace here, which stops a program at a system call")


def environment() -> dict[str, str]:
    """No sign of life, no threads of a library: calls come in the same order each time."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NOTATA_", "SLURM_", "PMI"))}
    return kept | {
        "PYTHONPATH": os.fspath(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "NOTATA_HEARTBEAT": "0",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        # Named, the zone is read once, and not looked at again each second.
        "TZ": os.environ.get("TZ") or ":/etc/localtime",
    }


def strace(calls: Sequence[str], *options: str, to: str | Path = os.devnull) -> list[str]:
    """The beginning of a command that runs another one under strace."""
    told = ["-e", f"trace={','.join(calls)}", "-o", os.fspath(to)]
    return ["strace", "-f", "-qq", "-y", "-s", "8", "-e", "signal=none", *told, *options]


def run(
    command: Sequence[str], cwd: Path, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


def points_in(log: Path, folder: Path, *, reads: bool = False) -> list[Point]:
    """The calls of a program's main thread that touch something below a folder."""
    seen: dict[str, int] = {}
    found, main = [], None
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        main = main or (match and match[1])
        if match is None or match[1] != main:
            continue
        call = match[2]
        seen[call] = seen.get(call, 0) + 1
        idle = "open" in call and not reads and not _BY_OPENING.search(line)
        if f"{folder}/" in line and not idle:
            found.append(Point(call, seen[call], line))
    return found


def kill_at(point: Point) -> list[str]:
    """Options of strace that kill the program before a call does anything."""
    return ["-e", f"inject={point.call}:signal=SIGKILL:when={point.number}"]


def fail_at(point: Point, error: str) -> list[str]:
    """Options of strace that let a call fail, without doing anything."""
    # With --seccomp-bpf no other call is stopped; a signal would silently not be sent.
    return ["--seccomp-bpf", "-e", f"inject={point.call}:error={error}:when={point.number}"]


def refused(log: Path, folder: Path) -> bool:
    """Whether the call that strace let fail was one below a folder; elsewhere, counts may vary."""
    told = log.read_text(errors="replace").splitlines()
    return any("(INJECTED)" in line and f"{folder}/" in line for line in told)


def python(program: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-B", os.fspath(program), *map(str, arguments)]


def each(
    points: Sequence[Point],
    shift: int,
    do: Callable[[Point], Any],
    look: Callable[[Point, Any], None],
    *,
    workers: int = 2,
    stride: int = STRIDE,
) -> None:
    """Stop the program at these calls, some at a time, and look at what each left.

    Without workers, the next one is stopped only after that.
    """
    chosen = points[shift % stride :: stride]
    wrong = []
    with ThreadPoolExecutor(workers or 1) as pool:
        ended = pool.map(do, chosen) if workers else map(do, chosen)
        for point, done in zip(chosen, ended, strict=True):
            try:
                look(point, done)
            except Exception as error:
                wrong.append(f"{point}\n   {type(error).__name__}: {error}")
    assert not wrong, f"{len(wrong)} of {len(chosen)}\n" + "\n".join(wrong)
