"""How the ranks' pieces make a whole.

Pure arithmetic on shapes; no file is touched here. The reader and the merge take all ranks'
manifests and get from `assemble` one `Whole` per name, with every contradiction spelled out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from notata.pieces import Identity, Piece, Shape, by_ways, label_of
from notata.ranges import ranks_text


class Part(NamedTuple):
    """A piece with its place: `start` and `shape` are in the axes of the whole."""

    rank: int
    piece: Piece
    start: Shape
    shape: Shape


class Whole(NamedTuple):
    """An array of the run and the pieces that make it.

    Attributes:
        name: Name of the array, or of the bundle that holds it.
        key: Key inside the bundle, or None for an array of its own.
        join: How the pieces are joined.
        shape: Shape of the whole.
        dtype: Its type, as `npy.dtype_text` spells it.
        fortran: Whether the pieces lie in Fortran order.
        parts: The pieces in rank order, placed.
        problems: What is wrong with them, as sentences with ranks; empty if nothing is.
    """

    name: str
    key: str | None
    join: str
    shape: Shape
    dtype: str
    fortran: bool
    parts: tuple[Part, ...]
    problems: tuple[str, ...]

    @property
    def identity(self) -> Identity:
        """Its name and key, which tell it from all others."""
        return self.name, self.key

    @property
    def label(self) -> str:
        """The name that a reader loads it by, if no other array goes before it."""
        return label_of(self.identity)


def assemble(pieces: Mapping[int, Iterable[Piece]], size: int) -> dict[Identity, Whole]:
    """Put all ranks' pieces together by name and key.

    Args:
        pieces: The pieces of each rank, as its manifest lists them; the last of a name counts.
        size: Number of ranks of the run.

    Returns:
        One `Whole` for each array that is to be joined, sorted by label. Coverage of placed pieces
        is checked by `flaws`, where it is needed.

    Ranks: independent.
    """
    found = by_array(pieces)
    return {
        identity: _whole(found[identity], size)
        for identity in sorted(found, key=lambda one: (label_of(one), by_ways(one)))
        if any(piece.join != "none" for piece in found[identity].values())
    }


def by_array(pieces: Mapping[int, Iterable[Piece]]) -> dict[Identity, dict[int, Piece]]:
    """The pieces of each array, by rank, in rank order; the last of a name counts.

    Ranks: independent.
    """
    # Not by label: an array "b:x" and the key "x" of a bundle "b" are two, and share it.
    found: dict[Identity, dict[int, Piece]] = {}
    for rank in sorted(pieces):
        for piece in pieces[rank]:
            found.setdefault(piece.identity, {})[rank] = piece
    return found


def telling(ranked: Mapping[int, Piece]) -> dict[int, Piece]:
    """The pieces that say of which type the whole is: those with elements, or all if none has any.

    A rank that has nothing of an array writes `[]`, which numpy takes for floats in one dimension.

    Ranks: independent.
    """
    return {rank: piece for rank, piece in ranked.items() if not piece.is_empty} or dict(ranked)


def _whole(ranked: dict[int, Piece], size: int) -> Whole:
    told = telling(ranked)
    problems = [
        *_disagreements("is joined by", {r: p.join for r, p in ranked.items()}),
        *_disagreements("has type", {r: p.dtype for r, p in told.items()}),
    ]
    first = next(iter(told.values()))
    fortran = all(piece.fortran for piece in told.values())
    if problems:
        return Whole(*first[:2], first.join, (), first.dtype, fortran, (), tuple(problems))
    shape, parts, wrong = _JOINERS[first.join](ranked, size)
    return Whole(*first[:2], first.join, shape, first.dtype, fortran, parts, tuple(wrong))


_Joined = tuple[Shape, tuple[Part, ...], list[str]]


def _place(ranked: dict[int, Piece], size: int) -> _Joined:
    problems = _disagreements(
        "is part of a whole of shape", {r: p.whole for r, p in ranked.items()}
    )
    if problems:
        return (), (), problems
    whole = next(iter(ranked.values())).whole or ()
    return whole, tuple(Part(r, p, p.start or (), p.shape) for r, p in ranked.items()), []


def _concat(ranked: dict[int, Piece], size: int) -> _Joined:
    if all(not piece.shape for piece in ranked.values()):
        return _stack(ranked, size)  # numbers become a vector over ranks
    told = telling(ranked)
    if all(piece.shape for piece in told.values()):
        # A piece without rows fits whatever the others' rows are like.
        compared = {r: p for r, p in ranked.items() if r in told or p.shape[0]}
    else:
        compared = ranked
    problems = _disagreements(
        "beyond axis 0 has shape",
        {r: p.shape[1:] if p.shape else None for r, p in compared.items()},
    )
    if problems:
        return (), (), problems
    inner = next(iter(told.values())).shape[1:]
    parts, row = [], 0
    for rank, piece in ranked.items():
        parts.append(Part(rank, piece, (row, *(0,) * len(inner)), (piece.shape[0], *inner)))
        row += piece.shape[0]
    return (row, *inner), tuple(parts), []


def _stack(ranked: dict[int, Piece], size: int) -> _Joined:
    problems = _disagreements("has shape", {r: p.shape for r, p in ranked.items()})
    absent = [rank for rank in range(size) if rank not in ranked]
    if absent:
        problems.append(f"has one row per rank, but {ranks_text(absent)} wrote none")
    if problems:
        return (), (), problems
    inner = next(iter(ranked.values())).shape
    parts = (Part(r, p, (r, *(0,) * len(inner)), (1, *inner)) for r, p in ranked.items())
    return (size, *inner), tuple(parts), []


_JOINERS = {"place": _place, "concat": _concat, "stack": _stack}


def _disagreements(what: str, values: Mapping[int, object]) -> list[str]:
    groups: dict[object, list[int]] = {}
    for rank, value in values.items():
        groups.setdefault(value, []).append(rank)
    if len(groups) < 2:
        return []
    told = ", ".join(f"{value} on {ranks_text(ranks)}" for value, ranks in groups.items())
    return [f"{what} {told}"]


class Flaw(NamedTuple):
    """A box of the whole that no piece covers, or more than one.

    Attributes:
        start: Index of its first element.
        shape: Its shape.
        ranks: The ranks whose pieces overlap there; empty for a gap.
    """

    start: Shape
    shape: Shape
    ranks: tuple[int, ...]

    def __str__(self) -> str:
        box = ", ".join(f"{a}:{a + n}" for a, n in zip(self.start, self.shape, strict=True))
        if self.ranks:
            return f"{ranks_text(self.ranks)} overlap at [{box}]"
        return f"nothing covers [{box}]"


Box = tuple[Shape, Shape]
_FEW = 4  # boxes that are compared with each other
_CELLS = 5_000_000  # of the grid that all edges of all pieces make: beyond, only sums are compared


def flaws(whole: Shape, boxes: Mapping[int, Box], most: int = 5) -> list[Flaw]:
    """Find gaps and overlaps between boxes that should fill a whole exactly.

    The edges of all boxes cut the whole into a grid of cells; how many boxes lie over each cell
    says everything.

    Args:
        whole: Shape of the whole.
        boxes: Start and shape of each rank's box, all inside the whole.
        most: How many flaws to name.

    Returns:
        The flaws, at most that many; empty if every element is covered exactly once.

    Ranks: independent.
    """
    import numpy as np

    filled = {rank: box for rank, box in boxes.items() if all(box[1])}
    if not all(whole):
        return []
    if not filled:
        return [Flaw((0,) * len(whole), whole, ())]
    if len(filled) <= _FEW and _fill(whole, list(filled.values())):
        return []
    edges = [_edges(axis, length, filled.values()) for axis, length in enumerate(whole)]
    cells = tuple(len(edge) - 1 for edge in edges)
    if math.prod(cells) > _CELLS:
        return _flaws_by_sweep(whole, filled, most)
    count = np.zeros(cells, np.int32)
    for start, shape in filled.values():
        count[_cells_of(edges, start, shape)] += 1
    found = []
    for cell in np.argwhere(count != 1)[:most]:
        low = tuple(int(edge[i]) for edge, i in zip(edges, cell, strict=True))
        high = tuple(int(edge[i + 1]) for edge, i in zip(edges, cell, strict=True))
        over = tuple(rank for rank, box in filled.items() if _holds(box, low))
        found.append(Flaw(low, tuple(b - a for a, b in zip(low, high, strict=True)), over))
    return found


def _fill(whole: Shape, boxes: Sequence[Box]) -> bool:
    """Whether a few boxes fill a whole exactly; for a part of an array, quicker than the grid."""
    if sum(math.prod(shape) for _, shape in boxes) != math.prod(whole):
        return False
    return not any(intersection(one, other) for one, other in combinations(boxes, 2))


def _edges(axis: int, length: int, boxes: Iterable[Box]) -> list[int]:
    marks = {0, length}
    for start, shape in boxes:
        marks.update((start[axis], start[axis] + shape[axis]))
    return sorted(marks)


def _cells_of(edges: list[list[int]], start: Shape, shape: Shape) -> tuple[slice, ...]:
    return tuple(
        slice(bisect_left(edge, first), bisect_left(edge, first + length))
        for edge, first, length in zip(edges, start, shape, strict=True)
    )


def _holds(box: Box, point: Shape) -> bool:
    return all(a <= p < a + n for a, n, p in zip(*box, point, strict=True))


def intersection(one: Box, other: Box) -> Box | None:
    """The box that two boxes share, or None.

    Example:
        >>> intersection(((0, 0), (4, 4)), ((2, 3), (4, 4)))
        ((2, 3), (2, 1))

    Ranks: independent.
    """
    low, shape = [], []
    for a, n, b, m in zip(*one, *other, strict=True):
        start = a if a > b else b
        extent = (a + n if a + n < b + m else b + m) - start
        if extent <= 0:
            return None
        low.append(start)
        shape.append(extent)
    return tuple(low), tuple(shape)


def _flaws_by_sweep(whole: Shape, boxes: Mapping[int, Box], most: int) -> list[Flaw]:
    """For boxes without any pattern: overlaps pair by pair along axis 0, gaps by volume."""
    found: list[Flaw] = []
    active: list[int] = []
    for rank in sorted(boxes, key=lambda rank: boxes[rank][0]):
        first = boxes[rank][0][0]
        active = [r for r in active if boxes[r][0][0] + boxes[r][1][0] > first]
        for other in active:
            shared = intersection(boxes[rank], boxes[other])
            if shared is not None and len(found) < most:
                found.append(Flaw(*shared, tuple(sorted((rank, other)))))
        active.append(rank)
    if not found and sum(math.prod(box[1]) for box in boxes.values()) < math.prod(whole):
        found.append(Flaw((0,) * len(whole), whole, ()))
    return found
