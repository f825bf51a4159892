"""A merge whose processes are killed while they share the work."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import ROOT, write_as

import notata
from notata import Logbook, layout, mergerecord

ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(ROOT)}


def work(log: Logbook) -> None:
    """An array that is large enough to be divided, and a bundle."""
    rows = np.arange(8_000_000.0).reshape(2000, 4000) + log.rank
    log.array("T", rows, start=(2000 * log.rank, 0), shape=(4000, 4000))
    log.arrays("b", u=[log.rank])
    log.info(f"hello from {log.rank}")


@pytest.fixture
def run(base: Path) -> Path:
    return write_as(2, base, work)


def files_of(run: Path) -> set[str]:
    return {os.fspath(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}


def made(run: Path) -> dict[str, Any]:
    record = mergerecord.read(os.fspath(run))
    return {file: (one.itself.size, one.itself.checksum) for file, one in record.outputs.items()}


@contextmanager
def at_work(run: Path) -> Iterator[tuple[Path, subprocess.Popen[str], list[int]]]:
    """A merge that has begun to write an array, with its workers, and the run that it merges.

    On a busy machine one may be over before it is seen: then another copy of the run is merged.
    """
    for number in range(10):
        copy = run.parents[1] / f"copy-{number}" / run.name
        shutil.copytree(run, copy)
        with merging(copy) as process:
            if workers := _workers(copy, process):
                yield copy, process, workers
                return
            process.communicate()
    pytest.fail("it was never seen at work")


def _workers(run: Path, process: subprocess.Popen[str]) -> list[int]:
    while process.poll() is None:
        for path in (run / "data").glob(f"{layout.MERGE_PREFIX}*"):
            with suppress(FileNotFoundError):
                if path.stat().st_blocks > 16:  # more than its head; its size it has before
                    return children(process.pid)
        time.sleep(0.001)
    return []


def children(pid: int) -> list[int]:
    """The workers, and not the process that Python has for their semaphores."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that is gone by now
            found += map(int, task.read_text().split())
    return [one for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def merging(run: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "notata", "merge", "--jobs", "2", os.fspath(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def test_a_worker_that_is_killed_is_an_error_that_changes_nothing(run: Path) -> None:
    before = files_of(run)
    with at_work(run) as (run, process, workers):
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert "a process that shared the work was killed" in said
    assert "Traceback" not in said
    assert files_of(run) - {layout.MERGE_LOCK} == before
    assert_merges_as_ever(run)


def test_workers_end_with_the_merge_that_is_killed(run: Path) -> None:
    with at_work(run) as (run, process, workers):
        assert len(workers) == 2
        process.kill()
        process.communicate()
    ends = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < ends, f"still there: {workers}"
        time.sleep(0.01)
    assert_merges_as_ever(run)


def assert_merges_as_ever(run: Path) -> None:
    """Merge, and compare with a merge of one process that nobody disturbed."""
    alone = run.parents[1] / "alone" / run.name
    shutil.copytree(run, alone)
    with merging(run) as process:
        assert process.communicate()[1] == ""
    assert process.returncode == 0
    notata.merge(alone)
    assert made(run) == made(alone)
    assert files_of(run) == files_of(alone)
    assert not [name for name in files_of(run) if layout.MERGE_PREFIX in name]
