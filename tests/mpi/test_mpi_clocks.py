"""Comparing the clocks of nodes, under MPICH and Open MPI."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import notata
from notata import corrections, messages

Launch = Callable[..., Any]
pytestmark = pytest.mark.mpi


def test_one_rank_of_each_node_is_compared_at_opening_and_closing(
    launch: Launch, tmp_path: Path
) -> None:
    launch(5, "clocks", tmp_path)
    parallel = json.loads((tmp_path / "log_run/metadata.json").read_text())["parallel"]
    assert parallel["hosts"] == {"node0": "0-1", "node1": "2-3", "node2": "4"}
    assert sorted(parallel["clocks"]) == ["node1", "node2"]
    assert "not compared" not in (tmp_path / "log_run/log.txt").read_text()
    for samples in parallel["clocks"].values():
        assert [len(sample) for sample in samples] == [3, 3]
        for _, offset, uncertainty in samples:
            assert abs(offset - 5) <= uncertainty + 0.001  # two clocks of the system are read
            assert 0 < uncertainty < 1
    assert abs(corrections.of_run(tmp_path / "log_run").largest - 5) < 1


def test_each_attempt_is_corrected_by_its_own_nodes_clocks(launch: Launch, tmp_path: Path) -> None:
    run = tmp_path / "log_run"
    for more in ((), ("again",)):
        launch(4, "clocks", tmp_path, *more)
    meta = json.loads((run / "metadata.json").read_text())
    (before,) = meta["parallel"]["earlier"]
    assert (sorted(before["clocks"]), sorted(meta["parallel"]["clocks"])) == (["node1"], ["other1"])
    assert before["until"] == meta["attempts"][1]["start_time"]
    found = corrections.of_run(run)
    for attempt, ahead in zip(meta["attempts"], (5, 7), strict=True):
        # By the clock of the second node, when the second was over in which the attempt ended.
        ticks = messages.ticks(attempt["end_time"].encode()) + 2_000_000 * (ahead + 1)
        assert abs((ticks - found.one(ticks, 3)) / 2e6 - ahead) < 1
        assert found.one(ticks, 1) == ticks


def test_a_node_that_does_not_answer_is_not_waited_for(launch: Launch, tmp_path: Path) -> None:
    launch(4, "clocks", tmp_path, "deaf")
    meta = json.loads((tmp_path / "log_run/metadata.json").read_text())
    assert meta["status"] == "complete"
    assert "clocks" not in meta["parallel"]
    told = "the clock of 1 of 2 nodes was not compared with rank 0's (node1)"
    log = (tmp_path / "log_run/log.txt").read_text()
    assert log.count(f"WARNING [rank 0] {told}: messages are ordered without that\n") == 1
    assert notata.merge(tmp_path / "log_run").note == f"joined 1 of 1; {told}"


def test_the_first_failure_is_found_by_one_clock(launch: Launch, tmp_path: Path) -> None:
    launch(4, "clocks", tmp_path, "failing", check=False)
    meta = json.loads((tmp_path / "log_run/metadata.json").read_text())
    assert meta["failure_reason"] == "rank 2, and 3 more ranks: the cause"
