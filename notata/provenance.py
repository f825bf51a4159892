"""Where did this run: what the metadata of a parallel run says of its ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from notata import topology
from notata.ranges import compact, expand


def parallel_facts(place: topology.Topology, hosts: Mapping[int, str]) -> dict[str, Any]:
    """What `metadata.json` says of a run of several ranks.

    Args:
        place: This process's place.
        hosts: The host of each rank, as far as it is known.

    Returns:
        Plain values. Hosts come as ranges of ranks, so that ten thousand ranks on a hundred nodes
        are a hundred short lines.

    Ranks: root only.
    """
    facts: dict[str, Any] = {
        "size": place.size,
        "rank_from": place.source,
        "launcher": place.launcher,
        "launch": place.launch,
        "mpi": topology.mpi_library(place),
        "communicator": place.comm is not None,
        **host_facts(place.size, hosts),
    }
    if place.notes:
        facts["disagreements"] = list(place.notes)
    return facts


def host_facts(size: int, hosts: Mapping[int, str]) -> dict[str, Any]:
    """The host of each rank, and the ranks whose host nobody told.

    Args:
        size: Number of ranks.
        hosts: The host of each rank, as far as it is known.

    Example:
        >>> host_facts(4, {0: "n1", 1: "n1"})
        {'hosts': {'n1': '0-1'}, 'hosts_unknown': '2-3'}

    Ranks: root only.
    """
    unknown = compact(rank for rank in range(size) if rank not in hosts)
    return {"hosts": _grouped(hosts)} | ({"hosts_unknown": unknown} if unknown else {})


def with_hosts(parallel: Mapping[str, Any], told: Mapping[int, str]) -> dict[str, Any]:
    """What the metadata says of the ranks, with the hosts that it did not know.

    Args:
        parallel: What it says, as `parallel_facts` made it.
        told: The host of each rank that told its own.

    Returns:
        The same, with those hosts added; what was known stays.

    Raises:
        ValueError: If `parallel.hosts` is not as `parallel_facts` made it.

    Ranks: root only.
    """
    hosts = parallel.get("hosts", {})
    if not isinstance(hosts, dict):
        raise ValueError(f"parallel.hosts is {hosts!r:.80}, not ranks by their host")
    known = {rank: host for host, ranks in hosts.items() for rank in expand(str(ranks))}
    size = int(parallel["size"])
    rest = {key: value for key, value in parallel.items() if key != "hosts_unknown"}
    return rest | host_facts(size, {**told, **known})


def piece_facts(counts: Sequence[int]) -> dict[str, str]:
    """How many pieces the ranks wrote: from the count to the ranks that have it.

    Example:
        >>> piece_facts([3, 3, 0, 3])
        {'0': '2', '3': '0-1,3'}

    Ranks: root only.
    """
    return _grouped({rank: f"{count}" for rank, count in enumerate(counts)})


def _grouped(values: Mapping[int, str]) -> dict[str, str]:
    groups: dict[str, list[int]] = {}
    for rank, value in values.items():
        groups.setdefault(value, []).append(rank)
    return {value: compact(groups[value]) for value in sorted(groups)}
