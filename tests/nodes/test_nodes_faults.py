"""What a file server does to writers: the old log still open, a full disk, silence."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from machines import Machine

# ----- overwrite=True while the same node, or another one, has the old log open -----


@pytest.fixture(
    params=[(machine, node) for machine in ("nfs", "gluster") for node in ("nodea", "nodeb")],
    ids="-".join,
)
def begun_again(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A run begun again on node a while a process on some node has the old one open."""
    machine, holder = request.param
    where: Machine = request.getfixturevalue(machine)
    return dict(where.told("overwrite")[holder])


def test_a_run_begun_again_holds_nothing_of_the_old_one(begun_again: dict[str, Any]) -> None:
    new = begun_again["new"]
    assert new["sums"] == {"new": 10.0}
    assert new["params"] == {"age": "new"}
    assert new["meta"]["status"] == "complete"
    assert [text for _, text in new["messages"] if "line" in text] == ["new line"]


def test_what_the_old_process_still_logs_does_not_reach_it(begun_again: dict[str, Any]) -> None:
    assert begun_again["wrote"] == {"raised": None}  # a log line never stops a program
    for state in ("meanwhile", "after"):
        assert begun_again[state]["messages"] == begun_again["new"]["messages"]
        assert (
            begun_again[state]["files"]["data/new.npy"]
            == begun_again["new"]["files"]["data/new.npy"]
        )


def test_no_file_of_the_old_one_stays_behind(begun_again: dict[str, Any]) -> None:
    assert begun_again["closed"] == {"raised": None}
    left = [name for name in begun_again["after"]["files"] if "/." in f"/{name}"]
    assert left == []


# ----- a full disk, which NFS tells at close or fsync -----


def test_an_array_that_finds_no_room_raises(nfs: Machine) -> None:
    told = nfs.told("full")
    for what in ("array", "bytes"):
        assert told[what]["errno"] == errno.ENOSPC
        assert told[what]["file"].endswith(
            {"array": "data/T.npy", "bytes": "artifacts/big.bin"}[what]
        )


def test_the_array_that_was_there_is_whole(nfs: Machine) -> None:
    told = nfs.told("full")
    assert told["after"] == [float(i) for i in range(10)]
    assert told["left"] == ["T.npy", "log.txt", "metadata.json", "params.yaml"]


def test_log_lines_without_room_are_counted_and_stop_nothing(nfs: Machine) -> None:
    told = nfs.told("full")
    assert told["log"] is None
    assert told["lost"] > 0


def test_a_line_that_fails_when_the_log_is_closed_is_counted(nfs: Machine) -> None:
    assert nfs.told("full")["lost_at_close"] == 1


def test_a_run_that_can_not_say_how_it_ended_raises_and_says_so_later(nfs: Machine) -> None:
    told = nfs.told("full")
    assert told["close"]["errno"] == told["ended"]["errno"] == errno.ENOSPC
    assert told["status"] == ["initialized", "complete", "initialized"]
    assert told["again"] is told["retried"] is None
    assert told["afterwards"] == "complete"


def test_the_table_has_every_run_once_there_is_room(nfs: Machine) -> None:
    assert nfs.told("full")["rebuilt"] == 2


# ----- a server that is away for some seconds -----


@pytest.mark.parametrize("node", [0, 1])
def test_a_run_goes_on_when_its_server_is_back(nfs: Machine, node: int) -> None:
    told = nfs.told("away")
    ended, run = told["ended"][node], told["runs"][node]
    assert ended["longest"] > 3  # or the server was never away
    assert run["meta"]["status"] == "complete"
    said = [text for _, text in run["messages"] if text.startswith("step ")]
    assert said == [f"step {step}" for step in range(ended["steps"])]
    assert run["sums"] == {f"T_{step}": 1000.0 * step for step in range(ended["steps"])}
    (row,) = run["rows"]
    assert (row["status"], row["steps"]) == ("complete", str(ended["steps"]))
