"""How a run's process puts files on disk: what it syncs, and when; what an error of a disk says.

Whatever a call has returned from outlives the process: it is with the operating system then. To
outlive the node, it has to be synced, which takes longer; `durability` says what is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, BinaryIO

from notata import files, folders
from notata.errors import NotataError, SettingError
from notata.topology import hostname

PROCESS, CLOSE, NODE = "process", "close", "node"
_NAMES = (PROCESS, CLOSE, NODE)
_VARIABLE = "NOTATA_DURABILITY"


def chosen(durability: str | None) -> str:
    """What is synced: the argument, else `NOTATA_DURABILITY`, else `close`.

    Raises:
        ValueError: If it is none of `process`, `close` and `node`.
        SettingError: If the variable is none of them (a `ValueError`).

    Example:
        >>> chosen(None)
        'close'

    Ranks: independent.
    """
    given = durability if durability is not None else os.environ.get(_VARIABLE) or CLOSE
    if given in _NAMES:
        return given
    if durability is None:
        raise SettingError(f"{_VARIABLE}={given!r}: set it to one of {', '.join(_NAMES)}")
    raise ValueError(f"durability={given!r}: give one of {', '.join(map(repr, _NAMES))}")


_ADVICE = {
    errno.ENOSPC: "free space or inodes there (df -h, df -i), or write elsewhere (base_dir)",
    errno.EDQUOT: "your quota is used up (quota -s): delete files there, or write elsewhere "
    "(base_dir)",
    errno.EFBIG: "there is a limit on the size of files (ulimit -f): raise it, or write smaller "
    "files",
    errno.EIO: "the disk or its server failed (dmesg, or your administrators, say more): write "
    "elsewhere (base_dir) until it is repaired",
    errno.EROFS: "it is mounted read-only here, as some home folders are on compute nodes: write "
    "elsewhere (base_dir)",
    errno.EACCES: "you may not write there (ls -ld says who may): write elsewhere (base_dir)",
    errno.EPERM: "you may not write there (ls -ld and lsattr -d say why): write elsewhere "
    "(base_dir)",
    errno.ESTALE: "the file server no longer knows the file or its folder: see whether it was "
    "moved or deleted from another node, and try again",
    errno.ENAMETOOLONG: "give it a shorter name, or the run a shorter folder (base_dir): most file "
    "systems take 255 bytes for a name and 4096 for a path",
    errno.EMFILE: "this process has too many files open: close some, or raise the limit "
    "(ulimit -n)",
    errno.ENFILE: "this node has too many files open (sysctl fs.file-nr): tell your administrators",
    errno.ENOTDIR: "a part of the path is a file, no folder: give it another name",
    errno.ETIMEDOUT: "the file server does not answer: try again, or write elsewhere (base_dir)",
}


class _Explaining:
    """What `Disk.explaining` gives: a class, since each run is opened in several of them."""

    def __init__(self, disk: Disk, path: str, size: int | None) -> None:
        self._disk, self._path, self._size = disk, path, size

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            self._disk.explain(error, self._path, self._size)


class Disk:
    """The disk as one process of a run uses it.

    Attributes:
        durability: `process`, `close` or `node`.
        at_once: Whether each file is synced before the call returns that writes it.
        at_close: Whether anything is synced when the run closes.
    """

    def __init__(self, durability: str = CLOSE, rank: int | None = None) -> None:
        """Promise so much; nothing is touched.

        Args:
            durability: `process`, `close` or `node`.
            rank: The rank to name in errors, or None in a run of one.
        """
        self.durability = durability
        self.at_once, self.at_close = durability == NODE, durability != PROCESS
        self._rank = rank
        self._made: list[str] = []  # folders whose names are to be synced at the end

    # ----- errors -----

    def explain(self, error: OSError, path: str, size: int | None = None) -> None:
        """Let an error of the disk say which file, which rank, how many bytes and what to do.

        It stays the same error, with its number. An error that is about something else is left as
        it is.

        Ranks: independent.
        """
        if isinstance(error, NotataError) or error.errno not in _ADVICE:
            return
        if error.strerror != os.strerror(error.errno):
            return  # it says so already
        if error.filename is None:
            error.filename = path
        told = os.fspath(error.filename)
        if not (path.startswith(told) or told.startswith(path)):
            return
        who = [] if self._rank is None else [f"rank {self._rank} on {hostname()}"]
        what = [] if size is None else [f"{size} bytes"]
        about = f" ({', '.join(who + what)})" if who or what else ""
        error.strerror = f"{error.strerror}{about}; {_ADVICE[error.errno]}"

    def explaining(self, path: str, size: int | None = None) -> AbstractContextManager[None]:
        """Explain what goes wrong in the block with a file.

        Ranks: independent.
        """
        return _Explaining(self, path, size)

    # ----- writing -----

    @contextmanager
    def replacing(
        self, path: str, size: int | None = None, *, durable: bool = False
    ) -> Iterator[BinaryIO]:
        """Write a file that is put in place once it is whole.

        Args:
            path: The file; its folder is made where it is missing.
            size: Its size, for an error; by default as far as it was written.
            durable: Whether it is synced even if not everything is.

        Raises:
            OSError: If it can't be written; whatever was at `path` is still there, whole.

        Ranks: independent.
        """
        try:
            with files.replacing(path, durable=durable or self.at_once) as file:
                try:
                    yield file
                finally:
                    if size is None:
                        with suppress(OSError, ValueError):
                            size = file.tell()
        except OSError as error:
            self.explain(error, path, size)
            raise

    def replace(self, path: str, data: Any, *, durable: bool = False) -> None:
        """Put these bytes into a file, wholly or not at all.

        Args:
            path: The file; its folder is made where it is missing.
            data: The bytes.
            durable: Whether it is synced even if not everything is.

        Raises:
            OSError: If it can't be written; whatever was at `path` is still there, whole.

        Ranks: independent.
        """
        try:
            files.replace_bytes(path, data, durable=durable or self.at_once)
        except OSError as error:
            self.explain(error, path, memoryview(data).nbytes)
            raise

    def create(self, path: str, data: bytes) -> None:
        """Make a file that must not exist yet.

        Raises:
            FileExistsError: If it exists.
            OSError: If it can't be made.

        Ranks: independent.
        """
        with self.explaining(path, len(data)):
            files.create(path, data)
            if self.at_once:
                files.sync_with_name(path)

    def append(self, descriptor: int, path: str, data: bytes) -> None:
        """Append to a file that this process has open.

        Ranks: independent.
        """
        with self.explaining(path, len(data)):
            files.write_all(descriptor, data)
            if self.at_once:
                os.fsync(descriptor)

    def open_append(self, path: str) -> int:
        """Open a file to append to; its name is synced where it may be new.

        Returns:
            The file descriptor; the caller closes it.

        Ranks: independent.
        """
        with self.explaining(path):
            descriptor = files.open_append(path)
            if self.at_once:
                files.sync(os.path.dirname(path))
            return descriptor

    def remove(self, path: str) -> None:
        """Delete a file, if it is there.

        Ranks: independent.
        """
        with self.explaining(path), suppress(FileNotFoundError):
            os.unlink(path)
            if self.at_once:
                files.sync(os.path.dirname(path))

    # ----- folders -----

    def claim_dir(self, path: str) -> None:
        """Make a folder that must not exist yet, and those above it that are missing.

        Raises:
            FileExistsError: If it exists.
            OSError: If it can't be made.

        Ranks: independent.
        """
        with self.explaining(path):
            made = folders.claim_dir(path)
            try:
                self.name(made)
            except OSError:  # nobody is told that it was had
                folders.take_back(path)
                raise

    def make_folders(self, path: str) -> None:
        """Make a folder, and those above it, where they are missing.

        Ranks: independent.
        """
        with self.explaining(path):
            self.name(folders.make_folders(path))

    def name(self, made: Sequence[str]) -> None:
        """Have the names of new folders synced, at once or by `settle`.

        Ranks: independent.
        """
        if self.at_once:
            for folder in made:
                files.sync(os.path.dirname(folder))
        elif self.at_close:
            self._made += made

    # ----- closing -----

    def settle(self, *paths: str) -> None:
        """Sync files that are there, their names, and those of the folders made for them.

        Nothing is done where nothing was promised.

        Raises:
            OSError: If the disk can't promise that they outlive the node.

        Ranks: independent.
        """
        if not self.at_close:
            return
        folders = []
        for path in paths:
            with self.explaining(path), suppress(FileNotFoundError):
                files.sync(path)
                folders.append(os.path.dirname(path))
        made, self._made = self._made, []
        for folder in dict.fromkeys([*folders, *map(os.path.dirname, reversed(made))]):
            with self.explaining(folder), suppress(FileNotFoundError):
                files.sync(folder)
