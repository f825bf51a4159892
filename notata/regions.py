"""Which part of an array an index means, as arithmetic: reading only what is needed."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from notata.pieces import Shape


class Region(NamedTuple):
    """A part of an array.

    Attributes:
        start: Index of the first element of the smallest box that holds the part.
        shape: Shape of that box.
        pick: The index that, applied to the box, gives the part.
    """

    start: Shape
    shape: Shape
    pick: tuple[Any, ...]


def region_of(index: Any, shape: Shape) -> Region:
    """Find the box that an index needs.

    Args:
        index: What stands between the brackets, as `numpy.s_` gives it: numbers, slices with any
            step, and one `...`; None means everything.
        shape: Shape of the array.

    Raises:
        IndexError: If a number lies outside, or there are more axes than the array has.
        TypeError: If the index holds anything else, such as a list or a mask.

    Example:
        >>> region_of((slice(10, 20), 3), (30, 5))
        Region(start=(10, 3), shape=(10, 1), pick=(slice(None, None, 1), 0))

    Ranks: independent.
    """
    entries = list(index) if isinstance(index, tuple) else [] if index is None else [index]
    dots = [position for position, entry in enumerate(entries) if entry is Ellipsis]
    if len(dots) > 1:
        raise IndexError("a region can have one '...'")
    missing = len(shape) - len(entries) + len(dots)
    if missing < 0:
        raise IndexError(f"region {index!r} has more axes than the array of shape {shape}")
    at = dots[0] if dots else len(entries)
    entries[at : at + 1] = [slice(None)] * missing
    axes = [_axis(e, n, axis) for axis, (e, n) in enumerate(zip(entries, shape, strict=True))]
    return Region(tuple(a[0] for a in axes), tuple(a[1] for a in axes), tuple(a[2] for a in axes))


def _axis(entry: Any, length: int, axis: int) -> tuple[int, int, Any]:
    if isinstance(entry, slice):
        low, high, step = entry.indices(length)
        count = len(range(low, high, step))
        if count == 0:
            return 0, 0, slice(None)
        last = low + (count - 1) * step
        return min(low, last), abs(last - low) + 1, slice(None, None, step)
    if not hasattr(entry, "__index__") or isinstance(entry, bool):
        raise TypeError(f"a region is made of numbers, slices and '...', not {entry!r}")
    number = entry.__index__()
    if not -length <= number < length:
        raise IndexError(f"index {number} is outside axis {axis}, which has {length}")
    return number % length, 1, 0


_SPAN = re.compile(r"(?:(-?\d{1,18})?:(-?\d{1,18})?(?::(-?\d{1,18})?)?|(-?\d{1,18})|(\.\.\.))")


def parse(text: str) -> tuple[Any, ...]:
    """The index that people write, as it stands between brackets.

    Raises:
        ValueError: If it is none.

    Example:
        >>> parse("10:20, :, 3")
        (slice(10, 20, None), slice(None, None, None), 3)

    Ranks: independent.
    """
    found: list[Any] = []
    for part in text.strip().removeprefix("[").removesuffix("]").split(","):
        match = _SPAN.fullmatch("".join(part.split()))
        if match is None or match[3] == "0":
            raise ValueError(f"{text!r} is no region; one looks like '10:20,:,3' or '...,0'")
        if match[5]:
            found.append(...)
        elif match[4]:
            found.append(int(match[4]))
        else:
            found.append(slice(*(int(match[n]) if match[n] else None for n in (1, 2, 3))))
    return tuple(found)
