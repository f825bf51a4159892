"""What is wrong with pieces, and what a merge makes of an array all the same."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from notata import gather, layout, mending, npy
from notata.assembly import Box, Whole
from notata.errors import DamagedError, HoleError
from notata.merging.output import MISSING, NEVER, Output, Problem
from notata.pieces import Identity, Piece
from notata.ranges import ranks_text

# What only reading it tells to be wrong: with a piece of an array, or another file of a rank.
Damaged = tuple[int, Identity | str]
Damage = Mapping[Damaged, str]
WAY_OUT = "let its rank write it again, or put a sound copy in its place"


class DamagedPiecesError(DamagedError):
    """Pieces, or other files of ranks, that turned out to be damaged as they were read.

    Attributes:
        damage: What is wrong with each.
    """

    def __init__(self, damage: Damage) -> None:
        super().__init__(damage)  # so that it comes whole from another process
        self.damage = damage

    def __str__(self) -> str:
        return "; ".join(self.damage.values())


class Found(NamedTuple):
    """What was found of an output that is made of arrays.

    Attributes:
        output: The output as it can be made, holes included.
        problems: What is wrong; the holes are none where this is empty.
    """

    output: Output
    problems: tuple[Problem, ...]


def examine(
    run: str,
    output: Output,
    pieces: Mapping[Identity, Mapping[int, Piece]],
    size: int,
    damage: Damage,
) -> Found:
    """Look into the pieces of an output, as far as shapes, sizes of files and headers tell.

    Args:
        run: Folder of the run.
        output: The output, as manifests tell.
        pieces: What the manifests list, by array and rank.
        size: Number of ranks of the run.
        damage: What is known of pieces that have been read.

    Ranks: independent.
    """
    # By label, as problems and holes are: in one file no two arrays share it.
    ranked = {whole.label: pieces.get(whole.identity, {}) for whole in output.wholes}
    bad: dict[str, set[int]] = {label: set() for label in ranked}
    problems: list[Problem] = []
    for problem in [*_files(run, ranked), *_known(ranked, damage)]:
        problems.append(problem)
        for rank in problem.ranks:
            bad[problem.name or ""].add(rank)
    problems += [
        problem
        for whole in output.wholes
        for problem in _geometry(whole, ranked[whole.label], size)
    ]
    if not problems:
        return Found(output, ())
    return Found(*_mended(output, ranked, bad, size, problems))


def _geometry(whole: Whole, ranked: Mapping[int, Piece], size: int) -> Iterator[Problem]:
    """Say what contradicts, and what is not covered."""
    if "|O" in whole.dtype:
        text = f"array {whole.label!r} is of Python objects, by its manifests"
        yield Problem(text, NEVER, tuple(ranked), whole.label)
    try:
        gather.check(whole)
    except HoleError as error:
        text = str(error)
        absent = [rank for rank in range(size) if rank not in ranked]
        if whole.join == "place" and absent and not whole.problems:
            text += f" ({ranks_text(absent)} left no piece of it)"
        yield Problem(text, MISSING, tuple(absent), whole.label)


def _known(ranked: Mapping[str, Mapping[int, Piece]], damage: Damage) -> Iterator[Problem]:
    """Say what turned out to be wrong when pieces were joined."""
    for label, own in ranked.items():
        for rank, piece in own.items():
            if text := damage.get((rank, piece.identity)):
                yield Problem(text, MISSING, (rank,), label, hint=WAY_OUT)


def _files(run: str, ranked: Mapping[str, Mapping[int, Piece]]) -> Iterator[Problem]:
    """Look at each file of a rank once, for all the pieces in it."""
    files: dict[tuple[int, str], list[Piece]] = {}
    for own in ranked.values():
        for rank, piece in own.items():
            if piece.join != "none":
                files.setdefault((rank, piece.file), []).append(piece)
    for (rank, file), held in files.items():
        path = os.path.join(run, layout.rank_dir(rank), file)
        try:
            for text, wrong in list(_file(path, held)):
                for piece in wrong:  # each by its name: each is a hole of its own
                    whose = f"rank {rank}'s piece of {piece.label!r}"
                    yield Problem(f"{whose} {text}", MISSING, (rank,), piece.label)
        except _ObjectsError as error:
            text = f"rank {rank}'s piece of {error.piece.label!r} holds Python objects: {path}"
            hint = "nothing that is pickled is joined; write it as numbers or strings"
            yield Problem(text, NEVER, (rank,), error.piece.label, hint=hint)


class _ObjectsError(Exception):
    """A piece can be read by unpickling alone."""

    def __init__(self, piece: Piece) -> None:
        super().__init__(piece)
        self.piece = piece


def _file(path: str, held: list[Piece]) -> Iterator[tuple[str, list[Piece]]]:
    """Say what is wrong with a file, and with which of the pieces that it should hold."""
    try:
        size = os.stat(path).st_size
        sizes = {piece.size for piece in held}
        if sizes != {size}:
            _refuse_objects(path, held)
            told = ", ".join(map(str, sorted(sizes)))
            yield f"has {size} bytes, its manifest says {told}: {path}", held
        elif held[0].key is None:
            yield from ((text, held) for text in _head(path, size, held[0]))
        else:
            keys = set(npy.bundle_keys(path))
            for piece in held:
                if piece.key not in keys:
                    yield f"is missing: {path} has no key {piece.key!r}", [piece]
    except FileNotFoundError:
        yield f"is missing: {path}", held
    except DamagedError as error:
        yield f"is damaged: {error}", held


def _refuse_objects(path: str, held: list[Piece]) -> None:
    """Look into the heads of a file that somebody wrote over, as far as there are any."""
    if held[0].key is None:
        with suppress(OSError, DamagedError), open(path, "rb") as file:
            if npy.read_header(file).dtype.hasobject:
                raise _ObjectsError(held[0])
        return
    keyed = {f"{piece.key}.npy": piece for piece in held}
    with suppress(OSError, *npy.damage(zlib.error)), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name in keyed:
                with archive.open(name) as member:
                    if npy.read_header(member).dtype.hasobject:
                        raise _ObjectsError(keyed[name])


def _head(path: str, size: int, piece: Piece) -> Iterator[str]:
    """Say what is wrong with a `.npy` file, as far as its head and its size tell."""
    with open(path, "rb") as file:
        try:
            found = npy.read_header(file)
        except DamagedError as error:
            yield f"is damaged: {path} is not a whole .npy file: {error}"
            return
        room = size - file.tell()
    if found.dtype.hasobject:
        raise _ObjectsError(piece)
    needed = found.dtype.itemsize * math.prod(found.shape)
    if needed > room:
        told = f"{needed} bytes, not {room}"
        yield f"is damaged: {path} is not a whole .npy file: its head says {told}"
    elif (found.shape, npy.dtype_text(found.dtype)) != (piece.shape, piece.dtype):
        yield (
            f"is not what its manifest says: {path} has shape {found.shape} and type "
            f"{found.dtype}, not {piece.shape} and {piece.dtype}"
        )


def _mended(
    output: Output,
    ranked: Mapping[str, Mapping[int, Piece]],
    bad: Mapping[str, set[int]],
    size: int,
    problems: list[Problem],
) -> tuple[Output, tuple[Problem, ...]]:
    """The output with holes, and the problems with the boxes that they cost."""
    wholes: list[Whole] = []
    holes: dict[str, tuple[Box, ...]] = {}
    left: set[str] = set()
    for whole in output.wholes:
        label = whole.label
        mended, boxes = mending.mend(ranked[label], size, bad[label])
        wholes.append(mended._replace(problems=()))
        if boxes:
            holes[label] = boxes
        joined = {part.rank for part in mended.parts}
        left.update(
            f"{layout.rank_dir(rank)}/{piece.file}"
            for rank, piece in ranked[label].items()
            if rank not in joined
        )
    told = set()
    named = []
    for problem in problems:
        boxes = holes.get(problem.name or "", ())
        first = problem.name not in told
        told.add(problem.name)
        named.append(problem._replace(boxes=boxes if first else ()))
    left &= output.inputs.keys()
    made = output._replace(wholes=tuple(wholes), holes=holes, left=frozenset(left))
    return made, tuple(named)
