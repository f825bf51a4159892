"""What a rank says of a run in the place of rank 0, which alone writes the metadata else."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from notata import exits, files, folders, freshness, layout, lifecycle, writers
from notata.agreement import Record
from notata.disk import Disk
from notata.history import mirrored
from notata.messages import stamp_seconds
from notata.rankfolder import RankFolder, belongs_to, has_opened
from notata.stored import read_json
from notata.topology import process_start

_ENDED = (lifecycle.COMPLETE, lifecycle.FAILED)


def speak_for_root(path: str, reason: str, elapsed: float, disk: Disk | None = None) -> bool:
    """Write down that a run failed, in the place of rank 0, which is gone or does not answer.

    Rank 0 alone writes the metadata, as long as it answers. A rank that failed, and waited for it
    in vain, is about to end the job, rank 0 with it. Of several such ranks one writes, the first.
    Should rank 0 be alive after all, it will find that the file is another one than it left, and
    keep this outcome.

    Args:
        path: The run's folder.
        reason: Why it failed.
        elapsed: Seconds since the run was opened.
        disk: The disk; by default as it is used where nobody chose a durability.

    Returns:
        Whether this rank wrote it; if not, it stands there already.

    Raises:
        OSError: If it can't be written.

    Ranks: independent; of a run whose rank 0 does not answer.
    """
    return _speak(path, _has_not_ended, reason, elapsed, disk or Disk())


def collects(folder: RankFolder) -> bool:
    """Whether this rank, of all that are stuck, is the one that looks where the others stand.

    That is the first that asks, in each attempt at a run. If each of thousands looked, they would
    ask the disk for millions of files at once.

    Ranks: independent.
    """
    if not folder.topology.parallel:
        return True
    try:
        files.create(_claim_to_collect(folder), b"")
    except OSError:  # there already, most of the time
        return False
    return True


def has_collected(folder: RankFolder) -> None:
    """Take away what says that this rank looks, as the job is ended next.

    Ranks: independent.
    """
    with suppress(OSError):
        os.unlink(_claim_to_collect(folder))


def _claim_to_collect(folder: RankFolder) -> str:
    return os.path.join(folder.run, f"{layout.STUCK}{folder.attempt.number}")


_SPEAKING_SECONDS = 2.0  # how long a rank lets another one speak


def _has_not_ended(metadata: dict[str, Any]) -> bool:
    return metadata.get("status") not in _ENDED


def _speak(
    path: str,
    may: Callable[[dict[str, Any]], bool],
    reason: str,
    elapsed: float,
    disk: Disk,
) -> bool:
    """Write that a run failed if its metadata are there, and such that one may; one at a time."""
    claim, file = os.path.join(path, layout.SPEAKER), os.path.join(path, layout.METADATA)
    deadline = time.monotonic() + _SPEAKING_SECONDS
    while (values := read_json(file)) is not None and may(values):
        try:
            files.create(claim, b"")
        except FileExistsError:
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue  # another rank is at it; if it died over it, it keeps nobody from it
        said = False
        try:
            if (values := read_json(file)) is not None and may(values):
                end = lifecycle.outcome_fields(lifecycle.FAILED, reason, elapsed)
                disk.replace(file, writers.json_bytes(mirrored(values | end), "meta"))
                said = True
        finally:
            with suppress(FileNotFoundError):
                os.unlink(claim)
        if said:
            disk.settle(file)  # last: a launcher may kill this rank over it
            return True
    return False


def note_failure(folder: RankFolder, reason: str, elapsed: float) -> None:
    """Have it known that a rank failed, where no communicator tells rank 0.

    Rank 0 looks for the note once it has written that the run is complete. If it had looked before
    there was one, its word is there to be seen now, and is put right here.

    Args:
        folder: The rank's folder, whose record says that it failed.
        reason: Why.
        elapsed: Seconds since the rank opened the run.

    Raises:
        OSError: If it can't be written.

    Ranks: independent; rank 0 has said so already.
    """
    place, run = folder.topology, folder.run
    if place.is_root or folder.attempt.outdated:
        return
    note, told = os.path.join(run, layout.RANK_FAILED), lifecycle.blamed(place.rank, reason)
    record = {name: value for name, value in folder.record.items() if name != "files"}
    record |= {"failure_reason": told, "opening": folder.opening, "at": time.time()}
    data = json.dumps(record, indent=2, sort_keys=True).encode()
    try:
        folder.disk.create(note, data)
    except FileExistsError:
        if failure_noted(folder) is None:  # it is of an opening before
            folder.disk.replace(note, data)

    def says_complete(metadata: dict[str, Any]) -> bool:
        ours = belongs_to(place, metadata) != "another"
        return ours and metadata.get("status") == lifecycle.COMPLETE

    _speak(run, says_complete, told, elapsed, folder.disk)


def failure_noted(folder: RankFolder) -> str | None:
    """Why a rank failed in this launch and opening of the run, if one noted that.

    Ranks: independent.
    """
    note = os.path.join(folder.run, layout.RANK_FAILED)
    # Not what this node remembers: rank 0 has looked before.
    record = read_json(note) if freshness.is_there(note) else None
    if record is None or record.get("opening") != folder.opening:
        return None
    if belongs_to(folder.topology, record) == "another":
        return None
    return str(record.get("failure_reason"))


def forget(folder: RankFolder) -> None:
    """Take away what a rank noted of a run that is begun anew or gone on with.

    A rank of this launch may have been sooner than rank 0: what it noted stays, as far as it can be
    told from what is older.

    Ranks: root only.
    """
    note = os.path.join(folder.run, layout.RANK_FAILED)
    record = read_json(note)
    if record is None:
        return
    kinship = belongs_to(folder.topology, record)
    began = record.get("at")
    later = isinstance(began, float) and began > process_start()
    if record.get("opening") == folder.opening and (
        kinship == "ours" or (kinship == "unknown" and later)
    ):
        return
    with suppress(FileNotFoundError):
        os.unlink(note)


_ROOTLESS = "rootless"  # the step at the program's end that tells of them
_MANY = 10  # runs that it looks at
_rootless: dict[str, RankFolder] = {}  # that rank 0 had not opened when this rank closed them
_told: set[int] = set()  # processes that have told
_MOST_BESIDE = 200  # runs that are looked at for one that rank 0 alone has opened
_LATE = 60.0  # seconds that rank 0 opens a run after others at most


def miss_root(folder: RankFolder) -> None:
    """Have it said at the program's end that rank 0 has not opened a run, if it hasn't by then.

    Ranks of a short run often end before rank 0 begins. So it is said of a run that was opened so
    long ago that rank 0's would be of another launch, or if rank 0 has opened another one.

    Args:
        folder: The rank's folder, in which it wrote.

    Ranks: independent; without a communicator.
    """
    if os.getpid() in _told:
        return
    if len(_rootless) < _MANY:
        _rootless[folder.run] = folder
    exits.add(_ROOTLESS, _tell_rootless, last=True)
    children = sys.modules.get("multiprocessing.process")
    if children is not None and children.parent_process() is not None:
        _tell_rootless()  # a worker comes to no such end


def _tell_rootless() -> None:
    runs = [one for one in _rootless.values() if _lacks_root(one)]
    if not runs or not (_is_late(runs[0]) or _root_is_elsewhere(runs[0])):
        return
    _told.add(os.getpid())
    exits.remove(_ROOTLESS)
    rank, run = runs[0].topology.rank, runs[0].run
    more = f", nor {len(runs) - 1} more" if len(runs) > 1 else ""
    told = (
        f"notata: rank {rank}: rank 0 has not opened {run}{more}, without which no tool reads what "
        f"this rank wrote there ({runs[0].topology.source} says that it is one of "
        f"{runs[0].topology.size}). Give all ranks of a run the same id, or comm=None to each "
        "process that has a run of its own"
    )
    with suppress(Exception):
        print(told, file=sys.stderr, flush=True)


def _lacks_root(folder: RankFolder) -> bool:
    return folders.is_dir(folder.path) and not folder.root_has_begun()


def _root_is_elsewhere(folder: RankFolder) -> bool:
    """Whether rank 0 has opened a run beside this one which this rank has not.

    All ranks of a program that means one run open the same ones.
    """
    beside, place = os.path.dirname(folder.run), folder.topology
    for name in folders.listed(beside)[:_MOST_BESIDE]:
        run = os.path.join(beside, name)
        if not name.startswith(layout.RUN_PREFIX) or has_opened(run, place.rank):
            continue
        metadata = read_json(os.path.join(run, layout.METADATA))
        if metadata is not None and belongs_to(place, metadata) == "ours":
            return True
    return False


def _is_late(folder: RankFolder) -> bool:
    return time.time() - stamp_seconds(str(folder.record["start_time"])) > _LATE


def heeded(mine: Record, folder: RankFolder, metadata: lifecycle.Metadata, said: bool) -> Record:
    """Rank 0's verdict, unless one who can't tell it has written down that the run failed.

    That is a rank without a communicator, or a forked child of this process.

    Args:
        mine: Rank 0's verdict.
        folder: Its folder.
        metadata: The run's metadata.
        said: Whether the program gave the verdict itself, which counts for more than its child's.

    Ranks: root only.
    """
    reason = failure_noted(folder) if folder.topology.parallel else None
    there = metadata.heed()
    if reason is None and there.get("status") == lifecycle.FAILED and not said:
        reason = str(there.get("failure_reason"))
    if reason is None or mine["status"] == lifecycle.FAILED:
        return mine
    return mine | {"status": lifecycle.FAILED, "reason": reason}
