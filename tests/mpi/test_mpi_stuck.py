"""`notata stuck` on real ranks: those that wait in a reduction, and the one that is elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from notata import LogReader
from notata.stacks import survey

pytestmark = pytest.mark.mpi


def test_ranks_that_wait_stand_together_though_none_of_them_can_run_python(
    launch: Any, tmp_path: Path
) -> None:
    done = launch(4, "stuck", "before_the_first_line", tmp_path, check=False)
    assert done.status != 0
    assert done.told[2]["groups"] == [[2], [0, 1, 3]], done.output
    elsewhere, waiting = done.told[2]["places"]
    assert "elsewhere" in elsewhere
    assert "reduces" in waiting
    command = [sys.executable, "-m", "notata", "stuck", tmp_path / "log_run"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 1, told.stderr
    assert "4 of 4 ranks gave no sign of life" in told.stdout
    assert "most recent call first" not in done.output  # they are in the run, not on the terminal


def test_a_job_whose_ranks_hold_python_s_lock_is_ended(launch: Any, tmp_path: Path) -> None:
    done = launch(3, "stuck", "none_can_run_python", tmp_path, check=False, seconds=40)
    assert done.status != 0
    # The first one that ends itself takes the others with it.
    groups = survey(str(tmp_path / "log_run"), 3).groups
    assert {group[0].own[0].function for group in groups} == {"holds_the_lock"}


def test_a_rank_that_can_says_why_the_job_is_ended_first(launch: Any, tmp_path: Path) -> None:
    done = launch(4, "stuck", "one_can_run_python", tmp_path, check=False, seconds=40)
    assert done.status != 0
    meta = LogReader(tmp_path / "log_run").meta
    assert meta["status"] == "failed"
    assert meta["failure_reason"].startswith("no sign of life for "), meta
    assert "rank 2 in hangs (" in meta["failure_reason"]
    found = survey(str(tmp_path / "log_run"), 4)
    places = {rank.rank: rank.own[0].function for group in found.groups for rank in group}
    assert places.pop(2) == "hangs"
    assert set(places.values()) == {"holds_the_lock"}, found
