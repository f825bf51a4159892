"""What a cluster does to files: tried, with a verdict and a remedy for each thing.

Everything happens in temporary folders inside the one that is examined, which are removed
whatever happens; it is a few hundred small operations.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

from notata.doctor.findings import Check
from notata.errors import RunNotFoundError

__all__ = ["Check", "Examination", "examine"]


class Examination(NamedTuple):
    """What was found by a rank.

    Attributes:
        rank: The rank of this process; rank 0 has all findings.
        checks: The findings.
    """

    rank: int
    checks: list[Check]


def examine(folder: str | os.PathLike[str]) -> Examination:
    """Examine a folder's file system, this process's launch, and what nodes see of each other.

    Args:
        folder: A folder that exists; runs would be written below it.

    Raises:
        RunNotFoundError: If there is no such folder.

    Example:
        >>> [check.name for check in examine(".").checks][:2]
        ['file system', 'space']

    Ranks: collective by files; nobody waits without a bound.
    """
    from notata.doctor import launch, nodes

    folder = os.path.abspath(folder)
    found = launch.find()
    if not os.path.isdir(folder):
        raise RunNotFoundError(f"no such folder: {folder}")
    between: list[Check] = []
    if os.access(folder, os.W_OK | os.X_OK):
        between = nodes.examine(folder, found)
    if found.rank != 0:
        return Examination(found.rank, [])
    held = any(check[:2] == ("locks between nodes", "ok") for check in between)
    here = _file_system(folder, held=held)
    return Examination(0, [*here, *between, *found.checks, *_software()])


def _file_system(folder: str, *, held: bool) -> list[Check]:
    from notata.doctor import filesystem, locks
    from notata.layout import temporary
    from notata.mounts import mount_of

    checks = [filesystem.kind(folder, held=held)]
    own = os.path.join(folder, temporary())
    try:
        os.mkdir(own)
    except OSError as error:
        advice = "Choose a folder that you may write to, such as one on the cluster's scratch"
        told = f"can't write to {folder}: {error.strerror}"
        return [*checks, Check("writing", "bad", told, advice)]
    try:
        remedy = filesystem.lock_remedy(mount_of(folder))
        for what, call in (
            ("space", filesystem.space),
            ("rename", filesystem.rename),
            ("costs", filesystem.costs),
            ("clock", filesystem.clock),
        ):
            checks.append(_tried(what, call, own))
        return [*checks, *locks.on_this_node(own, remedy)]
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _tried(what: str, call: Callable[[str], Check], folder: str) -> Check:
    try:
        return call(folder)
    except OSError as error:
        advice = "Choose another folder, or ask those who run this file system"
        return Check(what, "bad", f"fails: {error.strerror or error}", advice)


def _software() -> list[Check]:
    from notata.doctor import software

    return [software.versions(), software.optional_parts()]
