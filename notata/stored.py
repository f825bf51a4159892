"""What lies in a run's folders, in: parameters, JSON, and one shelf of arrays and artifacts."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from notata import files, layout, npy
from notata.errors import DamagedError, KeyNotFoundError, UnsafeNameError
from notata.regions import region_of

if TYPE_CHECKING:
    from notata.npy import Array

StrPath = str | os.PathLike[str]


def read_json(path: StrPath) -> dict[str, Any] | None:
    """A JSON object from a file, or None where there is no file or no whole object in it.

    Ranks: independent.
    """
    data = files.read_bytes(path)
    with contextlib.suppress(ValueError):
        found = json.loads(data) if data else None
        return found if isinstance(found, dict) else None
    return None


def read_metadata(run: StrPath) -> dict[str, Any]:
    """The metadata of a run; empty where there is none.

    Raises:
        DamagedError: If the file is no JSON object.

    Ranks: independent.
    """
    path = os.path.join(run, layout.METADATA)
    data = files.read_bytes(path)
    try:
        values = {} if data is None else json.loads(data)
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise DamagedError(f"{path} is damaged: it holds no JSON object")
    return values


def read_params(run: StrPath) -> dict[str, Any]:
    """The parameters of a run, from the newer of its snapshots.

    Args:
        run: The run's folder.

    Ranks: independent.
    """
    found = []
    for ext, name in layout.PARAMS.items():
        path = os.path.join(run, name)
        with contextlib.suppress(FileNotFoundError):
            found.append((os.stat(path).st_mtime_ns, ext, path))
    if not found:
        return {}
    _, ext, path = max(found)
    data = files.read_bytes(path) or b""
    if ext == "json":
        values = json.loads(data) if data else {}
    else:
        import yaml

        values = yaml.safe_load(data)
    return values if isinstance(values, dict) else {}


class Shelf:
    """Arrays, artifacts and plots in one pair of folders."""

    def __init__(self, path: Path, data_home: Path) -> None:
        self.path = path
        self._data = data_home / layout.DATA

    @property
    def artifacts(self) -> list[str]:
        """Names of all artifacts with their extensions, such as `config/solver.json`.

        Ranks: independent.
        """
        return _names(self.path / layout.ARTIFACTS)

    @property
    def plots(self) -> list[str]:
        """Names of all plots with their extensions.

        Ranks: independent.
        """
        return _names(self.path / layout.PLOTS)

    def load_json(self, name: str) -> Any:
        """Load a JSON artifact; the extension may be left out. Empty where there is none.

        Ranks: independent.
        """
        file = layout.inside(name.removesuffix(".json"), ".json")
        data = files.read_bytes(self.path / layout.ARTIFACTS / file)
        return {} if data is None else json.loads(data)

    def stored(self) -> list[str]:
        """Names of the arrays that lie in `data/`.

        Ranks: independent.
        """
        found = []
        for name in _names(self._data):
            if name.endswith(".npy"):
                found.append(name.removesuffix(".npy"))
            elif name.endswith(".npz"):
                with contextlib.suppress(Exception):  # a damaged bundle lists nothing
                    bundle = name.removesuffix(".npz")
                    found += [f"{bundle}:{key}" for key in npy.bundle_keys(self._data / name)]
        return found

    def load_stored(self, name: str, region: Any) -> Array | None:
        """Load an array that lies in `data/`, or None where it doesn't.

        Ranks: independent.
        """
        without = ""
        refused: UnsafeNameError | None = None
        tried = False
        for stem, key in [(name, None), *_splits(name)]:
            try:
                path = self._data / layout.inside(stem, ".npy" if key is None else ".npz")
                tried = True
                return _loaded(path, key, region)
            except UnsafeNameError as error:  # "bundle:key" may be longer than a file's name
                refused = error
            except FileNotFoundError:
                continue
            except KeyError:
                without = f"no key {key!r} in bundle {path}"
        if refused is not None and not tried:
            raise refused
        if without:
            raise KeyNotFoundError(without)
        return None


def _loaded(path: Path, key: str | None, region: Any) -> Array:
    if key is not None:
        array = npy.load_member(path, key)
    else:
        array = npy.load(path, mapped=region is not None)
    return array if region is None else _part(array, region)


def _names(folder: Path) -> list[str]:
    """Files below a folder, as paths relative to it; what is being written is left out."""
    found = []
    for parent, _, names in os.walk(folder):
        relative = os.path.relpath(parent, folder)
        for name in names:
            if not name.startswith(layout.TEMP_PREFIX):
                found.append(name if relative == "." else f"{relative}/{name}")
    return sorted(found)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """The ways to read a name as bundle and key; either may hold a colon."""
    for position, character in enumerate(name):
        if character == ":" and 0 < position < len(name):
            yield name[:position], name[position + 1 :]


def _part(array: Array, region: Any) -> Array:
    """The part of an array that a region means, as an array of its own."""
    box = region_of(region, array.shape)
    part: Array = array[_slices(box.start, box.shape)][box.pick].copy()
    return part


def _slices(start: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
