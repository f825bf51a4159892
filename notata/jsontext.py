"""Plain values as indented JSON: what each run writes twice, in a third of the standard time."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from typing import Any


class Shared(dict[str, Any]):
    """Plain values that stand in many files alike, and their text, made once."""

    text = ""


_shared: dict[str, Shared] = {}


def shared(name: str, value: dict[str, Any], ready: Callable[[dict[str, Any], str], Any]) -> Shared:
    """Give the value that was given last under a name, if it is equal; else make it ready.

    Args:
        name: The key under which it stands in each file.
        value: Texts, numbers, lists and dicts; not to be changed after. 1 and True count as equal.
        ready: Makes it plain, with keys that are strings; called with the value and its name.

    Ranks: independent.
    """
    last = _shared.get(name)
    if last is None or last != value:
        last = _shared[name] = Shared(ready(value, name))
        last.text = _indented(dict(last), "\n  ")
    return last


def indented(value: Any) -> bytes:
    r"""The JSON of plain values, as the `json` module indents it, with sorted keys.

    Args:
        value: None, a bool, int, float or str, or lists and dicts of them; keys are strings.

    Example:
        >>> indented({"b": [1, 2.5], "a": None})
        b'{\n  "a": null,\n  "b": [\n    1,\n    2.5\n  ]\n}'

    Ranks: independent.
    """
    return _indented(value, "\n").encode()


# Python reads and writes no whole number with more digits, unless it is told to.
DIGITS = sys.int_info.default_max_str_digits
_BEYOND = 10**DIGITS


def refuse_beyond(value: int) -> None:
    """Refuse a whole number that Python would not read back.

    Raises:
        ValueError: If it has more than `DIGITS` digits.

    Ranks: independent.
    """
    if not -_BEYOND < value < _BEYOND:
        raise ValueError(
            f"a whole number of {value.bit_length()} bits; Python reads and writes {DIGITS} digits:"
            " write it as text, such as hex(n)"
        )


def checked(value: Any) -> Any:
    """What YAML was read as, if it can be printed.

    Args:
        value: Anything; it is given back as it is.

    Raises:
        ValueError: If it holds itself, or a whole number with more digits than Python prints.
        RecursionError: If it is nested too deeply.

    Example:
        >>> checked({1: [{None: 0.5}]})
        {1: [{None: 0.5}]}

    Ranks: independent.
    """
    _check(value, {})
    return value


def _check(value: Any, whole: dict[int, bool]) -> None:
    if isinstance(value, int):
        refuse_beyond(value)
    if not isinstance(value, dict | list | tuple):
        return
    at = id(value)
    if not whole.get(at, True):
        raise ValueError("a value holds itself")
    if at not in whole:  # an alias of YAML is the same object wherever it stands
        whole[at] = False
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            _check(item, whole)
        whole[at] = True


_quoted = json.encoder.encode_basestring


def _indented(value: Any, margin: str) -> str:
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if kind is int or (kind is float and math.isfinite(value)):
        return repr(value)
    if value is None:
        return "null"
    if kind is Shared and margin == "\n  ":
        return str(value.text)
    inner = margin + "  "
    if isinstance(value, dict) and value:
        lines = [
            f"{inner}{_quoted(key)}: {_quoted(v) if type(v) is str else _indented(v, inner)}"
            for key, v in sorted(value.items())
        ]
        return f"{{{','.join(lines)}{margin}}}"
    if kind is list and value:
        lines = [inner + _indented(item, inner) for item in value]
        return f"[{','.join(lines)}{margin}]"
    return json.dumps(value)
