"""Comparing the clocks of nodes, under MPICH and Open MPI."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulated import ROOT

import notata
from notata import LogReader, clocks, corrections, messages

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


def test_a_few_round_trips_compare_a_node_however_many_ranks_it_has(
    launch: Launch, tmp_path: Path
) -> None:
    told = launch(6, "turns", tmp_path).told
    rounds = clocks._ROUNDS
    assert rounds <= 10
    # One rank of each other node, at opening and at closing: rank 0 asks, and it answers.
    sent = {0: {"2": rounds, "4": rounds}, 2: {"0": rounds}, 4: {"0": rounds}}
    assert {rank: one["sent"] for rank, one in told.items()} == {
        rank: [sent.get(rank, {})] * 2 for rank in range(6)
    }


def test_a_merged_log_has_the_order_in_which_ranks_wrote(launch: Launch, tmp_path: Path) -> None:
    launch(6, "turns", tmp_path)
    run = tmp_path / "log_run"
    parts = [run / "log.txt", *(run / f"ranks/rank_{rank:05d}/log.txt" for rank in range(1, 6))]
    written = [line for part in parts for line in part.read_text().splitlines()]
    expected = [((0, 2, 4, 1, 3, 5)[turn % 6], f"turn {turn}") for turn in range(1, 19)]

    def read() -> list[tuple[int, str]]:
        found = list(LogReader(run).messages())
        return [(one.rank or 0, one.message) for one in found if "turn" in one.message]

    assert read() == expected
    command = [sys.executable, "-m", "notata", "merge", os.fspath(run)]
    environment = os.environ | {"PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    (largest,) = re.findall(r"joined 1 of 1; clocks corrected by up to (\S+) s\n", done.stdout)
    record = json.loads((run / "merge.json").read_text())["clocks"]
    compared = json.loads((run / "metadata.json").read_text())["parallel"]["clocks"]
    assert record["compared"] == compared
    for ahead in (float(largest), record["largest"]):
        assert abs(ahead - 5) < 0.5  # of the clock that is ahead, not of the one that is behind
    merged = (run / "log.txt").read_text().splitlines()
    assert sorted(merged) == sorted(written)  # with the stamps that they had
    lines = [line for line in merged if "turn" in line]
    told = [f"INFO [rank {rank}] {message}" for rank, message in expected]
    assert [line.partition("] ")[2] for line in lines] == told
    assert lines != sorted(lines)  # the stamps alone give another order
    assert read() == expected
