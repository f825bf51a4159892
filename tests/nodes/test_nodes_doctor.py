"""What `notata doctor` says of two nodes, started on both of them at once."""

from __future__ import annotations

from typing import Any

import pytest
from machines import Machine


def verdicts(told: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in told["checks"]}


def finding(told: dict[str, Any], name: str) -> str:
    (check,) = (check for check in told["checks"] if check["name"] == name)
    return f"{check['finding']}. {check['remedy']}"


@pytest.fixture(params=["nfs_besides", "gluster"])
def shared(request: pytest.FixtureRequest) -> Machine:
    """Each of the machines whose nodes share a folder with locks that hold."""
    machine: Machine = request.getfixturevalue(request.param)
    return machine


def test_nothing_that_loses_data_is_found_on_nfs_4_and_glusterfs(shared: Machine) -> None:
    told = shared.told("doctor")["shared"]
    assert (told["well"], told["status"]) == (True, 0), told
    tried = [name for name in verdicts(told) if name.endswith("between nodes")]
    assert len(tried) == 5, tried
    assert verdicts(told)["clocks between nodes"] == "ok"
    assert finding(told, "nodes").startswith("2 nodes share it: nodea, nodeb")


def test_a_clock_that_is_90_s_ahead_is_named(shared: Machine) -> None:
    told = shared.told("doctor")["ahead"]
    assert (told["well"], told["status"]) == (False, 1), told
    assert verdicts(told)["clocks between nodes"] == "bad"
    assert "behind that of nodeb" in finding(told, "clocks between nodes")


def test_nfs_3_with_nolock_is_named(nfs_besides: Machine) -> None:
    told = nfs_besides.told("doctor_nolock")
    assert (told["well"], told["status"]) == (False, 1), told
    assert verdicts(told)["file system"] == "bad"
    assert "NFS mounted with nolock" in finding(told, "file system")
