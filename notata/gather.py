"""Pieces on disk: whose they are, whether they count, and copying them into the whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from notata import freshness, layout, members, mergerecord, npy
from notata.assembly import Box, Part, Whole, flaws, intersection
from notata.errors import DamagedError, HoleError
from notata.pieces import Identity

if TYPE_CHECKING:
    from notata.npy import Array


def run_size(run: str, meta: Mapping[str, Any]) -> int:
    """Number of ranks that a run had.

    Args:
        run: The run's folder.
        meta: Its metadata.

    Raises:
        DamagedError: If ranks wrote in folders of their own, and the metadata does not say how many
            there were. Elsewhere `parallel` may be anything that a program noted.

    Ranks: independent.
    """
    parallel = meta.get("parallel")
    size = parallel.get("size") if isinstance(parallel, dict) else None
    if type(size) is int and size > 0:
        return size
    ranks = (layout.RANKS, layout.ARCHIVE)
    if parallel is None or not any(freshness.exists(os.path.join(run, name)) for name in ranks):
        return 1
    raise DamagedError(
        f"{os.path.join(run, layout.METADATA)} is damaged: parallel.size is {size!r}, not the "
        "number of ranks"
    )


def rank_folders(run: str) -> dict[int, str]:
    """The folders of the ranks that wrote something, by rank.

    Ranks: independent.
    """
    home = os.path.join(run, layout.RANKS)
    try:
        names = os.listdir(home)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = ((layout.rank_of(name), f"{home}/{name}") for name in names)
    return dict(sorted((rank, folder) for rank, folder in found if rank is not None))


def newer(
    run: str, identity: Identity, wholes: Callable[[], Mapping[Identity, Whole]]
) -> Whole | None:
    """The pieces of an array where they count, and None where its file in `data/` does, if any.

    Args:
        run: The run's folder.
        identity: The array.
        wholes: Gives all arrays that pieces make; it is asked only where there are newer pieces.

    Raises:
        UnsafeNameError: If no file can have its name.

    Ranks: independent.
    """
    file = layout.data_file(*identity)
    if mergerecord.are_pieces_newer(run, file, mergerecord.read(run), rank_folders(run)):
        return wholes().get(identity)
    return None


def load_piece(run: str, part: Part, *, mapped: bool) -> Array:
    """Read a piece, in the shape that it has in the whole.

    Args:
        run: The run's folder.
        part: The piece and its place.
        mapped: Whether to map it, so that only what is used is read.

    Raises:
        DamagedError: If the file is missing, cut off, or not what the manifest says.

    Ranks: independent.
    """
    piece = part.piece
    path = os.path.join(run, layout.rank_dir(part.rank), piece.file)
    where = f"rank {part.rank}'s piece of {piece.label!r}"
    try:
        if piece.key is None:
            array = npy.load(path, mapped=mapped)
        else:
            load = members.load if mapped else npy.load_member
            array = load(path, piece.key)
    except (FileNotFoundError, KeyError):
        raise DamagedError(f"{where} is missing: {path}") from None
    except DamagedError as error:
        raise DamagedError(f"{where} is damaged: {error}") from None
    if array.shape != piece.shape or npy.dtype_text(array.dtype) != piece.dtype:
        raise DamagedError(
            f"{where} is not what its manifest says: {path} has shape {array.shape} and type "
            f"{array.dtype}, not {piece.shape} and {piece.dtype}"
        )
    return array.reshape(part.shape) if array.shape != part.shape else array


def check(whole: Whole, box: Box | None = None) -> None:
    """Make sure that the pieces make the whole, or the part of it that a box holds.

    Raises:
        HoleError: If they don't; the message names ranks.

    Ranks: independent.
    """
    if whole.problems:
        raise HoleError(f"array {whole.label!r} {'; it '.join(whole.problems)}")
    start, shape = box or ((0,) * len(whole.shape), whole.shape)
    if box is not None and 0 in shape:
        return
    inside: dict[int, Box] = {}
    for part in whole.parts:
        shared = intersection((start, shape), (part.start, part.shape))
        if shared is not None:
            at = tuple(a - b for a, b in zip(shared[0], start, strict=True))
            inside[part.rank] = (at, shared[1])
    found = flaws(shape, inside)
    if found:
        told = "; ".join(
            str(f._replace(start=tuple(a + b for a, b in zip(f.start, start, strict=True))))
            for f in found
        )
        raise HoleError(f"array {whole.label!r} of shape {whole.shape}: {told}")


def copy_parts(
    run: str,
    whole: Whole,
    box: Box,
    target: Array,
    load: Callable[[Part], Array] | None = None,
) -> Iterator[int]:
    """Copy the pieces into an array that stands for a box of the whole.

    Args:
        run: The run's folder.
        whole: The array, with its pieces.
        box: Start and shape of the box.
        target: An array of the box's shape.
        load: Gives a piece, in the shape that it has in the whole; by default by `load_piece`.

    Yields:
        The number of bytes copied, after each piece that touches the box.

    Raises:
        DamagedError: If a piece is not what its manifest says.

    Ranks: independent.
    """
    for part in whole.parts:
        shared = intersection(box, (part.start, part.shape))
        if shared is None:
            continue
        into = _slices(shared, box[0])
        source = load(part) if load else load_piece(run, part, mapped=True)
        taken = source[_slices(shared, part.start)]
        target[into] = taken
        yield taken.nbytes


def _slices(box: Box, origin: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(a - o, a - o + n) for a, n, o in zip(*box, origin, strict=True))


def load_whole(run: str, whole: Whole, box: Box) -> Array:
    """Put a box of an array together in memory.

    Raises:
        HoleError: If the pieces leave a gap there, or overlap.
        DamagedError: If a piece is not what its manifest says.

    Ranks: independent.
    """
    import numpy as np

    check(whole, box)
    order: Any = "F" if whole.fortran else "C"
    target = np.empty(box[1], npy.dtype_from_text(whole.dtype), order)
    for _ in copy_parts(run, whole, box, target):
        pass
    return target
