"""Rows of a table as a pandas DataFrame, each column with the type that all its values have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_INT64 = 2**63


def frame_of(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A DataFrame of rows that have the same columns.

    Args:
        rows: The values by column; None is missing.

    Raises:
        ImportError: If pandas is not installed.

    Ranks: independent.
    """
    try:
        import pandas as pd
    except ImportError:
        raise ImportError("a DataFrame needs pandas: pip install 'notata[pandas]'") from None
    columns = list(rows[0]) if rows else []
    values = {column: [row[column] for row in rows] for column in columns}
    return pd.DataFrame(
        {column: pd.Series(found, dtype=_dtype(found)) for column, found in values.items()},
        columns=columns,
    )


def _dtype(values: Sequence[Any]) -> str:
    """The narrowest type of a column that keeps all its values apart from missing ones."""
    kinds = {type(value) for value in values}
    missing = type(None) in kinds
    kinds.discard(type(None))
    if kinds == {bool}:
        return "boolean" if missing else "bool"
    if kinds == {int} and all(-_INT64 <= v < _INT64 for v in values if v is not None):
        return "Int64" if missing else "int64"
    if kinds and kinds <= {int, float} and float in kinds:
        exact = all(abs(v) <= 2**53 for v in values if type(v) is int)
        return "float64" if exact else "object"
    return "str" if kinds == {str} else "object"
