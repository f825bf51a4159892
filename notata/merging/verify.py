"""Is everything still as the last merge left it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from notata import checksums, files, freshness, layout, mergerecord
from notata.asleft import Left
from notata.errors import MergeError
from notata.mergerecord import MergeRecord, Stamp
from notata.merging import survey, unlike
from notata.runreader import LogReader


class Verdict(NamedTuple):
    """What was found.

    Attributes:
        run: Folder of the run.
        checked: How many files were read and compared.
        damaged: What the merge made and is not as it was, a sentence each.
        changed: What ranks left and is not what was merged, a sentence each.
        note: The same in a sentence.
    """

    run: str
    checked: int
    damaged: tuple[str, ...]
    changed: tuple[str, ...]
    note: str


def verify(
    path: str | os.PathLike[str], *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Verdict:
    """Compare what a merge made, and the ranks' files that are there, with its record.

    Args:
        path: Folder of the run.
        progress: Told of the bytes that are done, of how many.

    Returns:
        What is not as it was. A run of one rank, or that was never merged, has nothing to compare.

    Raises:
        MergeError: If there is a record, and it can't be read.
        RunNotFoundError: If there is no such folder.
        NotARunError: If no run was written there.

    Ranks: independent; one process is enough.
    """
    run = os.fspath(path)
    size = LogReader(run).size
    if size == 1:
        return Verdict(run, 0, (), (), "one rank: nothing to verify")
    if files.read_bytes(os.path.join(run, layout.MERGE_RECORD)) is None:
        return Verdict(run, 0, (), ("it was never merged",), "it was never merged")
    record = mergerecord.read(run)
    if not record.files:
        text = f"{os.path.join(run, layout.MERGE_RECORD)} is damaged, or of another version"
        raise MergeError(f"{text}: merge the run again", [text])
    inputs = {name: s for made in record.outputs.values() for name, s in made.inputs.items()}
    there = {name: s for name, s in inputs.items() if freshness.exists(os.path.join(run, name))}
    made = _made(record)
    others = {
        file: left
        for file, left in survey.all_left(run).items()
        if file not in inputs and not unlike.is_known(file, record)
    }
    counter = Counter(progress, sum(size_of(some) for some in (made, there, others)))
    damaged = [*_pending(record), *unlike_record(run, made, counter)]
    changed = unlike_record(run, dict(sorted(there.items())), counter)
    for file, left in sorted(others.items()):
        if not left.is_kept(os.path.join(run, file), counter.read):
            changed.append(unlike.text_of(run, file))
        counter.passed(left.size)
    checked = len(made) + len(there) + len(others)
    count = len(damaged) + len(changed)
    note = f"{count} of {checked} files differ" if count else f"{checked} files are as merged"
    return Verdict(run, checked, tuple(damaged), tuple(changed), note)


class Counter:
    """Counts bytes, within files too, so that a large one is seen to get on.

    Args:
        progress: Told of the bytes that are done, of how many.
        total: How many there are.
    """

    def __init__(self, progress: Callable[[int, int], None], total: int) -> None:
        self._progress, self._total = progress, total
        self._done = self._within = 0
        progress(0, total)

    def read(self, count: int) -> None:
        """Some bytes of a file were read."""
        self._within += count
        self._progress(min(self._done + self._within, self._total), self._total)

    def passed(self, size: int) -> None:
        """So many bytes are done, whatever was read of them."""
        self._done, self._within = self._done + size, 0
        self._progress(min(self._done, self._total), self._total)


def size_of(some: Mapping[str, Stamp] | Mapping[str, Left]) -> int:
    """Bytes of files as they were.

    Ranks: independent.
    """
    return sum(one.size for one in some.values())


def unlike_record(run: str, made: Mapping[str, Stamp], counter: Counter) -> list[str]:
    """Read files, and say which are not as they were.

    Args:
        run: Folder of the run.
        made: What the files were like.
        counter: Told of the bytes that were read.

    Ranks: independent.
    """
    damaged = []
    for name, stamp in made.items():
        if wrong := _compare(run, name, stamp, counter):
            damaged.append(f"{name} {wrong}")
        counter.passed(stamp.size)
    return damaged


def _made(record: MergeRecord) -> dict[str, Stamp]:
    made = {file: made.itself for file, made in sorted(record.outputs.items())}
    return made | ({} if record.archive is None else {layout.ARCHIVE: record.archive})


def _pending(record: MergeRecord) -> Iterator[str]:
    for file in sorted(record.pending):
        yield f"{file} was being made when a merge was cut off: merge the run again"


def _compare(run: str, name: str, stamp: Stamp, counter: Counter) -> str:
    path = os.path.join(run, name)
    try:
        size = os.stat(path).st_size
        if size != stamp.size and (size := freshness.size_of(path)) != stamp.size:
            return f"has {size} bytes, and had {stamp.size}"
        found = checksums.of_file(path, told=counter.read)
        return "" if found == stamp.checksum else "does not hold what it held"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"can't be read: {error.strerror}"
