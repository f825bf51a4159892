"""Whether files are as their rank left them: what it notes of them when it closes the run.

Arrays have their checksums in the rank's manifest. Of its log, its artifacts and its plots nothing
is noted as they are written: they are read once, at the end, when the system still has them in
memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

from notata import checksums, files, folders, freshness, layout

# A rank that ends must not keep others waiting: what lies above is noted by its size alone. From
# memory it takes a fifth of a second to read so much, from a disk of 100 MB/s ten seconds.
_MOST_BYTES = 1 << 30
# That many are opened, on a busy file server for milliseconds each, and listed: the record is read
# as a whole, that of each rank by a merge.
_MOST_FILES = 1000
_MOST_OF_ROOT = 100
_MOST_LOOKED = 10_000  # names of files among which these are looked for
_SLOW = 1 << 26  # bytes that take long enough for a rank to be killed meanwhile
# A program that closes a run and writes on may do so for hours; each file costs the whole record.
_MOST_RENEWALS = 100


class Left(NamedTuple):
    """A file, as its rank left it.

    Attributes:
        size: Its bytes.
        checksum: Of what it held, or None where only its size was noted.
        mtime_ns: When it had been changed, where that was noted: of rank 0's JSON.
        mixed: Of the run's log, whether a merge had put other ranks' records into it.
    """

    size: int
    checksum: str | None = None
    mtime_ns: int | None = None
    mixed: bool = False

    def is_in(self, data: bytes) -> bool:
        """Whether a file that holds this is as it was left; something may have been appended."""
        if len(data) < self.size:
            return False
        found = checksums.of_bytes(data[: self.size])
        return not checksums.contradicts(self.checksum, found)

    def is_at(self, path: str, told: Callable[[int], object] = lambda count: None) -> bool:
        """The same of a file that is read, which `told` is told of.

        Raises:
            OSError: If it can't be read.
        """
        if files.size_of(path) < self.size and freshness.size_of(path) < self.size:
            return False
        found = self.checksum and checksums.of_file(path, self.size, told)
        return found is None or not checksums.contradicts(self.checksum, found)

    def is_kept(self, path: str, told: Callable[[int], object] = lambda count: None) -> bool:
        """The same; not, where it is gone or lies on blocks that the disk can't read."""
        try:
            return os.path.lexists(path) and self.is_at(path, told)
        except OSError:
            return False


def found(folder: str) -> dict[str, Left]:
    """The sizes of what a rank leaves beside its arrays, by name relative to its folder.

    Args:
        folder: The rank's folder.

    Ranks: independent.
    """
    log = os.path.join(folder, layout.LOG)
    told = {layout.LOG: Left(size)} if (size := files.size_of(log)) else {}
    for name in (layout.ARTIFACTS, layout.PLOTS):
        for file, entry in _below(folder, name):
            with suppress(OSError):  # gone by now
                told[file] = Left(entry.stat().st_size)
    return told


def _below(folder: str, name: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with suppress(OSError), os.scandir(os.path.join(folder, name)) as entries:
        for entry in sorted(entries, key=lambda entry: (entry.is_dir(), entry.name)):
            file = f"{name}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _below(folder, file)
            elif entry.is_file(follow_symlinks=False) and not layout.is_hidden(entry.name):
                yield file, entry


def of_root(run: str, *, mixed: bool) -> dict[str, Left]:
    """The sizes of the run's own files that a merge may read: its log, and JSON of rank 0.

    They go into the run's metadata, which people read: the others of hundreds are left out, and no
    other file is looked at.

    Args:
        run: The run's folder.
        mixed: Whether a merge has put other ranks' records into its log.

    Ranks: root only.
    """
    log = os.path.join(run, layout.LOG)
    told = {layout.LOG: Left(size, mixed=mixed)} if (size := files.size_of(log)) else {}
    seen = islice(_below(run, layout.ARTIFACTS), _MOST_LOOKED)
    for name, entry in islice((one for one in seen if may_be_joined(one[0])), _MOST_OF_ROOT):
        with suppress(OSError):  # gone by now
            status = entry.stat()
            told[name] = Left(status.st_size, mtime_ns=status.st_mtime_ns)
    return told


def may_be_joined(name: str) -> bool:
    """Whether a merge reads a file among the run's artifacts, if other ranks have the same.

    Args:
        name: The file, relative to the run's folder.

    Ranks: independent.
    """
    if not (name.startswith(f"{layout.ARTIFACTS}/") and folders.is_json(os.path.basename(name))):
        return False
    try:
        return bool(name.encode())
    except UnicodeEncodeError:  # the metadata can't have such a name
        return False


def first(sizes: Mapping[str, Left]) -> dict[str, Left]:
    """Those of which anything is noted: the log, then JSON, then others, as far as there is room.

    Ranks: independent.
    """
    names = sorted(sizes, key=lambda name: (name != layout.LOG, not folders.is_json(name)))
    return {name: sizes[name] for name in names[:_MOST_FILES]}


def takes_long(sizes: Mapping[str, Left]) -> bool:
    """Whether reading these files may take longer than a rank that is to end has.

    Ranks: independent.
    """
    return sum(left.size for left in sizes.values()) > _SLOW


def read(folder: str, sizes: Mapping[str, Left]) -> dict[str, Left]:
    """The same with checksums, in this order, as far as the cost is bounded.

    Ranks: independent.
    """
    told, room = dict(sizes), _MOST_BYTES
    for name, left in sizes.items():
        if left.size <= room:
            room -= left.size
            with suppress(OSError):  # gone by now: nobody is to miss it
                told[name] = left._replace(checksum=read_one(folder, name, left.size).checksum)
    return told


class Renewals:
    """What becomes of what is noted of files that their rank writes once it has closed the run.

    It is noted anew, as long as that costs little altogether. After that nothing is known of them.
    """

    def __init__(self) -> None:
        """Begin with all that they may cost."""
        self._times, self._room = _MOST_RENEWALS, _SLOW

    def put(self, left: dict[str, Left], folder: str, name: str, *, timed: bool = False) -> bool:
        """Note a file anew, or forget it.

        Args:
            left: What is noted, which is changed.
            folder: The rank's folder.
            name: The file, relative to that.
            timed: Whether to note when it was changed, too.

        Returns:
            Whether anything else is noted now.

        Ranks: independent.
        """
        before = left.pop(name, None)
        if self._times > 0 and len(left) < _MOST_FILES:
            self._times -= 1
            with suppress(OSError):  # gone by now: nobody is to miss it
                status = os.stat(os.path.join(folder, name))
                size = status.st_size
                if size <= self._room:
                    self._room -= size
                    left[name] = read_one(folder, name, size)
                else:
                    left[name] = Left(size)
                if timed:
                    left[name] = left[name]._replace(mtime_ns=status.st_mtime_ns)
        return left.get(name) != before


def read_one(folder: str, name: str, size: int | None = None) -> Left:
    """A file with its checksum.

    Args:
        folder: The rank's folder.
        name: The file, relative to that.
        size: Bytes from its beginning that count; all of it by default.

    Raises:
        OSError: If it can't be read.

    Ranks: independent.
    """
    path = os.path.join(folder, name)
    size = files.size_of(path) if size is None else size
    return Left(size, checksums.of_file(path, size))


def to_plain(noted: Mapping[str, Left]) -> dict[str, dict[str, Any]]:
    """The same as the rank's record has it.

    Example:
        >>> to_plain({"log.txt": Left(3), "artifacts/a.txt": Left(1, "xxh128:f")})
        {'log.txt': {'size': 3}, 'artifacts/a.txt': {'size': 1, 'checksum': 'xxh128:f'}}

    Ranks: independent.
    """
    return {
        name: {"size": left.size} | {k: v for k, v in left._asdict().items() if v}
        for name, left in noted.items()
    }


def from_record(record: Mapping[str, Any]) -> dict[str, Left]:
    """What a rank's record says of its files; nothing, where it never closed the run.

    Raises:
        ValueError: If it says something else.

    Example:
        >>> from_record({"files": {"log.txt": {"size": 3}}})["log.txt"].size
        3

    Ranks: independent.
    """
    told = record.get("files", {})
    if not isinstance(told, dict):
        raise ValueError(f"files is {told!r:.80}, not files by their names")
    return {name: _left(name, values) for name, values in told.items()}


def _left(name: str, values: Any) -> Left:
    size = values.get("size") if isinstance(values, dict) else None
    if type(size) is not int or size < 0 or ".." in name.split("/") or name.startswith("/"):
        raise ValueError(f"files has {values!r:.80} of {name!r:.80}, not its size")
    checksum, changed = values.get("checksum"), values.get("mtime_ns")
    return Left(
        size,
        None if checksum is None else str(checksum),
        changed if type(changed) is int else None,
        values.get("mixed") is True,
    )
