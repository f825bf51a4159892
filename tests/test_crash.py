"""A merge that is killed at each of its system calls that change the disk, one after another."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from richrun import answers, counted, tree_of
from simulated import ROOT, write_as

import notata
from notata import Logbook

# The calls that put something on disk or take it away; reads and locks change nothing.
_CALLS = """open openat creat write pwrite64 writev pwritev sendfile copy_file_range rename renameat
    renameat2 mkdir mkdirat unlink unlinkat rmdir link linkat symlink symlinkat truncate ftruncate
    fallocate fsync fdatasync utimensat chmod fchmod fchmodat"""
_MERGE = "import sys, notata; notata.merge(sys.argv[1], prune=sys.argv[2] == 'prune')"
_LEVEL = {"PYTHONPATH": os.fspath(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


class Point(NamedTuple):
    """A system call that changes the disk."""

    call: str
    number: int  # of this kind of call in its thread, from 1: so strace counts
    line: str


def work(log: Logbook) -> None:
    """A little of every kind."""
    log.info(f"hello from {log.rank}")
    log.array("T", np.full((2, 3), float(log.rank)), start=(2 * log.rank, 0), shape=(4, 3))
    log.array("kept", [log.rank], join="none")
    log.arrays("b", u=[log.rank], v=np.arange(3.0))
    log.json("metrics", {"solve": 1.0 + log.rank})
    log.text("notes", f"of {log.rank}")


def traced(run: Path, how: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Merge a run under strace, in a process of its own."""
    command = ["strace", "-f", "-qq", "-y", "-e", "signal=none", *options]
    command += [sys.executable, "-c", _MERGE, os.fspath(run), how]
    environment = {"PATH": os.environ["PATH"], **_LEVEL}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def points(run: Path, how: str, log: Path) -> list[Point]:
    """The calls of an undisturbed merge that change something below the run."""
    done = traced(run, how, "-e", f"trace={','.join(_CALLS.split())}", "-o", os.fspath(log))
    assert done.returncode == 0, done.stderr
    seen: dict[tuple[str, str], int] = {}
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +(\w+)\(", line)
        if match is None:
            continue
        thread, call = match[1], match[2]
        number = seen[thread, call] = seen.get((thread, call), 0) + 1
        reads = "open" in call and not re.search("O_CREAT|O_TRUNC|O_WRONLY|O_RDWR", line)
        if os.fspath(run) in line and not reads:
            found.append(Point(call, number, line))
    return found


def killed(run: Path, how: str, point: Point) -> bool:
    """Merge, killed just before one call; whether it came so far."""
    inject = f"inject={point.call}:signal=SIGKILL:when={point.number}"
    done = traced(run, how, "-e", f"trace={point.call}", "-e", inject, "-o", os.devnull)
    return done.returncode != 0


def plain(run: Path) -> dict[str, Any]:
    """What each file holds, without what differs from merge to merge: times of outputs."""
    found: dict[str, Any] = dict(tree_of(run))
    record = json.loads(found.pop("merge.json"))
    for made in (*record["outputs"].values(), record.get("archive", {})):
        made.pop("mtime_ns", None)
    return found | {"merge.json": record}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["plain", "prune"])
def test_a_merge_that_is_killed_anywhere_loses_nothing(tmp_path: Path, how: str) -> None:
    if shutil.which("strace") is None:
        if os.environ.get("CI"):
            pytest.fail("strace is missing")
        pytest.skip("no strace here, which kills the merge at a system call")
    original = counted(write_as(2, tmp_path / "original", work))
    before = answers(original)
    undisturbed = tmp_path / "undisturbed" / original.name
    shutil.copytree(original, undisturbed)
    found = points(undisturbed, how, tmp_path / "calls")
    whole = plain(undisturbed)
    assert {"rename", "fsync", "unlink"} <= {point.call for point in found} | {"unlink"}
    assert len(found) > 40

    def kill(number: int) -> list[str]:
        run = tmp_path / f"killed-{number}" / original.name
        shutil.copytree(original, run)
        return [] if killed(run, how, found[number]) else ["it was not killed"]

    def look(number: int, wrong: list[str]) -> list[str]:
        point = found[number]
        run = tmp_path / f"killed-{number}" / original.name
        if answers(run) != before:
            wrong.append("a reader gets other answers")
        notata.merge(run, prune=how == "prune")
        if answers(run) != before:
            wrong.append("a reader gets other answers after the next merge")
        if plain(run) != whole:
            differing = {k for k, _ in set(_flat(plain(run))) ^ set(_flat(whole))}
            wrong.append(f"the next merge made something else: {sorted(differing)}")
        shutil.rmtree(run.parent)
        return [f"{point.call} {point.number}: {text}\n  {point.line}" for text in wrong]

    # One thread looks: in Python 3.11, two that read arrays' heads at once may fail (SystemError).
    with ThreadPoolExecutor(4) as pool:
        killings = enumerate(pool.map(kill, range(len(found))))
        wrong = [text for number, texts in killings for text in look(number, texts)]
    assert not wrong, "\n".join(wrong)


def _flat(tree: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, repr(value)) for name, value in tree.items()]
