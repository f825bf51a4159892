"""Joining arrays: the ranks' pieces into one `.npy` file under a temporary name.

The file is written by `pwrite`, slab by slab, and not through a mapping. A full
disk is an error and no signal, memory stays small, and processes on several nodes can share one
file: a slab is written by one of them, who never reads the file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from notata import checksums, layout, npy
from notata.assembly import Box, Whole
from notata.merging.ahead import ahead
from notata.merging.faults import Damaged, DamagedPiecesError
from notata.merging.places import begin_shared, write_at, writing
from notata.merging.refusals import naming
from notata.merging.slabs import Filler, header_of, parts_of, slabs_of, spill_of
from notata.merging.tasks import Made, Steps, Task, Told, silent

_TASK = 16  # slabs that a process takes at once


def join_array(
    run: str, whole: Whole, holes: Sequence[Box], temporary: str, progress: Told = silent
) -> Made:
    """Copy the pieces of an array into one file.

    Args:
        run: Folder of the run.
        whole: The array.
        holes: Boxes of it that nobody wrote; they are filled with NaN, or zeros.
        temporary: Path of the file to make.
        progress: Called with the number of bytes written since it was called last.

    Returns:
        Checksums of the file and of the pieces.

    Raises:
        DamagedError: If a piece is not what its manifest says.
        HoleError: If the pieces and holes leave a gap.
        OSError: If the file can't be written, such as on a disk that has no room for all of it.

    Ranks: independent.
    """
    header = header_of(whole)
    _begin(temporary, header)
    hashed = checksums.hasher()
    hashed.update(header)
    filler = Filler(run, whole, holes, slabs_of(whole), os.path.dirname(temporary))
    with writing(temporary) as descriptor:
        at = len(header)
        for slab in ahead(iter(filler)) if filler.is_scattered else filler:
            write_at(descriptor, at, slab)
            hashed.update(slab)
            at += len(slab)
            progress(len(slab))
    inputs = {name: filler.checksums.get(name) or _checksum(run, name) for name in names_of(whole)}
    _compare(run, whole, inputs)
    return Made(checksums.text_of(hashed), inputs)


def _checksum(run: str, name: str) -> str:
    return checksums.of_file(os.path.join(run, name))


def _compare(run: str, whole: Whole, inputs: Mapping[str, str]) -> None:
    """Make sure that the files of the pieces hold what their ranks wrote."""
    damage: dict[Damaged, str] = {}
    for part, name in zip(whole.parts, names_of(whole), strict=True):
        if checksums.contradicts(part.piece.checksum, inputs[name]):
            damage[part.rank, part.piece.identity] = (
                f"rank {part.rank}'s piece of {whole.label!r} is damaged: "
                f"{os.path.join(run, name)} does not hold what was written"
            )
    if damage:
        raise DamagedPiecesError(damage)


def divided(run: str, file: str, whole: Whole, holes: Sequence[Box], temporary: str) -> Steps:
    """The same in several tasks, each of which writes some slabs.

    Args:
        run: Folder of the run.
        file: What the file will be called, relative to the run.
        whole: The array.
        holes: Boxes of it that nobody wrote.
        temporary: Path of the file to make.

    Ranks: independent.
    """
    header, slabs = header_of(whole), slabs_of(whole)
    size = npy.dtype_from_text(whole.dtype).itemsize
    target = os.path.join(run, file)
    all_of_it = size * math.prod(whole.shape)
    with naming(target, all_of_it):
        begin_shared(temporary, len(header) + all_of_it, header)
    tasks, at = [], len(header)
    for first in range(0, len(slabs), _TASK):
        mine = slabs[first : first + _TASK]
        length = size * sum(math.prod(shape) for _, shape in mine)
        args = (run, target, parts_of(whole, mine), tuple(holes), mine, temporary, at)
        tasks.append(Task(fill_slabs, args, length))
        at += length
    found: dict[str, str] = {}
    for inputs in (yield tasks):
        found |= inputs
    left = [name for name in names_of(whole) if name not in found]
    paths = [temporary, *(os.path.join(run, name) for name in left)]
    itself, *others = yield [Task(checksums.of_file, (path,)) for path in paths]
    found |= dict(zip(left, others, strict=True))
    _compare(run, whole, found)
    return {file: Made(itself, found)}


def fill_slabs(
    run: str,
    target: str,
    whole: Whole,
    holes: Sequence[Box],
    slabs: Sequence[Box],
    temporary: str,
    at: int,
) -> dict[str, str]:
    """Write some slabs of an array into the file that others write to as well.

    Args:
        run: Folder of the run.
        target: Path that the file will have, for errors.
        whole: The array, with the pieces that the slabs need.
        holes: Boxes of it that nobody wrote.
        slabs: The slabs, one after another.
        temporary: Path of the file.
        at: Where in it the first of them begins.

    Returns:
        Checksums of the files that were read from beginning to end.

    Ranks: independent.
    """
    filler = Filler(run, whole, holes, slabs, os.path.dirname(temporary))
    size = npy.dtype_from_text(whole.dtype).itemsize * math.prod(whole.shape)
    with naming(target, size, spill_of(whole)), writing(temporary, shared=True) as descriptor:
        for slab in filler:
            write_at(descriptor, at, slab)
            at += len(slab)
    return filler.checksums


def names_of(whole: Whole) -> list[str]:
    """The files of the pieces, relative to the run.

    Ranks: independent.
    """
    return [f"{layout.rank_dir(part.rank)}/{part.piece.file}" for part in whole.parts]


def _begin(temporary: str, header: bytes) -> None:
    with open(temporary, "xb") as file:
        file.write(header)
