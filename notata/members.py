"""Keys of bundles, mapped where they lie uncompressed: what is not used needs no memory."""

from __future__ import annotations

import math
import mmap
import os
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from notata import npy
from notata.errors import DamagedError

if TYPE_CHECKING:
    import zipfile

    from notata.npy import Array, Header

_Which = tuple[object, ...]
_Value = TypeVar("_Value")

_BLOCK = 1 << 20
_LOCAL = 30  # bytes of a member's own head in the archive, before its name


def head(path: str, key: str) -> tuple[Header, bool]:
    """What a key of a `.npz` file is, without its elements; and whether it can be mapped.

    Raises:
        FileNotFoundError: If there is no such file.
        KeyError: If it has no such key.
        DamagedError: If it is cut off or damaged, or only pickle could read it.

    Ranks: independent.
    """
    import zipfile
    import zlib

    with open(path, "rb") as file:
        info = _directory(path, file)[f"{key}.npy"]
        try:
            if _is_plain(info):
                _go_to(file, info)
                found = npy.read_header(file)
            else:
                with zipfile.ZipFile(file) as archive, archive.open(info) as member:
                    found = npy.read_header(member)
        except npy.damage(zlib.error, OSError) as error:
            raise _damaged(path, error) from None
    if found.dtype.hasobject:
        npy.load_member(path, key)
    return found, _is_plain(info) and 0 not in found.shape and found.dtype.itemsize > 0


def load(path: str, key: str) -> Array:
    """A key of a `.npz` file, mapped where it can be, else read as a whole.

    Raises:
        FileNotFoundError: If there is no such file.
        KeyError: If it has no such key.
        DamagedError: If it is cut off or damaged.

    Ranks: independent.
    """
    found = mapped(path, key)
    return npy.load_member(path, key) if found is None else found


def mapped(path: str, key: str) -> Array | None:
    """A key of a `.npz` file, mapped; None where it is compressed, or there is nothing to map.

    The first time, all of it is read, to compare its CRC-32.

    Raises:
        FileNotFoundError: If there is no such file.
        KeyError: If it has no such key.
        DamagedError: If it is cut off or damaged.

    Ranks: independent.
    """
    import numpy as np

    with open(path, "rb") as file:  # all is of this one, whatever has its name meanwhile
        info = _directory(path, file)[f"{key}.npy"]
        if not _is_plain(info):
            return None
        try:
            start = _go_to(file, info)
            shape, fortran, dtype = npy.read_header(file)
            if dtype.hasobject or not dtype.itemsize or 0 in shape:
                return None
            at = file.tell()
            if at - start + dtype.itemsize * math.prod(shape) > info.file_size:
                raise DamagedError(f"{info.filename} is cut off")
            held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            which = path, info.filename, *_identity(file)
            if _crc(which, held, start, info.file_size) != info.CRC:
                raise DamagedError(f"Bad CRC-32 for file {info.filename!r}")
            order: Any = "F" if fortran else "C"
            return np.ndarray(shape, dtype, held, at, order=order)
        except npy.damage() as error:
            raise _damaged(path, error) from None


def _go_to(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Go to where an uncompressed member begins, and give where that is."""
    local = b""
    if info.header_offset >= 0:
        file.seek(info.header_offset)
        local = file.read(_LOCAL)
    if local[:4] != b"PK\3\4":
        raise DamagedError(f"no member begins where that of {info.filename!r} should")
    lengths = (int.from_bytes(local[at : at + 2], "little") for at in (26, 28))
    return file.seek(info.header_offset + _LOCAL + sum(lengths))


def _damaged(path: str, why: object) -> DamagedError:
    return DamagedError(f"{path} is not a whole .npz file: {why}")


def _is_plain(info: zipfile.ZipInfo) -> bool:
    encrypted = info.flag_bits & 1
    return not info.compress_type and not encrypted


# ----- found once, as long as nobody replaces the file -----


def _identity(file: BinaryIO) -> tuple[int, int, int]:
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


_directories: dict[_Which, dict[str, zipfile.ZipInfo]] = {}
_crcs: dict[_Which, int] = {}  # of members that were read
_FILES, _MEMBERS = 8, 256


def _remember(held: dict[_Which, _Value], most: int, which: _Which, value: _Value) -> _Value:
    for oldest in list(held)[: max(0, len(held) + 1 - most)]:
        held.pop(oldest, None)
    held[which] = value
    return value


def _directory(path: str, file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    import zipfile

    which = path, *_identity(file)
    if (found := _directories.get(which)) is not None:
        return found
    try:
        with zipfile.ZipFile(file) as archive:
            found = {info.filename: info for info in archive.infolist()}
    except npy.damage() as error:
        raise _damaged(path, error) from None
    return _remember(_directories, _FILES, which, found)


def _crc(which: _Which, held: mmap.mmap, start: int, size: int) -> int:
    import zlib

    if (known := _crcs.get(which)) is not None:
        return known
    found = 0
    with memoryview(held) as view:
        for at in range(start, start + size, _BLOCK):
            found = zlib.crc32(view[at : min(at + _BLOCK, start + size)], found)
    return _remember(_crcs, _MEMBERS, which, found)
