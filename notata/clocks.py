"""How far the nodes' clocks are apart.

At opening and closing one rank of each node exchanges a few messages with rank 0, which takes the
quickest of them: the other clock was read half-way, give or take half the time that the message and
its answer took. What is written is never changed by it; only the order of records is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from notata.corrections import offsets, uncompared
from notata.ranges import expand, stepped, tasks_of

_ROUNDS = 5
_PATIENCE = 1.0  # seconds for all nodes together: it is not worth more
_KEPT = 16  # attempts before the newest, of which is kept how far clocks were apart
_LONGEST = 4000  # characters of the list of ranks, which has to fit into an answer of rank 0
_NAMED = 5  # hosts that a message names at most


class Sample(NamedTuple):
    """One comparison of a node's clock with rank 0's.

    Attributes:
        time: When, on rank 0's clock, as a time stamp.
        offset: Seconds by which the node's clock was ahead.
        uncertainty: Seconds by which that may be wrong.
    """

    time: str
    offset: float
    uncertainty: float


def speakers(records: Sequence[Mapping[str, Any]]) -> str:
    """The first rank of each host but that of rank 0, as ranges with steps.

    Where nodes have as many ranks each, any number of them fits into an answer; where the first
    ranks of nodes follow no rule, some 600 do. The others are not asked, and the run says so.

    Args:
        records: What each rank told of itself: its `host`.

    Example:
        >>> speakers([{"host": host} for host in "aabbccddc"])
        '2-6:2'

    Ranks: root only.
    """
    first: dict[str, int] = {}
    for rank, record in enumerate(records):
        first.setdefault(str(record["host"]), rank)
    told = ",".join(stepped(rank for rank in first.values() if rank))
    return told if len(told) <= _LONGEST else told[: told.rindex(",", 0, _LONGEST + 1)]


def not_compared(parallel: Any) -> str:
    """What is to be said of nodes whose clocks were not compared with rank 0's; `""` of none.

    Args:
        parallel: What the metadata say of ranks that closed the run together.

    Example:
        >>> not_compared({"hosts": {"a": "0-1", "b": "2", "c": "3"}, "clocks": {"b": []}})
        "the clock of 1 of 3 nodes was not compared with rank 0's (c)"

    Ranks: independent.
    """
    hosts = uncompared(parallel)
    if not hosts:
        return ""
    what = "the clock of 1" if len(hosts) == 1 else f"the clocks of {len(hosts)}"
    were, more = "was" if len(hosts) == 1 else "were", ", …" if len(hosts) > _NAMED else ""
    named = ", ".join(hosts[:_NAMED]) + more
    count = len(parallel["hosts"])
    return f"{what} of {count} nodes {were} not compared with rank 0's ({named})"


def compare(comm: Any, rank: int, asked: str, tag: int) -> dict[int, Sample]:
    """Compare clocks, within a second or not at all.

    Args:
        comm: A communicator that nobody else uses.
        rank: This process's rank in it.
        asked: The ranks whose clocks are compared with rank 0's.
        tag: Another one each time.

    Returns:
        On rank 0 the best comparison with each rank that answered in time; else nothing.

    Ranks: collective.
    """
    others = tasks_of(asked) if asked else []
    deadline = time.monotonic() + _PATIENCE
    found: dict[int, Sample] = {}
    if rank == 0:
        for other in others:
            for _ in range(_ROUNDS):
                sample = _ask(comm, other, tag, deadline)
                if sample is None:
                    return found
                if other not in found or sample.uncertainty < found[other].uncertainty:
                    found[other] = sample
    elif rank in others:
        for _ in range(_ROUNDS):
            if not _answer(comm, tag, deadline):
                break
    return found


def _ask(comm: Any, other: int, tag: int, deadline: float) -> Sample | None:
    question, answer = bytearray(1), bytearray(8)
    began, started = time.time(), time.monotonic()
    comm.Isend(question, other, tag).Test()
    if not _done(comm.Irecv(answer, other, tag), deadline):
        return None
    took = time.monotonic() - started
    theirs = int.from_bytes(answer, "little") / 1e9
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(began))
    offset = theirs - (began + took / 2)
    return Sample(f"{stamp}.{int(began % 1 * 1e6):06d}", round(offset, 9), round(took / 2, 9))


def _answer(comm: Any, tag: int, deadline: float) -> bool:
    if not _done(comm.Irecv(bytearray(1), 0, tag), deadline):
        return False
    return _done(comm.Isend(time.time_ns().to_bytes(8, "little"), 0, tag), deadline)


def _done(request: Any, deadline: float) -> bool:
    while not request.Test():
        if time.monotonic() > deadline:
            request.Cancel()
            request.Wait()
            return False
        time.sleep(0)
    return True


class Notes(Protocol):
    """The metadata of a run."""

    values: dict[str, Any]

    def update(self, fields: Mapping[str, Any], /) -> None:
        """Put fields in, and write the file."""


def note(metadata: Notes, samples: Mapping[int, Sample]) -> None:
    """Put comparisons into the metadata: `parallel.clocks`, by host, in order of time.

    Where they can't be written, the run goes on without: they only help to order messages.

    Ranks: root only.
    """
    if not samples:
        return
    parallel = metadata.values["parallel"]
    told = {host: list(known) for host, known in parallel.get("clocks", {}).items()}
    hosts = {rank: host for host, ranks in parallel["hosts"].items() for rank in expand(ranks)}
    for rank, sample in samples.items():
        told.setdefault(hosts[rank], []).append(list(sample))
    with suppress(OSError):
        metadata.update({"parallel": parallel | {"clocks": told}})


def by_rank_0(
    records: Sequence[Mapping[str, Any]], parallel: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What ranks told, with the time `at` which they failed by rank 0's clock, as far as known.

    Args:
        records: What each rank told, `at` by its own clock.
        parallel: What the metadata say of ranks.

    Example:
        >>> told = {"hosts": {"a": "0", "b": "1"}, "clocks": {"b": [["", 5.0, 0.1]]}}
        >>> by_rank_0([{"at": 12.0}, {"at": 15.0}], told)
        [{'at': 12.0}, {'at': 10.0}]

    Ranks: root only.
    """
    ahead: dict[int, float] = {}
    for host, samples in parallel.get("clocks", {}).items():
        _, offset, doubt = samples[-1]
        if abs(offset) > doubt:
            ahead |= dict.fromkeys(expand(parallel["hosts"][host]), offset)
    return [
        {**record, "at": record["at"] - ahead.get(rank, 0.0)} if "at" in record else dict(record)
        for rank, record in enumerate(records)
    ]


def carried(parallel: Any, until: str) -> dict[str, Any]:
    """What an attempt noted of clocks, for the metadata of the next one: `parallel.earlier`.

    Of a clock that was ahead or behind, the first and the last comparison are kept, and of the
    attempts the last ones: a job may be preempted every hour.

    Args:
        parallel: What the metadata say of ranks, as the attempt left them.
        until: When the next one begins, as a time stamp.

    Example:
        >>> told = {"hosts": {"a": "0", "b": "1"}, "clocks": {"b": [["", 5.0, 0.1]]}}
        >>> carried(told, "")["earlier"]
        [{'until': '', 'hosts': {'a': '0', 'b': '1'}, 'clocks': {'b': [['', 5.0, 0.1]]}}]

    Ranks: root only.
    """
    told = parallel if isinstance(parallel, dict) else {}
    entry = {"until": until, "hosts": told.get("hosts", {}), "clocks": {}}
    with suppress(ValueError, TypeError, AttributeError):  # what makes no sense corrects nothing
        entry["clocks"] = {
            host: [*samples[:1], *samples[1:][-1:]] if any(offsets(samples)) else []
            for host, samples in told.get("clocks", {}).items()
        }
    earlier = told.get("earlier")
    return {"earlier": [*(earlier if isinstance(earlier, list) else []), entry][-_KEPT:]}
