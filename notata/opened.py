"""An array of a run, opened once and read in parts: of its file, or straight from the pieces."""

from __future__ import annotations

import errno
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from notata import gather, layout, mergerecord, npy
from notata.assembly import Box, Whole, assemble
from notata.errors import ArrayNotFoundError, NotataError, UnsafeNameError
from notata.pieces import Shape
from notata.rankfiles import Folder
from notata.regions import region_of
from notata.stored import Shelf, StrPath, part_of, read_metadata

if TYPE_CHECKING:
    import numpy as np

    from notata.npy import Array

SLAB = 32 << 20  # bytes that are read at once


class Opened(ABC):
    """An array of a run, of which parts can be read.

    Attributes:
        name: Its name.
        shape: Its shape.
        dtype: Its type.
        fortran: Whether its first axis runs fastest.
    """

    def __init__(self, name: str, shape: Shape, dtype: np.dtype[Any], fortran: bool) -> None:
        """Take over what is known of it; nothing is read yet."""
        self.name, self.shape, self.dtype, self.fortran = name, shape, dtype, fortran

    @property
    def nbytes(self) -> int:
        """Bytes of all its elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    @abstractmethod
    def read(self, region: Any = None) -> Array:
        """Read a part into memory.

        Args:
            region: The part, as `numpy.s_` gives it; all of it by default.

        Raises:
            HoleError: If the pieces leave a gap there.
            DamagedError: If a file is not what it says.

        Ranks: independent.
        """

    def slabs(self, limit: int = SLAB) -> Iterator[tuple[slice, ...]]:
        """Parts that make the whole, each of a bounded size, in the order in which it lies.

        Args:
            limit: Bytes that a part has at most, unless one element has more.

        Ranks: independent.
        """
        return slabs(self.shape, self.dtype.itemsize, limit, fortran=self.fortran)


def slabs(
    shape: Shape, itemsize: int, limit: int, *, fortran: bool = False
) -> Iterator[tuple[slice, ...]]:
    """Cut a shape into boxes of at most so many bytes.

    Example:
        >>> [box[0] for box in slabs((5, 100), 8, 1600)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]

    Ranks: independent.
    """
    if fortran:
        for box in slabs(shape[::-1], itemsize, limit):
            yield box[::-1]
        return
    if not shape:
        yield ()
        return
    row = math.prod(shape[1:]) * itemsize
    if row > limit and len(shape) > 1:
        for at in range(shape[0]):
            for inner in slabs(shape[1:], itemsize, limit):
                yield slice(at, at + 1), *inner
        return
    step = max(1, limit // max(1, row))
    rest = tuple(slice(0, n) for n in shape[1:])
    for at in range(0, shape[0], step):
        yield slice(at, min(at + step, shape[0])), *rest


class _Stored(Opened):
    def __init__(self, name: str, array: Array) -> None:
        fortran = array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous
        super().__init__(name, array.shape, array.dtype, fortran)
        self._array = array

    def read(self, region: Any = None) -> Array:
        return part_of(self._array, region)


class _Pieces(Opened):
    def __init__(self, run: str, whole: Whole) -> None:
        super().__init__(whole.label, whole.shape, npy.dtype_from_text(whole.dtype), whole.fortran)
        self._run, self._whole = run, whole

    def read(self, region: Any = None) -> Array:
        import numpy as np

        wanted = region_of(region, self.shape)
        box: Box = (wanted.start, wanted.shape)
        target = np.empty(box[1], self.dtype, "F" if self.fortran else "C")
        for _ in gather.copy_parts(self._run, self._whole, box, target):
            pass
        return np.asarray(target[wanted.pick]) if region is not None else target


def open_array(run: StrPath, name: str) -> Opened:
    """Open an array of a run, from its file or, where that is missing or older, from the pieces.

    Args:
        run: The run's folder.
        name: `T`, or `bundle:key`.

    Raises:
        ArrayNotFoundError: If there is none (a `FileNotFoundError`).
        HoleError: If the pieces don't make a whole.
        DamagedError: If a file is cut off or isn't what it says.

    Ranks: independent.
    """
    path = os.fspath(run)
    home = Folder(path)
    shelf = Shelf(Path(path), home, home)
    old = mergerecord.is_outdated(path, name, mergerecord.read(path), gather.rank_folders(path))
    stored = None if old else _stored(shelf, name)
    if stored is not None:
        return _Stored(name, stored)
    size = gather.run_size(path, read_metadata(path))
    wholes = assemble(gather.read_manifests(path), size)
    if name not in wholes:
        known = ", ".join(sorted({*wholes, *shelf.stored()})[:8]) or "none"
        raise ArrayNotFoundError(f"no array {name!r} in {path}; there is: {known}")
    gather.check(wholes[name])
    return _Pieces(path, wholes[name])


def _stored(shelf: Shelf, name: str) -> Array | None:
    """An array in `data/`: mapped where it is a file of its own."""
    try:
        return npy.load(shelf.path / layout.DATA / layout.inside(name, ".npy"), mapped=True)
    except (FileNotFoundError, NotADirectoryError, UnsafeNameError):
        return shelf.load_stored(name, None)
    except NotataError:
        raise
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return None
