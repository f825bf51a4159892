"""Files that nothing joins: whether each holds what its rank left, which reading it tells."""

from __future__ import annotations

import os
from collections.abc import Iterator

from notata.asleft import Left
from notata.merging.faults import DamagedPiecesError
from notata.merging.tasks import Steps, Task, Told, silent
from notata.merging.unlike import Noted, key_of, text_of

_BATCH = 1 << 25  # bytes of files that one process reads at once
_MANY = 256  # and how many of them

_Pairs = list[tuple[str, Left]]


def compare(run: str, noted: Noted, progress: Told = silent) -> None:
    """Read files.

    Args:
        run: Folder of the run.
        noted: The files, and what their ranks noted of them.
        progress: Called with the number of bytes read since it was called last.

    Raises:
        DamagedPiecesError: If some hold something else by now.

    Ranks: independent.
    """
    differing: list[str] = []
    for pairs in _batches(noted):
        differing += unlike_of(run, pairs)
        progress(sum(left.size for _, left in pairs))
    _refuse(run, differing)


def divided(run: str, noted: Noted) -> Steps:
    """The same in several tasks.

    Ranks: independent.
    """
    differing = yield [
        Task(unlike_of, (run, pairs), sum(left.size for _, left in pairs))
        for pairs in _batches(noted)
    ]
    _refuse(run, [file for some in differing for file in some])
    return {}


def unlike_of(run: str, pairs: _Pairs) -> list[str]:
    """Those of some files that hold something else than was noted, or can't be read.

    Ranks: independent.
    """
    return [file for file, left in pairs if not left.is_kept(os.path.join(run, file))]


def _refuse(run: str, differing: list[str]) -> None:
    if differing:
        raise DamagedPiecesError({key_of(file): text_of(run, file) for file in differing})


def _batches(noted: Noted) -> Iterator[_Pairs]:
    batch: _Pairs = []
    size = 0
    for pair in noted.items():
        batch.append(pair)
        size += pair[1].size
        if size >= _BATCH or len(batch) == _MANY:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
