"""Is everything still as the last merge left it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from notata import checksums, files, freshness, layout, mergerecord
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
    total = sum(one.size for some in (made, there, others) for one in some.values())
    damaged = [*_pending(record), *outputs(run, made, lambda count: progress(count, total))]
    checked, done = len(made), sum(stamp.size for stamp in made.values())
    changed: list[str] = []
    for name, stamp in sorted(there.items()):
        if wrong := _compare(run, name, stamp):
            changed.append(f"{name} {wrong}")
        done += stamp.size
        progress(done, total)
    for file, left in sorted(others.items()):
        if not left.is_kept(os.path.join(run, file)):
            changed.append(unlike.text_of(run, file))
        done += left.size
        progress(done, total)
    checked += len(there) + len(others)
    count = len(damaged) + len(changed)
    note = f"{count} of {checked} files differ" if count else f"{checked} files are as merged"
    return Verdict(run, checked, tuple(damaged), tuple(changed), note)


def outputs(
    run: str, made: Mapping[str, Stamp], progress: Callable[[int], None] = lambda count: None
) -> list[str]:
    """Read files, and say which are not as they were.

    Args:
        run: Folder of the run.
        made: What the files were like.
        progress: Told of the number of bytes that were read.

    Ranks: independent.
    """
    damaged, done = [], 0
    for name, stamp in made.items():
        if wrong := _compare(run, name, stamp):
            damaged.append(f"{name} {wrong}")
        done += stamp.size
        progress(done)
    return damaged


def _made(record: MergeRecord) -> dict[str, Stamp]:
    made = {file: made.itself for file, made in sorted(record.outputs.items())}
    return made | ({} if record.archive is None else {layout.ARCHIVE: record.archive})


def _pending(record: MergeRecord) -> Iterator[str]:
    for file in sorted(record.pending):
        yield f"{file} was being made when a merge was cut off: merge the run again"


def _compare(run: str, name: str, stamp: Stamp) -> str:
    path = os.path.join(run, name)
    try:
        size = os.stat(path).st_size
        if size != stamp.size:
            return f"has {size} bytes, and had {stamp.size}"
        return "" if checksums.of_file(path) == stamp.checksum else "does not hold what it held"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"can't be read: {error.strerror}"
