"""Arrays out, each file whole or absent; what is known of it before it takes its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from notata import checksums, files
from notata.disk import Disk

if TYPE_CHECKING:
    from notata.npy import Array

# Takes the size of a file, and the checksum of each key in it; that of an array is under None.
Ready = Callable[[int, Mapping[Any, str]], None]


def save_array(disk: Disk, path: str, array: Array, ready: Ready | None = None) -> None:
    """Write an array.

    Args:
        disk: The disk.
        path: The file to make or replace.
        array: The array.
        ready: Called before the file takes its place, with its size and, under None, its checksum;
            without it none is computed.

    Ranks: independent.
    """
    from notata import saving

    data = saving.small_bytes(array)
    if data is not None:
        if ready is not None:
            ready(len(data), {None: checksums.of_bytes(data)})
        disk.replace(path, data)
        return
    with disk.replacing(path, array.nbytes) as file:
        files.reserve(file.fileno(), array.nbytes)
        if ready is None:
            saving.write(file, array)
        else:
            hashed = checksums.hasher()
            saving.write(file, array, hashed)
            ready(file.tell(), {None: checksums.text_of(hashed)})


def save_bundle(
    disk: Disk,
    path: str,
    arrays: Mapping[str, Array],
    compressed: bool,
    ready: Ready | None = None,
) -> None:
    """Write several arrays into one file.

    Args:
        disk: The disk.
        path: The file to make or replace.
        arrays: The arrays by key.
        compressed: Whether to compress them.
        ready: Called before the file takes its place, with its size and each key's checksum.

    Ranks: independent.
    """
    from notata import saving

    with disk.replacing(path, sum(array.nbytes for array in arrays.values())) as file:
        crcs = saving.write_bundle(file, arrays, compressed)
        if ready is not None:
            told = {key: checksums.text_of_crc(crc) for key, crc in crcs.items()}
            ready(file.seek(0, os.SEEK_END), told)
