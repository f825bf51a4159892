"""Joining bundles: the ranks' pieces into one `.npz` file under a temporary name."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence

from notata import checksums, layout
from notata.assembly import Box, Whole
from notata.merging.slabs import Filler, header_of, slabs_of
from notata.merging.tasks import Made, Told, silent

_DATE = (1980, 1, 1, 0, 0, 0)  # the same whoever joins whenever: the same arrays are the same bytes


def join_bundle(
    run: str,
    wholes: Sequence[Whole],
    holes: Mapping[str, Sequence[Box]],
    temporary: str,
    inputs: Sequence[str],
    progress: Told = silent,
) -> Made:
    """Join the arrays of a bundle one after another, slab by slab.

    Args:
        run: Folder of the run.
        wholes: The arrays.
        holes: Boxes that nobody wrote, by the label of the array.
        temporary: Path of the file to make.
        inputs: The files of the pieces, relative to the run.
        progress: Called with the number of bytes joined since it was called last.

    Returns:
        Checksums of the file and of the pieces.

    Raises:
        DamagedError: If a piece is not what its manifest says.
        HoleError: If the pieces and holes leave a gap.
        OSError: If the file can't be written.

    Ranks: independent.
    """
    method = _method(run, wholes)
    with zipfile.ZipFile(temporary, "x", method, allowZip64=True) as archive:
        for whole in wholes:
            entry = entry_of(whole, method)
            folder = os.path.dirname(temporary)
            filler = Filler(run, whole, holes.get(whole.label, ()), slabs_of(whole), folder)
            with archive.open(entry, "w", force_zip64=True) as member:
                member.write(header_of(whole))
                for slab in filler:
                    member.write(slab)
                    progress(len(slab))
    told = {name: checksums.of_file(os.path.join(run, name)) for name in inputs}
    return Made(checksums.of_file(temporary), told)


def entry_of(whole: Whole, method: int) -> zipfile.ZipInfo:
    """What an archive says of an array in it; the same whenever it is made.

    Args:
        whole: The array.
        method: How it is compressed.

    Ranks: independent.
    """
    entry = zipfile.ZipInfo(f"{whole.key}.npy", _DATE)
    entry.compress_type = method
    entry.external_attr = 0o600 << 16
    return entry


def _method(run: str, wholes: Sequence[Whole]) -> int:
    """Compressed if the first piece is: the whole is as the ranks wrote it."""
    part = next((part for whole in wholes for part in whole.parts), None)
    if part is None:
        return zipfile.ZIP_DEFLATED
    path = os.path.join(run, layout.rank_dir(part.rank), part.piece.file)
    with zipfile.ZipFile(path) as archive:
        deflated = archive.infolist()[0].compress_type == zipfile.ZIP_DEFLATED
    return zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED  # it may be damaged
