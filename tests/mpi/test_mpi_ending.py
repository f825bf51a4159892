"""What becomes of a run, and of the other ranks, when one rank ends in an unusual way."""

from __future__ import annotations

import pytest

from notata import LogReader, silence
from notata.stacks import survey

pytestmark = pytest.mark.mpi

RANKS = 3
NEVER = "the program ended without closing the run"


def ending(launch, folder, mode, ranks=RANKS, grace="2", **options):
    done = launch(ranks, "ending", mode, folder, check=False, NOTATA_GRACE=grace, **options)
    run = LogReader(folder / "log_run")
    return done, run, (run.meta["status"], run.meta.get("failure_reason"))


def test_an_interrupt_on_one_rank_is_a_failure(launch, tmp_path):
    done, _, outcome = ending(launch, tmp_path, "interrupted")
    assert outcome == ("failed", "rank 1: KeyboardInterrupt")
    assert done.told[1]["closing"] == "interrupted"
    for rank in (0, 2):
        assert done.told[rank]["closing"]["error"]["classes"][0] == "RankFailed"
        assert "rank 1: KeyboardInterrupt" in done.told[rank]["closing"]["error"]["message"]


def test_an_exception_in_a_thread_is_the_program_s_own_affair(launch, tmp_path):
    done, _, outcome = ending(launch, tmp_path, "in_a_thread")
    assert (done.status, outcome) == (0, ("complete", None))
    assert "ZeroDivisionError" in done.output
    assert {told["status"] for told in done.told.values()} == {"complete"}


def test_a_run_that_nobody_closes_has_failed(launch, tmp_path):
    done, run, outcome = ending(launch, tmp_path, "never_closed")
    assert (done.status, outcome) == (0, ("failed", NEVER))
    assert {rank.record["status"] for rank in run.ranks} == {"failed"}
    assert list(run.load_array("x")) == [0, 1, 2]


def test_a_run_that_one_rank_does_not_close_has_failed(launch, tmp_path):
    done, _, outcome = ending(launch, tmp_path, "never_closed_by_one")
    assert (done.status, outcome) == (0, ("failed", f"rank 1: {NEVER}"))
    assert [done.told[rank]["status"] for rank in (0, 2)] == ["failed", "failed"]


def test_ranks_that_wait_for_one_that_ended_are_ended(launch, tmp_path):
    done, run, outcome = ending(launch, tmp_path, "never_closed_while_others_wait")
    assert done.status != 0
    assert outcome == ("failed", f"rank 1: {NEVER}")
    assert run.ranks[1].record["status"] == "failed"


def test_an_exception_outside_of_any_block_is_told_too(launch, tmp_path):
    done, run, outcome = ending(launch, tmp_path, "raises_by_hand")
    assert done.status != 0
    assert outcome == ("failed", "rank 1: NaN in cell 7")
    assert run.ranks[1].record["traceback"].endswith("FloatingPointError: NaN in cell 7")


def test_a_rank_may_end_the_others_at_once(launch, tmp_path):
    done, run, outcome = ending(launch, tmp_path, "aborts_at_once", grace="3600")
    assert done.status != 0
    assert outcome == ("failed", "rank 1: NaN in cell 7")
    assert (run.ranks[1].record["status"], run.ranks[1].record["error"]) == (
        "failed",
        "FloatingPointError",
    )
    assert "FloatingPointError: NaN in cell 7" in run.ranks[1].record["traceback"]
    assert "FloatingPointError: NaN in cell 7" in done.output


def test_a_rank_may_be_forbidden_to_end_the_others(launch, tmp_path):
    done, run, outcome = ending(launch, tmp_path, "never_aborts")
    assert done.status == 0, done.output
    error = done.told[1]["closing"]["error"]
    assert error["classes"][0] == "FloatingPointError"
    assert "in vain" in "".join(error["notes"])
    # Rank 1 wrote that in the place of rank 0, which then kept it, and at last was told itself.
    for told in (done.told[1]["after"], done.told[0]["while_open"], run.meta):
        assert (told["status"], told["failure_reason"]) == ("failed", "rank 1: NaN in cell 7")
    assert done.told[0]["while_open"]["steps"] == run.meta["steps"] == 12
    assert outcome == ("failed", "rank 1: NaN in cell 7")
    for rank in (0, 2):
        assert done.told[rank]["closing"]["error"]["classes"][0] == "RankFailed"
    assert run.meta["parallel"]["pieces"] == {"0": "0-2"}


def test_many_that_break_at_once_say_one_thing(launch, tmp_path):
    done, run, outcome = ending(launch, tmp_path, "many_break_at_once", 5)
    assert done.status != 0
    assert outcome in [("failed", f"rank {rank}: NaN in cell 7") for rank in range(1, 5)]
    assert [run.ranks[rank].record["status"] for rank in range(1, 5)] == ["failed"] * 4


def test_the_first_failure_is_the_one_that_is_named(launch, tmp_path):
    done, _, outcome = ending(launch, tmp_path, "first_in_time")
    assert outcome == ("failed", "rank 2, and 1 more rank: NaN in cell 7")
    assert done.told[1]["closing"]["error"]["classes"][0] == "ValueError"
    assert done.told[0]["closing"]["error"]["classes"][0] == "RankFailed"


def test_a_rank_that_never_comes_is_named(launch, tmp_path):
    done, _, (status, reason) = ending(launch, tmp_path, "never_comes")
    assert done.status != 0
    assert status == "failed"
    assert reason.startswith(
        "rank 0 of 3 came to close run 'run' and waited 3 s in vain for rank 1."
    )


def test_a_rank_that_leaves_quietly_is_noticed_by_mpiexec(launch, tmp_path):
    # Both end the other ranks; MPICH's sometimes says that all is well. The run does not.
    _, run, outcome = ending(launch, tmp_path, "leaves_quietly")
    assert outcome in (("initialized", None), ("failed", "rank 0: ended by SIGTERM"))
    assert run.ranks[1].record["status"] == "initialized"


def test_an_answer_that_comes_too_late_is_not_taken_for_another(launch, tmp_path):
    done, _, outcome = ending(launch, tmp_path, "answers_too_late")
    assert (done.status, outcome) == (0, ("complete", None)), done.output
    assert {told["status"] for told in done.told.values()} == {"complete"}


def test_rank_0_may_hang_and_yet_the_run_says_what_happened(launch, tmp_path):
    done, run, outcome = ending(launch, tmp_path, "root_hangs")
    assert done.status != 0
    assert outcome == ("failed", "rank 1: NaN in cell 7")
    assert "end_time" in run.meta


def test_another_rank_says_that_rank_0_was_killed_where_it_is_asked_to_end(launch, tmp_path):
    tries = 3 if launch.flavour.name == "openmpi" else 1  # a busy machine may leave it no time
    for number in range(tries):
        done, run, outcome = ending(launch, tmp_path / str(number), "root_is_killed")
        assert done.status != 0
        if outcome[0] == "failed":
            break
    if launch.flavour.name == "openmpi":
        assert outcome in [("failed", f"rank {rank}: ended by SIGTERM") for rank in (1, 2)]
        told = silence.explained(outcome[1], run.path, run.meta)
        assert told == f"{outcome[1]}; rank 0 said nothing when the others were ended by SIGTERM"
    else:  # MPICH asks nobody
        assert outcome == ("initialized", None)


def test_ranks_of_a_part_of_the_job(launch, tmp_path):
    done, run, outcome = ending(launch, tmp_path, "own_communicator")
    assert done.status != 0
    assert outcome == ("failed", "rank 1: NaN in cell 7")
    assert run.size == 2


def test_lines_that_a_rank_lost_are_said_once_and_counted_for_the_run(launch, tmp_path):
    done, run, outcome = ending(launch, tmp_path, "loses_lines")
    assert (done.status, outcome) == (0, ("complete", None)), done.output
    assert done.output.count("a log line could not be written to ") == 1
    assert "rank_00001/log.txt: [Errno 27] File too large" in done.output
    assert run.meta["log_lines_lost"] == run.ranks[1].record["log_lines_lost"] == 3
    assert run.meta["parallel"]["log_lines_lost"] == {"0": "0,2", "3": "1"}
    for rank in run.ranks:
        texts = [message.message for message in rank.messages()]
        assert [text for text in texts if text in ("here", "lost", "there")] == ["here", "there"]
    assert list(run.load_array("x")) == [0, 1, 2]


def test_no_rank_of_a_run_that_was_not_watched_has_stacks(mpich, tmp_path):
    _, run, _ = ending(mpich, tmp_path, "root_hangs")
    assert survey(str(run.path), RANKS).groups == []
    assert not list(run.path.rglob("stacks.txt"))
