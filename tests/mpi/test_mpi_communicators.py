"""Runs on communicators of many kinds, in one job."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from notata import LogReader

pytestmark = pytest.mark.mpi

RANKS = 5


@pytest.fixture(scope="module")
def job(flavour, launch_in, tmp_path_factory):
    """What programs/comms.py left and told."""
    folder = tmp_path_factory.mktemp(flavour.name)
    done = launch_in(folder)(RANKS, "comms", folder)
    assert sorted(done.told) == list(range(RANKS))
    return folder, done.told


def runs(folder: Path) -> dict[str, LogReader]:
    return {path.name: LogReader(path) for path in folder.iterdir()}


def test_without_a_communicator_each_rank_has_a_run_of_its_own(job):
    folder, told = job
    assert all(
        told[rank]["each_alone"] == {"rank": 0, "size": 1, "root": True} for rank in range(RANKS)
    )
    found = runs(folder / "each_alone")
    assert found.keys() == {f"log_own_{rank}" for rank in range(RANKS)}
    for rank in range(RANKS):
        run = found[f"log_own_{rank}"]
        assert (run.size, run.meta["status"]) == (1, "complete")
        assert not (run.path / "ranks").exists()
        assert np.array_equal(run.load_array("x"), np.arange(rank + 1))


def test_comm_self_gives_the_plain_tree(job, files_of):
    folder, told = job
    assert all(
        told[rank]["on_self"] == {"rank": 0, "size": 1, "status": "complete"}
        for rank in range(RANKS)
    )
    for rank in range(RANKS):
        files = files_of(folder / "on_self" / f"log_self_{rank}")
        assert files == ["data/x.npy", "log.txt", "metadata.json"]


def test_members_of_an_ensemble_run_beside_a_run_of_all(job):
    folder, told = job
    found = runs(folder / "an_ensemble")
    assert found.keys() == {"log_whole", "log_member_0", "log_member_1"}
    members = {colour: [r for r in range(RANKS) if r % 2 == colour][::-1] for colour in (0, 1)}
    for colour, ranks in members.items():
        run = found[f"log_member_{colour}"]
        assert (run.size, run.meta["status"]) == (len(ranks), "complete")
        assert run.meta["parallel"]["rank_from"] == "communicator"
        assert "disagreements" not in run.meta["parallel"]
        for step in range(3):
            assert np.array_equal(run.load_array(f"s{step}"), ranks)
        for place, rank in enumerate(ranks):
            facts = {"colour": colour, "rank": place, "size": len(ranks), "status": "complete"}
            assert told[rank]["an_ensemble"] == facts
            line = f"world rank {rank} is rank {place} of member {colour}"
            assert [m.message for m in run.messages(ranks=[place])].count(line) == 1
    assert np.array_equal(found["log_whole"].load_array("s2"), np.arange(RANKS))


def test_a_rank_outside_the_communicator_is_told_so(job):
    folder, told = job
    assert told[0]["not_in_it"]["error"] is None
    for rank in range(1, RANKS):
        error = told[rank]["not_in_it"]["error"]
        assert "ValueError" in error["classes"]
        assert "COMM_NULL" in error["message"]
    assert runs(folder / "not_in_it")["log_some"].size == 1


def test_two_runs_on_one_communicator_at_once(job):
    folder, told = job
    found = runs(folder / "two_at_once")
    assert all(told[rank]["two_at_once"]["status"] == ["complete"] * 2 for rank in range(RANKS))
    assert np.array_equal(found["log_first"].load_array("came"), np.roll(np.arange(RANKS), 1))
    assert np.array_equal(found["log_second"].load_array("rank"), np.arange(RANKS))


def test_thirty_runs_in_turn_leave_no_file_and_no_communicator_open(job):
    folder, told = job
    found = runs(folder / "many_in_turn")
    assert found.keys() == {f"log_turn_{number}" for number in range(30)}
    assert all(run.meta["status"] == "complete" for run in found.values())
    for rank in range(RANKS):
        counts = told[rank]["many_in_turn"]
        assert counts["last"] <= counts["first"]
        assert counts["made"] == counts["freed"] == 30


def test_a_life_by_hand(job):
    folder, told = job
    assert all(told[rank]["by_hand"]["status"] == "complete" for rank in range(RANKS))
    run = runs(folder / "by_hand")["log_by_hand"]
    assert run.meta["status"] == "complete"
    assert run.meta["parallel"]["pieces"] == {"1": f"0-{RANKS - 1}"}


def test_a_picture_is_drawn_by_rank_0_alone(job, files_of):
    folder, told = job
    assert [told[rank]["with_a_plot"]["matplotlib"] for rank in range(RANKS)] == [
        True,
        *[False] * (RANKS - 1),
    ]
    run = folder / "with_a_plot" / "log_plotted"
    assert files_of(run) == ["log.txt", "metadata.json", "plots/line.png"]
    assert (run / "plots" / "line.png").read_bytes().startswith(b"\x89PNG")
