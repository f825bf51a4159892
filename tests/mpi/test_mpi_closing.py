"""How a run of many ranks ends."""

from __future__ import annotations

import pytest

from notata import LogReader

pytestmark = pytest.mark.mpi

RANKS = 3
GRACE = 2.0
SLACK = 8.0  # starting and ending the job, on a machine that is busy


def closing(launch, folder, mode, **options):
    done = launch(RANKS, "closing", mode, folder, **options)
    return done, LogReader(next(folder.glob("log_*")))


def test_an_exception_on_all_ranks_fails_the_run_with_its_reason(launch, tmp_path):
    done, run = closing(launch, tmp_path, "all_raise")
    for rank in range(RANKS):
        error = done.told[rank]["closing"]["error"]
        assert error["classes"][0] == "UnstableError"
        assert (error["message"], error["notes"]) == ("dt is too large", [])
        record = run.ranks[rank].record
        assert (record["status"], record["error"]) == ("failed", "UnstableError")
        assert 'raise UnstableError("dt is too large")' in record["traceback"]
    assert run.meta["status"] == "failed"
    assert run.meta["failure_reason"] == "dt is too large"
    assert list(run.load_array("x")) == list(range(RANKS))


def test_rank_0_can_say_that_the_run_failed(launch, tmp_path):
    done, run = closing(launch, tmp_path, "root_marks_failed")
    assert all(told["closing"]["error"] is None for told in done.told.values())
    assert {told["status"] for told in done.told.values()} == {"failed"}
    assert (run.meta["status"], run.meta["failure_reason"]) == ("failed", "residual grows")
    texts = [m.message for m in run.messages(ranks=[0])]
    assert texts.count("Marked failed: residual grows") == 1
    assert "Marked complete" not in texts


def test_one_rank_that_breaks_is_named_on_all(launch, tmp_path):
    done, run = closing(launch, tmp_path, "one_raises")
    for rank in (0, 2):
        error = done.told[rank]["closing"]["error"]
        assert error["classes"][:1] == ["RankFailed"]
        assert "rank 1: NaN in cell 7" in error["message"]
    assert done.told[1]["closing"]["error"]["classes"][0] == "UnstableError"
    assert not any("reached" in told for told in done.told.values())
    assert run.meta["status"] == "failed"
    assert run.meta["failure_reason"] == "rank 1: NaN in cell 7"
    record = run.ranks[1].record
    assert (record["status"], record["failure_reason"]) == ("failed", "NaN in cell 7")
    assert 'raise UnstableError("NaN in cell 7")' in record["traceback"]
    (error,) = run.messages(level="ERROR")
    assert error.rank == 1
    assert "UnstableError: NaN in cell 7" in error.message


def test_a_rank_that_breaks_while_the_others_wait_for_it_ends_the_job(launch, tmp_path):
    done, run = closing(
        launch, tmp_path, "one_raises_by_itself", check=False, NOTATA_GRACE=f"{GRACE:g}"
    )
    assert done.status != 0
    assert GRACE <= done.seconds < GRACE + SLACK
    record = run.ranks[1].record
    assert record["status"] == "failed"
    assert 'raise UnstableError("NaN in cell 7")' in record["traceback"]
    # It was on disk before this rank waited for anybody.
    written = (run.path / "ranks" / "rank_00001" / "rank.json").stat().st_mtime
    assert written - done.told[1]["raised_at"] < GRACE / 2
    assert "UnstableError: NaN in cell 7" in done.output
    assert "waited 2 s in vain" in done.output
    assert run.meta["status"] != "complete"


def test_life_by_hand_one_rank_that_failed_fails_the_run(launch, tmp_path):
    done, run = closing(launch, tmp_path, "one_marks_failed_by_hand")
    assert all(told["closing"]["error"] is None for told in done.told.values())
    assert {told["status"] for told in done.told.values()} == {"failed"}
    assert run.meta["failure_reason"] == "rank 2: probe broke"


def test_the_callback_is_called_once_by_rank_0(mpich, tmp_path):
    done, run = closing(mpich, tmp_path, "callbacks")
    assert [done.told[rank]["calls"] for rank in range(RANKS)] == [["complete"], [], []]
    assert run.meta["status"] == "complete"
