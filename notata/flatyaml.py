"""Flat YAML, out and in: lines of a name and a number, word or truth value.

Most parameters are that simple. PyYAML takes longer to be loaded than a run to be opened, and for
each file longer than all the rest. What is not that simple is left to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,99}"
_WORD = re.compile(_NAME)
_OTHERS = frozenset(("true", "false", "yes", "no", "on", "off", "null"))  # no words in YAML 1.1
_CONSTANTS = {"true": True, "false": False, "null": None}
_LINE = re.compile(
    rf"(?P<key>{_NAME}): (?:(?P<float>-?(?:0|[1-9]\d*)\.\d+(?:e[+-]\d+)?)"
    rf"|(?P<int>-?(?:0|[1-9]\d{{0,99}}))|(?P<word>{_NAME}))\n",
    re.ASCII,
)


def written(values: Mapping[str, Any]) -> bytes | None:
    r"""The lines as PyYAML writes them, sorted; None where a value or name is not that simple.

    Example:
        >>> written({"scheme": "rk4", "dt": 1e-05, "steps": 3})
        b'dt: 1.0e-05\nscheme: rk4\nsteps: 3\n'
        >>> written({"title": "a run"}) is None
        True

    Ranks: independent.
    """
    lines = []
    for key in sorted(values):
        text = _text(values[key])
        if text is None or not _is_word(key):
            return None
        lines.append(f"{key}: {text}\n")
    return "".join(lines).encode() if lines else None


def _text(value: Any) -> str | None:
    kind = type(value)
    if kind is float and math.isfinite(value):
        text = repr(value)
        return text if "." in text else text.replace("e", ".0e")
    if kind is int and value.bit_length() < 300:
        return repr(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is str and _is_word(value):
        return str(value)
    return "null" if value is None else None


def _is_word(text: str) -> bool:
    return _WORD.fullmatch(text) is not None and text.lower() not in _OTHERS


def parsed(data: bytes) -> dict[str, Any] | None:
    r"""The values that such lines hold, as PyYAML reads them; None where there are others.

    Example:
        >>> parsed(b"dt: 1.0e-05\nscheme: rk4\nsteps: 3\n")
        {'dt': 1e-05, 'scheme': 'rk4', 'steps': 3}

    Ranks: independent.
    """
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return None
    values: dict[str, Any] = {}
    at = 0
    while at < len(text):
        line = _LINE.match(text, at)
        if line is None:
            return None
        at = line.end()
        key, kind, value = line["key"], line.lastgroup, line[line.lastindex or 0]
        if key.lower() in _OTHERS:
            return None
        if kind == "float":
            values[key] = float(value)
        elif kind == "int":
            values[key] = int(value)
        elif value in _CONSTANTS:
            values[key] = _CONSTANTS[value]
        elif value.lower() in _OTHERS:
            return None
        else:
            values[key] = value
    return values or None
