"""`notata stuck` on real ranks: those that wait in a reduction, and the one that is elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
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


def opened(out: Path) -> dict[int, Counter[str]]:
    """How often each rank opened which file of another one, for those that did."""
    lists = {int(path.name[7:]): path.read_text().split() for path in out.glob("opened-*")}
    assert len(lists) == 5
    return {rank: Counter(names) for rank, names in lists.items() if names}


@pytest.mark.parametrize("mode", ["all_can_run_python", "all_but_rank_0_can_run_python"])
def test_one_rank_of_all_that_are_stuck_reads_where_the_others_stand(
    launch: Any, tmp_path: Path, mode: str
) -> None:
    done = launch(5, "stuck", mode, tmp_path, check=False, seconds=40)
    assert done.status != 0
    run = tmp_path / "log_run"
    ((collector, files),) = opened(tmp_path).items()
    if mode != "all_can_run_python":
        assert collector != 0
    # Once for the metadata and once to see who is missing, who is looked for again, less and less.
    assert all(files[f"rank_0000{rank}/stacks.txt"] for rank in range(1, 5) if rank != collector)
    assert max(files.values()) <= 10
    meta = LogReader(run).meta
    assert meta["status"] == "failed"
    assert " in hangs (" in meta["failure_reason"]
    found = survey(str(run), 5)
    places = {stand.rank: stand.own[0].function for group in found.groups for stand in group}
    assert places.pop(0) == ("hangs" if mode == "all_can_run_python" else "holds_the_lock")
    assert places == dict.fromkeys(range(1, 5), "hangs")


def test_a_job_is_ended_though_the_rank_that_reads_it_all_is_dead(
    launch: Any, tmp_path: Path
) -> None:
    mode = "the_one_that_looks_is_dead"
    done = launch(5, "stuck", mode, tmp_path, check=False, seconds=60)
    assert done.status != 0
    assert opened(tmp_path) == {}
    meta = LogReader(tmp_path / "log_run").meta
    assert meta["status"] == "failed"
    assert meta["failure_reason"].startswith("no sign of life for ")
    assert " in hangs (" in meta["failure_reason"]
