"""One step ahead: the next part of some work is done in a thread while the last one is used."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")


def ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """Give items as they are, and have the next one made meanwhile.

    It pays where both sides spend their time outside Python: reading, hashing, numpy.

    Example:
        >>> list(ahead(iter("abc")))
        ['a', 'b', 'c']

    Raises:
        Exception: Whatever making an item raises, in its turn.

    Ranks: independent.
    """
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(_next, items)
        while found := coming.result():
            coming = thread.submit(_next, items)
            yield found[0]


def _next(items: Iterator[_Item]) -> tuple[_Item] | None:
    for item in items:
        return (item,)
    return None
