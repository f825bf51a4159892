"""Signals that reach ranks while they wait for others: the job ends all the same, and says how."""

from __future__ import annotations

import pytest

from notata import LogReader

pytestmark = pytest.mark.mpi

RANKS = 3


def waiting(launch, folder, mode, who, grace="2"):
    done = launch(RANKS, "impatient", mode, folder, who, check=False, NOTATA_GRACE=grace)
    meta = LogReader(folder / "log_run").meta
    return done, (meta["status"], meta.get("failure_reason"))


def test_ranks_that_come_later_hear_of_a_rank_0_that_waits_no_more(launch, tmp_path):
    done, outcome = waiting(launch, tmp_path, "others_come", 0, grace="30")
    assert done.status != 0
    assert outcome == ("failed", "rank 0: KeyboardInterrupt")
    left = [done.told[rank]["left"] for rank in range(RANKS)]
    assert left == ["KeyboardInterrupt", "RanksMissingError", "RanksMissingError"]
    assert "rank 0 left by KeyboardInterrupt while it waited" in done.output
    assert "ending the job" not in done.output


def test_a_rank_that_had_ended_its_part_may_wait_no_more(launch, tmp_path):
    done, outcome = waiting(launch, tmp_path, "others_come", 2, grace="30")
    assert outcome == ("complete", None), done.output
    left = [done.told[rank]["left"] for rank in range(RANKS)]
    assert left == [None, None, "KeyboardInterrupt"]
    assert "ending the job" not in done.output


@pytest.mark.parametrize("who", [0, 2])
def test_a_rank_that_waits_no_more_ends_the_job_where_another_one_hangs(launch, tmp_path, who):
    done, outcome = waiting(launch, tmp_path, "one_never_comes", who)
    assert done.status != 0
    assert outcome == ("failed", f"rank {who}: KeyboardInterrupt")


def test_all_ranks_may_be_told_to_end_while_some_wait(launch, tmp_path):
    done, (status, reason) = waiting(launch, tmp_path, "all_are_told_to_end", 0, grace="30")
    assert done.status != 0
    assert (status, reason[-13:]) == ("failed", "sys.exit(143)")
    assert [told["status"] for told in done.told.values()] == [143] * RANKS


def test_a_rank_may_be_interrupted_as_the_interpreter_ends(launch, tmp_path):
    done, outcome = waiting(launch, tmp_path, "at_exit", 0, grace="4")
    assert done.status != 0
    assert outcome == ("failed", "rank 0: KeyboardInterrupt")


@pytest.mark.parametrize("who", [1, 2])
def test_a_rank_that_is_interrupted_before_it_told_anybody_tells_all(launch, tmp_path, who):
    done, outcome = waiting(launch, tmp_path, "before_it_tells", who, grace="30")
    assert outcome == ("failed", f"rank {who}: KeyboardInterrupt")
    left = {rank: told["left"] for rank, told in done.told.items()}
    assert left == dict.fromkeys(range(RANKS), "RankFailed") | {who: "KeyboardInterrupt"}


def test_a_forked_child_never_speaks_to_other_ranks(launch, tmp_path):
    done, outcome = waiting(launch, tmp_path, "forked", 1, grace="30")
    assert (done.status, outcome) == (0, ("complete", None)), done.output
    told = {"status": "complete", "by_hand": "complete"}
    assert list(done.told.values()) == [told] * RANKS


@pytest.mark.parametrize("who", [0, 2])
def test_after_a_vote_that_was_interrupted_the_run_is_closed(launch, tmp_path, who):
    done, outcome = waiting(launch, tmp_path, "while_it_agrees", who)
    assert outcome == ("complete", None), done.output
    assert done.told[who]["interrupted"] is True
    assert [told["status"] for told in done.told.values()] == ["complete"] * RANKS
