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


# ----- going on in a run that a process on another node still writes -----


@pytest.fixture(params=["nfs", "gluster"])
def resumed(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Runs gone on with by node a, while processes on node b have them open."""
    where: Machine = request.getfixturevalue(request.param)
    return dict(where.told("resumed"))


def test_the_older_attempts_next_file_is_refused(resumed: dict[str, Any]) -> None:
    assert len(resumed["raised"]) == 2  # an array, and a metric
    for raised in resumed["raised"]:
        assert raised.startswith("OutdatedError: attempt 2 goes on in ")
        assert "on nodea); this process, rank 0 of attempt 1, writes there no more" in raised
    assert resumed["closed"] == [None] * 4


def test_the_newer_attempts_files_stay_as_they_are(resumed: dict[str, Any]) -> None:
    assert resumed["meanwhile"]["files"] == resumed["before"]["files"]


def test_an_older_attempt_that_only_logs_falls_silent(resumed: dict[str, Any]) -> None:
    assert resumed["said"]["old"]["noticed"] < 12
    assert resumed["said"]["new"]["noticed"] is None


def test_readers_on_both_nodes_see_one_run_of_two_attempts(resumed: dict[str, Any]) -> None:
    for node in resumed["after"]:
        for run in node:
            assert run["meta"]["status"] == "complete"
            attempts = [(entry["host"], entry["status"]) for entry in run["meta"]["attempts"]]
            assert attempts == [("nodeb", "failed"), ("nodea", "complete")]
            assert run["params"] == {"age": "old"}
            assert run["sums"] == {"new": 0.0, "old": 0.0}
    first, second = resumed["after"]
    assert first == second


def test_no_line_of_the_newer_attempt_is_written_over(resumed: dict[str, Any]) -> None:
    """Though both log at once, which on NFS would lose lines of a file that both append to."""
    for node in resumed["after"]:
        messages = [text for _, text in node[1]["messages"]]
        begun = messages.index("Logbook resumed: attempt 2")
        assert messages[begun:] == [
            "Logbook resumed: attempt 2",
            *(f"new line {line}" for line in range(3)),
            "Saved array new in data/new.npy",
            *(f"new says {line}" for line in range(resumed["said"]["new"]["lines"])),
            "Marked complete",
        ]


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
