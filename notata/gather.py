"""Pieces on disk: the manifests that list them, and copying them into the whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from notata import files, layout, mergerecord, npy, rankfiles
from notata.assembly import Box, Part, Whole, flaws, intersection
from notata.errors import DamagedError, HoleError
from notata.pieces import Identity, Piece

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
    if parallel is None or not any(os.path.exists(os.path.join(run, name)) for name in ranks):
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


def read_manifest(folder: str) -> list[Piece]:
    """The pieces that a rank finished, as they were last written.

    A torn last line, which a crash can leave, was no finished piece.

    Raises:
        DamagedError: If any other line is not of a manifest.

    Ranks: independent.
    """
    path = f"{folder}/{layout.MANIFEST}"
    return parse_manifest(files.read_bytes(path) or b"", path)


def parse_manifest(data: bytes, path: str) -> list[Piece]:
    """The pieces that a manifest lists, as they were last written.

    Args:
        data: What the manifest holds.
        path: Where it lies, for errors.

    Raises:
        DamagedError: If a line other than a torn last one is not of a manifest.

    Ranks: independent.
    """
    return list((_short_manifest if len(data) <= _SHORT else _listed)(data, path))


_SHORT = 2048  # bytes of a manifest that is remembered with what it lists: some 10 pieces


@lru_cache(maxsize=1024)
def _short_manifest(data: bytes, path: str) -> tuple[Piece, ...]:
    """The same for a short one: who reads regions of one array reads the same again and again."""
    return tuple(_listed(data, path))


def _listed(data: bytes, path: str) -> Iterator[Piece]:
    lines = data.split(b"\n")
    found: dict[str, dict[Identity, Piece]] = {}  # of each file
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            piece = Piece.from_line(line)
            layout.inside(piece.file)
        except ValueError as error:
            if number == len(lines) or _is_torn(line):
                continue
            raise DamagedError(f"{path}, line {number}: {error}") from None
        together = found.setdefault(piece.file, {})
        if any(other.write != piece.write for other in together.values()):
            together.clear()  # the file was replaced, with all that it held
        together[piece.identity] = piece
    for together in found.values():
        yield from together.values()


def _is_torn(line: bytes) -> bool:
    """Whether a line was cut off by a crash, and ended by the next writer."""
    return not line.endswith(b"}")


def read_manifests(run: str) -> dict[int, list[Piece]]:
    """All ranks' pieces, by rank, also of ranks whose folders were pruned.

    Ranks: independent.
    """
    folders = rank_folders(run)
    found = {rank: read_manifest(folder) for rank, folder in folders.items()}
    for rank in rankfiles.archived_ranks(run):
        if rank not in folders or not os.path.isdir(folders[rank]):  # pruned meanwhile
            folder = os.path.join(run, layout.rank_dir(rank))
            data = rankfiles.files_of(run, rank).read(layout.MANIFEST) or b""
            found[rank] = parse_manifest(data, os.path.join(folder, layout.MANIFEST))
    return dict(sorted(found.items()))


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
            array = npy.load_member(path, piece.key)
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


def copy_parts(run: str, whole: Whole, box: Box, target: Array) -> Iterator[int]:
    """Copy the pieces into an array that stands for a box of the whole.

    Args:
        run: The run's folder.
        whole: The array, with its pieces.
        box: Start and shape of the box.
        target: An array of the box's shape.

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
        source = load_piece(run, part, mapped=True)
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
