"""Which ranks left more than is there now, and which may have been about to write more."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from notata import files, folders, layout
from notata.assembly import Whole
from notata.mergerecord import MergeRecord
from notata.merging import record
from notata.merging.output import MISSING, NEVER, RANK_UNCLEAR, RUN_GOES_ON, Problem
from notata.merging.survey import ENDED, Survey
from notata.pieces import Identity
from notata.ranges import ranks_text


def doubts(
    found: Survey, wholes: Mapping[Identity, Whole], merged: MergeRecord
) -> Iterator[Problem]:
    """Say which ranks left less than they wrote, or may have wanted to write more.

    Args:
        found: What the ranks left.
        wholes: The arrays that their pieces make.
        merged: What an earlier merge made.

    Ranks: independent.
    """
    status = found.meta.get("status")
    if status not in ENDED:
        yield Problem(
            f"the run has not ended (status {status!r})",
            RUN_GOES_ON,
            hint="merge it when it has, or with --unfinished if it was killed",
        )
    yield from _missing(found, wholes)
    yield from _shorter(found, merged)
    yield from _unclear(found, wholes)


def _missing(found: Survey, wholes: Mapping[Identity, Whole]) -> Iterator[Problem]:
    """Ranks that wrote more than what is there: silent ranks are none of them."""
    promised = dict(found.counted or {})
    for rank in found.folders:
        if rank >= found.size:
            text = f"rank {rank} has a folder, but the run has {found.size} ranks"
            yield Problem(text, NEVER, (rank,))
        if (count := _told(found, rank, "pieces")) is not None:
            promised.setdefault(rank, count)
    lost = set()
    had = found.listed | found.seen
    for rank in sorted({*promised, *had}):
        count, there = promised.get(rank, 0), len(found.pieces.get(rank, []))
        if rank not in found.folders and (count or rank in had):
            what = f"{count} pieces" if count else "messages or files"
            yield Problem(f"rank {rank} wrote {what}, but its folder is missing", MISSING, (rank,))
        elif rank in found.pieces and there < count:
            yield Problem(
                f"rank {rank} wrote {count} pieces, but {there} are listed", MISSING, (rank,)
            )
        else:
            continue
        lost |= {rank} if count else set()
    for whole, having in _rows(wholes) if lost else ():
        # Where places tell nothing, a rank that lost pieces may have had some of any array.
        if not whole.problems and (ranks := sorted(lost - having)):
            text = f"what {ranks_text(ranks)} may have written of {whole.label!r} is missing"
            yield Problem(text, MISSING, tuple(ranks), whole.label)


def _rows(wholes: Mapping[Identity, Whole]) -> list[tuple[Whole, set[int]]]:
    """The arrays of rows that are joined one below the other, with the ranks that have some."""
    return [(w, {part.rank for part in w.parts}) for w in wholes.values() if w.join == "concat"]


def _told(found: Survey, rank: int, name: str) -> int | None:
    """A number that a rank put into its record when it closed the run."""
    told = found.records[rank].get(name)
    return told if type(told) is int else None


def _shorter(found: Survey, merged: MergeRecord) -> Iterator[Problem]:
    """Logs, JSON and records of which there was more when the run was closed."""
    for rank, folder in found.folders.items():
        if not found.records[rank] and rank in found.listed:
            path = os.path.join(folder, layout.RANK_RECORD)
            yield Problem(f"rank {rank}'s record is missing or damaged: {path}", MISSING, (rank,))
        for name in ("pieces", "log_bytes", "json_files"):
            told = found.records[rank].get(name)
            if told is not None and type(told) is not int:
                path = os.path.join(folder, layout.RANK_RECORD)
                text = f"{path} is damaged: {name} is {told!r:.80}, not a number"
                yield Problem(text, MISSING, (rank,))
        log = f"{layout.rank_dir(rank)}/{layout.LOG}"
        size = files.size_of(os.path.join(found.run, log))
        yield from _cut(found.run, log, rank, size, _told(found, rank, "log_bytes"))
        count = _told(found, rank, "json_files") or 0
        path = os.path.join(folder, layout.ARTIFACTS)  # it may be a link, which no survey follows
        if count and (there := folders.count_json(path)) < count:
            text = f"rank {rank} left {count} files of JSON, of which {there} are in {path}"
            yield Problem(text, MISSING, (rank,))
    told = found.meta["parallel"].get("log_bytes")
    if type(told) is int:
        # A run that was gone on with counts what was merged into its log before.
        before = MergeRecord() if found.meta.get("attempts") else merged
        yield from _cut(found.run, layout.LOG, 0, record.own_log_bytes(found.run, before), told)


def _cut(run: str, log: str, rank: int, size: int, told: int | None) -> Iterator[Problem]:
    if told is not None and size < told:
        path = os.path.join(run, log)
        gone = f"has {size} bytes of {told}" if files.size_of(path) else "is missing"
        yield Problem(f"rank {rank}'s log {gone}: {path}", MISSING, (rank,), layout.LOG)


def _unclear(found: Survey, wholes: Mapping[Identity, Whole]) -> Iterator[Problem]:
    """Ranks that may have been about to write more, as far as what they left can tell."""
    complete = found.meta.get("status") == "complete"
    rows = _rows(wholes)
    for rank, own in found.records.items():
        failed = f"rank {rank} failed ({own.get('failure_reason')})"
        if "pieces" not in own and rank not in (found.counted or ()):
            yield Problem(
                f"rank {rank} never closed the run: it was killed or is still writing",
                RANK_UNCLEAR,
                (rank,),
                hint="merge what it finished with --unfinished",
            )
        elif own.get("status") == "failed" and complete:
            yield Problem(
                f"{failed}, though the run says complete",
                RANK_UNCLEAR,
                (rank,),
                hint="merge what it finished with --unfinished",
            )
        elif own.get("status") == "failed":
            for whole, having in rows:
                if rank not in having:
                    yield Problem(
                        f"{failed} without a piece of {whole.label!r}",
                        RANK_UNCLEAR,
                        (rank,),
                        whole.label,
                        hint="join the others' with --unfinished",
                    )
    # Geometry tells whether a placed piece is missing. Rows that are joined one below the other
    # make a whole without it too.
    absent = [rank for rank in range(found.size) if rank not in found.folders]
    if found.counted is None and rows and absent:
        together = found.meta["parallel"].get("communicator")
        why = "as not all ranks closed the run," if together else "without a communicator"
        yield Problem(
            f"{ranks_text(absent)} left nothing, and {why} nobody counted their pieces of "
            f"{', '.join(repr(whole.label) for whole, _ in rows)}",
            RANK_UNCLEAR,
            tuple(absent),
            hint="pass --unfinished if they were silent",
        )
