"""A rank's files, wherever they lie: in its folder, or in the archive that a pruning left."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from notata import files, folders, freshness, layout, mergerecord
from notata.errors import DamagedError

if TYPE_CHECKING:
    import zipfile


class RankFiles(Protocol):
    """Files below one folder; names are relative to it."""

    def names(self, folder: str) -> list[str]:
        """All files below a folder of it, sorted; what is being written is left out."""

    def read(self, name: str) -> bytes | None:
        """All of a file, or None where there is none."""

    def source(self, name: str) -> str | BinaryIO:
        """What reads a file: its path, or a stream that the caller closes.

        Raises:
            FileNotFoundError: If there is none; the path may be of none too.
        """


class Folder:
    """Files in a folder of their own.

    Args:
        path: The folder; need not exist.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def names(self, folder: str) -> list[str]:
        """All files below a folder of it, sorted; what is being written is left out."""
        top = os.path.join(self._path, folder)
        found = []
        for parent, _, names in os.walk(top):
            relative = os.path.relpath(parent, top)
            for name in names:
                if not name.startswith(layout.TEMP_PREFIX):
                    found.append(name if relative == "." else f"{relative}/{name}")
        return sorted(found)

    def read(self, name: str) -> bytes | None:
        """All of a file, or None where there is none."""
        return files.read_bytes(os.path.join(self._path, name))

    def source(self, name: str) -> str:
        """Path of a file."""
        return os.path.join(self._path, name)


class RunFolder(Folder):
    """The run's own files: what a merge added to rank 0's artifacts is no artifact of a rank."""

    def names(self, folder: str) -> list[str]:
        """All files below a folder of it, sorted; what is being written is left out."""
        found = super().names(folder)
        if folder != layout.ARTIFACTS:
            return found
        made = mergerecord.read(self._path).files
        return [name for name in found if f"{folder}/{name}" not in made]


class Archived:
    """Files of one rank that a pruning put into the archive, or into a document of all ranks."""

    def __init__(self, run: str, rank: int) -> None:
        """Name the files; nothing is read yet.

        Args:
            run: The run's folder.
            rank: The rank.
        """
        self._run, self._rank = run, rank
        self._prefix = layout.rank_dir(rank).removeprefix(f"{layout.RANKS}/") + "/"

    def names(self, folder: str) -> list[str]:
        """All files below a folder of it, sorted; what is being written is left out."""
        mine = {*_members(self._run).get(self._prefix, {}), *self._gathered()}
        below = (n.removeprefix(f"{folder}/") for n in mine if n.startswith(f"{folder}/"))
        return sorted(n for n in below if not n.rpartition("/")[2].startswith(layout.TEMP_PREFIX))

    def _gathered(self) -> Mapping[str, str]:
        """This rank's files that stand in a document of all ranks, with that document."""
        return _gathered(self._run).get(self._rank, {})

    def read(self, name: str) -> bytes | None:
        """All of a file, or None where there is none."""
        import zipfile

        try:
            with self.source(name) as file:
                return file.read()
        except FileNotFoundError:
            pass
        except (zipfile.BadZipFile, OSError) as error:
            path = os.path.join(self._run, layout.ARCHIVE)
            raise DamagedError(f"{path} is damaged: {self._prefix}{name}: {error}") from None
        document = self._gathered().get(name)
        if document is None:
            return None
        values = _document(os.path.join(self._run, document))
        return json.dumps(values[str(self._rank)]).encode() if str(self._rank) in values else None

    def source(self, name: str) -> BinaryIO:
        """A stream of a file in the archive.

        Raises:
            FileNotFoundError: If it holds none of this name.
        """
        info = _members(self._run).get(self._prefix, {}).get(name)
        if info is None:
            raise FileNotFoundError(f"no {self._prefix}{name} in {self._run}/{layout.ARCHIVE}")
        return cast("BinaryIO", _archive(self._run).open(info))


def files_of(run: str, rank: int) -> RankFiles:
    """The files of a rank: its folder, or where that was pruned, its part of the archive.

    Ranks: independent.
    """
    folder = os.path.join(run, layout.rank_dir(rank))
    if not folders.is_dir(folder) and freshness.exists(os.path.join(run, layout.ARCHIVE)):
        return Archived(run, rank)
    return Folder(folder)


def archived_ranks(run: str) -> list[int]:
    """The ranks that have files in the archive; none where there is no archive.

    Ranks: independent.
    """
    found = (layout.rank_of(prefix.rstrip("/")) for prefix in _members(run))
    return sorted(rank for rank in found if rank is not None)


def archive_state(run: str) -> tuple[int, int, int] | None:
    """What tells an archive from others: its inode, size and time of change; None without any.

    Ranks: independent.
    """
    try:
        return _identity(os.path.join(run, layout.ARCHIVE))
    except (FileNotFoundError, NotADirectoryError):
        return None


# ----- opened once, as long as nobody replaces them -----


def _identity(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _archive(run: str) -> zipfile.ZipFile:
    path = os.path.join(run, layout.ARCHIVE)
    return _opened(path, *_identity(path))[0]


def _members(run: str) -> Mapping[str, Mapping[str, zipfile.ZipInfo]]:
    """What the archive holds, by the folder of each rank."""
    path = os.path.join(run, layout.ARCHIVE)
    try:
        return _opened(path, *_identity(path))[1]
    except FileNotFoundError:
        return {}


_END = 22  # bytes of the record that ends an archive without a comment


@lru_cache(maxsize=4)
def _opened(
    path: str, *_identity: int
) -> tuple[zipfile.ZipFile, Mapping[str, Mapping[str, zipfile.ZipInfo]]]:
    import zipfile

    try:
        with open(path, "rb") as file:
            file.seek(-_END, os.SEEK_END)
            if not file.read().startswith(b"PK\5\6"):
                # zipfile would take the end of a bundle in the archive for the archive's own.
                raise zipfile.BadZipFile("its end is missing")
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from None
    members: dict[str, dict[str, zipfile.ZipInfo]] = {}
    for info in archive.infolist():
        rank, _, name = info.filename.partition("/")
        members.setdefault(f"{rank}/", {})[name] = info
    return archive, members


def _document(path: str) -> Mapping[str, Any]:
    return _parsed(path, *_identity(path))


@lru_cache(maxsize=4)
def _parsed(path: str, *_identity: int) -> Mapping[str, Any]:
    try:
        found = json.loads(files.read_bytes(path) or b"")
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from None
    if not isinstance(found, dict):
        raise DamagedError(f"{path} is damaged: it holds no JSON object")
    return found


def _gathered(run: str) -> Mapping[int, Mapping[str, str]]:
    path = os.path.join(run, layout.MERGE_RECORD)
    try:
        return _places(run, *_identity(path))
    except FileNotFoundError:
        return {}


@lru_cache(maxsize=4)
def _places(run: str, *_identity: int) -> Mapping[int, Mapping[str, str]]:
    """For each rank, its files that are in a document, and in which."""
    places: dict[int, dict[str, str]] = {}
    for file, made in mergerecord.read(run).outputs.items():
        for name in made.inputs.keys() - made.left if made.kind == "json" else ():
            owned = layout.inside_rank(name)
            if owned is not None:
                places.setdefault(owned[0], {})[owned[1]] = file
    return places
