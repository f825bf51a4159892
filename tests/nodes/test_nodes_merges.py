"""A merge by MPI ranks on two nodes, which write parts of one file: most pages hold several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from machines import NFS, Machine

LARGE = {"rows", "blocks", "fortran", "long", "odd"}
JOINED = {
    *(f"data/{name}.npy" for name in LARGE),
    *("data/bundle.npz", "log.txt", "artifacts/metrics.ranks.json", "artifacts/metrics.ranks.csv"),
}
Files = Mapping[str, str]


@pytest.fixture(params=["nfs_besides", "gluster"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """Each of the machines."""
    machine: Machine = request.getfixturevalue(request.param)
    return machine


def ranks_files(files: Files) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name.startswith("ranks/")}


def joined(files: Files) -> dict[str, str]:
    """The digests of what a merge made, by name."""
    return {name: digest for name, digest in files.items() if name in JOINED}


def temporary(files: Files) -> set[str]:
    return {name for name in files if ".notata-" in name}


# ----- copies of a run, all but the first of which are pruned as well -----


@pytest.fixture
def together(machine: Machine) -> dict[str, Any]:
    """What two nodes saw before, and after."""
    told = dict(machine.told("together"))
    assert told["status"] == [0, 0]
    assert [len(runs) for runs in told["made"]] == ([3, 3] if isinstance(machine, NFS) else [4])
    return told


def test_every_byte_is_what_one_process_makes(together: dict[str, Any]) -> None:
    for node in together["after"]:
        for alone, *runs in together["made"]:
            expected = joined(node[alone]["files"])
            assert expected.keys() == JOINED
            for run in runs:
                assert joined(node[run]["files"]) == expected, run


def test_both_nodes_see_the_same_files(together: dict[str, Any]) -> None:
    first, second = together["after"]
    for run in (run for runs in together["made"] for run in runs):
        assert first[run]["files"] == second[run]["files"]
        assert not temporary(first[run]["files"])


def test_readers_tell_the_same_before_and_after(together: dict[str, Any]) -> None:
    first, *views = [*together["before"], *together["after"]]
    for runs in together["made"]:
        told = first[runs[0]]
        assert told["sums"].keys() == {*LARGE, "bundle:x", "bundle:y"}
        for look in (view[run] for view in views for run in runs):
            assert (look["sums"], look["messages"]) == (told["sums"], told["messages"])
            assert (look["params"], look["meta"]["status"]) == (told["params"], "complete")


def test_the_checksums_are_those_of_the_files_on_either_node(together: dict[str, Any]) -> None:
    for verdict in together["verified"]:
        assert verdict["status"] == 0, verdict
        assert "differ" not in verdict["said"]


def test_pieces_are_left_alone_until_they_are_pruned(together: dict[str, Any]) -> None:
    before, after = together["before"][0], together["after"][0]
    assert together["pruned"]
    for run in (run for runs in together["made"] for run in runs):
        left = ranks_files(after[run]["files"])
        if run in together["pruned"]:
            assert not left
            assert "ranks.zip" in after[run]["files"]
        else:
            assert left == ranks_files(before[run]["files"]) != {}


# ----- a merge of which a rank is killed, and another one at the same time -----


@pytest.fixture
def disturbed(machine: Machine) -> dict[str, Any]:
    """What was there after each death, and in the end."""
    return dict(machine.told("disturbed"))


def test_a_rank_that_is_killed_takes_nothing_with_it(disturbed: dict[str, Any]) -> None:
    before = disturbed["before"]
    for death in disturbed["killed"]:
        assert death["status"] != 0
        left = death["left"]["files"]
        assert temporary(left)  # or it was not killed in the middle
        assert left.items() >= before["files"].items()
        assert left.keys() - before["files"].keys() - temporary(left) == {".merge.lock"}
        for what in ("sums", "messages", "params"):
            assert death["left"][what] == before[what]


def test_the_next_merge_makes_the_same_bytes(disturbed: dict[str, Any]) -> None:
    for node in disturbed["after"]:
        run, alone = node.values()
        assert joined(run["files"]) == joined(alone["files"])
        assert run["files"].keys() == alone["files"].keys() >= JOINED
        assert not temporary(run["files"])


def test_a_merge_meanwhile_names_the_one_that_is_at_work(disturbed: dict[str, Any]) -> None:
    late = disturbed["late"]
    assert late["status"] == 2
    assert ".merge.lock was held by others for 1 s, at last by process " in late["complained"]
    assert " on nodea, since " in late["complained"]


def test_one_that_waits_finds_all_merged(disturbed: dict[str, Any]) -> None:
    waited = disturbed["waited"]
    assert waited["status"] == 0
    assert "nothing to do: merged before" in waited["said"]
