"""Values that notata 0.3.0 wrote as tags of Python objects, in: numbers, lists and paths.

It wrote numpy's numbers and arrays, tuples and paths as PyYAML dumps objects, and refuses to read
them itself. What such tags say is taken here from their text and bytes alone: nothing that a file
names is imported or called. Other objects are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

_PYTHON = "tag:yaml.org,2002:python/"
_NUMPY = ("numpy._core.multiarray", "numpy.core.multiarray")  # from numpy 2 on, and before
_PATHS = ("pathlib", "pathlib._local")  # the latter in Python 3.13
_DTYPE = re.compile(r"b1|[iuf][1248]|U\d{1,6}")


def parsed(data: bytes) -> Any:
    """The value of a YAML file in which such tags may stand.

    Raises:
        yaml.YAMLError: If it is no YAML, or has an object of another kind.
        ValueError: If what a tag says makes no sense.

    Ranks: independent.
    """
    import yaml

    return yaml.load(data, Loader=_loader())  # noqa: S506 - it makes what is listed below alone


def is_object(error: Exception) -> bool:
    """Whether a file could not be read for an object that is not made from files.

    Ranks: independent.
    """
    return _PYTHON in str(error)


@cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads these tags, and those of YAML itself."""

    known: dict[str, Callable[[Any, Any], Any]] = {"tuple": _sequence}
    known |= {"name:numpy.ndarray": _nothing, "object/apply:numpy.dtype": _dtype}
    known |= {f"object/apply:{room}.{kind}Path": _path for room in _PATHS for kind in _KINDS}
    known |= {f"object/apply:{room}.scalar": _number for room in _NUMPY}
    known |= {f"object/apply:{room}._reconstruct": _array for room in _NUMPY}
    for name, made in known.items():
        Loader.add_constructor(_PYTHON + name, made)
    return Loader


_KINDS = ("Posix", "Windows", "PurePosix", "PureWindows")


def _sequence(loader: yaml.SafeLoader, node: Any) -> list[Any]:
    return list(loader.construct_sequence(node, deep=True))


def _nothing(loader: yaml.SafeLoader, node: Any) -> None:
    """A name of which nothing is needed."""


def _path(loader: yaml.SafeLoader, node: Any) -> str:
    first, *rest = map(str, _sequence(loader, node))
    return "/".join([first.rstrip("/"), *rest]) if rest else first


def _dtype(loader: yaml.SafeLoader, node: Any) -> Any:
    import numpy as np

    told = loader.construct_mapping(node, deep=True)
    name, order = str(told["args"][0]), told["state"][1]
    if not _DTYPE.fullmatch(name) or order not in ("<", ">", "|"):
        raise ValueError(f"a number of type {order!r}, {name!r} is not known")
    return np.dtype(f"{order}{name}")


def _number(loader: yaml.SafeLoader, node: Any) -> Any:
    import numpy as np

    dtype, data = _sequence(loader, node)
    return np.frombuffer(data, dtype, 1)[0].tolist()


def _array(loader: yaml.SafeLoader, node: Any) -> Any:
    import numpy as np

    _, shape, dtype, fortran, data = loader.construct_mapping(node, deep=True)["state"]
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape, order="F" if fortran else "C").tolist()
