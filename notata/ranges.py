"""Ranks as people write them: `0-2,5`."""

from __future__ import annotations

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
