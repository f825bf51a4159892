"""Which arrays a run holds: their shapes and types, read from heads and manifests alone."""

from __future__ import annotations

import math
import os
import zipfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from notata import gather, layout, manifests, mergerecord, npy, rankfiles
from notata.assembly import Whole, assemble
from notata.errors import DamagedError, NotataError
from notata.phrases import error_text
from notata.pieces import Identity, Shape, by_label
from notata.stored import read_metadata

if TYPE_CHECKING:
    from notata.npy import Header


class ArrayFacts(NamedTuple):
    """What can be said of an array without reading it.

    Attributes:
        name: `T`, or `bundle:key`.
        shape: Its shape, or None where it isn't known.
        dtype: Its type, as numpy names it, or `""`.
        pieces: How many pieces it is still read from; 0 where it is one file.
        problem: What is wrong with it, or `""`.
    """

    name: str
    shape: Shape | None
    dtype: str
    pieces: int
    problem: str

    def __str__(self) -> str:
        if self.problem:
            return f"{self.name}: {self.problem}"
        shape = "?" if self.shape is None else " × ".join(map(str, self.shape)) or "number"
        return f"{self.name}: {shape} {self.dtype}".rstrip()

    @property
    def nbytes(self) -> int | None:
        """Bytes of all its elements, or None where they aren't known."""
        if self.shape is None or not self.dtype:
            return None
        import numpy as np

        try:
            return math.prod(self.shape) * np.dtype(self.dtype).itemsize
        except TypeError:
            return None


def arrays(run: str) -> list[ArrayFacts]:
    """The arrays of a run, merged or not, by name.

    Args:
        run: The run's folder.

    Returns:
        One entry for each array that a reader lists; what is damaged says so in `problem`.

    Ranks: independent.
    """
    try:
        wholes = _wholes(run)
    except NotataError as error:
        stored = by_label(_stored(run, {})).values()
        return [*stored, ArrayFacts("?", None, "", 0, str(error))]
    found = _stored(run, wholes)
    for identity, whole in wholes.items():
        if identity not in found:
            found[identity] = _pieces(whole)
    return list(by_label(found).values())


def _wholes(run: str) -> dict[Identity, Whole]:
    return assemble(manifests.read_all(run), gather.run_size(run, read_metadata(run)))


def _pieces(whole: Whole) -> ArrayFacts:
    try:
        kind = str(npy.dtype_from_text(whole.dtype))
    except (ValueError, TypeError, KeyError, SyntaxError):
        return ArrayFacts(whole.label, None, "", len(whole.parts), "its type can't be read")
    if whole.problems:
        told = "; it ".join(whole.problems)
        return ArrayFacts(whole.label, None, kind, len(whole.parts), f"it {told}")
    return ArrayFacts(whole.label, whole.shape, kind, len(whole.parts), "")


def _stored(run: str, wholes: dict[Identity, Whole]) -> dict[Identity, ArrayFacts]:
    """Arrays in the run's own `data/`, but those of which newer pieces are there."""
    home = rankfiles.Folder(run)
    record, ranks = mergerecord.read(run), gather.rank_folders(run)
    found: dict[Identity, ArrayFacts] = {}
    for name in home.names(layout.DATA):
        stem, extension = os.path.splitext(name)
        file = f"{layout.DATA}/{name}"
        path = home.source(file)
        there: dict[Identity, ArrayFacts] = {}
        if extension == ".npy":
            there = {(stem, None): _head(stem, path)}
        elif extension == ".npz":
            there = _bundle(stem, path)
        joined = wholes.keys() & there.keys()
        if joined and mergerecord.are_pieces_newer(run, file, record, ranks):
            there = {one: facts for one, facts in there.items() if one not in joined}
        found |= there
    return found


def _head(name: str, path: str) -> ArrayFacts:
    try:
        with open(path, "rb") as file:
            head = npy.read_header(file)
            left = os.fstat(file.fileno()).st_size - file.tell()
    except (NotataError, OSError) as error:
        return ArrayFacts(name, None, "", 0, error_text(error))
    needed = math.prod(head.shape) * head.dtype.itemsize
    problem = f"{path} is cut off: {left} bytes of {needed}" if left < needed else ""
    return _told(name, head, problem)


def _bundle(name: str, path: str) -> dict[Identity, ArrayFacts]:
    found: dict[Identity, ArrayFacts] = {}
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(path))
            for member in archive.namelist():
                with archive.open(member) as file:
                    head = npy.read_header(file)
                key = member.removesuffix(".npy")
                found[name, key] = _told(f"{name}:{key}", head, "")
    except (DamagedError, zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        found[name, None] = ArrayFacts(name, None, "", 0, f"{path} is damaged: {error}")
    return found


def _told(name: str, head: Header, problem: str) -> ArrayFacts:
    return ArrayFacts(name, head.shape, str(head.dtype), 0, problem)
