"""One run on two nodes: MPI ranks with their own host names and mounts, and ranks without MPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from machines import Machine

STEPS = 5
OWN = (
    "ranks/",
    "merge.json",
    ".merge.lock",
    "metadata.json",
    "log.txt",
)  # what only a run of several ranks has


def contents(files: Mapping[str, str]) -> dict[str, str]:
    """The digests of what the program wrote, by name."""
    return {name: digest for name, digest in files.items() if not name.startswith(OWN)}


@pytest.fixture(
    params=[(machine, step) for machine in ("nfs", "gluster") for step in ("parallel", "ranks")],
    ids="-".join,
)
def told(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    """What a run on two nodes holds, before its merge and after, and the serial one beside it."""
    machine, step = request.param
    where: Machine = request.getfixturevalue(machine)
    return where.told(step)


def test_what_was_merged_equals_the_serial_run(told: Mapping[str, Any]) -> None:
    merged, serial = told["merged"], told["serial"]
    names = {"data/line.npy", "data/bundle.npz", "data/energy.npy", "artifacts/metrics.json"}
    names |= {"params.yaml", *(f"data/T/{step}.npy" for step in range(STEPS))}
    assert set(contents(serial["files"])) == names
    assert contents(merged["files"]) == contents(serial["files"])
    assert merged["params"] == serial["params"]
    assert merged["meta"]["status"] == serial["meta"]["status"] == "complete"


def test_the_other_node_reads_the_same_before_the_merge(told: Mapping[str, Any]) -> None:
    assert told["before"]["sums"] == told["merged"]["sums"] == told["serial"]["sums"]


def test_every_message_of_both_nodes_is_there_in_its_ranks_order(told: Mapping[str, Any]) -> None:
    for state in ("before", "merged"):
        messages = told[state]["messages"]
        for rank in range(4):
            said = [text for who, text in messages if who == rank and text.startswith("step")]
            assert said == [f"step {step}" for step in range(STEPS)]


@pytest.mark.parametrize("machine", ["nfs", "gluster"])
def test_each_node_is_named_with_its_ranks(machine: str, request: pytest.FixtureRequest) -> None:
    where: Machine = request.getfixturevalue(machine)
    parallel = where.told("parallel")["merged"]["meta"]["parallel"]
    assert parallel["size"] == 4
    assert parallel["hosts"] == {"nodea": "0-1", "nodeb": "2-3"}, parallel
