"""What the ranks of a run left, and which of them may have wanted to leave more."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from notata import asleft, checksums, freshness, gather, layout, manifests
from notata.asleft import Left
from notata.errors import DamagedError
from notata.mergerecord import Fingerprint, Fingerprints
from notata.merging.output import MISSING, Problem
from notata.pieces import Piece
from notata.ranges import expand
from notata.sealed import is_broken
from notata.stored import read_json

_CHANGED = "if it was changed on purpose, take its checksum out"
ENDED = ("complete", "failed")


class Survey(NamedTuple):
    """What lies in the ranks' folders.

    Attributes:
        run: Folder of the run.
        meta: Its metadata.
        size: Number of its ranks.
        counted: How many pieces each rank wrote, where the ranks told one another.
        folders: The folders of ranks.
        files: Every file below them.
        pieces: What the manifests list.
        records: What the ranks noted of themselves, empty where that can't be read any more.
        listed: The ranks that had a folder when they closed the run, where they told one another.
        seen: The ranks that had one when rank 0 closed it, where nobody told of others.
        left: What ranks noted of their other files when they closed the run, by path.
        sound: The records that are as they were written.
        problems: What is wrong with manifests and with what was noted.
    """

    run: str
    meta: Mapping[str, Any]
    size: int
    counted: Mapping[int, int] | None
    folders: Mapping[int, str]
    files: Fingerprints
    pieces: Mapping[int, list[Piece]]
    records: Mapping[int, Mapping[str, Any]]
    listed: frozenset[int]
    seen: frozenset[int]
    left: Mapping[str, Left]
    sound: Mapping[int, Mapping[str, Any]]
    problems: tuple[Problem, ...]


def walk(run: str) -> Fingerprints:
    """Every file of the ranks, by its path relative to the run.

    Raises:
        OSError: If a folder can't be read.

    Ranks: independent.
    """
    return dict(_below(run, layout.RANKS))


def _below(run: str, folder: str) -> Iterator[tuple[str, Fingerprint]]:
    try:
        with os.scandir(os.path.join(run, folder)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        name = f"{folder}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _below(run, name)
            continue
        try:
            status = entry.stat()
        except FileNotFoundError:  # a link to nowhere, or gone by now
            continue
        if stat.S_ISDIR(status.st_mode):
            continue  # a link to a folder
        yield name, (status.st_size, status.st_mtime_ns)


def digest(meta: Mapping[str, Any], files: Fingerprints) -> str:
    """What changes with any file of the ranks, and with what the metadata says of them.

    Ranks: independent.
    """
    hashed = checksums.hasher()
    parallel = meta.get("parallel") or {}
    names = ("size", "pieces", "clocks", "earlier", "log_bytes", "files", "folders", "folders_seen")
    told = [parallel.get(name) for name in names]
    hashed.update(repr((meta.get("status"), *told)).encode())
    for name, (size, changed) in files.items():
        hashed.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
    return checksums.text_of(hashed)


class Seen(NamedTuple):
    """What changes where a run goes on.

    Attributes:
        log: Which file the run's log is, and its bytes; None where there is none.
        attempt: The number of the newest attempt.
        opening: What its metadata say of when it was opened, and how it ended.
    """

    log: tuple[int, int] | None
    attempt: int
    opening: tuple[object, ...]


def look(run: str, meta: Mapping[str, Any]) -> Seen:
    """What tells, if it is another one later, that the run has gone on meanwhile.

    Args:
        run: Folder of the run.
        meta: Its metadata, as they are now.

    Raises:
        OSError: If the folder or the log can't be read.

    Ranks: independent.
    """
    log = None
    with suppress(FileNotFoundError), open(os.path.join(run, layout.LOG), "rb") as file:
        status = os.fstat(file.fileno())  # of a file just opened: NFS may have older news else
        log = status.st_ino, status.st_size
    newest = max((layout.attempt_of(name) or 1 for name in os.listdir(run)), default=1)
    told = meta.get("attempts")
    opening = (meta.get("opening"), len(told) if isinstance(told, list) else 0, meta.get("status"))
    return Seen(log, newest, opening)


def check_alone(run: str, meta: Mapping[str, Any]) -> None:
    """Make sure that a run of one rank is none of several of which the metadata says so no more.

    Raises:
        DamagedError: If it is.

    Ranks: independent.
    """
    parallel = meta.get("parallel")
    path = os.path.join(run, layout.METADATA)
    if isinstance(parallel, dict) and is_broken(parallel):
        raise DamagedError(f"{path} is damaged: parallel is not as it was written: {_CHANGED}")
    folders = gather.rank_folders(run).values() if parallel is None else ()
    if any(freshness.exists(f"{folder}/{layout.RANK_RECORD}") for folder in folders):
        raise DamagedError(f"{path} is damaged: it says nothing of ranks, and there were several")


def survey(run: str, meta: Mapping[str, Any], size: int, files: Fingerprints) -> Survey:
    """Read what the ranks left, but for the pieces themselves.

    Args:
        run: Folder of the run.
        meta: Its metadata.
        size: Number of its ranks.
        files: What `walk` found.

    Raises:
        DamagedError: If the metadata does not say what it says of a run of several ranks.

    Ranks: independent.
    """
    folders = gather.rank_folders(run)
    pieces: dict[int, list[Piece]] = {}
    problems: list[Problem] = []
    for rank, folder in folders.items():
        try:
            pieces[rank] = manifests.read(folder)
        except DamagedError as error:
            problems.append(Problem(str(error), MISSING, (rank,)))
    records = {
        rank: read_json(os.path.join(folder, layout.RANK_RECORD)) or {}
        for rank, folder in folders.items()
    }
    counted, listed = _counted(run, meta), _listed(run, meta, "folders")
    seen = _listed(run, meta, "folders_seen")
    left: dict[str, Left] = {}
    broken: set[int] = set()
    for rank, record in records.items():
        try:
            _refuse_broken(record, "it is")
            left |= left_of(rank, record)
        except ValueError as error:
            path = os.path.join(folders[rank], layout.RANK_RECORD)
            told = f"{path} is damaged: {error}"
            problems.append(Problem(told, MISSING, (rank,), hint=_CHANGED))
            broken.add(rank)
    try:
        _refuse_broken(meta["parallel"], "parallel is")
        left |= asleft.from_record(meta["parallel"])
    except ValueError as error:
        path = os.path.join(run, layout.METADATA)
        problems.append(Problem(f"{path} is damaged: {error}", MISSING, (0,), hint=_CHANGED))
    facts = (counted, folders, files, pieces, records, listed, seen, left)
    sound = {rank: record for rank, record in records.items() if rank not in broken}
    return Survey(run, meta, size, *facts, sound, tuple(problems))


def all_left(run: str) -> dict[str, Left]:
    """What ranks noted of their files, as far as their records can be read.

    Ranks: independent.
    """
    left: dict[str, Left] = {}
    for rank, folder in gather.rank_folders(run).items():
        with suppress(ValueError):  # a merge says that it is damaged
            left |= left_of(rank, read_json(os.path.join(folder, layout.RANK_RECORD)) or {})
    return left


def left_of(rank: int, record: Mapping[str, Any]) -> dict[str, Left]:
    """What a rank noted of its files when it closed the run, by path relative to the run.

    Raises:
        ValueError: If its record says something else.

    Ranks: independent.
    """
    own = asleft.from_record(record).items()
    return {f"{layout.rank_dir(rank)}/{name}": left for name, left in own}


def _refuse_broken(values: Mapping[str, Any], what: str) -> None:
    if is_broken(values):
        raise ValueError(f"{what} not as it was written, by its own checksum")


def _counted(run: str, meta: Mapping[str, Any]) -> dict[int, int] | None:
    """How many pieces each rank wrote, as the ranks told one another when they closed the run.

    None without a communicator, or where the run was not closed by all of them.
    """
    told = meta["parallel"].get("pieces")
    if told is None:
        return None
    try:
        return {rank: int(count) for count, ranks in told.items() for rank in expand(ranks)}
    except (AttributeError, ValueError):
        raise DamagedError(
            f"{os.path.join(run, layout.METADATA)} is damaged: parallel.pieces is {told!r:.80}, "
            "not ranks by the number of their pieces"
        ) from None


def _listed(run: str, meta: Mapping[str, Any], name: str) -> frozenset[int]:
    """Ranks that the metadata list; none where they don't."""
    told = meta["parallel"].get(name)
    try:
        return frozenset(expand(told or ""))
    except (AttributeError, TypeError, ValueError):
        raise DamagedError(
            f"{os.path.join(run, layout.METADATA)} is damaged: parallel.{name} is {told!r:.80}, "
            "not ranks"
        ) from None
