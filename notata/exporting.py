"""A run as one file of another format: HDF5, Zarr or netCDF, streamed from files or pieces."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from notata import contents, datasets, layout
from notata.errors import ExportError
from notata.opened import Opened, open_array
from notata.pieces import Shape
from notata.reader import LogReader
from notata.stored import StrPath

if TYPE_CHECKING:
    import numpy as np

    from notata.npy import Array

ENDINGS = {"hdf5": ".h5", "zarr": ".zarr", "netcdf": ".nc"}
_CHUNK = 8 << 20  # bytes that are read and written at once, and of a chunk of Zarr
_NAME = f"{datasets.OURS}name"


class Exported(NamedTuple):
    """What was written.

    Attributes:
        path: The file, or the folder of a Zarr store.
        arrays: Names of the arrays.
        nbytes: Bytes of all their elements.
    """

    path: str
    arrays: list[str]
    nbytes: int


def export(
    run: StrPath,
    to: str,
    out: StrPath,
    *,
    names: Iterable[str] | None = None,
    overwrite: bool = False,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write the arrays of a run into one file, with parameters and metadata as attributes.

    Arrays keep their names; what a format can't hold is told apart by what stands behind the name:
    `.real` and `.imag` of complex numbers in netCDF, `.FIELD` of records. Times are whole numbers
    with the attribute `notata_dtype`.

    Args:
        run: The run's folder.
        to: `hdf5`, `zarr` or `netcdf`.
        out: The file to make; it is there once it is whole.
        names: The arrays; all by default.
        overwrite: Whether a file, or a Zarr store where one is made, may be there and is replaced.
        tell: Called with the bytes that are done, and of how many.

    Raises:
        ExportError: If `out` exists, is a folder other than a Zarr store that may be replaced, or
            has to do with the run's own folder; the library is missing; or a value can't be stored.
        ArrayNotFoundError: If there is no array of a name.
        HoleError: If pieces don't make a whole.
        DamagedError: If a file of the run is damaged.

    Ranks: independent; one process is enough.
    """
    if to not in ENDINGS:
        raise ExportError(f"there is no format {to!r}: {', '.join(ENDINGS)}")
    path = os.fspath(LogReader(run).path)
    target = os.fspath(out).rstrip("/") if to == "zarr" else os.fspath(out)
    _refuse_folders(target, to)
    _refuse_inside(target, path)
    if os.path.lexists(target) and not overwrite:
        raise ExportError(f"{target} exists: choose another file, or overwrite it")
    wanted = [f.name for f in contents.arrays(path)] if names is None else list(names)
    arrays = [open_array(path, name) for name in wanted]
    total = sum(array.nbytes for array in arrays)
    folder = os.path.dirname(target) or "."
    missing = _missing(folder)
    made = os.path.join(folder, layout.temporary() + ENDINGS[to])
    try:
        os.makedirs(folder, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Zarr, of types that other languages may not know
            _write(_SINKS[to](made, datasets.attributes(path)), to, arrays, tell, total)
        _put(made, target, to)
    finally:
        _remove(made)
        with suppress(OSError):  # those that hold something by now
            for empty in missing:
                os.rmdir(empty)
    return Exported(target, wanted, total)


def _write(
    sink: _Sink, to: str, arrays: list[Opened], tell: Callable[[int, int], None], total: int
) -> None:
    done = 0
    tell(done, total)
    places = _places([array.name for array in arrays])
    try:
        for array in arrays:
            for column in list(_columns(array.dtype, to, array.name)):
                place = sink.make(places[array.name] + column.suffix, array, column)
                for box in array.slabs(_CHUNK):
                    if not all(array.shape):
                        continue
                    place[box if box else ...] = column.take(array.read(box))
            done += array.nbytes
            tell(done, total)
    finally:
        sink.close()


def _places(names: list[str]) -> dict[str, str]:
    """A name for each array; one that is a folder of others, too, can't be both."""
    folders = {
        "/".join(name.split("/")[:n]) for name in names for n in range(1, name.count("/") + 1)
    }
    return {name: f"{name}.array" if name in folders else name for name in names}


def _refuse_folders(target: str, to: str) -> None:
    """Make sure that a target names a file, or what a Zarr store may take the place of."""
    named = os.path.basename(target) not in ("", ".", "..")
    store = to == "zarr" and not os.path.islink(target)
    if not named or (os.path.isdir(target) and not (store and _is_store(target))):
        wanted = "a Zarr store" if to == "zarr" else "a file"
        raise ExportError(f"{target or repr(target)} is a folder: name {wanted} in it")
    if to == "zarr" and os.path.lexists(target) and not os.path.isdir(target):
        raise ExportError(f"{target} is a file, no Zarr store: choose another name")


def _is_store(path: str) -> bool:
    return any(os.path.isfile(os.path.join(path, name)) for name in ("zarr.json", ".zgroup"))


def _refuse_inside(target: str, run: str) -> None:
    """Make sure that neither the run's folder nor anything in it is replaced or added to."""
    run = os.path.realpath(run)
    parent, name = os.path.split(os.path.abspath(target))
    for place in (os.path.join(os.path.realpath(parent), name), os.path.realpath(target)):
        if os.path.commonpath((place, run)) in (place, run):
            raise ExportError(
                f"{target} is, holds or lies in the run's own folder {run}: name a file elsewhere"
            )


def _missing(folder: str) -> list[str]:
    """The folders on the way that are not there yet, innermost first."""
    found = []
    while folder and not os.path.lexists(folder):
        found.append(folder)
        folder = os.path.dirname(folder.rstrip("/"))
    return found


def _put(made: str, target: str, to: str) -> None:
    _refuse_folders(target, to)  # once more: what has come there since is not ours to delete
    if os.path.isdir(target):
        aside = os.path.join(os.path.dirname(target) or ".", layout.temporary())
        os.rename(target, aside)
        os.rename(made, target)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(made, target)


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)


# ----- what a format can hold -----


class _Column(NamedTuple):
    """An array, or the part of it that a format can hold."""

    suffix: str
    dtype: Any  # numpy's, or str
    take: Callable[[Array], Array]
    attributes: dict[str, Any]


def _same(array: Array) -> Array:
    return array


def _columns(dtype: np.dtype[Any], to: str, name: str) -> Iterator[_Column]:
    import numpy as np

    if dtype.names:
        if to != "netcdf" and _is_plain(dtype):
            yield _Column("", dtype, _same, {})
            return
        for field in dtype.names:
            for column in _columns(dtype[field], to, name):
                yield column._replace(
                    suffix=f".{field}{column.suffix}", take=_after(field, column.take)
                )
        return
    kind, told = dtype.kind, {f"{datasets.OURS}dtype": str(dtype)}
    if dtype.shape:
        raise ExportError(f"array {name!r} of {dtype} can't be stored as {to}")
    if kind == "U":
        yield _Column("", str, lambda array: array.astype(object), {})
    elif kind == "S" and to != "hdf5":
        yield _Column("", str, _decoded, told)
    elif kind in "mM":
        yield _Column("", np.dtype("<i8"), lambda array: array.astype("<i8"), told)
    elif kind == "c" and to == "netcdf":
        part = np.dtype("f4" if dtype.itemsize == 8 else "f8")
        yield _Column(".real", part, lambda array: array.real.astype(part), told)
        yield _Column(".imag", part, lambda array: array.imag.astype(part), told)
    elif to != "hdf5" and (kind in "fc" and dtype.itemsize > (8 if kind == "f" else 16)):
        small = np.dtype("f8" if kind == "f" else "c16")
        yield _Column("", small, lambda array: array.astype(small), told)
    elif to == "netcdf" and (kind == "b" or dtype == np.dtype("f2")):
        small = np.dtype("i1" if kind == "b" else "f4")
        yield _Column("", small, lambda array: array.astype(small), told)
    elif kind in "biufcS":
        yield _Column("", dtype, _same, {})
    else:
        raise ExportError(f"array {name!r} of {dtype} can't be stored as {to}")


def _after(field: str, take: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda array: take(array[field])


def _decoded(array: Array) -> Array:
    import numpy as np

    return np.char.decode(array, "utf-8", "backslashreplace").astype(object)


def _is_plain(dtype: np.dtype[Any]) -> bool:
    if dtype.names:
        return all(_is_plain(dtype[field]) for field in dtype.names)
    return dtype.base.kind in "biufc" and not dtype.shape


# ----- files -----


class _Sink(Protocol):
    """A file that arrays are put into."""

    def make(self, place: str, array: Opened, column: _Column) -> Any:
        """Make room for an array, and give what its parts are put into."""

    def close(self) -> None:
        """Finish the file."""


class _Hdf5:
    def __init__(self, path: str, attributes: dict[str, Any]) -> None:
        self._h5py = datasets.needed("h5py", "hdf5")
        # Long attributes, such as those of many hosts, need the newer layout.
        self._file = self._h5py.File(path, "w-", libver="latest")
        self._file.attrs.update(attributes)

    def make(self, place: str, array: Opened, column: _Column) -> Any:
        kind = self._h5py.string_dtype() if column.dtype is str else column.dtype
        made = self._file.create_dataset(place, array.shape, kind)
        made.attrs.update(column.attributes | {_NAME: array.name})
        return made

    def close(self) -> None:
        self._file.close()


class _NetCdf:
    def __init__(self, path: str, attributes: dict[str, Any]) -> None:
        library = datasets.needed("h5netcdf", "netcdf")
        self._h5py = datasets.needed("h5py", "netcdf")
        self._file = library.File(path, "w", libver="latest")
        for name, value in attributes.items():
            # netCDF has no booleans, and a slash would stand for a group.
            told = int(value) if isinstance(value, bool) else value
            self._file.attrs[name.replace("/", "_")] = told

    def make(self, place: str, array: Opened, column: _Column) -> Any:
        folder, _, name = place.rpartition("/")
        group = self._file
        for part in filter(None, folder.split("/")):
            group = group[part] if part in group.groups else group.create_group(part)
        axes = datasets.dimensions(name, len(array.shape))
        for axis, length in zip(axes, array.shape, strict=True):
            group.dimensions[axis] = length
        kind = self._h5py.string_dtype() if column.dtype is str else column.dtype
        made = group.create_variable(name, axes, kind)
        for key, value in (column.attributes | {_NAME: array.name}).items():
            made.attrs[key] = value
        return made

    def close(self) -> None:
        self._file.close()


class _Zarr:
    def __init__(self, path: str, attributes: dict[str, Any]) -> None:
        self._root = datasets.needed("zarr", "zarr").open_group(path, mode="w-")
        self._root.attrs.update(attributes)

    def make(self, place: str, array: Opened, column: _Column) -> Any:
        attributes = column.attributes | {_NAME: array.name}
        return self._root.create_array(
            place,
            shape=array.shape,
            dtype=column.dtype,
            chunks=_chunks(array.shape, array.dtype.itemsize),
            attributes=attributes,
            dimension_names=datasets.dimensions(place.rpartition("/")[2], len(array.shape)),
        )

    def close(self) -> None:
        pass


def _chunks(shape: Shape, itemsize: int) -> Shape:
    """The shape of a chunk: that of a slab, so that each chunk is written once."""
    chunk = list(shape)
    for axis in range(len(shape)):
        inner = itemsize
        for length in chunk[axis + 1 :]:
            inner *= max(1, length)
        chunk[axis] = max(1, min(chunk[axis], _CHUNK // max(1, inner)))
        if inner <= _CHUNK:
            break
    return tuple(max(1, n) for n in chunk)


_SINKS: dict[str, Callable[[str, dict[str, Any]], _Sink]] = {
    "hdf5": _Hdf5,
    "netcdf": _NetCdf,
    "zarr": _Zarr,
}
