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
from calls import STRIDE, need_strace
from richrun import answers, counted, tree_of
from simulated import ROOT, write_as

import notata
from notata import Logbook, LogReader
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
