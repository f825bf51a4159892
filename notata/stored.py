"""What lies in runs' folders, in: parameters, JSON, arrays and artifacts."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from notata import files, flatyaml, folders, freshness, jsontext, layout, npy, spelling, tagged
from notata.errors import DamagedError, KeyNotFoundError, UnsafeNameError
from notata.pieces import Identity, ways
from notata.regions import region_of

if TYPE_CHECKING:
    from notata.npy import Array
    from notata.rankfiles import RankFiles

StrPath = str | os.PathLike[str]

DAMAGED = "damaged"  # the status of a run whose metadata can't be read


def run_folders(folder: StrPath, *, opened: bool = True) -> list[str]:
    """The runs that lie in a folder, such as those of an experiment.

    Args:
        folder: The folder they lie in.
        opened: Whether to leave out the folders without metadata, which rank 0 never opened.

    Returns:
        Paths of the sub-folders that are named as runs are, sorted.

    Raises:
        OSError: If the folder can't be listed.

    Ranks: independent.
    """
    names = sorted(name for name in os.listdir(folder) if name.startswith(layout.RUN_PREFIX))
    paths = [os.path.join(folder, name) for name in names]
    if opened:
        return [p for p in paths if _may(freshness.exists, os.path.join(p, layout.METADATA))]
    return [path for path in paths if may_be_folder(path)]


def may_be_folder(path: str) -> bool:
    """Whether a folder is there, as far as that can be told: what can't be looked at may be one.

    Ranks: independent.
    """
    return _may(folders.is_dir, path)


def _may(be: Callable[[str], bool], path: str) -> bool:
    """What can't be looked at counts as a run: whoever reads it hears what is wrong with it."""
    try:
        return be(path)
    except OSError:
        return True


_NO_JSON = (ValueError, RecursionError)  # the latter where brackets are nested too deeply


def parse_json(data: bytes, path: StrPath) -> Any:
    """The value of a JSON file that was read.

    Raises:
        DamagedError: If it holds no JSON; the message names the file.

    Ranks: independent.
    """
    try:
        return json.loads(data)
    except _NO_JSON as error:
        raise DamagedError(f"{os.fspath(path)} is damaged: {error}") from None


def read_json(path: StrPath) -> dict[str, Any] | None:
    """A JSON object from a file, or None where there is no file or no whole object in it.

    Ranks: independent.
    """
    return json_object(files.read_bytes(path))


def json_object(data: bytes | None) -> dict[str, Any] | None:
    """The JSON object that bytes hold, or None where they hold none.

    Ranks: independent.
    """
    with contextlib.suppress(*_NO_JSON):
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
    values = {} if data is None else parse_json(data, path)
    if not isinstance(values, dict):
        raise DamagedError(f"{path} is damaged: it holds no JSON object")
    return values


def params_format(run: StrPath) -> str | None:
    """The format of the newer snapshot of a run's parameters, `yaml` or `json`; None without any.

    Ranks: independent.
    """
    found = []
    for ext, name in layout.PARAMS.items():
        with contextlib.suppress(FileNotFoundError):
            found.append((os.stat(os.path.join(run, name)).st_mtime_ns, ext))
    return max(found)[1] if found else None


def read_params(run: StrPath) -> dict[str, Any]:
    """The parameters of a run, from the newer of its snapshots.

    Args:
        run: The run's folder.

    Raises:
        DamagedError: If that file can't be parsed, or holds something other than names and values,
            or a value that holds itself.

    Ranks: independent.
    """
    # Most runs have the one snapshot, so that no times need to be compared.
    ext, path = "yaml", os.path.join(run, layout.PARAMS["yaml"])
    alone = not freshness.exists(os.path.join(run, layout.PARAMS["json"]))
    data = files.read_bytes(path) if alone else None
    if data is None:
        newer = params_format(run)
        if newer is None:
            return {}
        ext, path = newer, os.path.join(run, layout.PARAMS[newer])
        data = files.read_bytes(path)
    parse = _parse_yaml if ext == "yaml" else parse_json
    values = parse(data, path) if data else None
    if not isinstance(values, dict | None):
        raise DamagedError(f"{path} is damaged: it holds no parameters")
    return {str(name): value for name, value in values.items()} if values else {}


def _parse_yaml(data: bytes, path: StrPath) -> Any:
    simple = flatyaml.parsed(data)
    if simple is not None:
        return simple
    import yaml

    # The same loader, but for a parser in C, which takes a tenth of the time.
    with contextlib.suppress(Exception):
        return jsontext.checked(yaml.load(data, Loader=yaml.CSafeLoader))
    try:
        return jsontext.checked(tagged.parsed(data))
    except Exception as error:  # YAMLError, and whatever a value's constructor meets
        why, file = " ".join(str(error).split()), os.fspath(path)
        if tagged.is_object(error):
            raise DamagedError(
                f"{file} holds a Python object, which is not made from a file: {why}; write what "
                "it stands for as numbers, text, lists or dicts"
            ) from None
        raise DamagedError(f"{file} is damaged: {why}") from None


T_co = TypeVar("T_co", covariant=True)


class Made(Sequence[T_co]):
    """What belongs to each rank of a range, made where it is asked for."""

    def __init__(self, make: Callable[[int], T_co], ranks: range) -> None:
        self._make, self._ranks = make, ranks

    def __len__(self) -> int:
        return len(self._ranks)

    @overload
    def __getitem__(self, position: int) -> T_co: ...
    @overload
    def __getitem__(self, position: slice) -> Made[T_co]: ...
    def __getitem__(self, position: int | slice) -> T_co | Made[T_co]:
        if isinstance(position, slice):
            return Made(self._make, self._ranks[position])
        try:
            rank = self._ranks[position]
        except IndexError:
            raise IndexError(f"there is no rank {position}: there are {len(self)}") from None
        return self._make(rank)


class Shelf:
    """Arrays, artifacts and plots in one pair of folders."""

    def __init__(self, path: StrPath, home: RankFiles, own: RankFiles) -> None:
        self._shown = path
        self._home, self._own = home, own

    @property
    def path(self) -> Path:
        """The folder that they are in.

        Ranks: independent.
        """
        return Path(self._shown)

    @property
    def artifacts(self) -> list[str]:
        """Names of all artifacts with their extensions, such as `config/solver.json`.

        Ranks: independent.
        """
        return self._home.names(layout.ARTIFACTS)

    @property
    def plots(self) -> list[str]:
        """Names of all plots with their extensions.

        Ranks: independent.
        """
        return self._home.names(layout.PLOTS)

    def load_json(self, name: spelling.Name) -> Any:
        """Load a JSON artifact; the extension may be left out. Empty where there is none.

        Raises:
            DamagedError: If the file holds no JSON (a `ValueError`).

        Ranks: independent.
        """
        name = spelling.spelled(name).removesuffix(".json")
        file = f"{layout.ARTIFACTS}/{layout.inside(name, '.json')}"
        data = self._home.read(file)
        return {} if data is None else parse_json(data, self.path / file)

    def stored(self) -> list[str]:
        """Names of the arrays that lie in `data/`.

        Ranks: independent.
        """
        found = []
        for name in self._own.names(layout.DATA):
            if name.endswith(".npy"):
                found.append(name.removesuffix(".npy"))
            elif name.endswith(".npz"):
                with contextlib.suppress(Exception):  # a damaged bundle lists nothing
                    bundle = name.removesuffix(".npz")
                    keys = npy.bundle_keys(self._own.source(f"{layout.DATA}/{name}"))
                    found += [f"{bundle}:{key}" for key in keys]
        return found

    def load_stored(
        self,
        name: spelling.Name,
        region: Any,
        instead: Callable[[Identity], Any] = lambda identity: None,
    ) -> Array | None:
        """Load an array that lies in `data/`, or None where it doesn't.

        Args:
            name: `T`, or `bundle:key`.
            region: The part of it, or None for all.
            instead: Asked before each file that the name may mean; what it gives is returned, and
                the file is read if it is None.

        Ranks: independent.
        """
        without = ""
        refused: UnsafeNameError | None = None
        tried = False
        # Keys are taken as they are: those of a bundle that is not ours may be no names of files.
        for given, key in ways(name if isinstance(name, str) else spelling.spelled(name)):
            try:
                stem = spelling.spelled(given)
                file = layout.data_file(stem, key)
            except UnsafeNameError as error:  # "bundle:key" may be longer than a file's name
                refused = error
                continue
            tried = True
            if (other := instead((stem, key))) is not None:
                return cast("Array", other)
            try:
                return load_file(self._own.source(file), key, region)
            except FileNotFoundError:
                continue
            except KeyError:
                without = f"no key {key!r} in bundle {self.path / file}"
        if refused is not None and not tried:
            raise refused
        if without:
            raise KeyNotFoundError(without)
        return None


def load_file(source: npy.Source, key: str | None, region: Any) -> Array:
    """Load an array, or a part of it, from its own file or from a bundle.

    Raises:
        FileNotFoundError: If there is no such file.
        KeyError: If the bundle has no such key.
        DamagedError: If the file is cut off or isn't what it says.

    Ranks: independent.
    """
    with contextlib.ExitStack() as stack:
        if not isinstance(source, str | os.PathLike):
            stack.enter_context(source)
        if key is not None:
            array = npy.load_member(source, key)
        else:
            array = npy.load(source, mapped=region is not None)
        return array if region is None else part_of(array, region)


def part_of(array: Array, region: Any) -> Array:
    """The part of an array that a region means, as an array of its own.

    Ranks: independent.
    """
    box = region_of(region, array.shape)
    # With `...` an array of no axes stays one; else text would be indexed as text.
    within: Any = (..., *_slices(box.start, box.shape))
    part: Array = array[within][box.pick].copy()
    return part


def _slices(start: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
