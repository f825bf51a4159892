"""Files of a merge that are no ranks' arrays and no log: documents, tables, masks."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import IO

from notata import checksums, layout
from notata.assembly import Box, Whole, intersection
from notata.errors import DamagedError
from notata.merging import artifacts, bundles, slabs
from notata.merging.artifacts import Metric
from notata.merging.joining import Made
from notata.merging.output import Output
from notata.merging.refusals import naming


def make(run: str, output: Output, temporary: str) -> Made:
    """Make a document, a table or a mask under a temporary name.

    Args:
        run: Folder of the run.
        output: What to make.
        temporary: Path of the file to make.

    Raises:
        DamagedError: If one of its inputs is no JSON any more.
        OSError: If it can't be written.

    Ranks: root only.
    """
    with naming(os.path.join(run, output.file), output.size):
        {"json": _document, "table": _table, "mask": _mask}[output.kind](run, output, temporary)
    inputs = {name: checksums.of_file(os.path.join(run, name)) for name in output.inputs}
    return Made(checksums.of_file(temporary), inputs)


def _ranked(output: Output) -> dict[int, str]:
    """The files that are joined, by rank; rank 0's is the run's own."""
    owned = ((layout.inside_rank(file), file) for file in output.inputs if file not in output.left)
    return dict(sorted((place[0] if place else 0, file) for place, file in owned))


def _document(run: str, output: Output, temporary: str) -> None:
    """One object keyed by rank; each rank's own text stands in it as it was written."""
    with open(temporary, "xb") as file:
        for number, (rank, name) in enumerate(_ranked(output).items()):
            text, _ = artifacts.load(run, name)
            file.write(artifacts.entry(rank, text, first=number == 0))
        file.write(artifacts.END)


def rows(run: str, output: Output) -> dict[int, dict[str, float]]:
    """The numbers of each rank.

    Raises:
        DamagedError: If a file holds something else by now.

    Ranks: independent.
    """
    loaded = {rank: artifacts.load(run, name)[1] for rank, name in _ranked(output).items()}
    found = {rank: artifacts.numbers_of(value) for rank, value in loaded.items()}
    if not any(found.values()):
        raise DamagedError(f"the ranks' files of {output.file} have changed meanwhile")
    return found


def metrics(run: str, output: Output) -> list[Metric]:
    """What the summary says of a table.

    Ranks: independent.
    """
    name = output.file.removeprefix(f"{layout.ARTIFACTS}/").removesuffix(".ranks.csv")
    return artifacts.summed_up(name, rows(run, output))


def _table(run: str, output: Output, temporary: str) -> None:
    with open(temporary, "xb") as file:
        file.write(artifacts.table_bytes(rows(run, output)))


def _mask(run: str, output: Output, temporary: str) -> None:
    """True where a hole is, for arrays whose type has no NaN to say so."""
    if output.wholes[0].key is None:
        with open(temporary, "xb") as file:
            _write_mask(file, output.wholes[0], output.holes)
        return
    with zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for whole in output.wholes:
            entry = bundles.entry_of(whole, zipfile.ZIP_DEFLATED)
            with archive.open(entry, "w", force_zip64=True) as member:
                _write_mask(member, whole, output.holes)


def _write_mask(file: IO[bytes], whole: Whole, holes: Mapping[str, Sequence[Box]]) -> None:
    import numpy as np

    mask = whole._replace(dtype="|b1", fortran=False)
    file.write(slabs.header_of(mask))
    for slab in slabs.slabs_of(mask):  # memory must not grow with the array
        part = np.zeros(slab[1], bool)
        for hole in holes[whole.label]:
            shared = intersection(hole, slab)
            if shared is not None:
                sides = zip(*shared, slab[0], strict=True)
                part[tuple(slice(a - o, a - o + n) for a, n, o in sides)] = True
        file.write(part.reshape(-1).view("u1").data)
