"""Files that are not as their rank left them, by what it noted of them when it closed the run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set

from notata import folders, layout, mergerecord
from notata.asleft import Left
from notata.mergerecord import MergeRecord
from notata.merging.faults import WAY_OUT, Damage
from notata.merging.output import MISSING, Problem
from notata.merging.survey import Survey
from notata.ranges import compact

Noted = Mapping[str, Left]  # by path relative to the run


def text_of(run: str, file: str) -> str:
    """What is said of a file that holds something else than its rank left.

    Ranks: independent.
    """
    rank, name = key_of(file)
    return f"rank {rank}'s {name} is not as that rank left it: {os.path.join(run, file)}"


def is_known(file: str, merged: MergeRecord) -> bool:
    """Whether the last merge has named it as a hole, or left it out of what it joined.

    Ranks: independent.
    """
    rank, name = key_of(file)
    told = {(hole.get("name"), hole.get("ranks")) for hole in merged.holes}
    left = {file for made in merged.outputs.values() for file in made.left}
    return (name, compact([rank])) in told or file in left


def key_of(file: str) -> tuple[int, str]:
    """Whose a file is, and its name there, by which damage is noted; the run's own are rank 0's.

    Ranks: independent.
    """
    return layout.inside_rank(file) or (0, file)


def problems(found: Survey, joined: Set[str], damage: Damage) -> Iterator[Problem]:
    """Say which files are missing, shorter than they were, or known to hold something else.

    Args:
        found: What the ranks left.
        joined: The files that are looked into by whoever joins them.
        damage: What is known of files that have been read.

    Ranks: independent.
    """
    of_others = {place[1] for file in found.files if (place := layout.inside_rank(file))}
    for file, left in found.left.items():
        rank, name = key_of(file)
        if layout.inside_rank(file) is None and name not in of_others:
            continue  # the run's own, of which nothing is made
        is_log = name == layout.LOG
        if told := damage.get((rank, name)):
            yield Problem(told, MISSING, (rank,), name, hint=WAY_OUT)
        elif not (is_log or file in joined) and (why := _gone(found, file, left)):
            path = os.path.join(found.run, file)
            yield Problem(f"rank {rank}'s {name} {why}: {path}", MISSING, (rank,), name)


def unread(found: Survey, joined: Set[str], damage: Damage) -> dict[str, Left]:
    """The files that nothing joins and that have to be read to know what they hold.

    Ranks: independent.
    """
    return {
        file: left
        for file, left in found.left.items()
        if file not in joined
        and layout.inside_rank(file) is not None
        and left.checksum is not None
        and key_of(file)[1] != layout.LOG
        and key_of(file) not in damage
        and _size(found, file) >= left.size
    }


def logs(found: Survey, damage: Damage) -> dict[str, Left]:
    """What is noted of logs, but for those that are known to be damaged, or that were cut.

    Ranks: independent.
    """
    return {
        file: left
        for file, left in found.left.items()
        if key_of(file)[1] == layout.LOG
        and key_of(file) not in damage
        and _size(found, file) >= left.size
    }


def _size(found: Survey, file: str) -> int:
    """Bytes of a file, -1 where there is none."""
    # It may lie behind a link, which no survey follows.
    now = found.files.get(file) or mergerecord.fingerprint(os.path.join(found.run, file))
    return -1 if now is None else now[0]


def _gone(found: Survey, file: str, left: Left) -> str:
    size = _size(found, file)
    if size >= left.size:
        return ""
    if size >= 0:
        return f"has {size} bytes of {left.size}"
    return "" if _is_counted(found, file) else "is missing"


def _is_counted(found: Survey, file: str) -> bool:
    """Whether it is one of the JSON files of which there are fewer now, which is told already."""
    rank, name = key_of(file)
    if rank == 0 or not (
        name.startswith(f"{layout.ARTIFACTS}/") and folders.is_json(os.path.basename(name))
    ):
        return False
    told = found.records[rank].get("json_files")
    there = folders.count_json(os.path.join(found.folders[rank], layout.ARTIFACTS))
    return type(told) is int and there < told
