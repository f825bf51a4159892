"""Arrays out to `.npy` and `.npz`, never through pickle; figures as bytes."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from notata.npy import Header, header_bytes

if TYPE_CHECKING:
    import numpy as np

    from notata.checksums import Hasher
    from notata.npy import Array


@lru_cache(maxsize=256)
def _usual_head(shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]) -> bytes:
    return header_bytes(Header(shape, fortran, dtype))


_SMALL = 65536  # bytes that are copied to be written together with their head


def small_bytes(array: Array) -> bytes | None:
    """The whole `.npy` file of a small array of plain numbers; None for others.

    Example:
        >>> import numpy as np
        >>> len(small_bytes(np.zeros(3)))
        152

    Ranks: independent.
    """
    flags, dtype = array.flags, array.dtype
    fortran = flags.fnc
    if array.nbytes > _SMALL or dtype.kind not in "biufc" or not (flags.c_contiguous or fortran):
        return None
    # Types that are equal may still differ by what somebody noted of them, of which numpy warns.
    if dtype.metadata is not None:
        return None
    return _usual_head(array.shape, fortran, dtype) + array.tobytes("F" if fortran else "C")


def write(file: BinaryIO, array: Array, hashed: Hasher | None = None) -> None:
    """Write one array as `.npy`.

    Into a file of the system numpy would write by itself. It then forgets the number of an error,
    and the error itself where it met the last bytes.

    Args:
        file: The file.
        array: The array.
        hashed: Takes what is written, too.

    Ranks: independent.
    """
    from numpy.lib import format as npy_format

    plain = cast("BinaryIO", _Plain(file, hashed))
    if array.dtype.names or not (array.flags.c_contiguous or array.flags.f_contiguous):
        npy_format.write_array(plain, array, allow_pickle=False)  # in parts, each of them copied
        return
    npy_format.write_array_header_1_0(plain, npy_format.header_data_from_array_1_0(array))
    flat = array.reshape(-1) if array.flags.c_contiguous else array.T.reshape(-1)
    plain.write(flat.view("u1").data if flat.nbytes else b"")


_ASIDE = 1 << 22  # bytes from which on it pays to start a thread


class _Plain:
    """A file that numpy takes for none of the system's, so that it writes by calling `write`."""

    def __init__(self, file: BinaryIO, hashed: Hasher | None) -> None:
        self._file, self._hashed = file, hashed

    def write(self, data: bytes | memoryview) -> int:
        aside = None if self._hashed is None else self._hash(self._hashed, data)
        try:
            return self._file.write(data)
        finally:
            if aside is not None:
                aside.join()

    def _hash(self, hashed: Hasher, data: bytes | memoryview) -> threading.Thread | None:
        """Hash what is to be written; in a thread where the system takes its time to copy it."""
        if len(data) >= _ASIDE:
            aside = threading.Thread(target=hashed.update, args=(data,))
            with suppress(RuntimeError):  # there is a limit on threads
                aside.start()
                return aside
        hashed.update(data)
        return None


def write_bundle(file: BinaryIO, arrays: Mapping[str, Array], compressed: bool) -> dict[str, int]:
    """Write several arrays as `.npz`, under any keys; gives the CRC-32 of each.

    Ranks: independent.
    """
    import zipfile

    from numpy.lib import format as npy_format

    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", method, allowZip64=True) as archive:
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                npy_format.write_array(member, array, allow_pickle=False)
        crcs = (info.CRC for info in archive.infolist())
        return dict(zip(arrays, crcs, strict=True))


def drawn(figure: Any, ext: str, dpi: int) -> bytes | memoryview:
    """What a figure's `savefig` writes, whole: as matplotlib has it, or one that takes paths alone.

    Ranks: independent.
    """
    options: dict[str, Any] = {"dpi": dpi, "bbox_inches": "tight"}
    if _takes_format(figure.savefig, options):
        image = io.BytesIO()  # into a file on a full disk it would forget the error's number
        figure.savefig(image, format=ext, **options)
        return image.getbuffer()
    import tempfile

    with tempfile.TemporaryDirectory(prefix="notata-") as folder:
        path = os.path.join(folder, f"figure.{ext}")
        figure.savefig(path, **options)
        with open(path, "rb") as file:
            return file.read()


def _takes_format(savefig: Any, options: Mapping[str, Any]) -> bool:
    import inspect

    try:
        inspect.signature(savefig).bind(None, format="png", **options)
    except TypeError:
        return False
    except ValueError:  # it tells nothing of what it takes
        return True
    return True
