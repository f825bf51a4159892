"""An array slab by slab: boxes that lie in one run in the file, each filled from the pieces.

Everything here is in C order. An array in Fortran order is one in C order with its axes reversed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, product
from typing import TYPE_CHECKING, Any

from notata import layout, npy
from notata.assembly import Box, Part, Whole, intersection
from notata.errors import HoleError
from notata.merging.places import Handles, Spill
from notata.merging.sources import Source, as_bytes, open_piece, spilled
from notata.pieces import Shape

if TYPE_CHECKING:
    from notata.npy import Array

SLAB = 1 << 23  # bytes: what one look at the pieces' places serves
_CHUNK = 1 << 18  # bytes that are copied at once, few enough to stay in a core's own cache
_LEAST = 1 << 17  # bytes that a piece should give at once


def header_of(whole: Whole) -> bytes:
    """The head of the `.npy` file of a whole.

    Ranks: independent.
    """
    dtype = npy.dtype_from_text(whole.dtype)
    return npy.header_bytes(npy.Header(whole.shape, whole.fortran, dtype))


def slabs_of(whole: Whole) -> list[Box]:
    """The slabs of an array, in the order of the file.

    Ranks: independent.
    """
    return list(_slabs(_reversed(whole.shape, whole.fortran), _item(whole).itemsize, SLAB))


def _slabs(shape: Shape, size: int, most: int) -> Iterator[Box]:
    if not size or not all(shape):
        return
    axis = 0
    while axis < len(shape) - 1 and size * math.prod(shape[axis + 1 :]) > most:
        axis += 1
    rows = max(1, most // (size * math.prod(shape[axis + 1 :])))
    if not shape:
        yield (), ()
        return
    inner = (0,) * (len(shape) - axis - 1)
    for outer in product(*map(range, shape[:axis])):
        for row in range(0, shape[axis], rows):
            extent = min(rows, shape[axis] - row)
            yield (*outer, row, *inner), (*(1,) * axis, extent, *shape[axis + 1 :])


def _reversed(shape: Shape, fortran: bool) -> Shape:
    return shape[::-1] if fortran else shape


def _item(whole: Whole) -> Any:
    """A type of the size of the array's, to copy by; what the bytes mean is of no matter here."""
    import numpy as np

    size = npy.dtype_from_text(whole.dtype).itemsize
    plain = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}
    return np.dtype(plain.get(size, f"V{size}"))


class Filler:
    """Fills an array's slabs one after another from the pieces.

    Within an array in C order the elements of each of its boxes follow one another as in the box
    itself. So every piece is read once and forwards, which is what compressed pieces need, and its
    checksum costs no other reading.

    Attributes:
        checksums: Of the files that were read from beginning to end, by path relative to the run.
    """

    def __init__(
        self, run: str, whole: Whole, holes: Sequence[Box], slabs: Sequence[Box], folder: str
    ) -> None:
        """Prepare; no piece is opened yet.

        Args:
            run: The run's folder.
            whole: The array, with at least the pieces that touch the slabs.
            holes: Boxes of it that nobody wrote.
            slabs: The slabs, in order.
            folder: Where to put what can't be read in order.
        """
        import numpy as np

        self.checksums: dict[str, str] = {}
        self._run, self._whole, self._slabs = run, whole, slabs
        self._folder = folder
        self._dtype = _item(whole)
        flip = whole.fortran
        self._parts = [p for p in whole.parts if all(p.shape)]
        self._boxes = [(_reversed(p.start, flip), _reversed(p.shape, flip)) for p in self._parts]
        self._holes = [(_reversed(a, flip), _reversed(n, flip)) for a, n in holes]
        axes = len(whole.shape)
        shape = (len(self._boxes), axes)
        self._low = np.array([a for a, _ in self._boxes], np.int64).reshape(shape)
        self._high = self._low + np.array([n for _, n in self._boxes], np.int64).reshape(shape)

    def __iter__(self) -> Iterator[memoryview]:
        """The bytes of each slab, part by part; those of one are overwritten by the next but one.

        Raises:
            DamagedError: If a piece is not what its manifest says.
            HoleError: If the pieces leave a gap.
        """
        import numpy as np

        touching = [self._touching(slab) for slab in self._slabs]
        last = {part: slab for slab, parts in enumerate(touching) for part in parts}
        most = max(map(len, touching), default=0)
        finest = max(_CHUNK, min(SLAB, most * _LEAST))
        room = _room(self._slabs, finest, self._dtype.itemsize)
        spare = np.empty(room, self._dtype)
        buffers = cycle((np.empty_like(spare), np.empty_like(spare)))
        with Handles() as handles, Spill(self._folder) as spill:
            sources: dict[int, Source] = {}
            for number, slab in enumerate(self._slabs):
                for i in touching[number]:
                    if i not in sources:
                        fortran = self._whole.fortran
                        sources[i] = open_piece(
                            self._run, self._parts[i], fortran, handles, spill, at_once=most
                        )
                runs = self._runs(slab, touching[number])
                if runs is not None:
                    yield from self._streamed(runs, sources, buffers)
                else:
                    for part in _finer(slab, self._dtype.itemsize, finest):
                        yield self._filled(part, touching[number], sources, next(buffers), spare)
                for i in touching[number]:
                    if last[i] == number:
                        self._end(self._parts[i], sources.pop(i))

    @property
    def is_scattered(self) -> bool:
        """Whether pieces lie side by side, so that putting a part together takes its time."""
        return len(self._slabs) > 1 and self._runs(self._slabs[0]) is None

    def _runs(
        self, slab: Box, touching: Sequence[int] | None = None
    ) -> list[tuple[int, int, int]] | None:
        """The pieces that lie one behind another in a slab: which, from where, and how much.

        None where they lie side by side, or beside a hole.
        """
        found = []
        for i in self._touching(slab) if touching is None else touching:
            shared = intersection(self._boxes[i], slab)
            assert shared is not None
            if not _is_run(shared[1], slab[1]):
                return None
            found.append((_position(shared, slab), i, shared))
        done, runs = 0, []
        for at, i, shared in sorted(found):
            if at != done:
                return None
            size = math.prod(shared[1])
            runs.append((i, _position(shared, self._boxes[i]), size))
            done += size
        return runs if done == math.prod(slab[1]) else None

    def _streamed(
        self,
        runs: Sequence[tuple[int, int, int]],
        sources: Mapping[int, Source],
        buffers: Iterator[Array],
    ) -> Iterator[memoryview]:
        """Read pieces that lie one behind another."""
        itemsize = self._dtype.itemsize
        for i, first, count in runs:
            read, at, end = sources[i].read, first * itemsize, (first + count) * itemsize
            while at < end:
                part = as_bytes(next(buffers))[: min(_CHUNK, end - at)]
                read(at, part)
                yield part
                at += len(part)

    def _filled(
        self,
        slab: Box,
        touching: Sequence[int],
        sources: Mapping[int, Source],
        memory: Array,
        spare: Array,
    ) -> memoryview:
        """Put a slab together from pieces that lie side by side, and holes."""
        target = memory[: math.prod(slab[1])].reshape(slab[1])
        covered = self._fill_holes(slab, target)
        for i in touching:
            covered += self._take(self._boxes[i], slab, target, sources[i], spare)
        if covered != target.size:
            raise HoleError(f"array {self._whole.label!r}: its pieces don't fill it")
        return as_bytes(target)

    def _touching(self, slab: Box) -> list[int]:
        import numpy as np

        start = np.array(slab[0], np.int64)
        stop = start + np.array(slab[1], np.int64)
        hit = (self._low < stop).all(1) & (self._high > start).all(1)
        return [int(i) for i in np.flatnonzero(hit)]

    def _take(self, box: Box, slab: Box, target: Array, source: Source, spare: Array) -> int:
        """Read what a piece has of a slab: one run of the piece."""
        shared = intersection(box, slab)
        if shared is None:
            return 0
        size = math.prod(shared[1])
        at = _position(shared, box) * target.itemsize
        if _is_run(shared[1], slab[1]):
            offset = _position(shared, slab)
            source.read(at, as_bytes(target.reshape(-1)[offset : offset + size]))
        else:
            taken = spare[:size]
            source.read(at, as_bytes(taken))
            target[_slices(shared, slab[0])] = taken.reshape(shared[1])
        return size

    def _end(self, part: Part, source: Source) -> None:
        checksum = source.end()
        if checksum is not None:
            self.checksums[f"{layout.rank_dir(part.rank)}/{part.piece.file}"] = checksum

    def _fill_holes(self, slab: Box, target: Array) -> int:
        filled = 0
        for hole in self._holes:
            shared = intersection(hole, slab)
            if shared is not None:
                missing = npy.missing_value(npy.dtype_from_text(self._whole.dtype))
                target[_slices(shared, slab[0])] = missing.view(self._dtype)
                filled += math.prod(shared[1])
        return filled


def spill_of(whole: Whole) -> int:
    """Bytes on disk that joining an array takes beside its file, until it is done.

    Ranks: independent.
    """
    most = 0
    if whole.key is not None:  # else it is of no matter how many are read by turns
        slabs = slabs_of(whole)
        filler = Filler("", whole, (), slabs, "")
        most = max((len(filler._touching(slab)) for slab in slabs), default=0)
    parts = (part for part in whole.parts if all(part.shape))
    return sum(spilled(part.piece, whole.fortran, at_once=most) for part in parts)


def _position(inner: Box, outer: Box) -> int:
    """How many elements of a box come before one inside it in C order."""
    position = 0
    for a, origin, n in zip(inner[0], *outer, strict=True):
        position = position * n + a - origin
    return position


def _finer(slab: Box, size: int, most: int) -> Iterator[Box]:
    """A slab in parts of about so many bytes, in order."""
    for start, shape in _slabs(slab[1], size, most):
        yield tuple(map(operator.add, slab[0], start)), shape


def _room(slabs: Sequence[Box], most: int, size: int) -> int:
    """Elements of the largest part of the slabs that is put together at once."""
    shapes = {shape for _, shape in slabs}
    parts = (shape for whole in shapes for _, shape in _slabs(whole, size, most))
    return max(map(math.prod, parts), default=0)


def _is_run(inner: Shape, outer: Shape) -> bool:
    """Whether a box inside another lies in one run of it in C order."""
    axis = 0
    while axis < len(inner) and inner[axis] == 1:
        axis += 1
    return inner[axis + 1 :] == outer[axis + 1 :]


def _slices(box: Box, origin: Shape) -> tuple[slice, ...]:
    return tuple([slice(a - o, a - o + n) for a, n, o in zip(*box, origin, strict=True)])


def parts_of(whole: Whole, slabs: Sequence[Box]) -> Whole:
    """The array with only those pieces that some slabs need, to be told to another process.

    Ranks: independent.
    """
    axis = len(whole.shape) - 1 if whole.fortran else 0
    first, (last, extent) = slabs[0][0][0], (part[0] for part in slabs[-1])
    kept = (
        part
        for part in whole.parts
        if part.start[axis] < last + extent and part.start[axis] + part.shape[axis] > first
    )
    return whole._replace(parts=tuple(kept))
