"""An array of a run, opened once and read in parts: of its file, or straight from the pieces."""

from __future__ import annotations

import errno
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from notata import gather, layout, manifests, members, mergerecord, npy
from notata.assembly import Box, Part, Whole, assemble
from notata.errors import DamagedError, NotataError
from notata.parking import Lock, held
from notata.pieces import Identity, Shape, by_label, label_of
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


class _Kept:
    """Arrays that were read last: each that is mapped has a file open, and thousands can't be."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[Hashable, Array] = {}
        self._lock = Lock()

    def of(self, which: Hashable, load: Callable[[], Array]) -> Array:
        with held(self._lock):
            found = self._held.pop(which, None)
        found = load() if found is None else found
        with held(self._lock):
            self._held[which] = found  # behind the others
            while len(self._held) > self._most:
                del self._held[next(iter(self._held))]
        return found


class _Stored(Opened):
    """An array of a file of the run, which is opened where it is read."""

    def __init__(self, name: str, head: npy.Header, load: Callable[[], Array], kept: _Kept) -> None:
        shape = head.shape
        fortran = head.fortran and 0 not in shape and sum(n > 1 for n in shape) > 1
        super().__init__(name, shape, head.dtype, fortran)
        self._load, self._kept = load, kept
        self._key = object()  # not this one, which would keep itself

    def keep(self, array: Array) -> None:
        """Take it as what was read last."""
        self._kept.of(self._key, lambda: array)

    def read(self, region: Any = None) -> Array:
        array = self._kept.of(self._key, self._load)
        if (array.shape, array.dtype) != (self.shape, self.dtype):
            raise DamagedError(
                f"array {self.name!r} was replaced since it was opened: it had shape {self.shape} "
                f"and type {self.dtype}, and has {array.shape} and {array.dtype}"
            )
        return part_of(array, region)


class _Pieces(Opened):
    def __init__(self, run: str, whole: Whole, kept: _Kept) -> None:
        super().__init__(whole.label, whole.shape, npy.dtype_from_text(whole.dtype), whole.fortran)
        self._run, self._whole, self._kept = run, whole, kept
        self._key = object()

    def read(self, region: Any = None) -> Array:
        import numpy as np

        wanted = region_of(region, self.shape)
        box: Box = (wanted.start, wanted.shape)
        target = np.empty(box[1], self.dtype, "F" if self.fortran else "C")
        for _ in gather.copy_parts(self._run, self._whole, box, target, self._load):
            pass
        return np.asarray(target[wanted.pick]) if region is not None else target

    def _load(self, part: Part) -> Array:
        load = partial(gather.load_piece, self._run, part, mapped=True)
        if part.piece.key is None:
            return load()
        # Compressed, it is read as a whole: once, and not again for each slab.
        path = os.path.join(self._run, layout.rank_dir(part.rank), part.piece.file)
        return self._kept.of((self._key, part.rank, mergerecord.fingerprint(path)), load)


_FEW = 16  # files that stay open


class Arrays:
    """A run's arrays, to be opened by name; its manifests are read once for all of them."""

    def __init__(self, run: StrPath) -> None:
        """Nothing is read yet.

        Args:
            run: The run's folder.
        """
        self._run = os.fspath(run)
        home = Folder(self._run)
        self._shelf = Shelf(Path(self._run), home, home)
        self._mapped, self._loaded = _Kept(_FEW), _Kept(1)

    def open(self, name: str) -> Opened:
        """Open an array, from its file or, where that is missing or older, from the pieces.

        Args:
            name: `T`, or `bundle:key`.

        Raises:
            ArrayNotFoundError: If there is none (a `FileNotFoundError`).
            HoleError: If the pieces don't make a whole.
            DamagedError: If a file is cut off or isn't what it says.

        Ranks: independent.
        """
        found: Any = self._stored(name)
        if isinstance(found, Opened):
            return found
        if found is not None:
            return _Stored(name, _head(found), lambda: found, self._loaded)
        by_name = by_label(self._wholes)
        if name not in by_name:
            known = sorted({*by_name, *self._shelf.stored()})
            raise manifests.no_array(self._run, name, known)
        return self._pieces(by_name[name])

    @cached_property
    def _wholes(self) -> Mapping[Identity, Whole]:
        size = gather.run_size(self._run, read_metadata(self._run))
        return assemble(manifests.read_all(self._run), size)

    def _stored(self, name: str) -> Any:
        try:
            return self._shelf.load_stored(name, None, self._otherwise)
        except NotataError:
            raise
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return None

    def _otherwise(self, identity: Identity) -> Opened | None:
        whole = gather.newer(self._run, identity, lambda: self._wholes)
        return self._file(identity) if whole is None else self._pieces(whole)

    def _pieces(self, whole: Whole) -> Opened:
        gather.check(whole)
        return _Pieces(self._run, whole, self._loaded)

    def _file(self, identity: Identity) -> Opened | None:
        """An array that lies in `data/`, if this one does."""
        name, key = identity
        path = os.path.join(self._run, layout.data_file(name, key))
        with suppress(FileNotFoundError, NotADirectoryError, KeyError):
            if key is None:
                whole = npy.load(path, mapped=True)  # so that it is said at once if it is cut off
                load = partial(npy.load, path, mapped=True)
                found = _Stored(name, _head(whole), load, self._mapped)
                found.keep(whole)
                return found
            head, plain = members.head(path, key)
            kept = self._mapped if plain else self._loaded
            return _Stored(label_of(identity), head, partial(members.load, path, key), kept)
        return None


def _head(array: Array) -> npy.Header:
    flags = array.flags
    return npy.Header(array.shape, flags.f_contiguous and not flags.c_contiguous, array.dtype)


def open_array(run: StrPath, name: str) -> Opened:
    """Open one array of a run, as `Arrays` does.

    Args:
        run: The run's folder.
        name: `T`, or `bundle:key`.

    Raises:
        ArrayNotFoundError: If there is none (a `FileNotFoundError`).
        HoleError: If the pieces don't make a whole.
        DamagedError: If a file is cut off or isn't what it says.

    Ranks: independent.
    """
    return Arrays(run).open(name)
