"""What `notata doctor` says of two nodes, started on both of them at once."""

from __future__ import annotations

from typing import Any

from machines import Machine


def verdicts(told: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in told["checks"]}


def finding(told: dict[str, Any], name: str) -> str:
    (check,) = (check for check in told["checks"] if check["name"] == name)
    return f"{check['finding']}. {check['remedy']}"


def test_nothing_that_loses_data_is_found_on_nfs_4(nfs_besides: Machine) -> None:
    told = nfs_besides.told("doctor")["shared"]
    assert (told["well"], told["status"]) == (True, 0), told
    assert verdicts(told)["clocks between nodes"] == "ok"


def test_a_clock_that_is_90_s_ahead_is_named(nfs_besides: Machine) -> None:
    told = nfs_besides.told("doctor")["ahead"]
    assert (told["well"], told["status"]) == (False, 1), told
    assert verdicts(told)["clocks between nodes"] == "bad"
    assert "behind that of nodeb" in finding(told, "clocks between nodes")


def test_nfs_3_with_nolock_is_named(nfs_besides: Machine) -> None:
    told = nfs_besides.told("doctor")["nolock"]
    assert (told["well"], told["status"]) == (False, 1), told
    assert verdicts(told)["file system"] == "bad"
    assert "NFS mounted with nolock" in finding(told, "file system")
