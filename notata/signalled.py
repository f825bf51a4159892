"""Which signals came to which ranks: one entry for all that got the same at about the same time.

A scheduler warns all ranks of a job at once, and the metadata have to stay small.
"""

from __future__ import annotations

import signal
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from notata.messages import stamp_seconds
from notata.ranges import compact, expand

_STAMP = "%Y-%m-%dT%H:%M:%S"
_TOGETHER = 5.0  # seconds within which the same signal on several ranks is one entry
_MOST = 50  # entries of one signal; then whatever comes joins the one that is nearest
MOST_OF_A_RANK = 20  # in one run; SIGXCPU comes every second

Noted = dict[str, Any]


def packed(noted: Sequence[Noted]) -> list[list[Any]]:
    """What a rank noted, for the one message in which it tells rank 0 all else, too.

    Example:
        >>> noted = {"signal": "SIGUSR1", "time": "2026-11-23T03:00:00", "time_left": 9.5}
        >>> unpacked(packed([noted | {"ends": False}])) == [noted | {"ends": False}]
        True

    Ranks: independent.
    """
    return [
        [
            int(signal.Signals[one["signal"]]),
            int(stamp_seconds(one["time"])),
            one["time_left"],
            int(one["ends"]),
        ]
        for one in noted[:MOST_OF_A_RANK]
    ]


def unpacked(told: Iterable[Sequence[Any]]) -> list[Noted]:
    """What a rank noted, from what `packed` made of it.

    Ranks: independent.
    """
    return [
        {
            "signal": signal.Signals(number).name,
            "time": time.strftime(_STAMP, time.localtime(when)),
            "time_left": left,
            "ends": bool(ends),
        }
        for number, when, left, ends in told
    ]


def came_to(rank: int, entries: object) -> list[Noted]:
    """Those signals of the metadata that came to a rank; an entry that names none is rank 0's.

    Example:
        >>> came_to(0, [{"signal": "SIGTERM"}, {"signal": "SIGUSR1", "ranks": "1-3"}])
        [{'signal': 'SIGTERM'}]

    Ranks: independent.
    """
    listed = entries if isinstance(entries, list) else []
    return [one for one in listed if isinstance(one, dict) and rank in _ranks(one)]


def _ranks(entry: Mapping[str, Any]) -> set[int]:
    with suppress(ValueError):
        return set(expand(str(entry.get("ranks", "0"))))
    return set()


class _Group:
    """An entry, and the ranks that it is of."""

    def __init__(self, entry: Noted, at: float, ranks: Iterable[int]) -> None:
        self.entry, self.at = entry, at
        self.known = frozenset(ranks)
        self.added: set[int] = set()

    def told(self) -> Noted:
        if not self.added:
            return self.entry
        return self.entry | {"ranks": compact(self.known | self.added)}


def joined(
    entries: Sequence[Any], told: Mapping[int, object], starts: Sequence[str] = ()
) -> list[Any]:
    """The signals that the metadata tell of, with those that ranks told.

    What is known of a rank stays as it is, so that it may be told again. An entry keeps the time
    that it has: that of rank 0, or of the first rank that noted it.

    Args:
        entries: What the metadata say. What is no signal there is left alone.
        told: What ranks other than 0 noted.
        starts: When the attempts at the run began, whose signals are kept apart.

    Returns:
        All entries in order of time, or just those of before if nothing is new.

    Example:
        >>> usr1 = {"signal": "SIGUSR1", "time": "2026-11-23T03:00:00", "ends": False}
        >>> [one["ranks"] for one in joined([usr1], {1: [usr1], 2: [usr1]})]
        ['0-2']

    Ranks: independent.
    """
    found: dict[tuple[object, ...], list[_Group]] = {}
    for entry in entries:
        if (at := _seconds(entry)) is not None:
            found.setdefault(_kind(entry, starts), []).append(_Group(entry, at, _ranks(entry)))
    news = [
        (at, rank, one)
        for rank, noted in told.items()
        for one in (noted if isinstance(noted, list) else [])
        if (at := _seconds(one)) is not None
    ]
    for at, rank, one in sorted(news, key=lambda new: new[:2]):
        _put(found.setdefault(_kind(one, starts), []), at, rank, one)
    groups = [group for alike in found.values() for group in alike]
    if not any(group.added for group in groups):
        return list(entries)
    others = [entry for entry in entries if _seconds(entry) is None]
    return [*others, *(group.told() for group in sorted(groups, key=lambda group: group.at))]


def _put(alike: list[_Group], at: float, rank: int, one: Noted) -> None:
    """Add a rank to the entry of a signal, or make one."""
    full = len(alike) >= _MOST
    near = [group for group in alike if full or abs(group.at - at) <= _TOGETHER]
    if any(rank in group.known for group in near):
        return
    free = [group for group in near if rank not in group.added]
    if not free and full:
        return
    if not free:
        alike.append(_Group(dict(one), at, ()))
        free = alike[-1:]
    min(free, key=lambda group: abs(group.at - at)).added.add(rank)


def _kind(entry: Noted, starts: Sequence[str]) -> tuple[object, ...]:
    attempt = bisect_right(starts, str(entry["time"]))
    return str(entry["signal"]), bool(entry.get("ends")), attempt


def _seconds(entry: Any) -> float | None:
    """When a signal came; None if that is no signal."""
    if isinstance(entry, dict) and isinstance(entry.get("signal"), str):
        with suppress(ValueError, OverflowError):
            return stamp_seconds(str(entry.get("time")))
    return None
