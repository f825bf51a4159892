"""Signals that reach ranks in blocking calls, and leaving a loop together."""

from __future__ import annotations

import re
import time

import pytest

from notata import LogReader, merge
from notata.messages import stamp_seconds
from notata.ranges import expand

pytestmark = pytest.mark.mpi

RANKS = 3


def test_a_rank_in_a_blocking_receive_notes_a_signal_at_once(launch, tmp_path):
    end = time.time() + 3000
    done = launch(RANKS, "signals", "blocked", tmp_path, NOTATA_END_TIME=str(end))
    told = r"\[rank 1\] received SIGUSR1, (\d+) s before the end of the job; the program goes on"
    match = re.search(f"WARNING {told}", done.told[0]["said"])
    assert match
    assert 2900 < int(match[1]) < 3000
    assert (done.told[1]["before"], done.told[1]["got"], done.told[1]["after"]) == (
        False,
        "now",
        True,
    )
    run = LogReader(tmp_path / "log_a")
    (noted,) = run.ranks[1].record["signals"]
    assert noted["signal"] == "SIGUSR1"
    assert noted["time_left"] == pytest.approx(int(match[1]), abs=0.6)
    assert abs(end - noted["time_left"] - stamp_seconds(noted["time"])) < 2
    assert run.ranks[2].record == {}
    assert run.meta["signals"] == [noted | {"ranks": "1"}]
    assert run.meta["status"] == "complete"


def test_signals_of_all_ranks_are_in_the_metadata_once_the_run_is_closed(launch, tmp_path):
    done = launch(RANKS, "signals", "all_warned", tmp_path, NOTATA_END_TIME=str(time.time() + 3000))
    (mine,) = done.told[0]["said"]  # at once
    assert (mine["signal"], mine["ranks"]) == ("SIGUSR1", "0")
    run = LogReader(tmp_path / "log_a")
    (own,) = (one for one in run.ranks[2].record["signals"] if one["signal"] == "SIGUSR2")
    told = sorted(run.meta["signals"], key=lambda one: one["signal"])
    assert told == [mine | {"ranks": "0-2"}, own | {"ranks": "2"}]


def test_sigterm_in_a_blocking_receive_ends_the_rank(launch, tmp_path):
    done = launch(RANKS, "signals", "ended", tmp_path, check=False)
    assert done.status != 0
    run = LogReader(tmp_path / "log_a")
    record = run.ranks[1].record
    assert (record["status"], record["failure_reason"]) == ("failed", "ended by SIGTERM")
    assert run.meta["status"] == "failed"
    assert "ended by SIGTERM" in run.meta["failure_reason"]
    merge(tmp_path / "log_a", unfinished=True)  # of ranks that closed it together with none
    ranks = [one["ranks"] for one in run.meta["signals"] if one["signal"] == "SIGTERM"]
    assert 1 in {rank for told in ranks for rank in expand(told)}


def test_all_ranks_leave_in_the_same_step(launch, tmp_path):
    done = launch(RANKS, "signals", "leaving", tmp_path)
    steps = {told["step"] for told in done.told.values()}
    assert len(steps) == 1
    assert 17 <= steps.pop() < 999
    assert [done.told[rank]["warned"] for rank in range(RANKS)] == [False, True, False]
    assert LogReader(tmp_path / "log_a").meta["status"] == "complete"


def test_off_the_main_thread_nothing_is_installed_and_nothing_breaks(launch, tmp_path):
    done = launch(RANKS, "signals", "off_the_main_thread", tmp_path)
    expected = {"same": True, "warned": False, "agreed": True, "status": "complete", "after": True}
    assert list(done.told.values()) == [expected] * RANKS, done.output
    assert LogReader(tmp_path / "log_a").load_array("x").tolist() == [0, 1, 2]


def test_rank_0_says_for_what_it_waits(launch, tmp_path):
    done = launch(RANKS, "signals", "one_stays_away", tmp_path)
    assert all(told["left"] for told in done.told.values())
    assert "rank 0 of 3 came to agree() in run 'a', which all ranks call" in done.output


def test_a_rank_that_breaks_ends_those_that_wait_to_agree(launch, tmp_path):
    done = launch(RANKS, "signals", "one_breaks", tmp_path, check=False, NOTATA_GRACE="2")
    assert done.status != 0
    assert done.seconds < 30
    run = LogReader(tmp_path / "log_a")
    assert run.meta["status"] == "failed"
    assert run.meta["failure_reason"] == "rank 2: NaN in cell 7"
