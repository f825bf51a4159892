"""HDF5, Zarr and netCDF: what each can hold, and files of them that arrays are put into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from notata import datasets
from notata.errors import ExportError
from notata.opened import Opened
from notata.pieces import Shape

if TYPE_CHECKING:
    import numpy as np

    from notata.npy import Array

CHUNK = 8 << 20  # bytes that are read and written at once, and of a chunk of Zarr
_NAME = f"{datasets.OURS}name"


def free(name: str, taken: set[str]) -> str:
    """A name that nothing else has, which has it from now on.

    Example:
        >>> free("T.real", {"T", "T.real"})
        'T.real_'

    Ranks: independent.
    """
    while name in taken:
        name += "_"
    taken.add(name)
    return name


# ----- what a format can hold -----


class Column(NamedTuple):
    """An array, or the part of it that a format can hold.

    Attributes:
        suffix: What stands behind the array's name.
        dtype: numpy's, or `str`.
        take: Takes the part from elements of the array.
        attributes: What tells of it.
    """

    suffix: str
    dtype: Any
    take: Callable[[Array], Array]
    attributes: dict[str, Any]


def _same(array: Array) -> Array:
    return array


def columns(dtype: np.dtype[Any], to: str, name: str) -> Iterator[Column]:
    """What of an array's elements a format can hold.

    Args:
        dtype: Their type.
        to: The format.
        name: The array's name, for the error.

    Raises:
        ExportError: If it can't hold them.

    Ranks: independent.
    """
    import numpy as np

    if dtype.names:
        if to != "netcdf" and _is_plain(dtype):
            yield Column("", dtype, _same, {})
            return
        for field in dtype.names:
            for column in columns(dtype[field], to, name):
                yield column._replace(
                    suffix=f".{field}{column.suffix}", take=_after(field, column.take)
                )
        return
    kind, told = dtype.kind, {f"{datasets.OURS}dtype": str(dtype)}
    if dtype.shape:
        raise ExportError(f"array {name!r} of {dtype} can't be stored as {to}")
    if kind == "U":
        yield Column("", str, lambda array: array.astype(object), {})
    elif kind == "S" and to != "hdf5":
        yield Column("", str, _decoded, told)
    elif kind in "mM":
        yield Column("", np.dtype("<i8"), lambda array: array.astype("<i8"), told)
    elif kind == "c" and to == "netcdf":
        part = np.dtype("f4" if dtype.itemsize == 8 else "f8")
        yield Column(".real", part, lambda array: array.real.astype(part), told)
        yield Column(".imag", part, lambda array: array.imag.astype(part), told)
    elif to != "hdf5" and (kind in "fc" and dtype.itemsize > (8 if kind == "f" else 16)):
        small = np.dtype("f8" if kind == "f" else "c16")
        yield Column("", small, lambda array: array.astype(small), told)
    elif to == "netcdf" and (kind == "b" or dtype == np.dtype("f2")):
        small = np.dtype("i1" if kind == "b" else "f4")
        yield Column("", small, lambda array: array.astype(small), told)
    elif kind in "biufcS":
        yield Column("", dtype, _same, {})
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


class Sink(Protocol):
    """A file that arrays are put into."""

    def describe(self, name: str, value: Any) -> None:
        """Give the file an attribute.

        Ranks: independent.
        """

    def make(self, place: str, array: Opened, column: Column) -> Any:
        """Make room for an array, and give what its parts are put into.

        Ranks: independent.
        """

    def close(self) -> None:
        """Finish the file.

        Ranks: independent.
        """


def _without_nul(name: str) -> str:
    r"""A name that HDF5 doesn't cut: there, a NUL ends it."""
    return name.replace("\0", r"\0")


class _Hdf5:
    def __init__(self, path: str) -> None:
        self._h5py = datasets.needed("h5py", "hdf5")
        # Long attributes, such as those of many hosts, need the newer layout.
        self._file = self._h5py.File(path, "w-", libver="latest")

    def describe(self, name: str, value: Any) -> None:
        self._file.attrs[_without_nul(name)] = value

    def make(self, place: str, array: Opened, column: Column) -> Any:
        kind = self._h5py.string_dtype() if column.dtype is str else column.dtype
        made = self._file.create_dataset(place, array.shape, kind)
        made.attrs.update(column.attributes | {_NAME: array.name})
        return made

    def close(self) -> None:
        self._file.close()


class _NetCdf:
    def __init__(self, path: str) -> None:
        library = datasets.needed("h5netcdf", "netcdf")
        self._h5py = datasets.needed("h5py", "netcdf")
        self._file = library.File(path, "w", libver="latest")
        self._taken: set[str] = set()

    def describe(self, name: str, value: Any) -> None:
        # netCDF has no booleans, and a slash would stand for a group.
        value = int(value) if isinstance(value, bool) else value
        name = free(_without_nul(name).replace("/", "_"), self._taken)
        try:
            self._file.attrs[name] = value
        except AttributeError:  # a name that the format needs itself, such as CLASS
            self._file.attrs[f"params.{name}"] = value

    def make(self, place: str, array: Opened, column: Column) -> Any:
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
    def __init__(self, path: str) -> None:
        self._root = datasets.needed("zarr", "zarr").open_group(path, mode="w-")
        self._attributes: dict[str, Any] = {}

    def describe(self, name: str, value: Any) -> None:
        self._attributes[name] = value

    def make(self, place: str, array: Opened, column: Column) -> Any:
        attributes = column.attributes | {_NAME: array.name}
        return self._root.create_array(
            place,
            shape=array.shape,
            dtype=column.dtype,
            chunks=chunks(array.shape, array.dtype.itemsize),
            attributes=attributes,
            dimension_names=datasets.dimensions(place.rpartition("/")[2], len(array.shape)),
        )

    def close(self) -> None:
        self._root.attrs.update(self._attributes)  # at once: each time, all of them are written


def chunks(shape: Shape, itemsize: int) -> Shape:
    """The shape of a chunk: that of a slab, so that each chunk is written once.

    Ranks: independent.
    """
    chunk = list(shape)
    for axis in range(len(shape)):
        inner = itemsize
        for length in chunk[axis + 1 :]:
            inner *= max(1, length)
        chunk[axis] = max(1, min(chunk[axis], CHUNK // max(1, inner)))
        if inner <= CHUNK:
            break
    return tuple(max(1, n) for n in chunk)


SINKS: dict[str, Callable[[str], Sink]] = {
    "hdf5": _Hdf5,
    "netcdf": _NetCdf,
    "zarr": _Zarr,
}
