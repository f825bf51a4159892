"""In which order nodes' clocks, as they were compared, put what their ranks wrote."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from notata import files, layout, messages
from notata.ranges import expand

if TYPE_CHECKING:
    from notata.npy import Array


def offsets(told: Sequence[Sequence[Any]]) -> list[float]:
    """By how many seconds a clock was ahead each time; 0 where that may be none at all.

    Args:
        told: Of each comparison the time, the offset and how wrong that may be.

    Raises:
        ValueError: If they are something else; so do other errors of wrong types.

    Example:
        >>> offsets([["", 5.0, 0.1], ["", 0.01, 0.1]])
        [5.0, 0.0]

    Ranks: independent.
    """
    pairs = [(float(offset), float(doubt)) for _, offset, doubt in told]
    sure = [offset if abs(offset) > doubt else 0.0 for offset, doubt in pairs]
    if not all(map(math.isfinite, sure)):
        raise ValueError("an offset is no number")
    return sure


_Table = tuple[list[int], list[float]]  # ticks, and by how many a clock was ahead then


class _Attempt:
    """What was noted of clocks in one attempt.

    Attributes:
        hosts: The ranks of each host, as ranges.
        first: The host of rank 0, with whose clock others were compared.
        tables: The comparisons of each host.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.hosts: Mapping[str, str] = told.get("hosts", {})
        self.first = next((host for host, ranks in self.hosts.items() if 0 in expand(ranks)), None)
        self.tables: dict[str | None, _Table] = {self.first: ([], [0.0])}
        for host, samples in told.get("clocks", {}).items():
            ahead = [2e6 * offset for offset in offsets(samples)]
            when = [messages.ticks(str(sample[0]).encode()) for sample in samples]
            self.tables[host] = (when, ahead) if any(ahead) else ([], [0.0])

    def ranks(self) -> dict[int, str]:
        """The host of each rank."""
        return {rank: host for host, ranks in self.hosts.items() for rank in expand(ranks)}


class Corrections:
    """What to take off the stamps of ranks before they are compared.

    Attributes:
        largest: The largest correction at all, in seconds.
    """

    def __init__(
        self,
        clocks: Mapping[str, Sequence[Sequence[Any]]],
        hosts: Mapping[str, str],
        earlier: Sequence[Mapping[str, Any]] = (),
    ):
        """Take over what the metadata says.

        Args:
            clocks: Of each host, its comparisons.
            hosts: The ranks of each host, as ranges.
            earlier: The same of each attempt before, with the time `until` which it lasted.

        Raises:
            ValueError: If it says something else; so do other errors of wrong types.
        """
        told = [*earlier, {"clocks": clocks, "hosts": hosts}]
        attempts = [_Attempt(one) for one in told]
        tables = [table for attempt in attempts for table in attempt.tables.values()]
        self.largest = max(abs(ahead) for _, offsets in tables for ahead in offsets) / 2e6
        self._tables: dict[int, _Table] = {}
        ends = [messages.ticks(str(one["until"]).encode()) for one in earlier]
        if self.largest:
            self._tables = _tables(attempts, ends)

    def __bool__(self) -> bool:
        return bool(self._tables)

    def one(self, ticks: int, rank: int | None) -> int:
        """The corrected ticks of one record."""
        table = self._tables.get(rank or 0)
        if table is None or ticks < 0:
            return ticks
        import numpy as np

        return int(_corrected(np.array([ticks]), table)[0])

    def many(self, ticks: Array, rank: int) -> Array:
        """The corrected ticks of many records of a rank."""
        table = self._tables.get(rank)
        return ticks if table is None else _corrected(ticks, table)


def _corrected(ticks: Array, table: _Table) -> Array:
    import numpy as np

    # From the first comparison on, since a double can't tell microseconds since the year 1.
    since, (first, *_) = np.asarray(ticks) - table[0][0], table[0]
    offsets = np.interp(since, [when - first for when in table[0]], table[1])
    corrected: Array = ticks - np.rint(offsets).astype(np.int64)
    return corrected


def _tables(attempts: Sequence[_Attempt], ends: Sequence[int]) -> dict[int, _Table]:
    """The comparisons of each rank whose clock was ever ahead or behind."""
    placed = [attempt.ranks() for attempt in attempts]
    chains: dict[tuple[str | None, ...], _Table] = {}  # ranks of one node share theirs
    found: dict[int, _Table] = {}
    for rank in sorted(set().union(*placed)):
        hosts = tuple(ranks.get(rank) for ranks in placed)
        if hosts not in chains:
            parts = [_of_host(attempts, number, host) for number, host in enumerate(hosts)]
            chains[hosts] = _chained(parts, ends)
        if any(chains[hosts][1]):
            found[rank] = chains[hosts]
    return found


def _of_host(attempts: Sequence[_Attempt], number: int, host: str | None) -> _Table:
    """The comparisons of a host in an attempt; where it did not answer, those next in time.

    Those of an attempt that compared with another host's clock say nothing.
    """
    mine = attempts[number]
    for other in sorted(range(len(attempts)), key=lambda other: abs(other - number)):
        if host in attempts[other].tables and attempts[other].first == mine.first:
            table = attempts[other].tables[host]
            return table if other == number else ([], [table[1][0 if other > number else -1]])
    return [], [0.0]


def _chained(parts: Sequence[_Table], ends: Sequence[int]) -> _Table:
    """One rank's comparisons of several attempts, on another node each maybe, as one table."""
    when, offsets = list(parts[0][0]) or list(ends[:1]), list(parts[0][1])
    for end, (times, ahead) in zip(ends, parts[1:], strict=True):
        # The next attempt began when its own clock, not rank 0's, showed this. What the last one
        # wrote by a clock that was ahead of that by more than the time between them counts as the
        # next one's; but attempts are minutes apart, and clocks hardly seconds.
        begins = end + round(ahead[0])
        for place in range(len(when) - 1, -1, -1):
            if when[place] < begins:
                break
            when[place] = begins - 1
        when += [begins - 1, begins, *(max(time, begins) for time in times or [begins])]
        offsets += [offsets[-1], ahead[0], *ahead]
    return when, offsets


def uncompared(parallel: Any) -> list[str]:
    """The hosts whose clocks nobody compared with rank 0's.

    Args:
        parallel: What the metadata say of ranks that closed the run together.

    Example:
        >>> uncompared({"hosts": {"a": "0-1", "b": "2", "c": "3"}, "clocks": {"b": []}})
        ['c']

    Ranks: independent.
    """
    hosts, known = parallel.get("hosts"), parallel.get("clocks", {})
    if not (isinstance(hosts, dict) and isinstance(known, dict)):
        return []
    return [
        host
        for host, ranks in hosts.items()
        if host not in known and re.match("0(?![0-9])", str(ranks)) is None
    ]


def of_run(run: str | os.PathLike[str]) -> Corrections:
    """The corrections that a run's metadata gives; none where it says nothing that makes sense.

    Ranks: independent.
    """
    try:
        meta = json.loads(files.read_bytes(os.path.join(run, layout.METADATA)) or b"{}")
        parallel = meta.get("parallel", {})
        known, hosts = parallel.get("clocks", {}), parallel.get("hosts", {})
        return Corrections(known, hosts, parallel.get("earlier", ()))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Corrections({}, {})
