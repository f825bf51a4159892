"""A run as one file of another format: HDF5, Zarr or netCDF, streamed from files or pieces."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from notata import contents, datasets, folders, formats, freshness, layout
from notata.errors import ExportError, NotataError
from notata.opened import Arrays, Opened
from notata.reader import LogReader
from notata.spelling import label
from notata.stored import StrPath

ENDINGS = {"hdf5": ".h5", "zarr": ".zarr", "netcdf": ".nc"}


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

    Arrays keep their names. What a format can't hold becomes several arrays: `NAME.real` and
    `NAME.imag` of complex numbers in netCDF, `NAME.FIELD` of records. Times are whole numbers with
    the attribute `notata_dtype`.

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
    if freshness.exists(target) and not overwrite:
        raise ExportError(
            f"{target} exists: choose another file, or replace it by overwrite=True (--overwrite)"
        )
    given = None if names is None else list(dict.fromkeys(map(label, names)))
    wanted = [f.name for f in contents.arrays(path)] if given is None else given
    known = Arrays(path)
    arrays = [known.open(name) for name in wanted]
    total = sum(array.nbytes for array in arrays)
    folder = os.path.dirname(target) or "."
    missing = _missing(folder)
    made = os.path.join(folder, layout.temporary() + ENDINGS[to])
    try:
        os.makedirs(folder, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Zarr, of types that other languages may not know
            _write(formats.SINKS[to](made), to, datasets.attributes(path), arrays, tell)
        _put(made, target, to)
    finally:
        _remove(made)
        with suppress(OSError):  # those that hold something by now
            for empty in missing:
                os.rmdir(empty)
    return Exported(target, wanted, total)


def _write(
    sink: formats.Sink,
    to: str,
    attributes: dict[str, Any],
    arrays: list[Opened],
    tell: Callable[[int, int], None],
) -> None:
    done, total = 0, sum(array.nbytes for array in arrays)
    tell(done, total)
    places = _places([array.name for array in arrays])
    taken = {folder for place in places.values() for folder in _folders(place)}
    taken |= set(places.values())
    try:
        for key, value in attributes.items():
            with _refused(f"attribute {key!r}", to):
                sink.describe(key, value)
        for array in arrays:
            for column in list(formats.columns(array.dtype, to, array.name)):
                place = places[array.name]
                if column.suffix:
                    place = formats.free(place + column.suffix, taken)
                _put_array(sink, to, place, array, column)
            done += array.nbytes
            tell(done, total)
        with _refused("the run", to):
            sink.close()
    except BaseException:
        with suppress(Exception):  # what it can't store, it may not close with either
            sink.close()
        raise


def _put_array(
    sink: formats.Sink, to: str, name: str, array: Opened, column: formats.Column
) -> None:
    what = f"array {array.name!r}"
    with _refused(what, to):
        place = sink.make(name, array, column)
    for box in array.slabs(formats.CHUNK):
        if all(array.shape):
            read = array.read(box)
            with _refused(what, to):
                place[box if box else ...] = column.take(read)


@contextmanager
def _refused(what: str, to: str) -> Iterator[None]:
    """Whatever a library says of a name or value that it can't store, as an error of ours."""
    try:
        yield
    except NotataError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise ExportError(f"{what} can't be stored as {to}: {why}") from error


def _places(names: list[str]) -> dict[str, str]:
    """A name for each array; one that is a folder of others, too, can't be both."""
    folders = {folder for name in names for folder in _folders(name)}
    taken = {*names, *folders}
    return {
        name: formats.free(f"{name}.array", taken) if name in folders else name for name in names
    }


def _folders(name: str) -> list[str]:
    """The folders that a name lies in."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _refuse_folders(target: str, to: str) -> None:
    """Make sure that a target names a file, or what a Zarr store may take the place of."""
    named = os.path.basename(target) not in ("", ".", "..")
    store = to == "zarr" and not os.path.islink(target)
    if not named or (os.path.isdir(target) and not (store and _is_store(target))):
        wanted = "a Zarr store" if to == "zarr" else "a file"
        raise ExportError(f"{target or repr(target)} is a folder: name {wanted} in it")
    if to == "zarr" and freshness.exists(target) and not folders.is_dir(target):
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
    while folder and not freshness.exists(folder):
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
