"""Files for stacks that `faulthandler` writes by itself, where Python can't run; one a rank."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from notata import files, folders, layout
from notata.descriptors import STACKS, out_of_the_way
from notata.messages import now

WENT_ON = b"went on"


def going_on() -> bytes:
    """The line below stacks that says that the program gave a sign of life again.

    Ranks: independent.
    """
    return b"[%b] %b\n" % (now().encode(), WENT_ON)


def left(run: str, parallel: bool) -> dict[int, str]:
    """The files that there are, by rank.

    Args:
        run: The run's folder.
        parallel: Whether it has several ranks.

    Ranks: independent.
    """
    folder = _folder(run, parallel)
    return {
        int(name[:-4]): os.path.join(folder, name)
        for name in folders.listed(folder)
        if name[:-4].isdecimal()
    }


class Aside:
    """The file of one rank.

    It has to be open before that, so that each watched rank has one. If it is empty at the end,
    nothing is left of it.
    """

    def __init__(self, run: str, rank: int, parallel: bool) -> None:
        """Make the file.

        Args:
            run: The run's folder.
            rank: This process's rank.
            parallel: Whether the run has others.

        Raises:
            OSError: If it can't be made.
        """
        folders.make_folders(_folder(run, parallel))
        self._path = _file_of(run, rank, parallel)
        with suppress(FileNotFoundError):  # of an older attempt, which may still be at it
            os.unlink(self._path)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = out_of_the_way(os.open(self._path, flags, 0o666), STACKS)
        self._inode = self._state().st_ino
        self._noted = 0  # its size when the rank last went on
        self._pid = os.getpid()

    def fileno(self) -> int:
        """Its descriptor.

        Raises:
            OSError: If the program has closed it.
        """
        if self._state().st_ino != self._inode:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)
        return self._descriptor

    def _state(self) -> os.stat_result:
        return os.fstat(self._descriptor)

    def note_going_on(self) -> None:
        """Append that the program gave a sign of life, if stacks were written since the last one.

        Raises:
            OSError: If the file takes no more, or is gone.
        """
        if os.fstat(self.fileno()).st_size > self._noted:
            files.write_all(self._descriptor, going_on())
            self._noted = self._state().st_size

    def close(self) -> None:
        """Let go of the file; it stays only if there is anything in it.

        Raises:
            OSError: If it can't be taken away, or is gone.
        """
        found = os.stat(self._path)  # a newer attempt may have made its own
        mine = found.st_ino == self._inode and os.getpid() == self._pid  # no forked child's
        with suppress(OSError):
            os.close(self.fileno())
        if mine and found.st_size == 0:
            os.unlink(self._path)
            with suppress(OSError):  # other ranks have theirs there
                os.rmdir(os.path.dirname(self._path))


def forget(run: str, rank: int, parallel: bool) -> None:
    """Take away what an earlier run of this rank left aside.

    Ranks: independent.
    """
    with suppress(OSError):
        os.unlink(_file_of(run, rank, parallel))


def tidy(run: str, parallel: bool) -> None:
    """Take away the files in which nothing stands, of all ranks: their processes are ended next.

    Ranks: independent.
    """
    with suppress(OSError):
        for path in left(run, parallel).values():
            if files.size_of(path) == 0:
                os.unlink(path)
        os.rmdir(_folder(run, parallel))


def _file_of(run: str, rank: int, parallel: bool) -> str:
    return os.path.join(_folder(run, parallel), f"{rank:05d}.txt")


def _folder(run: str, parallel: bool) -> str:
    return os.path.join(run, *([layout.RANKS] if parallel else []), layout.STACKS_ASIDE)
