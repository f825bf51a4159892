"""How bytes become durable: a file is whole or absent, an appended line is there or it isn't.

Every function here acts on the calling process's own files and never asks another rank.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from notata import folders, freshness, layout
from notata.freshness import StrPath


@contextmanager
def replacing(
    path: StrPath, *, durable: bool = False, temporary: str | None = None
) -> Iterator[BinaryIO]:
    """Write a file under a temporary name and put it in place once it is whole.

    Args:
        path: The file to make or replace; its folder is made where it is missing.
        durable: Whether to wait until it is on disk, so that it outlives a power failure.
        temporary: The temporary name; by default one that no other process can choose.

    Yields:
        The file to write to.

    Raises:
        OSError: If it can't be written; whatever was at `path` is still there, whole.

    Ranks: independent.
    """
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, temporary or layout.temporary())
    made = False
    try:
        with open(_create(temporary, folder, durable), "wb") as file:
            made = True
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, os.path.join(folder, name))
        if durable:
            sync(folder or ".")
    except BaseException as error:
        _give_up(error, temporary, path, made)
        raise


def _give_up(error: BaseException, temporary: str, path: StrPath, made: bool) -> None:
    """Leave nothing behind, and let the error name the file that people know."""
    if made:
        with suppress(OSError):
            os.unlink(temporary)
    if isinstance(error, OSError) and error.filename in (None, temporary):
        error.filename = os.fspath(path)


def _create(temporary: str, folder: str, durable: bool) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(temporary, flags, 0o666)
    except FileNotFoundError:
        for made in folders.make_folders(folder):
            if durable:
                sync(os.path.dirname(made) or ".")
        return os.open(temporary, flags, 0o666)


def replace_bytes(path: StrPath, data: bytes, *, durable: bool = False) -> None:
    """Put these bytes into a file, wholly or not at all.

    Ranks: independent.
    """
    path = os.fspath(path)
    if not isinstance(data, bytes):  # whatever else has a buffer
        with replacing(path, durable=durable) as file:
            file.write(data)
        return
    # The same as above, in fewer steps: a run consists of such files.
    folder = path[: path.rfind("/") + 1]
    temporary = folder + layout.temporary()
    made = False
    try:
        descriptor = _create(temporary, folder, durable)
        made = True
        try:
            write_all(descriptor, data)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        if durable:
            sync(folder or ".")
    except BaseException as error:
        _give_up(error, temporary, path, made)
        raise


def renew(path: StrPath, *, durable: bool = False) -> None:
    """Put a file's bytes into a new file of its name, which no other process has open.

    Nothing is done where there is no file.

    Args:
        path: The file.
        durable: Whether to wait until it is on disk, before the older one goes.

    Raises:
        OSError: If it can't be read or written; the older one is still there.

    Ranks: independent.
    """
    with (
        suppress(FileNotFoundError),
        open(path, "rb", buffering=0) as old,
        replacing(path, durable=durable) as new,
    ):
        while data := old.read(_BLOCK):
            new.write(data)


def create(path: StrPath, data: bytes) -> None:
    """Make a file that must not exist yet. Killed half way, it leaves a file that is cut off.

    Of many processes that call this at once, on any nodes, exactly one gets it.

    Raises:
        FileExistsError: If it exists.
        OSError: If it can't be made.

    Ranks: independent.
    """
    with open(path, "xb", buffering=0) as file:
        try:
            write_all(file.fileno(), data)
        except BaseException:  # a claim without a word would stand for nobody
            with suppress(OSError):
                os.unlink(path)
            raise


_BLOCK = 1 << 20  # bytes that are copied at a time
_RESERVED = 1 << 20  # bytes from which on it pays
_KEEP_SIZE = 1  # Linux's FALLOC_FL_KEEP_SIZE


def reserve(descriptor: int, size: int) -> None:
    """Have a file system find room for a large file at once, where it can: writing is faster then.

    The file's size stays. Where there is no room, or no such thing, writing will tell.

    Ranks: independent.
    """
    if size < _RESERVED:
        return
    import ctypes

    # Not os.posix_fallocate, which writes all of the file where the file system can't reserve.
    with suppress(OSError, AttributeError):
        ask = ctypes.CDLL(None).fallocate
        ask.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        ask(descriptor, _KEEP_SIZE, 0, size)


def sync(path: StrPath) -> None:
    """Wait until a file, or the names in a folder, are on disk.

    Raises:
        OSError: If they can't be written there.

    Ranks: independent.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        if os.path.isdir(path):
            return  # one that may be written to but not read, which is no fault of the disk
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # no such thing as its folders' fsync
            raise
    finally:
        os.close(descriptor)


def sync_with_name(path: StrPath) -> None:
    """Have a file, and its name in its folder, survive the loss of this node.

    Raises:
        OSError: If the disk can't promise it.

    Ranks: independent.
    """
    sync(path)
    sync(os.path.dirname(os.fspath(path)) or ".")


def read_bytes(path: StrPath) -> bytes | None:
    """All of a file, or None where there is no such file.

    Raises:
        OSError: If it can't be read.

    Ranks: independent.
    """
    try:
        return freshness.patiently(lambda: _read(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read(path: StrPath) -> bytes:
    # A file object would ask for the size first, of files that are mostly small.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, 16384)
        if not data or not os.read(descriptor, 1):
            return data
        os.lseek(descriptor, 0, os.SEEK_SET)
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            return file.readall()
    finally:
        os.close(descriptor)


def size_of(path: StrPath) -> int:
    """Bytes of a file; 0 where there is none, or nobody may look.

    Ranks: independent.
    """
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def share(path: StrPath) -> None:
    """Let everybody write to a file or folder who may write to the folder that it is in.

    Where a group shares a folder, its members' programs may make files that only they can write.

    Ranks: independent; only its owner can change it.
    """
    with suppress(OSError):
        folder, mine = os.stat(os.path.dirname(os.fspath(path)) or "."), os.stat(path)
        bits = folder.st_mode & 0o070 if folder.st_gid == mine.st_gid else 0
        bits &= 0o070 if stat.S_ISDIR(mine.st_mode) else 0o060
        if mine.st_mode & bits != bits:
            os.chmod(path, (mine.st_mode | bits) & 0o7777)


def owner(path: StrPath) -> int | None:
    """The number of the user whose file it is, or None if there is none.

    Ranks: independent.
    """
    with suppress(OSError):
        return os.stat(path).st_uid
    return None


def open_append(path: StrPath) -> int:
    """Open a file so that each `os.write` lands at its end; make it, and its folder, if need be.

    A last line that a crash cut off gets its line break, so that the next line stands alone. Zeros
    that a power failure left behind it go.

    Returns:
        The file descriptor; the caller closes it.

    Ranks: independent.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        folders.make_folders(os.path.dirname(os.fspath(path)))
        descriptor = os.open(path, flags, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            end = _end_of_text(descriptor)
            if end < size:
                os.ftruncate(descriptor, end)
            if end and os.pread(descriptor, 1, end - 1) != b"\n":
                write_all(descriptor, b"\n")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _end_of_text(descriptor: int) -> int:
    """Where text ends in a file whose last bytes are zeros.

    A file system that lost its power may know how long a file was, and not what was appended to it.
    """
    end, block = os.fstat(descriptor).st_size, b""
    while end and not block:
        size = min(end, 65536)
        block = os.pread(descriptor, size, end - size).rstrip(b"\0")
        end -= size - len(block)
    return end


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte, also where the system takes only a part at a time.

    Raises:
        OSError: If the disk takes no more.

    Ranks: independent.
    """
    written = os.write(descriptor, data)
    while written < len(data):
        data = data[written:]
        written = os.write(descriptor, data)
        if written == 0:
            raise OSError(errno.EIO, "the file takes no more bytes")


def append_line(path: StrPath, line: bytes) -> None:
    """Append one line in one write to a file that only this process writes.

    Ranks: independent.
    """
    descriptor = open_append(path)
    try:
        write_all(descriptor, line)
    finally:
        os.close(descriptor)
