"""Where did this run: what the metadata of a parallel run says of its ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from notata import topology
from notata.ranges import compact


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
        "hosts": _grouped(hosts),
    }
    if place.notes:
        facts["disagreements"] = list(place.notes)
    return facts


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
