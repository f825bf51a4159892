"""How pieces make a whole where some are missing, or don't fit the others.

Pure arithmetic on shapes; no file is touched here. What most ranks agree on counts; where the
others' pieces would have been, the whole has holes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from notata.assembly import Box, Whole, assemble, flaws, intersection, telling
from notata.pieces import Piece


def mend(
    ranked: Mapping[int, Piece], size: int, bad: Collection[int] = ()
) -> tuple[Whole, tuple[Box, ...]]:
    """Make a whole of the pieces that fit, and say where it has holes.

    Args:
        ranked: Each rank's piece of one array.
        size: Number of ranks of the run.
        bad: The ranks whose pieces can't be read.

    Returns:
        The whole with the pieces that fit and can be read, and the boxes that none of them fills.
        Where pieces overlap nobody can know which is right, so that all of those are left out.

    Ranks: independent.
    """
    group = _majority(ranked)
    model = ranked[group[0]]
    if model.join == "place":
        whole = _assembled({rank: ranked[rank] for rank in sorted(group)}, size)
        parts = tuple(part for part in whole.parts if part.rank not in bad)
        boxes = {part.rank: (part.start, part.shape) for part in parts}
        over = {rank for flaw in flaws(whole.shape, boxes, most=_ALL) for rank in flaw.ranks}
        parts = tuple(part for part in parts if part.rank not in over)
        return whole._replace(parts=parts), _gaps(whole.shape, boxes, over)
    fitting = set(group)
    fixed = {
        rank: piece if rank in fitting else _like(piece, model) for rank, piece in ranked.items()
    }
    if model.join == "stack" or not model.shape:
        fixed |= {rank: model for rank in range(size) if rank not in ranked}
    whole = _assembled(dict(sorted(fixed.items())), size)
    sound = {rank for rank in fitting if rank not in bad}
    parts = tuple(part for part in whole.parts if part.rank in sound)
    holes = ((p.start, p.shape) for p in whole.parts if p.rank not in sound and all(p.shape))
    return whole._replace(parts=parts), tuple(holes)


def _assembled(ranked: Mapping[int, Piece], size: int) -> Whole:
    (whole,) = assemble({rank: [piece] for rank, piece in ranked.items()}, size).values()
    return whole


def _majority(ranked: Mapping[int, Piece]) -> list[int]:
    """The ranks of the largest group whose pieces fit together; of equal ones the first.

    Those without elements that fit them, too, come last.
    """
    groups: dict[object, list[int]] = {}
    wanted = {rank: piece for rank, piece in sorted(ranked.items()) if piece.join != "none"}
    told = telling(wanted)
    for rank, piece in told.items():
        inner = {"place": piece.whole, "stack": piece.shape}.get(
            piece.join, piece.shape[1:] if piece.shape else None
        )
        groups.setdefault((piece.join, piece.dtype, inner), []).append(rank)
    group = max(groups.values(), key=len)
    model = wanted[group[0]]
    empty = (rank for rank in wanted if rank not in told)
    return group + [r for r in empty if not _assembled({0: model, 1: wanted[r]}, 2).problems]


def _like(piece: Piece, model: Piece) -> Piece:
    """A stand-in for a piece that does not fit, with as many rows as it has."""
    shape = model.shape
    if model.join == "concat" and model.shape:
        shape = (piece.shape[0] if piece.shape else 1, *model.shape[1:])
    return model._replace(shape=shape)


_ALL = 1 << 62


def _gaps(
    whole: tuple[int, ...], boxes: Mapping[int, Box], over: Collection[int]
) -> tuple[Box, ...]:
    """Every box that no piece covers but those which overlap others."""
    sound = {rank: box for rank, box in boxes.items() if rank not in over}
    gaps = [(flaw.start, flaw.shape) for flaw in flaws(whole, sound, most=_ALL)]
    everything = ((0,) * len(whole), whole)
    if everything in gaps:  # boxes without a pattern: there are gaps, and it isn't said where
        gaps = [everything]
        for box in sound.values():
            gaps = [rest for gap in gaps for rest in _without(gap, box)]
    return tuple(gaps)


def _without(box: Box, other: Box) -> list[Box]:
    """What is left of a box beside another, as boxes."""
    shared = intersection(box, other)
    if shared is None:
        return [box]
    rest: list[Box] = []
    low, shape = list(box[0]), list(box[1])
    for axis, (first, count) in enumerate(zip(*shared, strict=True)):
        end = low[axis] + shape[axis]
        for a, b in ((low[axis], first), (first + count, end)):
            if a < b:
                start, size = [*low], [*shape]
                start[axis], size[axis] = a, b - a
                rest.append((tuple(start), tuple(size)))
        low[axis], shape[axis] = first, count
    return rest
