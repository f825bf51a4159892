"""Joining arrays: the ranks' pieces into one file under a temporary name."""

from __future__ import annotations

import errno
import os
import zipfile
from typing import Any

from notata import files, gather, layout, npy
from notata.assembly import Whole


def join_array(run: str, whole: Whole, temporary: str) -> None:
    """Copy the pieces of an array into a memory-mapped `.npy` file.

    Args:
        run: Folder of the run.
        whole: The array.
        temporary: Path of the file to make.

    Raises:
        DamagedError: If a piece is not what its manifest says.
        OSError: If the file can't be written, such as on a disk that has no room for all of it.

    Ranks: independent.
    """
    from numpy.lib.format import open_memmap

    target: Any = open_memmap(
        temporary,
        mode="w+",
        dtype=npy.dtype_from_text(whole.dtype),
        shape=whole.shape,
        fortran_order=whole.fortran,
    )
    _reserve(temporary, target.offset)
    everything = ((0,) * len(whole.shape), whole.shape)
    for _ in gather.copy_parts(run, whole, everything, target):
        pass
    target.flush()


_CHUNK = 1 << 20


def _reserve(path: str, offset: int) -> None:
    """Take the room of a sparse file from the disk.

    A full disk is then an error. Met while the mapped file is written to, it would kill the
    process (SIGBUS).
    """
    descriptor = os.open(path, os.O_WRONLY)
    try:
        size = os.fstat(descriptor).st_size
        if not _allocated(descriptor, size):
            os.lseek(descriptor, offset, os.SEEK_SET)
            zeros = bytes(_CHUNK)
            for begin in range(offset, size, _CHUNK):
                files.write_all(descriptor, zeros[: size - begin])
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _allocated(descriptor: int, size: int) -> bool:
    """Whether the file has its room now; False where the system has no such call."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except AttributeError:  # macOS
        return False
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return False
        raise
    return True


def join_bundle(run: str, wholes: tuple[Whole, ...], temporary: str) -> None:
    """Join the arrays of a bundle one after another into a `.npz` file.

    Raises:
        DamagedError: If a piece is not what its manifest says.
        OSError: If the file can't be written.

    Ranks: independent.
    """
    with zipfile.ZipFile(temporary, "x", _method(run, wholes), allowZip64=True) as archive:
        for whole in wholes:
            everything = ((0,) * len(whole.shape), whole.shape)
            array = gather.load_whole(run, whole, everything)
            with archive.open(f"{whole.key}.npy", "w", force_zip64=True) as member:
                npy.write(member, array)  # type: ignore[arg-type]


def _method(run: str, wholes: tuple[Whole, ...]) -> int:
    """Compressed if the first piece is: the whole is as the ranks wrote it."""
    part = wholes[0].parts[0]
    path = os.path.join(run, layout.rank_dir(part.rank), part.piece.file)
    with zipfile.ZipFile(path) as archive:
        return archive.infolist()[0].compress_type
