"""What `.npy` and `.npz` files hold, and reading them; never through pickle."""

from __future__ import annotations

import io
import json
import os
from contextlib import suppress
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from notata.errors import DamagedError, UnsupportedValueError
from notata.parking import Lock, held

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]


def as_array(name: str, value: Any) -> Array:
    """Take what a user gives as an array.

    Args:
        name: Its name, for the error.
        value: An array, or what numpy makes one of.

    Raises:
        UnsupportedValueError: If only pickle could store it, or a mask would be lost.

    Ranks: independent.
    """
    import numpy as np

    if isinstance(value, np.ma.MaskedArray):
        raise UnsupportedValueError(
            f"array {name!r} is masked, and .npy has no masks: save {name!r} with .filled(...) and "
            "its mask as a second array"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise UnsupportedValueError(f"array {name!r}: {error}") from None
    if array.dtype.hasobject:
        raise UnsupportedValueError(
            f"array {name!r} holds Python objects (dtype {array.dtype}), which .npy stores by "
            "pickling only: convert it to numbers or strings, or use log.pickle"
        )
    return array


def contiguous(array: Array) -> Array:
    """The array itself, or a copy of a view with gaps, which numpy would write in small parts.

    Ranks: independent.
    """
    flags = array.flags
    return array if flags.c_contiguous or flags.f_contiguous else array.copy(order="K")


def dtype_text(dtype: np.dtype[Any]) -> str:
    """A dtype as text, the same on every machine.

    Example:
        >>> import numpy as np
        >>> dtype_text(np.dtype(">i2"))
        '>i2'

    Ranks: independent.
    """
    from numpy.lib import format as npy_format

    described = npy_format.dtype_to_descr(dtype)
    return described if isinstance(described, str) else json.dumps(described)


def dtype_from_text(text: str) -> np.dtype[Any]:
    """The dtype that `dtype_text` wrote.

    Ranks: independent.
    """
    from numpy.lib import format as npy_format

    described = _tuples(json.loads(text)) if text.startswith("[") else text
    return npy_format.descr_to_dtype(cast("Any", described))


def _tuples(fields: list[Any]) -> list[Any]:
    """JSON has lists only; numpy wants a list of (name, type[, shape]) tuples."""
    made = []
    for name, kind, *shape in fields:
        kind = _tuples(kind) if isinstance(kind, list) else kind
        name = tuple(name) if isinstance(name, list) else name
        made.append((name, kind, *(tuple(s) for s in shape)))
    return made


class Header(NamedTuple):
    """What stands before the elements of a `.npy` file."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]


def damage(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What reading raises where bytes are damaged.

    numpy parses a head as Python, and zipfile believes what an archive says of itself.

    Ranks: independent.
    """
    import struct
    import tokenize
    import zipfile

    return (
        *(ValueError, SyntaxError, TypeError, OverflowError, RuntimeError, EOFError),
        *(tokenize.TokenError, zipfile.BadZipFile, struct.error),
        *others,
    )


_parsing = Lock()  # in Python 3.11, two threads that parse at once may fail (SystemError)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    """What a head says; those of a run's pieces are mostly the same."""
    import ast

    return ast.literal_eval(text)


def read_header(file: IO[bytes]) -> Header:
    """Read the head of a `.npy` file; the file is then at its first element.

    Raises:
        DamagedError: If it is none.

    Ranks: independent.
    """
    from numpy.lib import format as npy_format

    try:
        version = npy_format.read_magic(file)
        size = file.read(2 if version == (1, 0) else 4)
        text = file.read(int.from_bytes(size, "little"))
        with held(_parsing):
            found = _parsed(text.decode("utf-8" if version == (3, 0) else "latin-1"))
        dtype = npy_format.descr_to_dtype(found["descr"])
        return Header(tuple(found["shape"]), bool(found["fortran_order"]), dtype)
    except damage(KeyError) as error:
        raise DamagedError(f"no head of a .npy file: {error}") from None


def header_bytes(header: Header) -> bytes:
    """The head of a `.npy` file, byte for byte as numpy writes it.

    Example:
        >>> import numpy as np
        >>> len(header_bytes(Header((3, 4), False, np.dtype("<f8"))))
        128

    Ranks: independent.
    """
    from numpy.lib import format as npy_format

    descr = npy_format.dtype_to_descr(header.dtype)
    found = {"descr": descr, "fortran_order": header.fortran, "shape": header.shape}
    for write_head in (npy_format.write_array_header_1_0, npy_format.write_array_header_2_0):
        file = io.BytesIO()
        with suppress(ValueError):  # too long; or names that only version 3 can spell
            write_head(file, found)
            return file.getvalue()
    # numpy has no public function for version 3. It leaves room for axis 0 to grow to 21 digits.
    text = "{" + "".join(f"{key!r}: {value!r}, " for key, value in found.items()) + "}"
    growing = header.shape[-1 if header.fortran else 0] if header.shape else None
    text += "" if growing is None else " " * (21 - len(repr(growing)))
    line = text.encode()
    line += b" " * (-(12 + len(line) + 1) % 64) + b"\n"
    return npy_format.magic(3, 0) + len(line).to_bytes(4, "little") + line


def missing_value(dtype: np.dtype[Any]) -> Array:
    """What stands for elements that nobody wrote, as an array of no axes.

    NaN, or NaT for times; zero, or nothing, where the type has no such value. Fields of a record
    each have their own.

    Example:
        >>> import numpy as np
        >>> float(missing_value(np.dtype("<f4"))), int(missing_value(np.dtype("<i4")))
        (nan, 0)

    Ranks: independent.
    """
    import numpy as np

    value = np.zeros((), dtype)
    if dtype.names:
        for name in dtype.names:
            field = dtype[name]
            value[name] = missing_value(field.base if field.shape else field)
    elif dtype.kind in "fc":
        value[...] = np.nan
    elif dtype.kind in "mM":
        value[...] = "NaT"
    return value


def can_be_missing(dtype: np.dtype[Any]) -> bool:
    """Whether `missing_value` can't be mistaken for an element that somebody wrote.

    Of a record that holds for each of its fields: who reads one of them sees no other.

    Example:
        >>> import numpy as np
        >>> [can_be_missing(np.dtype(kind)) for kind in ("<c8", "<M8[s]", "<i4", "<U3")]
        [True, True, False, False]

    Ranks: independent.
    """
    if dtype.names:
        return all(can_be_missing(dtype[name].base) for name in dtype.names)
    return dtype.kind in "fcmM"


Source = str | os.PathLike[str] | BinaryIO  # a path, or an open file that can seek


def _told(source: Source) -> str:
    return str(getattr(source, "name", None) or source)


def load(path: Source, *, mapped: bool = False) -> Array:
    """Read a `.npy` file.

    Args:
        path: The file.
        mapped: Whether to map it instead, so that only what is used is read, if it is a path.

    Raises:
        FileNotFoundError: If there is none.
        DamagedError: If it is cut off or no `.npy` file, or only pickle could read it.

    Ranks: independent.
    """
    import numpy as np

    try:
        if mapped and isinstance(path, str | os.PathLike):
            found = _mapped(path)
            if found is not None:
                return found
        found = np.load(path, allow_pickle=False)
        return np.asarray(found)  # users don't expect a subclass
    except damage(KeyError) as error:
        raise DamagedError(f"{_told(path)} is not a whole .npy file: {error}") from None


def _mapped(path: str | os.PathLike[str]) -> Array | None:
    """The array of a file, mapped; None where there is nothing to map.

    numpy does the same, but parses the head, which is alike in many files, each time.
    """
    import mmap

    import numpy as np

    with open(path, "rb") as file:
        shape, fortran, dtype = read_header(file)
        if dtype.hasobject or not dtype.itemsize or 0 in shape:
            return None
        bytes_of_it = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        order: Any = "F" if fortran else "C"
        return np.ndarray(shape, dtype, bytes_of_it, file.tell(), order=order)


def load_member(path: Source, key: str) -> Array:
    """Read one array of a `.npz` file.

    Raises:
        FileNotFoundError: If there is no such file.
        KeyError: If it has no such key.
        DamagedError: If it is cut off or damaged.

    Ranks: independent.
    """
    import zipfile
    import zlib

    from numpy.lib import format as npy_format

    try:
        # Not by numpy.load, which takes "x.npy" for "x": a bundle may have both keys.
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
            return npy_format.read_array(member, allow_pickle=False)
    except damage(zlib.error, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DamagedError(f"{_told(path)} is not a whole .npz file: {error}") from None


def bundle_keys(path: Source) -> list[str]:
    """The keys of a `.npz` file, in its order.

    Raises:
        DamagedError: If it is cut off.

    Ranks: independent.
    """
    return list(bundle_crcs(path))


def bundle_crcs(path: Source) -> dict[str, int]:
    """The keys of a `.npz` file, in its order, each with what the file says is its CRC-32.

    Raises:
        DamagedError: If it is cut off.

    Ranks: independent.
    """
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): info.CRC for info in archive.infolist()}
    except damage() as error:
        raise DamagedError(f"{_told(path)} is not a whole .npz file: {error}") from None
