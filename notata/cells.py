"""A value as the text of a table's cell, and back, equal and of the same type."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

RUN_ID = "run_id"  # the column that says whose row it is
STATUS = "status"
OURS = ("run_status", "failure_reason", "start_time", "runtime_sec")
RESERVED = frozenset((RUN_ID, STATUS, *OURS))
_TEXT = RESERVED - {"runtime_sec"}  # columns that hold text, whatever it looks like

_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(nan|inf|(0|[1-9][0-9]*)(\.[0-9]+)?(e[+-]?[0-9]+)?)")
_LONGEST_WHOLE = 4000  # digits; Python reads no more than 4300


def encode(value: Any) -> str:
    r"""The text of a cell.

    Numbers and text stand as they are, None is empty, lists and dicts are JSON. Text that would be
    read back as something else, such as `1.10` or the empty one, stands in JSON's quotes.

    Example:
        >>> [encode(value) for value in (0.5, True, None, "rk4", [1, 2], "1.10", "")]
        ['0.5', 'True', '', 'rk4', '[1, 2]', '"1.10"', '""']

    Ranks: independent.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        same = type(decode(value)) is str and not value.startswith('"')
        return utf8(value if same else json.dumps(value, ensure_ascii=False))
    if isinstance(value, dict | list):
        # What YAML can hold and JSON can't, such as dates or keys of several types, is told anyway.
        with suppress(TypeError, ValueError):
            return utf8(json.dumps(value, sort_keys=True, ensure_ascii=False))
    return utf8(str(value))


def decode(text: str | None) -> Any:
    """The value that a cell stands for; None where it is empty or the row has no such cell.

    Example:
        >>> [decode(text) for text in ("0.5", "3", "False", "", "rk4", '"1.10"', "[1, 2]")]
        [0.5, 3, False, None, 'rk4', '1.10', [1, 2]]

    Ranks: independent.
    """
    if not text:
        return None
    if text in ("True", "False"):
        return text == "True"
    if _WHOLE.fullmatch(text) and len(text) < _LONGEST_WHOLE:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text[0] in '[{"':
        with suppress(ValueError, RecursionError):
            return json.loads(text)
    return text


def encode_own(value: Any) -> str:
    """The text of a cell in a column that is ours; text stands there as it is.

    Ranks: independent.
    """
    return utf8(value) if isinstance(value, str) else encode(value)


def typed(cells: Mapping[str, str | None]) -> dict[str, Any]:
    """The values of a row, by column.

    Ranks: independent.
    """
    return {
        column: (text or None) if column in _TEXT else decode(text)
        for column, text in cells.items()
    }


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal, where True is no number and NaN is NaN.

    Example:
        >>> same(2, 2.0), same(1, True), same(float("nan"), float("nan"))
        (True, False, True)

    Ranks: independent.
    """
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right or (left != left and right != right))


def utf8(text: str) -> str:
    """A text with what UTF-8 can't hold, half a surrogate pair, spelled with a backslash.

    Ranks: independent.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
