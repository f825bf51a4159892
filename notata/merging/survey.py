"""What the ranks of a run left, and which of them may have wanted to leave more."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from notata import checksums, gather, layout
from notata.assembly import Whole
from notata.errors import DamagedError
from notata.mergerecord import Fingerprint, Fingerprints
from notata.merging.output import MISSING, NEVER, RANK_UNCLEAR, RUN_GOES_ON, Problem
from notata.pieces import Identity, Piece
from notata.ranges import expand, ranks_text
from notata.stored import read_json

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
        records: What the ranks noted of themselves.
        problems: What is wrong with manifests.
    """

    run: str
    meta: Mapping[str, Any]
    size: int
    counted: Mapping[int, int] | None
    folders: Mapping[int, str]
    files: Fingerprints
    pieces: Mapping[int, list[Piece]]
    records: Mapping[int, Mapping[str, Any]]
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
    told = [parallel.get(name) for name in ("size", "pieces", "clocks")]
    hashed.update(repr((meta.get("status"), *told)).encode())
    for name, (size, changed) in files.items():
        hashed.update(f"{name}\0{size}\0{changed}\n".encode("utf-8", "surrogateescape"))
    return checksums.text_of(hashed)


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
            pieces[rank] = gather.read_manifest(folder)
        except DamagedError as error:
            problems.append(Problem(str(error), MISSING, (rank,)))
    records = {
        rank: read_json(os.path.join(folder, layout.RANK_RECORD)) or {}
        for rank, folder in folders.items()
    }
    counted = _counted(run, meta)
    return Survey(run, meta, size, counted, folders, files, pieces, records, tuple(problems))


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


def doubts(found: Survey, wholes: Mapping[Identity, Whole]) -> Iterator[Problem]:
    """Say which ranks left less than they wrote, or may have wanted to write more.

    Ranks: independent.
    """
    status = found.meta.get("status")
    if status not in ENDED:
        yield Problem(
            f"the run has not ended (status {status!r})",
            RUN_GOES_ON,
            hint="merge it when it has, or with --unfinished if it was killed",
        )
    yield from _missing(found)
    yield from _unclear(found, wholes)


def _missing(found: Survey) -> Iterator[Problem]:
    """Ranks that wrote more than what is there: silent ranks are none of them."""
    promised = dict(found.counted or {})
    for rank, folder in found.folders.items():
        if rank >= found.size:
            text = f"rank {rank} has a folder, but the run has {found.size} ranks"
            yield Problem(text, NEVER, (rank,))
        count = found.records[rank].get("pieces")
        if type(count) is int:
            promised.setdefault(rank, count)
        elif count is not None:
            path = os.path.join(folder, layout.RANK_RECORD)
            text = f"{path} is damaged: pieces is {count!r:.80}, not a number"
            yield Problem(text, MISSING, (rank,))
    for rank, count in sorted(promised.items()):
        there = len(found.pieces.get(rank, []))
        if there < count and (rank in found.pieces or rank not in found.folders):
            gone = "its folder is missing" if rank not in found.folders else f"{there} are listed"
            yield Problem(f"rank {rank} wrote {count} pieces, but {gone}", MISSING, (rank,))


def _unclear(found: Survey, wholes: Mapping[Identity, Whole]) -> Iterator[Problem]:
    """Ranks that may have been about to write more, as far as what they left can tell."""
    complete = found.meta.get("status") == "complete"
    for rank, record in found.records.items():
        failed = f"rank {rank} failed ({record.get('failure_reason')})"
        if "pieces" not in record and rank not in (found.counted or ()):
            yield Problem(
                f"rank {rank} never closed the run: it was killed or is still writing",
                RANK_UNCLEAR,
                (rank,),
                hint="merge what it finished with --unfinished",
            )
        elif record.get("status") == "failed" and complete:
            yield Problem(
                f"{failed}, though the run says complete",
                RANK_UNCLEAR,
                (rank,),
                hint="merge what it finished with --unfinished",
            )
        elif record.get("status") == "failed":
            for whole in wholes.values():
                if whole.join == "concat" and rank not in {part.rank for part in whole.parts}:
                    yield Problem(
                        f"{failed} without a piece of {whole.label!r}",
                        RANK_UNCLEAR,
                        (rank,),
                        whole.label,
                        hint="join the others' with --unfinished",
                    )
    # Geometry tells whether a placed piece is missing. Rows that are joined one below the other
    # make a whole without it too.
    rows = [whole.label for whole in wholes.values() if whole.join == "concat"]
    absent = [rank for rank in range(found.size) if rank not in found.folders]
    if found.counted is None and rows and absent:
        together = found.meta["parallel"].get("communicator")
        why = "as not all ranks closed the run," if together else "without a communicator"
        yield Problem(
            f"{ranks_text(absent)} left nothing, and {why} nobody counted their pieces of "
            f"{rows[0]!r}",
            RANK_UNCLEAR,
            tuple(absent),
            hint="pass --unfinished if they were silent",
        )
