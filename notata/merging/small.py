"""Files of a merge that are no ranks' arrays and no log: documents, tables, masks."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from notata import checksums, layout, npy, saving
from notata.assembly import Whole
from notata.errors import DamagedError
from notata.merging import artifacts
from notata.merging.artifacts import Metric
from notata.merging.joining import Made
from notata.merging.output import Output


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
    {"json": _document, "table": _table, "mask": _mask}[output.kind](run, output, temporary)
    inputs = {name: checksums.of_file(os.path.join(run, name)) for name in output.inputs}
    return Made(checksums.of_file(temporary), inputs)


def _ranked(output: Output) -> dict[int, str]:
    """The files that are joined, by rank; rank 0's is the run's own."""
    owned = ((layout.inside_rank(file), file) for file in output.inputs if file not in output.left)
    return dict(sorted((place[0] if place else 0, file) for place, file in owned))


def _document(run: str, output: Output, temporary: str) -> None:
    """One object keyed by rank; each rank's own text stands in it as it was written."""
    with open(temporary, "x", encoding="utf-8", errors="surrogatepass") as file:
        for number, (rank, name) in enumerate(_ranked(output).items()):
            text, _ = artifacts.load(run, name)
            file.write(f'{"," if number else "{"}\n"{rank}": {text}')
        file.write("\n}\n")


def rows(run: str, output: Output) -> dict[int, dict[str, float]]:
    """The numbers of each rank.

    Raises:
        DamagedError: If a file holds something else by now.

    Ranks: independent.
    """
    found = {rank: artifacts.load(run, name)[1] for rank, name in _ranked(output).items()}
    if not all(map(artifacts.is_flat, found.values())):
        raise DamagedError(f"the ranks' files of {output.file} have changed meanwhile")
    return found


def metrics(run: str, output: Output) -> list[Metric]:
    """What the summary says of a table.

    Ranks: independent.
    """
    name = output.file.removeprefix(f"{layout.ARTIFACTS}/").removesuffix(".ranks.csv")
    return artifacts.summed_up(name, rows(run, output))


def _table(run: str, output: Output, temporary: str) -> None:
    found = rows(run, output)
    keys = artifacts.keys_of(found)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", *(f"metrics.{key}" if key == "rank" else key for key in keys)])
    for rank, row in found.items():
        writer.writerow([rank, *(row.get(key, "") for key in keys)])
    with open(temporary, "xb") as file:
        file.write(text.getvalue().encode("utf-8", "surrogatepass"))


def _mask(run: str, output: Output, temporary: str) -> None:
    """True where a hole is, for arrays whose type has no NaN to say so."""
    if output.wholes[0].key is None:
        with open(temporary, "xb") as file:
            saving.write(file, _holes_of(output.wholes[0], output.holes))
        return
    with zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for whole in output.wholes:
            with archive.open(f"{whole.key}.npy", "w", force_zip64=True) as member:
                saving.write(cast("BinaryIO", member), _holes_of(whole, output.holes))


def _holes_of(whole: Whole, holes: Mapping[str, Any]) -> npy.Array:
    import numpy as np

    mask = np.zeros(whole.shape, bool)
    for start, shape in holes[whole.label]:
        mask[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))] = True
    return mask
