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
from calls import CHANGES, STRIDE, each, environment, need_strace, points_in, strace
from calls import Point as Call
from richrun import answers, rich, tree_of
from simulated import ROOT, write_as

import notata
from notata import Logbook, LogReader, layout, mergerecord

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
        if _writes(run):
            return children(process.pid)
        time.sleep(0.001)
    return []


def _writes(run: Path) -> bool:
    for path in (run / "data").glob(f"{layout.MERGE_PREFIX}*"):
        with suppress(FileNotFoundError):
            if path.stat().st_blocks > 16:  # more than its head; its size it has before
                return True
    return False


def children(pid: int) -> list[int]:
    """The workers, and not the process that Python has for their semaphores."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that is gone by now
            found += map(int, task.read_text().split())
    return [one for one in found if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def merging(run: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "notata", "merge", *(options or ["--jobs=2"]), os.fspath(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,  # so that a signal may come to it and to its workers alone
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


@pytest.mark.parametrize(
    ("jobs", "how"), [(1, "SIGTERM"), (1, "SIGINT"), (2, "SIGTERM"), (2, "Ctrl-C")]
)
def test_a_merge_that_is_told_to_end_loses_nothing(run: Path, jobs: int, how: str) -> None:
    before = {name: (run / name).read_bytes() for name in files_of(run)}
    run, process, workers = told_to_end(run, jobs, how)
    out, said = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGTERM if how == "SIGTERM" else 1), said
    assert out == ""
    if how == "SIGTERM":  # at most Python's own word of semaphores, which it cleans up
        assert said == "" or "resource_tracker" in said
        assert "Traceback" not in said
    else:
        assert said == "\nAborted!\n"
    assert len(workers) == (jobs if jobs > 1 else 0)
    ends = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < ends, f"still there: {workers}"
        time.sleep(0.01)
    assert {name: (run / name).read_bytes() for name in before} == before
    left = files_of(run) - before.keys() - {layout.MERGE_LOCK}
    if how == "SIGTERM":  # which ends it at once
        assert all(os.path.basename(name).startswith(layout.MERGE_PREFIX) for name in left)
    else:
        assert left == set()
    assert LogReader(run).load_array("b:u").tolist() == [0, 1]
    assert_merges_as_ever(run)


def told_to_end(run: Path, jobs: int, how: str) -> tuple[Path, subprocess.Popen[str], list[int]]:
    """A merge to which a signal came while it wrote an array, its workers, and what it merges.

    It is stopped before, so that it surely is at work. What a terminal sends comes to all.
    """
    for number in range(10):
        copy = run.parents[1] / f"copy-{number}" / run.name
        shutil.copytree(run, copy)
        process = merging(copy, f"--jobs={jobs}")
        while process.poll() is None:
            if _writes(copy):
                os.kill(process.pid, signal.SIGSTOP)
                workers = children(process.pid)
                if _writes(copy) and process.poll() is None:
                    if how == "Ctrl-C":
                        os.killpg(process.pid, signal.SIGINT)
                    else:
                        os.kill(process.pid, signal.Signals[how])
                    os.kill(process.pid, signal.SIGCONT)
                    return copy, process, workers
                os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.001)
        process.communicate()
    pytest.fail("it was never seen at work")


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


# ----- at each of the calls by which one of them changes the disk -----

# Small outputs, divided as large ones are; and a worker is started as the one that may be killed.
DIVIDED = """
import multiprocessing, sys
from notata.merging import arrays, joining, logs, slabs
joining._LARGE = joining._BATCH = joining._MANY = 1
arrays._TASK, slabs.SLAB, logs.RANGE, logs._OF_EACH = 1, 40, 200, 10
if __name__ == "__main__":
    run, worker = sys.argv[1:]
    if worker:
        multiprocessing.set_executable(worker)
    sys.argv[1:] = ["merge", *(["--jobs", "2"] if worker else []), run]
    from notata.cli import main
    main()
"""
MPIEXEC = Path(sys.executable).with_name("mpiexec")


class Crews:
    """Merges of one run by two processes: workers under strace, or rank 1."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.program = folder / "divided.py"
        self.program.write_text(DIVIDED)

    def merge(self, run: Path, options: list[str]) -> subprocess.CompletedProcess[str]:
        """Merge, and see that it ends."""
        python, program = sys.executable, os.fspath(self.program)
        if self.kind == "ranks":
            first = [python, program, os.fspath(run), ""]
            command = [os.fspath(MPIEXEC), "-n", "1", *first, ":", "-n", "1", *options, *first]
        else:  # which of them gets which task is not known: one is killed that comes so far
            worker = run.parent / "worker"
            started = [*options, "-I", "2", python]  # it heeds SIGTERM, as Python does
            mine = f'*spawn_main*) exec {" ".join(started)} "$@";;'
            worker.write_text(f'#!/bin/sh\ncase "$*" in {mine} esac\nexec {python} "$@"\n')
            worker.chmod(0o755)
            command = [python, program, os.fspath(run), os.fspath(worker)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment(), timeout=100
        )

    def points(self, run: Path) -> list[Call]:
        """The calls by which those under strace change something of the run."""
        done = self.merge(run, strace(CHANGES, to=self.folder / "calls.$$"))  # of each worker
        assert done.returncode == 0, done.stderr
        found = [points_in(log, run) for log in self.folder.glob("calls.*")]
        return list(
            {(point.call, point.number): point for some in found for point in some}.values()
        )

    def kill(self, run: Path, point: Call) -> subprocess.CompletedProcess[str]:
        kill = f"inject={point.call}:signal=SIGKILL:when={point.number}"
        return self.merge(run, strace([point.call], "-e", kill))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["jobs", pytest.param("ranks", marks=pytest.mark.mpi)])
def test_one_of_two_that_is_killed_anywhere_loses_nothing(tmp_path: Path, kind: str) -> None:
    need_strace()
    if kind == "ranks" and not MPIEXEC.exists():
        pytest.skip("no mpiexec here")
    original = rich(tmp_path / "original")
    before = answers(original)
    crews = Crews(tmp_path, kind)
    undisturbed = tmp_path / "undisturbed" / original.name
    shutil.copytree(original, undisturbed)
    points = crews.points(undisturbed)
    assert len(points) > 10
    whole = contents(undisturbed)
    ends: list[int] = []

    def kill(point: Call) -> tuple[Path, subprocess.CompletedProcess[str]]:
        run = tmp_path / f"{point.call}-{point.number}" / original.name
        shutil.copytree(original, run)
        return run, crews.kill(run, point)

    def look(point: Call, ended: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
        run, done = ended
        ends.append(done.returncode)
        assert "Traceback" not in done.stderr, done.stderr
        if done.returncode == 0:  # this time others did what it would have done
            assert contents(run) == whole
            return
        if kind == "jobs":
            assert done.returncode == 2
            assert "a process that shared the work was killed" in done.stderr, done.stderr
            assert tree_of(run) == tree_of(original)
        else:
            assert "Killed (signal 9)" in done.stdout  # by mpiexec, which ends the others
        assert answers(run) == before
        notata.merge(run)
        assert contents(run) == whole
        assert answers(run) == before
        shutil.rmtree(run.parent)

    each(points, 0, kill, look, stride=max(1, STRIDE // 4))
    assert any(ends)


def contents(run: Path) -> dict[str, Any]:
    """What each file holds, and of `merge.json` what says so."""
    found: dict[str, Any] = dict(tree_of(run))
    del found["merge.json"]
    return found | {"merge.json": made(run)}
