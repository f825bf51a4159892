"""A disk that becomes full while several processes share a merge: what is said and what is left."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from richrun import tree_of
from simulated import ROOT, write_as

import notata
from notata import Logbook, layout, mergerecord

SIZE = 240 << 20  # bytes of the disk
_MPIEXEC = Path(sys.executable).with_name("mpiexec")
CREWS = {
    "jobs": ([], ["--jobs", "2"]),
    "ranks": ([os.fspath(_MPIEXEC), "-n", "2"], []),
}
# Looked at beforehand there is room, which somebody else takes then.
MERGE = """
import sys
from notata.cli import main
from notata.merging import room
room.check = lambda path, count, what="": None
sys.argv[1:1] = ["merge"]
main()
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", os.fspath(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"can't mount here: {done.stderr}")
    yield folder
    subprocess.run(["umount", "-l", os.fspath(folder)], check=True)


def a_run(base: Path, kind: str) -> Path:
    """One whose outputs of 72 MB fit beside what ranks wrote, if nothing else lies there."""

    def work(log: Logbook) -> None:
        log.array("first", np.full(1000, log.rank))
        if kind == "array":  # divided
            log.array("T", np.full((2250, 1000), log.rank, float))
        elif kind == "bundle":  # made by one of them
            log.arrays("b", False, u=np.full((2250, 1000), log.rank, float))
        else:
            lines = [f"step {number} of rank {log.rank} {'x' * 900}" for number in range(18_000)]
            for line in lines:
                log.info(line)

    return write_as(4, base, work)


@pytest.mark.parametrize("crew", [*CREWS])
@pytest.mark.parametrize("kind", ["array", "bundle", "log"])
def test_a_disk_that_others_fill_is_named_and_costs_nothing(
    disk: Path, tmp_path: Path, kind: str, crew: str
) -> None:
    if crew == "ranks" and not _MPIEXEC.exists():
        pytest.skip("no mpiexec here")
    run = a_run(disk, kind)
    before = tree_of(run)
    alone = tmp_path / "alone" / run.name
    shutil.copytree(run, alone)
    notata.merge(alone)
    room = os.statvfs(disk)
    with (disk / "filler").open("wb") as filler:  # what is left is enough for half of it
        os.posix_fallocate(filler.fileno(), 0, room.f_bavail * room.f_frsize - (36 << 20))
    launch, options = CREWS[crew]
    command = [*launch, sys.executable, "-c", MERGE, *options, os.fspath(run)]
    environment = os.environ | {"PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    target = {"array": "data/T.npy", "bundle": "data/b.npz", "log": "log.txt"}[kind]
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    met = rf"{re.escape(os.fspath(run))}/(\S+): No space left on device for (\d+) bytes, (\d+) are"
    told = re.search(met, done.stderr)
    assert told is not None, done.stderr
    assert int(told[3]) < 36 << 20
    if told[1] != "data/first.npy":  # which comes too late where the other has taken all of it
        assert told[1] == target
        assert 68_000_000 < int(told[2]) < 77_000_000
    assert {**tree_of(run), layout.MERGE_LOCK: b""} == {**before, layout.MERGE_LOCK: b""}
    (disk / "filler").unlink()
    command = [*launch, sys.executable, "-m", "notata", "merge", *options, os.fspath(run)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    made, expected = tree_of(run), tree_of(alone)
    records = [mergerecord.read(os.fspath(one)) for one in (run, alone)]
    sums = [{f: m.itself.checksum for f, m in one.outputs.items()} for one in records]
    assert sums[0] == sums[1]
    del made["merge.json"], expected["merge.json"]
    assert made == expected
