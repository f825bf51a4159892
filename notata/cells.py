"""A value as the text of a table's cell, and back, equal and of the same type."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from notata import jsontext

RUN_ID = "run_id"  # the column that says whose row it is
STATUS = "status"
OURS = ("run_status", "failure_reason", "start_time", "runtime_sec")
RESERVED = frozenset((RUN_ID, STATUS, *OURS))
TEXT = RESERVED - {"runtime_sec"}  # columns that hold text, whatever it looks like

_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(nan|inf|(0|[1-9][0-9]*)(\.[0-9]+)?(e[+-]?[0-9]+)?)")
# The same of a line each, where a float has a point or an exponent.
_WHOLES = re.compile(r"(?:-?+(?:0|[1-9][0-9]*+)\n)++")
_FLOATS = re.compile(
    r"(?:-?+(?:nan|inf|(?:0|[1-9][0-9]*+)"
    r"(?:\.[0-9]++(?:e[+-]?+[0-9]++)?+|e[+-]?+[0-9]++))\n)++"
)


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
    if _WHOLE.fullmatch(text) and len(text.removeprefix("-")) <= jsontext.DIGITS:
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


def typed(column: str, texts: Sequence[str | None]) -> list[Any]:
    """The values of a column, as `decode` gives each.

    Ranks: independent.
    """
    if column in TEXT:
        return [text or None for text in texts] if None in texts or "" in texts else [*texts]
    distinct = set(texts)
    if len(distinct) > len(texts) // 2 and None not in distinct:  # metrics of a run each
        several = cast("Sequence[str]", texts)
        joined = "\n".join(several) + "\n"
        # A text that has a line break itself would make more numbers than there are.
        if joined.count("\n") == len(several):
            if _WHOLES.fullmatch(joined) and max(map(len, several)) <= jsontext.DIGITS:
                return list(map(int, several))
            if _FLOATS.fullmatch(joined):
                return list(map(float, several))
    values = {text: decode(text) for text in distinct}
    if any(type(value) in (list, dict) for value in values.values()):
        return list(map(decode, texts))  # not the same list in two rows
    return [values[text] for text in texts]


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal, where True is no number and NaN is NaN.

    Example:
        >>> same(2, 2.0), same(1, True), same(float("nan"), float("nan"))
        (True, False, True)

    Ranks: independent.
    """
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right or (left != left and right != right))


def utf8(text: str) -> str:
    """A text with what UTF-8 can't hold, half a surrogate pair, spelled with a backslash.

    Ranks: independent.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
