"""An array of a run, opened once and read in parts: of its file, or straight from the pieces."""

from __future__ import annotations

import errno
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from notata import gather, layout, manifests, npy
from notata.assembly import Box, Whole, assemble
from notata.errors import NotataError
from notata.pieces import Identity, Shape, by_label
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

    def wholes() -> dict[Identity, Whole]:
        size = gather.run_size(path, read_metadata(path))
        return assemble(manifests.read_all(path), size)

    def otherwise(identity: Identity) -> Opened | None:
        whole = gather.newer(path, identity, wholes)
        return _mapped(path, identity) if whole is None else _pieces(path, whole)

    found: Any = _stored(shelf, name, otherwise)
    if found is not None:
        return found if isinstance(found, Opened) else _Stored(name, found)
    by_name = by_label(wholes())
    if name not in by_name:
        raise manifests.no_array(path, name, sorted({*by_name, *shelf.stored()}))
    return _pieces(path, by_name[name])


def _pieces(run: str, whole: Whole) -> Opened:
    gather.check(whole)
    return _Pieces(run, whole)


def _stored(shelf: Shelf, name: str, otherwise: Callable[[Identity], Opened | None]) -> Any:
    try:
        return shelf.load_stored(name, None, otherwise)
    except NotataError:
        raise
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return None


def _mapped(run: str, identity: Identity) -> Opened | None:
    """An array in `data/` that is a file of its own."""
    name, key = identity
    if key is None:
        with suppress(FileNotFoundError, NotADirectoryError):
            path = os.path.join(run, layout.data_file(name, key))
            return _Stored(name, npy.load(path, mapped=True))
    return None
