"""The bytes of the ranks' pieces, each taken in the order in which they stand in the whole."""

from __future__ import annotations

import errno
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol

from notata import checksums, layout, npy
from notata.assembly import Part
from notata.errors import DamagedError
from notata.merging.faults import DamagedPiecesError
from notata.merging.places import Handles, Spill, read_at, write_at
from notata.pieces import Piece, Shape

if TYPE_CHECKING:
    from notata.npy import Array

STREAMS = 64  # compressed pieces open at once, with the memory that decompressing takes
_TILE = 1 << 24  # bytes that are turned at once from one memory order to the other
_BLOCK = 1 << 17  # and of them, those that are copied at once


class Source(Protocol):
    """A piece's elements in C order."""

    def read(self, at: int, into: memoryview) -> None:
        """Fill a buffer from a byte of the piece on."""

    def end(self) -> str | None:
        """Let go of the piece; gives its file's checksum if all of the file was read in order."""


class _File:
    """A piece that is a `.npy` file, in the order that is wanted."""

    def __init__(self, path: str, piece: Part, handles: Handles) -> None:
        self._path, self._handles = path, handles
        with open(os.dup(handles.of(path)), "rb", buffering=0) as file:
            file.seek(0)
            _check_header(npy.read_header(file), piece)
            self._first = self._next = file.tell()
            self._size = os.fstat(file.fileno()).st_size
        if self._size != piece.piece.size:
            raise EOFError(f"it has {self._size} bytes, its manifest says {piece.piece.size}")
        self._hashed = checksums.hasher()
        head = bytearray(self._first)
        read_at(handles.of(path), 0, memoryview(head))
        self._hashed.update(bytes(head))

    def read(self, at: int, into: memoryview) -> None:
        at += self._first
        read_at(self._handles.of(self._path), at, into)
        if at == self._next:
            self._hashed.update(into)
            self._next += len(into)

    def end(self) -> str | None:
        self._handles.drop(self._path)
        return checksums.text_of(self._hashed) if self._next == self._size else None


class _Member:
    """A piece in a bundle, which can be read forwards only."""

    def __init__(self, path: str, part: Part) -> None:
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(path))
            entry = archive.getinfo(f"{part.piece.key}.npy")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile(f"compressed by method {entry.compress_type}")
            self._stream = stack.enter_context(archive.open(entry))
            _check_header(npy.read_header(self._stream), part)
            if checksums.contradicts(part.piece.checksum, checksums.text_of_crc(entry.CRC)):
                raise _Unlike("holds something else than was written")
            self._close = stack.pop_all().close
        self._next = 0

    def read(self, at: int, into: memoryview) -> None:
        if at < self._next:
            raise AssertionError("a member of a bundle is read forwards only")
        while self._next < at:
            self._next += len(self._take(min(at - self._next, _TILE)))
        while into:
            data = self._take(len(into))
            into[: len(data)] = data
            into, self._next = into[len(data) :], self._next + len(data)

    def _take(self, count: int) -> bytes:
        data = self._stream.read(count)
        if not data:
            raise EOFError("it ends too early")
        return data

    def end(self) -> None:
        try:
            if self._stream.read(1):  # at the end of the member its own checksum is compared
                raise EOFError("it is longer than its head says")
        finally:
            self._close()


class _Spilled:
    """A piece that lies in a file of ours."""

    def __init__(self, spill: Spill, size: int) -> None:
        self._spill = spill
        self._checksum: str | None = None
        self._descriptor, self._first = spill.room(size)

    def read(self, at: int, into: memoryview) -> None:
        read_at(self._descriptor, self._first + at, into)

    def write(self, at: int, data: memoryview) -> None:
        write_at(self._descriptor, self._first + at, data)

    def made_of(self, source: Source) -> _Spilled:
        """Let go of what it was made of, and keep its checksum."""
        self._checksum = source.end()
        return self

    def end(self) -> str | None:
        self._spill.let_go(self._first)
        return self._checksum


def open_piece(
    run: str, part: Part, fortran: bool, handles: Handles, spill: Spill, *, at_once: int
) -> Source:
    """A piece as a stream of its elements.

    Args:
        run: The run's folder.
        part: The piece.
        fortran: Whether its elements are wanted in Fortran order, else in C order.
        handles: Open files.
        spill: Takes pieces of the other order, and compressed ones where many are read at once.
        at_once: How many pieces are read by turns.

    Raises:
        DamagedError: If the piece is missing, cut off, or not what the manifest says; so do the
            methods of what is returned.

    Ranks: independent.
    """
    path = os.path.join(run, layout.rank_dir(part.rank), part.piece.file)

    def opened() -> Source:
        piece = part.piece
        source = _File(path, part, handles) if piece.key is None else _Member(path, part)
        turn = _is_turned(piece, fortran)
        if not turn and (piece.key is None or at_once <= STREAMS):
            return source
        item = npy.dtype_from_text(piece.dtype).itemsize
        # A larger one would be read in small parts, and once more for its checksum.
        if turn and piece.key is None and item * math.prod(piece.shape) <= _TILE:
            return _turned(source, piece, item, spill)
        copied = _copied(source, piece, item, spill)
        return _turned(copied, piece, item, spill) if turn else copied

    return _Told(opened, part, path)


def _is_turned(piece: Piece, fortran: bool) -> bool:
    return piece.fortran != fortran and sum(n > 1 for n in piece.shape) > 1


def spilled(piece: Piece, fortran: bool, *, at_once: int) -> int:
    """Bytes that `open_piece` puts into its spill.

    Ranks: independent.
    """
    size = npy.dtype_from_text(piece.dtype).itemsize * math.prod(piece.shape)
    if not _is_turned(piece, fortran):
        return size if piece.key is not None and at_once > STREAMS else 0
    return size if piece.key is None and size <= _TILE else 2 * size


# An archive that is damaged may say that it is encrypted, or patched: RuntimeError.
_DAMAGE = (DamagedError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, RuntimeError)


class _Told:
    """A source whose errors say whose piece it is."""

    def __init__(self, opened: Callable[[], Source], part: Part, path: str) -> None:
        self._part, self._path = part, path
        self._source = self._telling(opened)

    def read(self, at: int, into: memoryview) -> None:
        self._telling(lambda: self._source.read(at, into))

    def end(self) -> str | None:
        checksum: str | None = self._telling(self._source.end)
        return checksum

    def _telling(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (FileNotFoundError, KeyError):
            raise self._damaged(f"is missing: {self._path}") from None
        except _Unlike as error:
            told = f"is not what its manifest says: {self._path} {error}"
            raise self._damaged(told) from None
        except _DAMAGE as error:
            raise self._damaged(f"is damaged: {self._path}: {error}") from None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A bundle's table of contents that sends the reader before the file's beginning.
            raise self._damaged(f"is damaged: {self._path}: {error}") from None

    def _damaged(self, told: str) -> DamagedPiecesError:
        piece = self._part.piece
        text = f"rank {self._part.rank}'s piece of {piece.label!r} {told}"
        return DamagedPiecesError({(self._part.rank, piece.identity): text})


class _Unlike(Exception):  # noqa: N818
    """A piece whose head differs from the manifest."""


def _check_header(found: npy.Header, part: Part) -> None:
    piece = part.piece
    flat = sum(n > 1 for n in piece.shape) < 2
    if (found.shape, npy.dtype_text(found.dtype)) != (piece.shape, piece.dtype):
        told = f"has shape {found.shape} and type {found.dtype}"
        raise _Unlike(f"{told}, not {piece.shape} and {piece.dtype}")
    if not flat and all(piece.shape) and found.fortran != piece.fortran:
        raise _Unlike(f"lies in {'Fortran' if found.fortran else 'C'} order")


def _copied(source: Source, piece: Piece, item: int, spill: Spill) -> _Spilled:
    """A piece that can be read in any order, of one that can be read forwards only."""
    size = item * math.prod(piece.shape)
    copy = _Spilled(spill, size)
    buffer = memoryview(bytearray(min(size, _TILE)))
    for at in range(0, size, _TILE):
        part = buffer[: size - at]
        source.read(at, part)
        copy.write(at, part)
    return copy.made_of(source)


def _turned(source: Source, piece: Piece, item: int, spill: Spill) -> _Spilled:
    """A piece in the other memory order, of one that can be read in any order."""
    turned = _Spilled(spill, item * math.prod(piece.shape))
    shape = piece.shape[::-1] if piece.fortran else piece.shape
    _turn(source, turned, shape, item)
    return turned.made_of(source)


def as_bytes(array: Array) -> memoryview:
    """The memory of an array in C order."""
    return array.reshape(-1).view("u1").data


def _turn(source: Source, target: _Spilled, shape: Shape, size: int) -> None:
    """Write an array in Fortran order that is read in C order, tile by tile.

    Args:
        source: The array in C order; a tile that is all of it is read in one go.
        target: Takes it.
        shape: The array's shape.
        size: Bytes of an element.
    """
    import numpy as np

    for start, extent in _tiles(shape, max(1, _TILE // max(size, 1))):
        tile = np.empty(extent, f"V{size}")
        flat = as_bytes(tile)
        done = 0
        for at, count in _runs(shape, start, extent):
            source.read(at * size, flat[done * size : (done + count) * size])
            done += count
        turned = as_bytes(_axes_reversed(tile))
        done = 0
        for at, count in _runs(shape[::-1], start[::-1], extent[::-1]):
            target.write(at * size, turned[done * size : (done + count) * size])
            done += count


def _axes_reversed(tile: Array) -> Array:
    """The same in the other memory order, block by block: rows of both then stay in the cache."""
    import numpy as np

    turned = np.empty(tile.shape[::-1], tile.dtype)
    step = math.isqrt(max(1, _BLOCK // tile.itemsize))
    for i in range(0, tile.shape[0], step):
        for j in range(0, tile.shape[-1], step):
            turned[j : j + step, ..., i : i + step] = tile[i : i + step, ..., j : j + step].T
    return turned


def _tiles(shape: Shape, most: int) -> Iterator[tuple[Shape, Shape]]:
    """Boxes that fill an array, long along its first and its last axis, where the runs are."""
    extent = list(shape)
    while math.prod(extent) > most:
        inner = [axis for axis in range(1, len(shape) - 1) if extent[axis] > 1]
        axis = max(inner or (0, len(shape) - 1), key=lambda axis: extent[axis])
        extent[axis] = -(-extent[axis] // 2)
    ranges = (range(0, n, step) for n, step in zip(shape, extent, strict=True))
    for start in product(*ranges):
        ends = zip(start, extent, shape, strict=True)
        yield start, tuple(min(step, n - a) for a, step, n in ends)


def _runs(shape: Shape, start: Shape, extent: Shape) -> Iterator[tuple[int, int]]:
    """The runs of elements of a box that lie together in C order: where, and how many."""
    axis = len(shape) - 1
    while axis > 0 and extent[axis] == shape[axis]:
        axis -= 1
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    count = extent[axis] * strides[axis]
    first = sum(a * stride for a, stride in zip(start[axis:], strides[axis:], strict=True))
    outer = (range(a, a + n) for a, n in zip(start[:axis], extent[:axis], strict=True))
    for index in product(*outer):
        yield first + sum(a * stride for a, stride in zip(index, strides, strict=False)), count
