"""Folders: found, made where they are missing, claimed, emptied."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from notata import freshness, layout
from notata.freshness import StrPath


def leading(shown: StrPath, home: str) -> Path:
    """A path that leads to a folder: as the user gave it, or absolute once that leads elsewhere.

    Args:
        shown: As the user gave it, which may be relative.
        home: The same when it was given, absolute.

    Ranks: independent.
    """
    try:
        leads = os.path.abspath(shown) == home
    except FileNotFoundError:  # the working directory is gone
        leads = False
    found = shown if leads else home
    return found if isinstance(found, Path) else Path(found)


def is_dir(path: StrPath) -> bool:
    """Whether a folder is there, or a link to one.

    Unlike `os.path.isdir` it never takes a folder that can't be looked at for a missing one.

    Raises:
        OSError: If that can't be told.

    Ranks: independent.
    """
    found = freshness.status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def missing(path: str) -> list[str]:
    """Which of a folder and its parents have to be made, the outermost first.

    Ranks: independent.
    """
    found: list[str] = []
    while path and not is_dir(path):
        found.insert(0, path)
        path = os.path.dirname(path)
    return found


def make_folders(path: StrPath) -> list[str]:
    """Make a folder, and those above it, where they are missing.

    Returns:
        The folders that were made, the topmost first.

    Raises:
        OSError: If one can't be made.

    Ranks: independent.
    """
    path = os.fspath(path) or "."
    above: list[str] = []
    try:
        made = _make_or_find(path)
    except FileNotFoundError:
        above = make_folders(os.path.dirname(path))
        made = _make_or_find(path, errno.ENOENT)  # another node's new folder is there in a moment
    return [*above, path] if made else above


def _make_or_find(path: str, *passing: int) -> bool:
    """Whether a folder was made; if not, it is there."""
    try:
        _make_folder(path, *passing)
    except FileExistsError:
        # Just made by another node, it may not be found yet, though the server has told of it.
        if freshness.exists(path) and not is_dir(path):
            raise
        return False
    except OSError:
        if not is_dir(path):
            raise
        return False
    return True


def _make_folder(path: StrPath, *passing: int) -> None:
    freshness.patiently(lambda: os.mkdir(path), *passing)


def claim_dir(path: StrPath) -> list[str]:
    """Make a folder that must not exist yet; parents are made where they are missing.

    Of many processes that call this at once, on any nodes, exactly one gets it.

    Returns:
        The folders that were made, the topmost first.

    Raises:
        FileExistsError: If it exists.
        OSError: If it can't be made.

    Ranks: independent.
    """
    made: list[str] = []
    try:
        _make_folder(path)
    except FileNotFoundError:
        try:
            made = make_folders(os.path.dirname(os.fspath(path)))
        except FileExistsError as error:  # above, and so no sign that this one exists
            why = os.strerror(errno.ENOTDIR)
            raise NotADirectoryError(errno.ENOTDIR, why, error.filename) from None
        _make_folder(path, errno.ENOENT)
    return [*made, os.fspath(path)]


def listed(folder: StrPath) -> list[str]:
    """The names in a folder; none where it is missing.

    Ranks: independent.
    """
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def is_json(name: str) -> bool:
    """Whether a file of this name is JSON that was finished.

    Example:
        >>> is_json("metrics.json"), is_json("mesh.bin")
        (True, False)

    Ranks: independent.
    """
    return name.endswith(".json") and not name.startswith(layout.TEMP_PREFIX)


def count_json(folder: StrPath) -> int:
    """How many files of JSON lie in a folder and below it; 0 where it isn't there.

    Ranks: independent.
    """
    found = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found += count_json(entry.path)
            elif is_json(entry.name) and entry.is_file():
                found += 1
    return found


def take_back(folder: StrPath, within: Sequence[str] = ()) -> bool:
    """Take away a folder that this process has made, unless anything is in it by now.

    What another process has put there stays, and who is about to makes the folder again.

    Args:
        folder: The folder.
        within: Folders in it that this process may have made, too.

    Returns:
        Whether it is gone.

    Ranks: independent.
    """
    for name in (*within, ""):
        with suppress(OSError):
            os.rmdir(os.path.join(folder, name))
    return not os.path.lexists(folder)


def discard(folder: StrPath, keep: Callable[[str], bool] = lambda name: False) -> None:
    """Empty a folder, in such an order that no reader takes what is left for a run.

    What goes is first moved out of sight, entry by entry, and deleted after. Files that another
    node still has open stay behind as long as they are open (NFS), out of sight as well. The log
    goes last: by it, what is left is known for a run, should this process be killed.

    Args:
        folder: The folder to empty; it stays, with its permissions and stripe settings.
        keep: Says of an entry's name whether it stays.

    Ranks: independent.
    """
    import shutil

    folder = os.fspath(folder)
    names = [name for name in os.listdir(folder) if not keep(name)]
    names.sort(key=lambda name: (name == layout.LOG) - (name == layout.METADATA))
    aside = os.path.join(folder, layout.temporary())
    if not names:
        return
    os.mkdir(aside)
    for name in names:
        with suppress(FileNotFoundError):
            os.rename(os.path.join(folder, name), os.path.join(aside, name))
    shutil.rmtree(aside, ignore_errors=True)
