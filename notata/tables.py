"""Tables of runs, in: their header, their columns and their rows."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from notata.cells import RUN_ID, utf8
from notata.errors import DamagedError
from notata.parking import Lock, held

StrPath = str | os.PathLike[str]

_END = b"end"  # put behind a table, it is a row of its own where the last line is whole

_limit = Lock()


@contextlib.contextmanager
def long_cells() -> Iterator[None]:
    """Let the `csv` module read cells of any length for the length of a `with` block.

    It refuses those over 131,072 characters, which a list of metrics soon has, and the only way
    to allow them is a limit of the whole process. So it is put back at the end, for the program's
    own tables; while the block lasts, its other threads read long cells too.

    Ranks: independent.
    """
    import csv

    with held(_limit):
        before = csv.field_size_limit(sys.maxsize)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _lines(data: bytes, path: StrPath) -> tuple[list[str], list[list[str]]]:
    """The header, and the cells of each line that has any; of several lines of one run, the last.

    What stands behind the last whole line is left out: a row that was cut off, by a death or by the
    loss of power, which leaves zeros too. The next writer makes the table anew.

    Raises:
        DamagedError: If it is no CSV.
    """
    import csv
    import io

    text = (data + _END).decode("utf-8", "surrogateescape")
    try:
        with long_cells():
            *lines, _ = csv.reader(io.StringIO(text, newline=""))
    except csv.Error as error:
        raise DamagedError(f"{os.fspath(path)} is damaged: {error}") from None
    header, rows = (lines[0] if lines else []), [row for row in lines[1:] if row]
    if RUN_ID not in header:
        return header, rows
    at = len(header) - 1 - header[::-1].index(RUN_ID)
    last = {row[at] if at < len(row) else None: row for row in rows}
    if len(last) < len(rows):
        kept = set(map(id, last.values()))
        rows = [row for row in rows if id(row) in kept]
    return header, rows


def read_table(path: StrPath) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns and rows of a table; of several rows of one run, the last.

    Returns:
        The header, and each row's text by column. Cells beyond the header are a list under None,
        and cells that the row doesn't have are None.

    Raises:
        DamagedError: If it is no CSV.

    Ranks: independent.
    """
    with open(path, "rb", buffering=0) as file:
        header, rows = _lines(file.readall(), path)
    width, found = len(header), []
    for row in rows:
        cells: dict[Any, Any] = dict(zip(header, row, strict=False))
        if len(row) > width:
            cells[None] = row[width:]
        else:
            cells |= dict.fromkeys(header[len(row) :])
        found.append(cells)
    return header, found


def run_ids(data: bytes, path: StrPath) -> list[str]:
    """The runs that have a row in a table.

    Args:
        data: The table's bytes.
        path: Its name, for an error.

    Raises:
        DamagedError: If it is no CSV, or has no column of runs.

    Ranks: independent.
    """
    header, rows = _lines(data, path)
    if RUN_ID not in header:
        raise DamagedError(f"{os.fspath(path)} has no column {RUN_ID}")
    at = len(header) - 1 - header[::-1].index(RUN_ID)
    return [row[at] for row in rows if at < len(row)]


def cells_by_run(data: bytes, path: StrPath) -> dict[str, frozenset[object]]:
    """What stands in each run's row, as something to compare: empty cells count for nothing.

    Args:
        data: The table's bytes.
        path: Its name, for an error.

    Raises:
        DamagedError: If it is no CSV, has no column of runs, or its last line is not whole.

    Ranks: independent.
    """
    header, rows = _lines(data, path)
    if RUN_ID not in header or not data.endswith(b"\n"):
        raise DamagedError(f"{os.fspath(path)} is not whole")
    at = len(header) - 1 - header[::-1].index(RUN_ID)
    return {
        row[at]: frozenset(cell for cell in zip_longest(header, row[: len(header)]) if cell[1])
        | frozenset(row[len(header) :])
        for row in rows
        if at < len(row)
    }


def has_row(data: bytes, run_id: str) -> bool:
    r"""Whether a line of a table begins with a run's id, without reading its rows.

    Args:
        data: The table's bytes.
        run_id: The id.

    Example:
        >>> table = b"run_id,m\nx_10,1\n"
        >>> has_row(table, "x_10"), has_row(table, "x_1")
        (True, False)

    Ranks: independent.
    """
    cell = utf8(run_id)
    quoted = cell.replace('"', '""')  # needed or not: some rows are in quotes all over
    return any(f"\n{begin},".encode() in data for begin in (cell, f'"{quoted}"'))


def columns(data: bytes, path: StrPath) -> dict[str, list[str | None]]:
    """The columns of a table; of several rows of one run, the last.

    Args:
        data: The table's bytes.
        path: Its name, for an error.

    Returns:
        The text of each row, by the column's name; None where a row has none.

    Raises:
        DamagedError: If it is no CSV.

    Ranks: independent.
    """
    header, rows = _lines(data, path)
    width = len(header)
    found = [list(column) for column in zip_longest(*rows)][:width]
    found += [[None] * len(rows) for _ in range(width - len(found))]
    return dict(zip(header, found, strict=True))
