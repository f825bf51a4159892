"""Tables as pandas DataFrames, each column with the type that all its values have."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from notata.cells import RUN_ID, TEXT, same, typed
from notata.errors import KeyNotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INT64 = 2**63
_EXACT = 2**53  # up to which a float64 holds every whole number


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise ImportError("a DataFrame needs pandas: pip install 'notata[pandas]'") from None
    return pandas


def frame_of(columns: Mapping[str, Sequence[Any]]) -> Any:
    """A DataFrame of columns.

    Args:
        columns: The values of each column; None is missing.

    Raises:
        ImportError: If pandas is not installed.

    Ranks: independent.
    """
    pd = _pandas()
    made = {name: pd.Series(values, dtype=_dtype(values)) for name, values in columns.items()}
    return pd.DataFrame(made, columns=list(columns))


def selected(rows: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any], table: object) -> Any:
    """The rows whose columns have these values, as a DataFrame.

    Args:
        rows: The rows of a table, each with all columns.
        wanted: Plain values by the names of columns.
        table: The table, for the error.

    Raises:
        KeyNotFoundError: If there is no such column (a `KeyError`).
        ImportError: If pandas is not installed.

    Ranks: independent.
    """
    known = rows[0] if rows else wanted
    for column in wanted:
        if column not in known:
            raise KeyNotFoundError(f"{table} has no column {column!r}; it has {', '.join(known)}")
    frame = frame_of({name: [row[name] for row in rows] for name in (known if rows else ())})
    return frame[[all(same(row[name], v) for name, v in wanted.items()) for row in rows]]


def _dtype(values: Sequence[Any]) -> str:
    """The narrowest type of a column that keeps all its values apart from missing ones."""
    kinds = set(map(type, values))
    missing = type(None) in kinds
    kinds.discard(type(None))
    if kinds == {bool}:
        return "boolean" if missing else "bool"
    if kinds == {int} and all(-_INT64 <= v < _INT64 for v in values if v is not None):
        return "Int64" if missing else "int64"
    if kinds and kinds <= {int, float} and float in kinds:
        exact = int not in kinds or all(abs(v) <= _EXACT for v in values if type(v) is int)
        return "float64" if exact else "object"
    return "str" if kinds == {str} else "object"


# ----- read by pandas itself -----


def parsed(data: bytes) -> Any:
    """A DataFrame of a table, read by pandas; None where pandas might read it otherwise.

    That is where cells are quoted, lines differ in length, or a run has two rows. Else the answer
    is that of `frame_of` with the values of `cells.typed`.

    Args:
        data: The table's bytes.

    Raises:
        ImportError: If pandas is not installed.

    Ranks: independent.
    """
    pd = _pandas()
    first = data.find(b"\n") + 1
    if not 0 < first < len(data) or any(byte in data for byte in (b'"', b"\r", b"\0")):
        return None
    try:
        header = data[: first - 1].decode().split(",")
        grid = _Grid(data, first, len(header))
        read = _read(pd, data, header)
    except ValueError:  # ParserError is one, and what is no UTF-8
        return None
    if len(read) != grid.rows or RUN_ID not in header or len(set(header)) < len(header):
        return None  # pandas leaves out lines of blanks
    if len(set(read[header.index(RUN_ID)].tolist())) < len(read):
        return None
    for at, name in enumerate(header):
        column = _column(pd, name, read[at], grid, at)
        if column is not None:
            read.isetitem(at, column)
    read.columns = header
    return read


class _Grid:
    """Where each cell of a table without quotes begins and ends."""

    def __init__(self, data: bytes, first: int, width: int) -> None:
        """Find the cells.

        Args:
            data: The table's bytes.
            first: Where the lines begin.
            width: How many cells each of them has.

        Raises:
            ValueError: If not every line has so many.
        """
        import numpy as np

        self._data, self._codes, self._first = data, np.frombuffer(data, np.uint8), first
        found, lines, odd = [], 0, False
        for begin in range(first, len(data), _BLOCK):  # what stays in a core's cache
            part = self._codes[begin : begin + _BLOCK + 1]
            here = part[:_BLOCK]
            breaks = here == _BREAK
            lines += int(np.count_nonzero(breaks))
            (ends,) = ((here == _COMMA) | breaks).nonzero()
            found.append((ends + begin).astype(np.uint32))
            odd = odd or bool(((part[:-1] == _POINT) & (part[1:] == _POWER)).any())
            odd = odd or bool(((part[:-1] <= _NINE) & (part[1:] == _LARGE_POWER)).any())
        ends = np.concatenate(found)
        if len(ends) % width or data[-1:] != b"\n" or len(data) >= 1 << 32:
            raise ValueError("lines differ in length, or there are more than the places can count")
        self._ends, self.rows = ends.reshape(-1, width), len(ends) // width
        if lines != self.rows or not (self._codes[self._ends[:, -1]] == _BREAK).all():
            raise ValueError("lines differ in length")
        self._odd = odd  # whether there may be a "5.e3" or "1E5" in some cell

    def _cells(self, column: int) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """Where the cells of a column begin and end."""
        ends, starts = (self._ends[:, at].astype(int) for at in (column, column - 1))
        starts += 1
        if column == 0:
            starts[1:] = starts[:-1].copy()
            starts[0] = self._first
        return starts, ends

    def texts(self, column: int) -> list[str]:
        """The texts of a column."""
        starts, ends = self._cells(column)
        return [
            self._data[a:b].decode() for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def empty(self, column: int) -> int:
        """How many cells of a column are empty."""
        starts, ends = self._cells(column)
        return int((starts == ends).sum())

    def are_numbers(self, column: int) -> bool:
        """Whether what pandas takes for numbers are spelled as numbers are in a table.

        It takes `" 1"`, `"+1"`, `".5"`, `"5."`, `"1E5"` and `"007"` for numbers, which are text,
        and keeps the sign of `"-0"`, which is a whole number.
        """
        (starts, ends), data = self._cells(column), self._codes
        negative = data[starts] == _MINUS
        starts = starts + negative
        first, second, last = data[starts], data[starts + 1], data[ends - 1]
        digit = (first - _ZERO) < 10  # of unsigned numbers
        longer = ((second - _ZERO) < 10) | (negative & (starts + 1 == ends))
        zeros = ((first == _ZERO) & longer).any()  # "007", "-0"
        return bool(digit.all() and ((last - _ZERO) < 10).all() and not zeros and not self._odd)

    def are_truths(self, column: int) -> bool:
        """Whether what pandas takes for booleans are `True` and `False`, not `TRUE` or `true`."""
        starts, _ = self._cells(column)
        first, second = self._codes[starts], self._codes[starts + 1]
        return bool(((first < _LOWER) & (second >= _LOWER)).all())


_BLOCK = 1 << 17
_BREAK, _COMMA, _MINUS, _POINT, _ZERO, _NINE, _LARGE_POWER, _LOWER, _POWER = b"\n,-.09Eae"


def _read(pd: Any, data: bytes, header: Sequence[str]) -> Any:
    # Newer ones are exact by themselves, and warn of the option.
    version = tuple(map(int, pd.__version__.split(".")[:2]))
    exact = {"float_precision": "round_trip"} if version < (3, 1) else {}
    return pd.read_csv(
        io.BytesIO(data),
        header=0,
        names=range(len(header)),
        index_col=False,
        dtype={at: str for at, name in enumerate(header) if name in TEXT},
        na_filter=False,
        low_memory=False,
        encoding="utf-8",
        **exact,
    )


def _column(pd: Any, name: str, column: Any, grid: _Grid, at: int) -> Any:
    """What `frame_of` would make of a column; None if that is what pandas has made of it."""
    kind = column.dtype
    if kind == "bool" and grid.are_truths(at):
        return None
    if kind == "int64" and grid.are_numbers(at):
        return None
    # Whole numbers that are no float are looked at, and infinite ones.
    if kind == "float64" and grid.are_numbers(at) and (column.abs() < _EXACT).all():
        return None
    empty = grid.empty(at)
    if empty == len(column):
        return pd.Series([None] * empty, dtype="object")
    if name in TEXT and not empty:
        return None
    texts = column.tolist()
    if not isinstance(kind, pd.StringDtype) and set(map(type, texts)) != {str}:
        texts = grid.texts(at)
    elif name not in TEXT and typed(name, distinct := list(set(texts))) == distinct:
        return None
    values = typed(name, texts)
    return pd.Series(values, dtype=_dtype(values))
