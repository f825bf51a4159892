"""What a run's array verbs do, wherever they write: pieces of arrays, or whole ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from notata import layout, messages, npy, pieces, writers
from notata.pieces import Cut, Halo, Piece
from notata.places import Place


class ArrayVerbs:
    """The verbs that write arrays."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._log = place.log

    @property
    def datadir(self) -> Path:
        """Folder of the arrays that this rank writes.

        Ranks: independent.
        """
        return Path(self._place.shown[1], layout.DATA)

    def array(
        self,
        name: str,
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
            name: Its name, without extension; `/` nests folders: `"states/T_step100"`.
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
        file = layout.inside(name, ".npy")
        piece = self._cut(name, array, start, shape, halo, join)
        self._place.reserve(file)
        self._place.before(data=True)
        size = writers.save_array(
            os.path.join(self._place.data_home, layout.DATA, file), piece.array
        )
        self._enter(name, None, f"{layout.DATA}/{file}", piece, size)
        self._log.write(messages.INFO, f"Saved array {name} in {layout.DATA}/{file}")

    def arrays(
        self,
        name: str,
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
                taken as an array too.

        Raises:
            UnsupportedValueError: If only pickle could store one of them.
            PieceError: If start, shape, halo and join don't fit a piece.
            UnsafeNameError: If the name would leave the run.
            OSError: If it can't be written; an older file of this name is still whole.

        Example:
            >>> import numpy as np
            >>> log.arrays("trajectory", x=np.arange(3.0), v=np.zeros(3))

        Ranks: independent.
        """
        if not self._place.active:
            return
        file = layout.inside(name, ".npz")
        options = {"start": start, "shape": shape, "halo": halo, "join": join}
        defaults = {"start": None, "shape": None, "halo": 0, "join": "concat"}
        for option, value in list(options.items()):
            if getattr(value, "ndim", 0):  # an array under this key, as in notata 0.3.0
                arrays[option], options[option] = value, defaults[option]
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
        size = writers.save_bundle(
            os.path.join(self._place.data_home, layout.DATA, file), whole, compressed
        )
        for key, cut in cuts.items():
            self._enter(name, key, f"{layout.DATA}/{file}", cut, size)
        self._log.write(messages.INFO, f"Saved arrays {name} in {layout.DATA}/{file}")

    def _cut(self, label: str, value: Any, start: Any, shape: Any, halo: Any, join: Any) -> Cut:
        array = npy.as_array(label, value)
        cut = pieces.cut(
            label, array, start=start, shape=shape, halo=halo, join=join, alone=self._place.whole
        )
        return cut._replace(array=npy.contiguous(cut.array))

    def _enter(self, name: str, key: str | None, file: str, cut: Cut, size: int) -> None:
        array = cut.array
        if not self._place.whole:
            kind = npy.dtype_text(array.dtype)
            fortran = bool(array.flags.fnc)
            self._place.enter(
                Piece(
                    name,
                    key,
                    file,
                    cut.join,
                    array.shape,
                    kind,
                    fortran,
                    cut.start,
                    cut.whole,
                    size,
                )
            )

    # Names that the documentation of notata uses as well.
    save_array = save_numpy = array
    save_arrays = arrays


def _for_key(options: Mapping[str, Any], option: str, key: str, defaults: Mapping[str, Any]) -> Any:
    value = options[option]
    return value.get(key, defaults[option]) if isinstance(value, Mapping) else value
