"""Two processes that merge one run at once: one does it, the other waits, or says who holds it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from richrun import answers, rich, tree_of
from simulated import ROOT, write_as

import notata
from notata import layout, mergerecord
from notata.topology import hostname

ROUNDS = 6
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(ROOT), "COLUMNS": "200"}
# Loads what a merge needs, and begins once it is told to.
GATED = """
import sys
from notata.cli import main
from notata import merging
import numpy, xxhash
print("ready", flush=True)
sys.stdin.readline()
main(["merge", *sys.argv[1:]])
"""


def standing_by(*words: object) -> subprocess.Popen[str]:
    """A merge that waits at the gate."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", GATED, *map(str, words)],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def at_once(*merges: Sequence[object], between: float = 0.0) -> list[tuple[int, str, str]]:
    """Open the gate to all; gives of each the exit status and what it said."""
    processes = [standing_by(*words) for words in merges]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(between)
    said = [process.communicate(timeout=100) for process in processes]
    return [(p.returncode, *both) for p, both in zip(processes, said, strict=True)]


def copy_of(run: Path, folder: Path) -> Path:
    return Path(shutil.copytree(run, folder / "runs" / run.name))


def made(run: Path) -> dict[str, Any]:
    record = mergerecord.read(os.fspath(run))
    assert not record.pending
    return {file: (one.itself.size, one.itself.checksum) for file, one in record.outputs.items()}


def contents(run: Path) -> dict[str, bytes]:
    """All files but the record, which has times, and the archive, which has them too."""
    found = tree_of(run)
    return {k: v for k, v in found.items() if k not in ("merge.json", layout.ARCHIVE)}


@pytest.mark.parametrize("jobs", [1, 2])
def test_of_two_merges_one_joins_and_the_other_finds_nothing_to_do(
    base: Path, tmp_path: Path, jobs: int
) -> None:
    run = rich(base)
    alone = copy_of(run, tmp_path / "alone")
    count = len([row for row in notata.merge(alone).rows if row.action == "joined"])
    for number in range(ROUNDS):
        mine = copy_of(run, tmp_path / f"{number}")
        words = ["--jobs", jobs, mine]
        told = at_once(words, words, between=0.004 * number)
        assert [(status, errors) for status, _, errors in told] == [(0, "")] * 2
        first, second = sorted((out.splitlines()[0] for _, out, _ in told), key=len)
        assert first.startswith(f"{mine}: joined {count} of {count}")
        assert second == f"{mine}: nothing to do: merged before"
        assert (made(mine), contents(mine)) == (made(alone), contents(alone))
        assert notata.merging.verify(mine)[2:4] == ((), ())


def test_one_merges_while_the_other_prunes(base: Path, tmp_path: Path) -> None:
    run = rich(base)
    expected = answers(run)
    alone = copy_of(run, tmp_path / "alone")
    notata.merge(alone, prune=True)
    ways = [([], ["--prune"]), (["--prune"], []), (["--prune"], ["--prune"])]
    for number in range(ROUNDS):
        mine = copy_of(run, tmp_path / f"{number}")
        merged_before = number % 2 == 1
        if merged_before:
            notata.merge(mine)
        pair = ways[number % 3]
        told = at_once(*([*words, mine] for words in pair), between=0.006 * (number // 2))
        assert [(status, errors) for status, _, errors in told] == [(0, "")] * 2, told
        notes = [out.splitlines()[0] for _, out, _ in told]
        assert sum("joined" in note for note in notes) == (not merged_before)
        assert sum("pruned" in note for note in notes) == 1
        assert not (mine / "ranks").exists()
        assert (made(mine), contents(mine)) == (made(alone), contents(alone))
        assert answers(mine) == expected
        assert notata.merging.verify(mine)[2:4] == ((), ())


@pytest.fixture
def large(base: Path) -> Path:
    """A run that takes a while to merge."""

    def work(log: notata.Logbook) -> None:
        rows = np.arange(8_000_000.0).reshape(2000, 4000) + log.rank
        log.array("T", rows, start=(2000 * log.rank, 0), shape=(4000, 4000))
        log.info(f"hello from {log.rank}")

    return write_as(2, base, work)


@pytest.mark.parametrize("option", ["--allow-missing", "--prune"])
def test_one_that_can_not_wait_for_one_that_is_held_up_says_who_it_is(
    large: Path, tmp_path: Path, option: str
) -> None:
    alone = copy_of(large, tmp_path / "alone")
    notata.merge(alone)
    large, first = held_up(large, tmp_path)
    try:
        before = tree_of(large)
        ((status, out, errors),) = at_once(["--timeout", 0.3, option, large])
        assert (status, out) == (2, "")
        assert f"process {first.pid} on {hostname()}, since " in errors
        assert len(errors.splitlines()) == 1
        assert tree_of(large) == before
        assert "merge.json" not in before
    finally:
        os.kill(first.pid, signal.SIGCONT)
    out, errors = first.communicate(timeout=100)
    assert (first.returncode, errors) == (0, "")
    assert out.startswith(f"{large}: joined 2 of 2")
    assert (made(large), contents(large)) == (made(alone), contents(alone))
    assert notata.merge(large).nothing_to_do


def held_up(run: Path, folder: Path) -> tuple[Path, subprocess.Popen[str]]:
    """A merge that was stopped once it had begun to write an array, and the run that it merges.

    On a busy machine one may be over before it is seen: then another copy of the run is merged.
    """
    for number in range(10):
        copy = copy_of(run, folder / f"held-{number}")
        process = standing_by(copy)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        while process.poll() is None:
            if _has_begun(copy):
                os.kill(process.pid, signal.SIGSTOP)
                if _has_begun(copy):
                    return copy, process
                os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.001)
        process.communicate()
    pytest.fail("it was never seen at work")


def _has_begun(run: Path) -> bool:
    for path in (run / layout.DATA).glob(f"{layout.MERGE_PREFIX}*"):
        with suppress(FileNotFoundError):  # it has its name by now
            return path.stat().st_size > 1000
    return False
