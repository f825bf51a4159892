"""Runs of ranks without a communicator that no rank 0 opens."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulated import open_as, program

RANK_1 = """
import os
os.environ.update(NOTATA_RANK="1", NOTATA_SIZE="3", NOTATA_LAUNCH="launch-1")
from notata import Logbook
"""
MEMBERS = """
for i in range(3):
    with Logbook(f"member{i}") as log:
        log.info("here")
"""


def open_rank_0_s(base: Path) -> None:
    """A run of rank 0 of the same launch."""
    open_as(0, 3, base / "outputs", "of_rank_0").mark_complete()


def test_a_rank_says_once_which_runs_no_rank_0_has_opened(tmp_path: Path) -> None:
    open_rank_0_s(tmp_path)
    done = program(RANK_1 + MEMBERS, tmp_path)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("notata: rank 1: rank 0 has not opened ")
    assert "log_member0, nor 2 more" in line
    assert "NOTATA_RANK says that it is one of 3" in line
    assert "comm=None" in line


def test_a_rank_says_so_of_runs_that_rank_0_can_not_be_late_for(tmp_path: Path) -> None:
    done = program(
        f"{RANK_1}{MEMBERS}\nfrom notata import speaking; speaking._LATE = 0.0", tmp_path
    )
    assert "log_member0, nor 2 more" in done.stderr


@pytest.mark.parametrize(
    ("size", "launch"), [(None, ""), (2, "launch-1"), (3, "launch-2")], ids=str
)
def test_a_rank_says_nothing_as_long_as_rank_0_may_come(
    tmp_path: Path, size: int | None, launch: str
) -> None:
    if size is not None:  # another program's
        open_as(0, size, tmp_path / "outputs", "other", launch=launch).mark_complete()
    done = program(RANK_1 + MEMBERS, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_rank_says_nothing_of_the_last_of_the_runs_that_it_shares(tmp_path: Path) -> None:
    open_as(0, 3, tmp_path / "outputs", "member0").mark_complete()
    done = program(RANK_1 + MEMBERS, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "code",
    [
        # it wrote nothing
        'with Logbook("x"): pass',
        # it has a run of its own
        'with Logbook("x", comm=None) as log: log.info("here")',
        # rank 0 is late
        """
with Logbook("x") as log:
    log.info("here")
os.environ["NOTATA_RANK"] = "0"
Logbook("x").mark_complete()
        """,
        # the run is gone
        """
import shutil
with Logbook("x") as log:
    log.info("here")
shutil.rmtree(log.path)
        """,
    ],
)
def test_a_rank_says_nothing(tmp_path: Path, code: str) -> None:
    open_rank_0_s(tmp_path)
    done = program(RANK_1 + code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_of_a_pool_says_it_as_it_closes_the_first_run(tmp_path: Path) -> None:
    code = """
import multiprocessing

def work(i):
    with Logbook(f"worker{i}") as log:
        log.array("x", [i])

with multiprocessing.get_context("fork").Pool(1) as pool:
    pool.map(work, range(3))
    """
    open_rank_0_s(tmp_path)
    done = program(RANK_1 + code, tmp_path)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert "log_worker0, without which" in line


def test_a_rank_that_is_in_time_says_nothing(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_as(0, 2, base), open_as(1, 2, base) as log:
        log.info("here")
    assert capsys.readouterr().err == ""
