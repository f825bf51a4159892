"""What a run's array verbs do, wherever they write: pieces of arrays, or whole ones."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from notata import arraywriter, layout, messages, npy, pieces, spelling
from notata.errors import PieceError
from notata.pieces import Cut, Halo, Piece
from notata.places import Place


def _say_nothing(level: int, message: object) -> None:
    """What a message comes to where it is not for this rank to write."""


class ArrayVerbs:
    """The verbs that write arrays."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._log, self._disk = place.log, place.disk
        self._write = place.log.write if place.active else _say_nothing

    @property
    def datadir(self) -> Path:
        """Folder of the arrays that this rank writes.

        Ranks: independent.
        """
        return self._place.data_path(layout.DATA)

    def array(
        self,
        name: spelling.Name,
        array: Any,
        *,
        start: Any = None,
        shape: Any = None,
        halo: Halo = 0,
        join: str = "concat",
    ) -> None:
        """Save an array: the whole one in a run of one rank, else this rank's piece of it.

        Pieces stay with their ranks until `notata merge` joins them; `LogReader` puts them
        together before that too.

        Args:
            name: Its name, without extension; `/` nests folders: `"states/T_step100"`. A number or
                path is taken by its text.
            array: The array or piece.
            start: Index in the whole array of the piece's first cell that is not halo.
            shape: Shape of the whole array; goes with `start`.
            halo: Ghost cells to leave out: on every side, or one number per axis, or a pair
                `(before, after)` per axis.
            join: Without `start`: `"concat"` along axis 0 in rank order (numbers become a vector
                over ranks), `"stack"` along a new axis 0 of one row per rank, or `"none"` to keep
                the pieces apart.

        Raises:
            UnsupportedValueError: If only pickle could store it.
            PieceError: If start, shape, halo and join don't fit the piece.
            UnsafeNameError: If the name would leave the run.
            OSError: If it can't be written; an older file of this name is still whole.

        Example:
            >>> import numpy as np
            >>> block = np.zeros((12, 22))  # 10 x 20 cells and a ghost cell on each side
            >>> log.array("T", block, start=(0, 0), shape=(10, 20), halo=1)

        Ranks: independent.
        """
        if not self._place.active:
            return
        name = spelling.spelled(name)
        file = layout.inside(name, ".npy")
        piece = self._cut(name, array, start, shape, halo, join)
        self._place.reserve(file)
        self._place.before(data=True)
        path = os.path.join(self._place.data_home, layout.DATA, file)
        entry = self._entry(name, {None: piece}, f"{layout.DATA}/{file}")
        arraywriter.save_array(self._disk, path, piece.array, entry.begin if entry else None)
        if entry:
            entry.finish()
        self._log.write(messages.INFO, f"Saved array {name} in {layout.DATA}/{file}")

    def arrays(
        self,
        name: spelling.Name,
        compressed: bool = True,
        *,
        start: Any = None,
        shape: Any = None,
        halo: Any = 0,
        join: Any = "concat",
        **arrays: Any,
    ) -> None:
        """Save several arrays into one `.npz` file; each is joined over ranks by its key.

        Args:
            name: Name of the bundle, without extension.
            compressed: Whether to compress it.
            start: As for `array`, for all keys, or a dict from key to value.
            shape: Likewise.
            halo: Likewise.
            join: Likewise.
            **arrays: The arrays by key. A numpy array named `start`, `shape`, `halo` or `join` is
                an array to save, too. If it could be the option as well (whole numbers, for each
                axis of another key), a run of several ranks takes it as the option where both
                `start` and `shape` are given, and refuses it where not; a run of one rank refuses
                it where both are given. A tuple, as in `start=tuple(start)`, is always the option.

        Raises:
            UnsupportedValueError: If only pickle could store one of them.
            PieceError: If start, shape, halo and join don't fit a piece, or it can't be told
                whether they are options or arrays.
            UnsafeNameError: If the name would leave the run.
            OSError: If it can't be written; an older file of this name is still whole.

        Example:
            >>> import numpy as np
            >>> log.arrays("trajectory", x=np.arange(3.0), v=np.zeros(3))

        Ranks: independent.
        """
        if not self._place.active:
            return
        name = spelling.spelled(name)
        file = layout.inside(name, ".npz")
        options = {"start": start, "shape": shape, "halo": halo, "join": join}
        defaults = {"start": None, "shape": None, "halo": 0, "join": "concat"}
        for option in self._meant_as_arrays(name, options, arrays):
            arrays[option], options[option] = options[option], defaults[option]
        for key in arrays:
            layout.inside(key)
        cuts = {
            key: self._cut(
                f"{name}:{key}", value, *(_for_key(options, o, key, defaults) for o in options)
            )
            for key, value in arrays.items()
        }
        self._place.reserve(file)
        self._place.before(data=True)
        whole = {key: cut.array for key, cut in cuts.items()}
        path = os.path.join(self._place.data_home, layout.DATA, file)
        entry = self._entry(name, cuts, f"{layout.DATA}/{file}")
        arraywriter.save_bundle(self._disk, path, whole, compressed, entry.begin if entry else None)
        if entry:
            entry.finish()
        self._log.write(messages.INFO, f"Saved arrays {name} in {layout.DATA}/{file}")

    def _meant_as_arrays(
        self, name: str, options: Mapping[str, Any], arrays: Mapping[str, Any]
    ) -> list[str]:
        """Which of the options are arrays to save, as numpy arrays of these names are in 0.3.0."""
        given = [option for option, value in options.items() if getattr(value, "ndim", 0)]
        axes: set[int] = set()
        if given:
            axes = {npy.as_array(f"{name}:{key}", value).ndim for key, value in arrays.items()}
        either = [option for option in given if _fits_axes(option, options[option], axes)]
        placed = all(
            options[option] is not None and (option in either or option not in given)
            for option in ("start", "shape")
        )
        # Alone, an array is saved unless it would be a place; among ranks it is a place or nothing.
        if either and placed == self._place.whole:
            tuples = ", ".join(f"{option}=tuple({option})" for option in either)
            raise PieceError(
                f"arrays {name!r}: {' and '.join(either)} may say where pieces go, or be arrays to "
                f"save: for the first give {tuples}, for the second other keys"
            )
        return given if self._place.whole else [o for o in given if o not in either]

    def _cut(self, label: str, value: Any, start: Any, shape: Any, halo: Any, join: Any) -> Cut:
        array = npy.as_array(label, value)
        cut = pieces.cut(
            label, array, start=start, shape=shape, halo=halo, join=join, alone=self._place.whole
        )
        return cut._replace(array=npy.contiguous(cut.array))

    def _entry(self, name: str, cuts: Mapping[Any, Cut], file: str) -> _Entry | None:
        """What notes what a file holds, where arrays are pieces."""
        return None if self._place.whole else _Entry(self._place, name, cuts, file)

    # Names that the documentation of notata uses as well.
    save_array = save_numpy = array
    save_arrays = arrays


class _Entry:
    """A file of pieces, on its way into a rank's manifest."""

    def __init__(self, place: Place, name: str, cuts: Mapping[Any, Cut], file: str) -> None:
        """Note what is to be written; the key of an array alone is None."""
        self._place, self._name, self._cuts, self._file = place, name, cuts, file
        self._pieces: list[Piece] = []

    def begin(self, size: int, checksums: Mapping[Any, str]) -> None:
        """Called when all is written but the file's name."""
        write = time.time_ns()
        self._pieces = [
            Piece(
                name=self._name,
                key=key,
                file=self._file,
                join=cut.join,
                shape=cut.array.shape,
                dtype=npy.dtype_text(cut.array.dtype),
                fortran=bool(cut.array.flags.fnc),
                start=cut.start,
                whole=cut.whole,
                size=size,
                write=write,
                checksum=checksums[key],
            )
            for key, cut in self._cuts.items()
        ]
        self._place.begin(self._pieces)

    def finish(self) -> None:
        """Called once the file has its name."""
        self._place.enter(self._pieces)


def _fits_axes(option: str, value: Any, axes: Collection[int]) -> bool:
    """Whether an array could be an option for arrays of so many axes."""
    pairs = option == "halo" and value.ndim == 2 and value.shape[1] == 2
    whole = getattr(value.dtype, "kind", "") in "iu"
    return option != "join" and whole and (value.ndim == 1 or pairs) and len(value) in axes


def _for_key(options: Mapping[str, Any], option: str, key: str, defaults: Mapping[str, Any]) -> Any:
    value = options[option]
    return value.get(key, defaults[option]) if isinstance(value, Mapping) else value
