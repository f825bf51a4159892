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
from calls import (
    STRIDE,
    each,
    fail_at,
    need_strace,
    points_in,
    refused,
    strace,
)
from calls import Point as Call
from calls import run as run_command
from richrun import answers, counted, tree_of
from simulated import ROOT, write_as

import notata
from notata import Logbook, LogReader, layout
from notata.errors import NotataError

# The calls that put something on disk or take it away; reads and locks change nothing.
_CALLS = """open openat creat write pwrite64 writev pwritev sendfile copy_file_range rename renameat
    renameat2 mkdir mkdirat unlink unlinkat rmdir link linkat symlink symlinkat truncate ftruncate
    fallocate fsync fdatasync utimensat chmod fchmod fchmodat"""
_MERGE = """
import sys, notata
notata.merge(sys.argv[1], prune="prune" in sys.argv[2], allow_missing="holes" in sys.argv[2])
"""
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
    record = json.loads(found.pop("merge.json").replace(os.fsencode(run), b""))
    for made in (*record["outputs"].values(), record.get("archive", {})):
        made.pop("mtime_ns", None)
    return found | {"merge.json": record}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["plain", "prune"])
def test_a_merge_that_is_killed_anywhere_loses_nothing(tmp_path: Path, how: str) -> None:
    need_strace()
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


# ----- refused by the disk -----

# What a merge asks of a disk, but to open and to read.
_ASKS = ["fsync", "close", "rename", "utimensat", "unlink", "unlinkat", "rmdir", "mkdir"]
_ASKS += ["write", "pwrite64", "ftruncate"]
_ERROR = {"plain": "ENOSPC", "prune": "EIO"}
_UNREAD = re.compile(r"log_run: (\S+ can't be read: |rank \d's \S+ )")
_ADVISED = {"plain": "; free space or inodes there", "prune": "; the disk or its server failed"}


def by_the_command(run: Path, how: str) -> list[str]:
    options = ["--prune"] if how == "prune" else []
    return [sys.executable, "-B", "-m", "notata", "merge", *options, os.fspath(run)]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", ["plain", "prune"])
def test_a_merge_that_is_refused_anything_says_so_and_the_next_one_does_it(
    tmp_path: Path, how: str
) -> None:
    need_strace()
    original = counted(write_as(2, tmp_path / "original", work))
    before = answers(original)
    undisturbed = tmp_path / "undisturbed" / original.name
    shutil.copytree(original, undisturbed)
    log = tmp_path / "calls"
    done = run_command([*strace(_ASKS, to=log), *by_the_command(undisturbed, how)], tmp_path)
    assert done.returncode == 0, done.stderr
    points = points_in(log, undisturbed.parent)
    assert {"fsync", "close", "rename", "utimensat", "unlink", "write"} <= {p.call for p in points}
    whole = plain(undisturbed)
    missed = []

    def refuse(point: Call) -> Any:
        run = tmp_path / f"{point.call}-{point.number}" / original.name
        shutil.copytree(original, run)
        calls = run.parent / "calls"
        under = strace([point.call], *fail_at(point, _ERROR[how]), to=calls)
        return run, run_command([*under, *by_the_command(run, how)], tmp_path)

    def look(point: Call, ended: Any) -> None:
        run, done = ended
        if not refused(run.parent / "calls", run.parent):
            missed.append(point)
            return
        assert answers(run) == before, "a reader gets other answers"
        assert "Traceback" not in done.stderr, done.stderr
        if done.returncode == 0:
            assert left_out(plain(run)) == left_out(whole), done.stdout
            assert litter(run) == [] or ".notata-pruned could not be deleted" in done.stdout
        else:
            said = done.stderr.splitlines()
            assert done.returncode == 2, said
            assert said[0].startswith(f"notata: error: {run}"), said
            assert ".notata-" not in done.stderr, said
            # A file that is closed after it was read may as well not have been read.
            unread = point.call == "close" and _UNREAD.search(said[0])
            assert unread or (len(said) == 1 and _ADVISED[how] in said[0]), said
        notata.merge(run)
        assert litter(run) == []
        assert answers(run) == before, "a reader gets other answers after the next merge"
        notata.merge(run, prune=how == "prune")
        assert plain(run) == whole
        shutil.rmtree(run.parent)

    each(points, len(how), refuse, look, stride=1 if STRIDE == 1 else 3 * STRIDE // 2)
    assert len(missed) <= max(1, len(points) // STRIDE // 50), missed


def litter(run: Path) -> list[str]:
    """What has a name that only a merge at work has."""
    return [os.fspath(p) for p in run.rglob("*") if layout.TEMP_PREFIX in p.name]


def left_out(tree: dict[str, Any]) -> dict[str, Any]:
    """A run's files without those that a pruning could not delete."""
    return {k: v for k, v in tree.items() if layout.PRUNED not in k}


# ----- over what an earlier merge made, and with holes -----


def go_on(run: Path, other: Path) -> None:
    """Replace all that rank 1 wrote by what it wrote in another run."""
    shutil.rmtree(run / "ranks/rank_00001")
    shutil.copytree(other / "ranks/rank_00001", run / "ranks/rank_00001")


def other_work(log: Logbook) -> None:
    work(log)
    log.info("and more")
    log.array("T", np.full((2, 3), 7.0), start=(2 * log.rank, 0), shape=(4, 3))
    log.arrays("b", u=[9], v=np.ones(3))
    log.json("metrics", {"solve": 0.5})


def prepared(base: Path, state: str) -> Path:
    """A run that is to be merged over old outputs, with holes, or after its holes were filled."""
    run = counted(write_as(2, base / "original", work))
    other = counted(write_as(2, base / "other", other_work))
    lost = [run / "ranks/rank_00001/data" / name for name in ("T.npy", "b.npz")]
    if state == "again":
        notata.merge(run)
        go_on(run, other)
        return run
    whole = base / "whole"
    shutil.copytree(run / "ranks/rank_00001", whole)
    for path in lost:
        path.unlink()
    if state == "filled":
        notata.merge(run, allow_missing=True)
        for path in lost:
            shutil.copy2(whole / "data" / path.name, path)
    return run


def told(run: Path) -> dict[str, str]:
    """What a reader tells of each thing, errors too."""
    reader = LogReader(run)
    found = {"messages": repr(list(reader.messages()))}
    for name in ("T", "b:u", "b:v", "b.mask:u"):
        try:
            found[name] = repr(reader.load_array(name).tolist())
        except NotataError as error:
            found[name] = type(error).__name__
    return found | {f"rank {r.rank}": repr(r.load_json("metrics")) for r in reader.ranks}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["plain", "prune"])
@pytest.mark.parametrize("state", ["again", "holes", "filled"])
def test_a_merge_that_is_killed_over_an_older_one_or_with_holes(
    tmp_path: Path, state: str, how: str
) -> None:
    need_strace()
    original = prepared(tmp_path, state)
    how = f"{state} {how}"
    options = {"prune": "prune" in how, "allow_missing": state == "holes"}
    before = told(original)
    undisturbed = tmp_path / "undisturbed" / original.name
    shutil.copytree(original, undisturbed)
    found = points(undisturbed, how, tmp_path / "calls")
    whole, after = plain(undisturbed), told(undisturbed)
    assert len(found) > 30
    # Readers take whole pieces in any case; of what has holes, the error or what was merged.
    differing = {key for key in after if before[key] != after[key]}
    assert (
        differing
        == {
            "again": set(),
            "holes": {"T", "b:u", "b:v", "b.mask:u"},
            "filled": {"b.mask:u"},
        }[state]
    )
    wrong = []
    step = STRIDE * 3 // 2
    for point in found[sum(map(ord, how)) % step :: step]:
        run = tmp_path / "killed" / original.name
        shutil.copytree(original, run)
        assert killed(run, how, point), point
        now = told(run)
        wrong += [f"{point}: {key}" for key in now if now[key] not in (before[key], after[key])]
        if state == "holes" and now["b:u"] == after["b:u"]:  # no zero of a hole without its mask
            assert now["b.mask:u"] == after["b.mask:u"]
        notata.merge(run, **options)
        if (plain(run), told(run)) != (whole, after):
            differing = {k for k, _ in set(_flat(plain(run))) ^ set(_flat(whole))}
            wrong.append(f"{point}: the next merge made something else: {sorted(differing)}")
        shutil.rmtree(run.parent)
    assert not wrong, "\n".join(wrong)
