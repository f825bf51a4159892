"""Parameters, metadata, artifacts and figures out: contents on their way to files."""

from __future__ import annotations

import enum
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from notata import flatyaml, jsontext, layout
from notata.disk import Disk
from notata.errors import UnsupportedValueError

if TYPE_CHECKING:
    import yaml

Plain = None | bool | int | float | str | list[Any] | dict[Any, Any]
_DEEPEST = 100
_SURE = 1 << 64  # a whole number of fewer bits has no more digits than Python reads back
# A number as YAML 1.2 has it.
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+")


def plain(value: Any, where: str) -> Plain:
    """Turn a value into what plain YAML and JSON hold and any reader takes.

    Numpy numbers become numbers, arrays and tuples lists, paths and dates strings (ISO 8601), an
    enum's member its value. What can't be told from something else when it is read back, such as
    a complex number or a set, is refused.

    Args:
        value: Anything.
        where: The key that it stands under, for the error.

    Returns:
        None, a bool, int, float or str, or lists and dicts of them.

    Raises:
        UnsupportedValueError: If it can't be stored; the message names the key.

    Example:
        >>> import numpy as np
        >>> plain({"x": np.float64(0.5), "shape": (3, 4)}, "grid")
        {'x': 0.5, 'shape': [3, 4]}

    Ranks: independent.
    """
    return _plain(value, where, 0)


def _plain(value: Any, where: str, depth: int) -> Plain:
    if value is None or isinstance(value, bool):
        return value
    kind = type(value)
    if kind is str:
        return _text(value, where)
    if kind is float:
        return float(value)
    if kind is int:
        return _whole_number(value, where)
    if depth > _DEEPEST:
        raise UnsupportedValueError(f"{where}: nested more than {_DEEPEST} deep, or in itself")
    return _converted(value, where, depth + 1)


def _converted(value: Any, where: str, depth: int) -> Plain:
    if type(value) is dict:
        return _mapping(value, where, depth)
    if isinstance(value, enum.Enum):
        return _plain(value.value, where, depth)
    if isinstance(value, str):
        return _text(str.__str__(value), where)
    if isinstance(value, int):
        return _whole_number(int(value), where)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, os.PathLike):
        return _text(os.fsdecode(value), where)
    if isinstance(value, Mapping):
        return _mapping(value, where, depth)
    if isinstance(value, list | tuple | range):
        return [_plain(item, f"{where}[{i}]", depth) for i, item in enumerate(value)]
    if getattr(value, "dtype", None) is not None and hasattr(type(value), "tolist"):
        return _from_array(value, where, depth)
    if _is_date(value):
        return str(value.isoformat())
    raise UnsupportedValueError(
        f"{where}: a {type(value).__name__} can't be stored as plain YAML or JSON ({value!r:.60}); "
        "turn it into numbers, strings, lists or dicts, or save it with log.pickle"
    )


def _is_date(value: Any) -> bool:
    import datetime

    return isinstance(value, datetime.date | datetime.time)


def _from_array(value: Any, where: str, depth: int) -> Plain:
    kind = getattr(value.dtype, "kind", "")
    if kind == "M":
        return _plain(value.astype(str).tolist(), where, depth)
    listed = value.tolist()
    if kind == "m" or isinstance(listed, complex | bytes) or type(listed) is type(value):
        raise UnsupportedValueError(
            f"{where}: a value of dtype {value.dtype} can't be stored as plain YAML or JSON"
            + ("; turn it into a number of seconds" if kind == "m" else "")
        )
    return _plain(listed, where, depth)


def _mapping(value: Mapping[Any, Any], where: str, depth: int) -> dict[Any, Plain]:
    made: dict[Any, Plain] = {}
    for key, item in value.items():
        plain_key = key if _is_plain(key) else _plain(key, f"a key in {where}", depth)
        if isinstance(plain_key, list | dict):
            raise UnsupportedValueError(f"{where}: {key!r} can't be a key in YAML or JSON")
        if plain_key in made:
            raise UnsupportedValueError(f"{where}: two keys become {plain_key!r}")
        plain_item = item if _is_plain(item) else _plain(item, f"{where}.{plain_key}", depth)
        made[plain_key] = plain_item
    return made


def _is_plain(value: Any) -> bool:
    """Whether a value is plain as it is: no word about where it stands is made for most."""
    kind = type(value)
    if kind is int:
        return bool(-_SURE < value < _SURE)
    return (kind is str and value.isascii()) or kind is float or kind is bool or value is None


def each_plain(
    values: Mapping[str, Any], what: str, ready: Callable[[Any, str], Plain] = plain
) -> dict[str, Plain]:
    """Turn each of several values into what can be stored.

    Args:
        values: The values by their keys.
        what: What they are, for the error.
        ready: Turns one; it isn't asked for those that are plain as they are.

    Raises:
        UnsupportedValueError: If one can't be stored; the message names its key.

    Example:
        >>> each_plain({"shape": (3, 4), "scheme": "rk4"}, "parameter")
        {'shape': [3, 4], 'scheme': 'rk4'}

    Ranks: independent.
    """
    return {
        key: value if _is_plain(value) else ready(value, f"{what} {key!r}")
        for key, value in values.items()
    }


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UnsupportedValueError(f"{where}: {value!r:.60} is not valid Unicode text") from None
    return value


def _whole_number(value: int, where: str) -> int:
    try:
        jsontext.refuse_beyond(value)
    except ValueError as error:
        raise UnsupportedValueError(f"{where}: {error}") from None
    return value


def json_bytes(value: Any, where: str) -> bytes:
    """A value as indented JSON with sorted keys.

    Keys become strings, as JSON has no others. NaN and infinities are spelled as Python spells
    them.

    Raises:
        UnsupportedValueError: If it can't be stored; the message names the key.

    Ranks: independent.
    """
    return jsontext.indented(json_ready(value, where))


def json_ready(value: Any, where: str) -> Plain:
    """A value as `jsontext.indented` takes it: plain, with keys that are strings.

    Raises:
        UnsupportedValueError: If it can't be stored; the message names the key.

    Ranks: independent.
    """
    if isinstance(value, jsontext.Shared):  # it is so already
        return value
    return _string_keys(plain(value, where), where)


def _string_keys(value: Plain, where: str) -> Plain:
    if isinstance(value, list):
        return [_string_keys(item, where) for item in value]
    if not isinstance(value, dict):
        return value
    made: dict[Any, Plain] = {}
    for key, item in value.items():
        name = key if isinstance(key, str) else json.dumps(key)
        if name in made:
            raise UnsupportedValueError(f"{where}: two keys become {name!r}, as JSON keys are text")
        made[name] = _string_keys(item, f"{where}.{name}") if type(item) in (dict, list) else item
    return made


def yaml_bytes(values: Mapping[str, Plain]) -> bytes:
    """Plain values as block-style YAML with sorted keys, a line a scalar.

    Ranks: independent.
    """
    simple = flatyaml.written(values)
    if simple is not None:
        return simple
    import yaml

    return bytes(
        yaml.dump(
            dict(values),
            Dumper=_dumper(),
            sort_keys=True,
            allow_unicode=True,
            default_flow_style=False,
            width=math.inf,
            encoding="utf-8",
        )
    )


@cache
def _dumper() -> type[yaml.SafeDumper]:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes text that no reader takes for something else.

        Every line break is escaped: PyYAML reads some that it writes as they are as blanks. Text
        that is a number in YAML 1.2 alone is quoted: PyYAML reads 1.1.
        """

        def represent_text(self, text: str) -> yaml.Node:
            style = '"' if text.splitlines() not in ([text], []) else None
            if _NUMBER.fullmatch(text):
                style = "'"
            return self.represent_scalar("tag:yaml.org,2002:str", text, style)

    Dumper.add_representer(str, Dumper.represent_text)
    return Dumper


def digest(values: Mapping[str, Plain]) -> str:
    """Hexadecimal digest of plain values, the same wherever they are equal.

    Ranks: independent.
    """
    import hashlib

    text = _sorted(_quoted_keys(dict(values)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _quoted_keys(value: Plain) -> Plain:
    """Keys as texts of which no two are the same, as the keys 1 and "1" are in JSON."""
    if isinstance(value, list):
        return [_quoted_keys(item) for item in value]
    if isinstance(value, dict):
        return {
            _ascii(key) if type(key) is str else json.dumps(key): _quoted_keys(item)
            for key, item in value.items()
        }
    return value


_ascii = json.encoder.encode_basestring_ascii
_sorted = json.JSONEncoder(sort_keys=True).encode


def save_params(
    disk: Disk, folder: str, values: Mapping[str, Plain], ext: str, *, first: bool = False
) -> None:
    """Write the parameters in one format and take away the older snapshot in the other.

    Args:
        disk: The disk.
        folder: The run's folder.
        values: The parameters.
        ext: `yaml` or `json`.
        first: Whether there can't be an older snapshot, since the folder was made just now.

    Raises:
        ValueError: If `ext` is neither `yaml` nor `json`.

    Ranks: root only.
    """
    if ext not in layout.PARAMS:
        raise ValueError(f"ext={ext!r} must be 'yaml' or 'json'")
    data = yaml_bytes(values) if ext == "yaml" else json_bytes(values, "params")
    disk.replace(f"{folder}/{layout.PARAMS[ext]}", data)
    if not first:
        other = layout.PARAMS["json" if ext == "yaml" else "yaml"]
        disk.remove(os.path.join(folder, other))


def save_pickle(disk: Disk, path: str, value: Any, protocol: int) -> None:
    """Pickle an object.

    Ranks: independent.
    """
    import pickle

    with disk.replacing(path) as file:
        pickle.dump(value, file, protocol=protocol)


def save_figure(
    disk: Disk, folder: str, name: str, figure: Any, dpi: int, formats: Iterable[str]
) -> None:
    """Save a matplotlib figure in each format, each file whole or absent.

    Raises:
        RuntimeError: If no figure is given and matplotlib is not installed.

    Ranks: independent.
    """
    if figure is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError:
            raise RuntimeError(
                "saving a plot needs matplotlib: pip install 'notata[plot]'"
            ) from None
        figure = plt.gcf()
    from notata import saving

    for ext in formats:
        path = os.path.join(folder, layout.inside(name, f".{ext}"))
        disk.replace(path, saving.drawn(figure, ext, dpi))
