"""A run whose ranks' files were pruned: what a merge made of them is all there is."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import suppress

from notata import layout, mergerecord, npy
from notata.assembly import Whole
from notata.errors import DamagedError
from notata.mergerecord import Fingerprints, Made, MergeRecord
from notata.merging import record
from notata.merging.output import Output, Problem
from notata.ranges import ranks_text


def all_there(files: Fingerprints, merged: MergeRecord) -> bool:
    """Whether all that was merged is still in the ranks' folders: a pruning was cut off.

    Ranks: independent.
    """
    inputs = {name for made in merged.outputs.values() for name in made.inputs}
    return bool(files) and all(name in files for name in inputs if layout.inside_rank(name))


def remains(
    run: str, files: Fingerprints, merged: MergeRecord
) -> tuple[tuple[Output, ...], tuple[Problem, ...]]:
    """What a merge made of files that are gone: it can be looked at, and not be made again.

    Args:
        run: Folder of the run.
        files: What lies in the ranks' folders by now.
        merged: What the merge made.

    Returns:
        What it made, and what is wrong with that.

    Ranks: independent.
    """
    outputs, problems = [], []
    for file, made in merged.outputs.items():
        outputs.append(_output(run, file, made))
        now = mergerecord.fingerprint(os.path.join(run, file))
        if now is None or not record.is_same(run, file, made.itself, now):
            text = f"{file} is not as it was merged, and the ranks' files were pruned"
            problems.append(Problem(text, name=file))
    if files:
        ranks = sorted({place[0] for place in map(layout.inside_rank, files) if place})
        text = f"{ranks_text(ranks)} wrote in {layout.RANKS}/ after the run was pruned"
        hint = "what was pruned can't be joined with it: move these folders away"
        problems.append(Problem(text, ranks=tuple(ranks), hint=hint))
    return tuple(outputs), tuple(problems)


def _output(run: str, file: str, made: Made) -> Output:
    joined = (layout.inside_rank(name) for name in made.inputs.keys() - made.left)
    ranks = {place[0] if place else 0 for place in joined}
    if made.kind == "log":
        ranks.add(0)  # whose messages were in it before
    wholes: tuple[Whole, ...] = ()
    with suppress(OSError, DamagedError, zipfile.BadZipFile):  # which is said elsewhere
        if made.kind in ("array", "bundle", "mask"):
            wholes = tuple(_wholes(run, file))
    made_of = tuple(sorted(ranks))
    output = Output(file, wholes, {}, True, {}, made.kind, ranks=made_of, size=made.itself.size)
    bundled = bool(wholes) and wholes[0].key is not None
    return output._replace(size=output.bytes) if bundled else output


def _wholes(run: str, file: str) -> Iterator[Whole]:
    """The arrays of a file, by their heads, without the pieces that they were made of."""
    path = os.path.join(run, file)
    stem, extension = os.path.splitext(file.removeprefix(f"{layout.DATA}/"))
    if extension == ".npy":
        with open(path, "rb") as data:
            yield _whole(stem, None, npy.read_header(data))
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as entry:
                yield _whole(stem, member.removesuffix(".npy"), npy.read_header(entry))


def _whole(name: str, key: str | None, head: npy.Header) -> Whole:
    dtype = npy.dtype_text(head.dtype)
    return Whole(name, key, "place", head.shape, dtype, head.fortran, (), ())
