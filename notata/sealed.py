"""Objects in JSON files that tell by a checksum of their own whether they are as they were written.

What nobody else notes of a file, the file notes itself. The checksum is that of the values, so that
spaces and the order of names are of no matter. Who changes such an object by hand takes its
`checksum` out.
"""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Mapping
from typing import Any

from notata import checksums

_NAME = "checksum"


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same object with its checksum.

    Args:
        values: What JSON can hold.

    Example:
        >>> sealed({"rank": 1})
        {'rank': 1, 'checksum': 'crc32:72b11c93'}

    Ranks: independent.
    """
    rest = _rest(values)
    return {**rest, _NAME: _of(rest)}


def is_broken(values: Mapping[str, Any]) -> bool:
    """Whether an object is not as it was written; not, where it has no checksum.

    Example:
        >>> is_broken(sealed({"rank": 1}) | {"rank": 2}), is_broken({"rank": 2})
        (True, False)

    Ranks: independent.
    """
    told = values.get(_NAME)
    return told is not None and checksums.contradicts(str(told), _of(_rest(values)))


def _rest(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != _NAME}


def _of(rest: Mapping[str, Any]) -> str:
    return checksums.text_of_crc(crc32(json.dumps(_whole(rest), sort_keys=True).encode()))


def _whole(value: Any) -> Any:
    """As a reader has it, with `2` for `2.0`, as other programs than Python write it."""
    if isinstance(value, Mapping):
        return {str(name): _whole(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
