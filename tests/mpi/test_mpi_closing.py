"""How a run of many ranks ends."""

from __future__ import annotations

import os

import pytest

import notata
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


def test_a_rank_s_word_that_the_run_failed_is_on_disk_at_once(launch, tmp_path):
    done, run = closing(launch, tmp_path, "one_marks_failed")
    record, log = done.told[0]["record"], done.told[0]["log"]
    assert (record["status"], record["failure_reason"]) == ("initialized", "residual grows")
    assert "Marked failed: residual grows" in log
    assert {told["status"] for told in done.told.values()} == {"failed"}
    assert run.meta["failure_reason"] == "rank 1: residual grows"
    assert run.ranks[1].record["status"] == "failed"


def test_life_by_hand_one_rank_that_failed_fails_the_run(launch, tmp_path):
    done, run = closing(launch, tmp_path, "one_marks_failed_by_hand")
    assert all(told["closing"]["error"] is None for told in done.told.values())
    assert {told["status"] for told in done.told.values()} == {"failed"}
    assert run.meta["failure_reason"] == "rank 2: probe broke"


def test_the_callback_is_called_once_by_rank_0(mpich, tmp_path):
    done, run = closing(mpich, tmp_path, "callbacks")
    assert [done.told[rank]["calls"] for rank in range(RANKS)] == [["complete"], [], []]
    assert run.meta["status"] == "complete"


def test_a_slow_callback_keeps_no_rank_waiting(launch, tmp_path):
    done, run = closing(launch, tmp_path, "slow_callback", NOTATA_GRACE=f"{GRACE:g}")
    for told in done.told.values():
        assert told["closing"]["error"]["classes"][0] == "UnstableError"
        assert told["closing"]["error"]["notes"] == []
    assert run.meta["failure_reason"] == "dt is too large"


def test_a_rank_that_cannot_write_its_record_is_told_to_all(launch, tmp_path):
    done, run = closing(launch, tmp_path, "record_cannot_be_written")
    assert done.told[1]["closing"]["error"]["classes"][0] == "IsADirectoryError"
    for rank in (0, 2):
        assert done.told[rank]["closing"]["error"]["classes"][0] == "RankFailed"
    assert run.meta["status"] == "failed"
    assert run.meta["failure_reason"].startswith("rank 1: ")
    assert "Is a directory" in run.meta["failure_reason"]


def test_by_hand_the_root_view_notes_a_failure_and_nobody_waits(launch, tmp_path):
    done, run = closing(launch, tmp_path, "root_marks_failed_by_hand")
    assert all(told["closing"]["error"] is None for told in done.told.values())
    assert [done.told[rank]["early"] for rank in range(RANKS)] == [
        "failed",
        "initialized",
        "initialized",
    ]
    assert {told["status"] for told in done.told.values()} == {"failed"}
    assert run.meta["failure_reason"] == "all give up"


def test_by_hand_an_end_by_one_rank_alone_is_an_error(launch, tmp_path):
    done, run = closing(
        launch, tmp_path, "only_rank_0_ends_by_hand", check=False, NOTATA_GRACE=f"{GRACE:g}"
    )
    error = done.told[0]["closing"]["error"]
    assert error["classes"][0] == "RanksMissingError"
    assert "opened and closed by all of its ranks" in error["message"]
    assert (run.meta["status"], run.meta["failure_reason"]) == ("failed", "residual grows")


def test_folders_made_by_hand_and_paths_of_the_root_view(launch, tmp_path):
    done, run = closing(launch, tmp_path, "folders_made_by_hand")
    assert all(told["closing"]["error"] is None for told in done.told.values())
    assert [reader.artifacts for reader in run.ranks] == [["mine.txt"]] * RANKS
    assert list(run.load_array("x")) == [0, 1, 2]
    assert list(run.load_array("y")) == [0, 0, 0]
    assert sorted(m.rank for m in run.messages() if m.message == "here") == [0, 1, 2]
    assert not os.path.exists("/dev/null.npy")


def test_closing_after_mpi_is_finalised_is_an_error_on_disk_too(launch, tmp_path):
    done, run = closing(launch, tmp_path, "after_finalize")
    for told in done.told.values():
        assert told["closing"]["error"]["classes"][0] == "RanksMissingError"
        assert "close the run before" in told["closing"]["error"]["message"]
    assert run.meta["status"] == "failed"


# ----- without a communicator -----


@pytest.fixture(scope="module")
def unconnected(flavour, launch_in, tmp_path_factory):
    """The folder of programs/unconnected.py's runs, and what each rank told of them."""
    folder = tmp_path_factory.mktemp(flavour.name)
    done = launch_in(folder)(RANKS, "unconnected", folder)
    assert [done.told[rank]["uses_mpi"] for rank in range(RANKS)] == [False] * RANKS
    return folder, done.told


def outcome_of(run):
    facts = run.meta["parallel"]
    assert (facts["size"], facts["mpi"], facts["communicator"]) == (RANKS, None, False)
    return run.meta["status"], run.meta.get("failure_reason")


def test_without_mpi_an_exception_on_all_ranks_fails_the_run_with_its_reason(unconnected):
    folder, told = unconnected
    run = LogReader(folder / "log_all")
    assert outcome_of(run) == ("failed", "dt is too large")
    for rank in range(RANKS):
        error = told[rank]["all_raise"]["error"]
        assert error["classes"][0] == "UnstableError"
        assert (error["message"], error["notes"]) == ("dt is too large", [])
        record = run.ranks[rank].record
        assert (record["status"], record["failure_reason"]) == ("failed", "dt is too large")
        assert 'raise UnstableError("dt is too large")' in record["traceback"]
    assert list(run.load_array("x")) == list(range(RANKS))


def test_without_mpi_rank_0_can_say_that_the_run_failed(unconnected):
    folder, told = unconnected
    assert [told[rank]["root_marks_failed"]["error"] for rank in range(RANKS)] == [None] * RANKS
    run = LogReader(folder / "log_marked")
    assert outcome_of(run) == ("failed", "residual grows")
    texts = [m.message for m in run.messages(ranks=[0])]
    assert texts.count("Marked failed: residual grows") == 1
    assert "Marked complete" not in texts


def test_without_mpi_one_rank_that_breaks_makes_the_run_failed(unconnected):
    folder, told = unconnected
    errors = [told[rank]["one_raises"]["error"] for rank in range(RANKS)]
    assert [error and error["classes"][0] for error in errors] == [None, "UnstableError", None]
    run = LogReader(folder / "log_one")
    assert outcome_of(run) == ("failed", "rank 1: NaN in cell 7")
    assert {path.name for path in (run.path / "ranks").iterdir()} == {"rank_00001", "failed.json"}
    record = run.ranks[1].record
    assert (record["status"], record["error"]) == ("failed", "UnstableError")
    assert record["failure_reason"] == "NaN in cell 7"
    assert 'raise UnstableError("NaN in cell 7")' in record["traceback"]
    (message,) = run.messages(level="ERROR")
    assert (message.rank, message.message) == (1, record["traceback"])
    notata.merge(run.path)
    assert LogReader(run.path).ranks[1].record == record
