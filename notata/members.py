"""Keys of bundles, mapped where they lie uncompressed: what is not used needs no memory."""

from __future__ import annotations

import math
import mmap
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO

from notata import npy
from notata.errors import DamagedError

if TYPE_CHECKING:
    import zipfile

    from notata.npy import Array, Header

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

    info = _info(path, key)
    try:
        if _is_plain(info):
            with open(path, "rb") as file:
                _go_to(file, info)
                found = npy.read_header(file)
        else:
            with zipfile.ZipFile(path) as archive, archive.open(info) as member:
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
    info = _info(path, key)
    if not _is_plain(info):
        return None
    import numpy as np

    try:
        with open(path, "rb") as file:
            start = _go_to(file, info)
            shape, fortran, dtype = npy.read_header(file)
            if dtype.hasobject or not dtype.itemsize or 0 in shape:
                return None
            at = file.tell()
            if at - start + dtype.itemsize * math.prod(shape) > info.file_size:
                raise DamagedError(f"{info.filename} is cut off")
            held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if _crc(path, info.filename, held, start, info.file_size) != info.CRC:
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


def _identity(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _info(path: str, key: str) -> zipfile.ZipInfo:
    return _directory(path, *_identity(path))[f"{key}.npy"]


@lru_cache(maxsize=8)
def _directory(path: str, *_identity: int) -> dict[str, zipfile.ZipInfo]:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename: info for info in archive.infolist()}
    except npy.damage() as error:
        raise _damaged(path, error) from None


_crcs: dict[tuple[object, ...], int] = {}  # of members that were read
_MOST = 256


def _crc(path: str, name: str, held: mmap.mmap, start: int, size: int) -> int:
    import zlib

    which = path, name, *_identity(path)
    found = _crcs.get(which)
    if found is None:
        found = 0
        with memoryview(held) as view:
            for at in range(start, start + size, _BLOCK):
                found = zlib.crc32(view[at : min(at + _BLOCK, start + size)], found)
        while len(_crcs) >= _MOST:
            _crcs.pop(next(iter(_crcs)), None)
        _crcs[which] = found
    return found
