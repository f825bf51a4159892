"""Ranks and array tasks as people write them: `0-2,5`."""

from __future__ import annotations

import re
from collections.abc import Iterable


def ranks_text(ranks: Iterable[int]) -> str:
    """Ranks as people write them.

    Example:
        >>> ranks_text([0, 1, 2, 5])
        'ranks 0-2, 5'

    Ranks: independent.
    """
    ranges = compact(ranks)
    return f"rank {ranges}" if ranges.isdigit() else f"ranks {ranges.replace(',', ', ')}"


def compact(ranks: Iterable[int]) -> str:
    """Ranks as ranges.

    Example:
        >>> compact([0, 1, 2, 5])
        '0-2,5'

    Ranks: independent.
    """
    spans: list[list[int]] = []
    for rank in sorted(ranks):
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def expand(ranges: str) -> list[int]:
    """The ranks that `compact` wrote.

    Example:
        >>> expand("0-2,5")
        [0, 1, 2, 5]

    Ranks: independent.
    """
    found: list[int] = []
    for span in filter(None, ranges.split(",")):
        low, _, high = span.partition("-")
        found.extend(range(int(low), int(high or low) + 1))
    return found


def stepped(ranks: Iterable[int]) -> list[str]:
    """Ranks as ranges with steps, which are short where nodes have as many ranks each.

    Joined by commas, `tasks_of` reads them.

    Example:
        >>> stepped([0, 1, 2, 48, 96, 144, 150])
        ['0-2', '48-144:48', '150']

    Ranks: independent.
    """
    ordered, found, at = sorted(ranks), list[str](), 0
    while at < len(ordered):
        end = at + 1
        step = ordered[end] - ordered[at] if end < len(ordered) else 0
        while end < len(ordered) and ordered[end] - ordered[end - 1] == step:
            end += 1
        if end - at < _SOME:
            end = at + 1
        last = "" if end == at + 1 else f"-{ordered[end - 1]}"
        found.append(f"{ordered[at]}{last}" + (f":{step}" if last and step > 1 else ""))
        at = end
    return found


_SOME = 3  # ranks that a range with a step names at least


def ranks_of(spec: str, size: int) -> list[int]:
    """The ranks that people mean, such as `0,3-7`.

    Args:
        spec: What they wrote.
        size: How many ranks there are.

    Raises:
        ValueError: If it is none, or names a rank that there isn't.

    Example:
        >>> ranks_of("0, 3-5", 8)
        [0, 3, 4, 5]

    Ranks: independent.
    """
    found: set[int] = set()
    for part in spec.split(","):
        match = re.fullmatch(r"\s*(\d{1,12})\s*(?:-\s*(\d{1,12}))?\s*", part)
        if match is None:
            raise ValueError(f"{spec!r} is no list of ranks; one looks like '0,3-7'")
        low, high = int(match[1]), int(match[2] or match[1])
        if not low <= high < size:
            raise ValueError(f"there is no rank {part.strip()} in {size} (from 0 to {size - 1})")
        found.update(range(low, high + 1))
    return sorted(found)


def tasks_of(spec: str) -> list[int]:
    """The task ids that an array specification means.

    Raises:
        ValueError: If it is none.

    Example:
        >>> tasks_of("3,7-9,20-30:5%4")
        [3, 7, 8, 9, 20, 25, 30]

    Ranks: independent.
    """
    found: list[int] = []
    for part in spec.strip("[]").partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part.strip())
        if match is None:
            raise ValueError(f"{spec!r} is no array specification; one looks like '3,7-9,20-30:5'")
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        found += range(first, last + 1, max(step, 1))
    return found


def task_specs(tasks: Iterable[int], most: int | None = None) -> list[str]:
    """The array specifications that mean these task ids.

    Args:
        tasks: The task ids.
        most: How many tasks an array may have.

    Example:
        >>> task_specs([3, 7, 8, 9, 21]), task_specs([3, 7, 8, 9, 21], most=3)
        (['3,7-9,21'], ['3,7-8', '9,21'])

    Ranks: independent.
    """
    ordered = sorted(set(tasks))
    size = most or len(ordered) or 1
    return [compact(ordered[at : at + size]) for at in range(0, len(ordered), size)]
