"""A run's arrays for xarray, read where they are used; and its attributes in other formats."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any

from notata import contents, files, layout
from notata.errors import ExportError
from notata.opened import Arrays, Opened
from notata.spelling import label
from notata.stored import StrPath, json_object, read_metadata, read_params

OURS = "notata_"  # begins the names of attributes that are no parameters


def attributes(run: StrPath) -> dict[str, Any]:
    """Parameters and metadata of a run as attributes: numbers, text, and lists of one of them.

    A parameter has its own name, or `params.NAME` if that begins as ours do. Whatever else a value
    is, such as a dict or None, stands there as JSON.

    Args:
        run: The run's folder.

    Raises:
        DamagedError: If its parameters or metadata can't be read.

    Ranks: independent.
    """
    path = os.fspath(run)
    meta = read_metadata(path)
    found: dict[str, Any] = {}
    for key, value in read_params(path).items():
        name = str(key)
        taken = name.startswith((OURS, "params.")) or not name
        found[f"params.{name}" if taken else name] = simple(value)
    for key in ("run_id", "status", "start_time", "end_time", "runtime_sec", "failure_reason"):
        if meta.get(key) is not None:
            found[OURS + key] = simple(meta[key])
    found[f"{OURS}metadata"] = json.dumps(meta, sort_keys=True)
    metrics = json_object(files.read_bytes(os.path.join(path, layout.METRICS)))
    if metrics is not None:
        found[f"{OURS}metrics"] = json.dumps(metrics, sort_keys=True)
    return found


def simple(value: Any) -> Any:
    """A value as attributes can have it.

    Example:
        >>> simple(0.5), simple([1, 2]), simple({"a": None}), simple([1, "x"])
        (0.5, [1, 2], '{"a": null}', '[1, "x"]')

    Ranks: independent.
    """
    if isinstance(value, str) and "\0" in value:  # which ends a text in HDF5
        return json.dumps(value)
    if isinstance(value, bool | float | str):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, list) and value:
        for kind in (bool, int, float, str):
            if all(type(item) is kind and simple(item) is item for item in value):
                return value
    return json.dumps(value, default=str)


def dimensions(name: str, count: int) -> tuple[str, ...]:
    """Names for the axes of an array.

    Example:
        >>> dimensions("T", 2)
        ('T_0', 'T_1')

    Ranks: independent.
    """
    return tuple(f"{name}_{axis}" for axis in range(count))


def needed(library: str, extra: str) -> Any:
    """A library that only this needs.

    Raises:
        ExportError: If it is not installed; the message says how to.

    Ranks: independent.
    """
    try:
        return import_module(library)
    except ImportError:
        name = library.partition(".")[0]
        raise ExportError(f"this needs {name}: pip install 'notata[{extra}]'") from None


def dataset(
    run: StrPath,
    names: Iterable[str] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """The arrays of a run as an xarray Dataset; nothing of them is read before it is used.

    Args:
        run: The run's folder.
        names: The arrays; all by default.
        dims: Names of the axes of some arrays; `T_0`, `T_1` … by default.

    Raises:
        ArrayNotFoundError: If there is no array of a name.
        ExportError: If xarray is not installed, or `dims` doesn't fit.
        HoleError: If pieces don't make a whole.

    Ranks: independent.
    """
    xarray = needed("xarray", "xarray")
    given = None if names is None else map(label, names)
    wanted = given or (facts.name for facts in contents.arrays(os.fspath(run)))
    axes_of = {label(name): axes for name, axes in (dims or {}).items()}
    variables, arrays = {}, Arrays(run)
    for name in wanted:
        array = arrays.open(name)
        axes = tuple(axes_of.get(name, dimensions(name, len(array.shape))))
        if len(axes) != len(array.shape):
            raise ExportError(
                f"array {name!r} has {len(array.shape)} axes, not {len(axes)}: {axes}"
            )
        variables[name] = (axes, _lazy(array))
    return xarray.Dataset(variables, attrs=attributes(run))


def _lazy(array: Opened) -> Any:
    """An array that xarray reads in parts, when it needs them."""
    base: Any = needed("xarray.backends", "xarray").BackendArray
    indexing = needed("xarray.core.indexing", "xarray")

    class Lazy(base):  # type: ignore[misc]
        shape, dtype = array.shape, array.dtype

        def __getitem__(self, key: Any) -> Any:
            basic = indexing.IndexingSupport.BASIC
            return indexing.explicit_indexing_adapter(key, self.shape, basic, array.read)

    return indexing.LazilyIndexedArray(Lazy())
