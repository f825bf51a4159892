"""Sweeps under mpiexec: each point done by all ranks, or each rank with points of its own."""

from __future__ import annotations

import pytest

from notata import Experiment, ExperimentReader

pytestmark = pytest.mark.mpi

RANKS = 3


@pytest.fixture(scope="module")
def job(flavour, launch_in, tmp_path_factory):
    """What programs/sweeping.py left and told."""
    folder = tmp_path_factory.mktemp(flavour.name)
    done = launch_in(folder)(RANKS, "sweeping", folder)
    assert sorted(done.told) == list(range(RANKS)), done.output
    return folder, done.told


def test_all_ranks_do_each_point(job):
    folder, told = job
    for rank in range(RANKS):
        assert told[rank]["together"] == [[k, RANKS] for k in range(4)]
    runs = ExperimentReader(folder / "together")
    for k in range(4):
        assert len(runs[f"together_k_{k}"].load_array("x")) == 2 * RANKS


def test_all_ranks_agree_on_what_is_left(job):
    folder, told = job
    assert [told[rank]["again"] for rank in range(RANKS)] == [[9]] * RANKS
    rows = Experiment("together", folder).rows()
    assert [(row["k"], row["run_status"]) for row in rows] == [
        (k, "complete") for k in (0, 1, 2, 3, 9)
    ]
    assert len(ExperimentReader(folder / "together")["together_k_9"].meta["attempts"]) == 2


def test_each_rank_claims_points_of_its_own(job):
    folder, told = job
    assert sorted(k for rank in range(RANKS) for k in told[rank]["each_alone"]) == list(range(12))
    rows = Experiment("alone", folder).rows()
    assert sorted(row["m"] for row in rows) == list(range(12))
    assert all(run.size == 1 for run in ExperimentReader(folder / "alone"))
