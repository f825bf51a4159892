"""One table, written from two nodes: twelve processes, forty runs each, columns that differ."""

from __future__ import annotations

from typing import Any

import pytest
from machines import Machine

ALL = 12 * 40


def assert_whole(trials: list[dict[str, Any]]) -> None:
    for trial in trials:
        assert trial["failed"] == 0
        assert (trial["rows"], trial["runs"], trial["wrong"]) == (ALL, ALL, [])


@pytest.mark.parametrize("machine", ["nfs", "nfs_besides", "gluster"])
def test_no_row_is_lost(machine: str, request: pytest.FixtureRequest) -> None:
    where: Machine = request.getfixturevalue(machine)
    trials = where.told("table")["trials"]
    assert len(trials) == (10 if machine == "gluster" else 5)  # ten on NFS 4.2 by two machines
    assert_whole(trials)
    assert trials[0]["warnings"] == {}


@pytest.mark.parametrize("machine", ["nfs", "gluster"])
def test_of_many_on_two_nodes_that_add_the_same_one_gets_it(
    machine: str, request: pytest.FixtureRequest
) -> None:
    where: Machine = request.getfixturevalue(machine)
    told = where.told("race")
    assert [node["failed"] for node in told["told"]] == [0, 0]
    outcomes = [process for node in told["told"] for process in node["outcomes"]]
    assert len(outcomes) == 12
    rows = {int(row["point"]): row for row in told["rows"]}
    assert len(told["rows"]) == len(rows) == 20
    for point, of_all in enumerate(zip(*outcomes, strict=True)):
        (winner,) = [worker for worker in of_all if isinstance(worker, int)]
        others = {outcome for outcome in of_all if outcome != winner}
        assert others == {"refused" if point % 2 else "skipped"}
        assert rows[point]["worker"] == str(winner)


def test_every_run_is_whole_where_locks_exclude_nobody(nfs_besides: Machine) -> None:
    (trial,) = nfs_besides.told("nolock")["trials"]
    assert trial["failed"] == 0


def test_rebuilding_brings_every_row_back(nfs_besides: Machine) -> None:
    (trial,) = nfs_besides.told("nolock")["trials"]
    assert trial["rebuild"] == {"count": ALL}
    assert_whole([{"failed": 0, **trial["after"]}])


def test_each_log_says_that_locks_can_not_be_trusted(nfs_besides: Machine) -> None:
    (trial,) = nfs_besides.told("nolock")["trials"]
    told = {text: runs for text, runs in trial["warnings"].items() if "can't be trusted" in text}
    (text,) = told
    assert "/mnt/nolock is NFS mounted with nolock" in text
    assert told[text] == ALL


@pytest.mark.parametrize("machine", ["nfs_besides", "gluster"])
def test_a_holder_on_another_node_is_named_and_blocks_nobody_once_it_is_dead(
    machine: str, request: pytest.FixtureRequest
) -> None:
    where: Machine = request.getfixturevalue(machine)
    told = where.told("holder")
    held = told["held"]
    (warning,) = told["late"]
    assert "no row in" in warning
    assert f"process {held['pid']} on {held['host']}" in warning
    assert told["then"] == []
    assert told["rows"] == [[1, 1, "complete"], [3, 9, "complete"]]
