"""What a run's verbs do, wherever they write: a rank's own place, or the run's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from notata import files, layout, messages, npy, pieces, writers
from notata.errors import UnsupportedValueError
from notata.pieces import Cut, Halo, Piece
from notata.places import Place

_HIGHEST_PROTOCOL = 5


class Verbs:
    """The verbs that write: messages, arrays, plots and artifacts."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._log = place.log

    # ----- folders -----

    @property
    def datadir(self) -> Path:
        """Folder of the arrays that this rank writes."""
        return Path(self._place.data_home, layout.DATA)

    @property
    def plotdir(self) -> Path:
        """Folder of the plots that this rank writes."""
        return Path(self._place.home, layout.PLOTS)

    @property
    def artifactsdir(self) -> Path:
        """Folder of the artifacts that this rank writes."""
        return Path(self._place.home, layout.ARTIFACTS)

    @property
    def log_path(self) -> Path:
        """The log file that this rank writes."""
        return Path(self._log.path)

    # ----- messages -----

    def note(self, message: object, level: int = messages.INFO) -> None:
        """Log a message at any level.

        Args:
            message: The text; continuation lines are indented in the file.
            level: A number as in the `logging` module.

        Example:
            >>> log.note("switched to implicit stepping", level=30)

        Ranks: independent.
        """
        if self._place.active:
            self._log.write(level, message)

    def debug(self, msg: object) -> None:
        """Log a message for those who look for a fault; dropped unless `level="DEBUG"`.

        Ranks: independent.
        """
        if self._place.active:
            self._log.write(messages.DEBUG, msg)

    def info(self, msg: object) -> None:
        """Log a message. It is in the file when the call returns.

        Example:
            >>> log.info(f"step={100} residual={3.2e-6:.2e}")

        Ranks: independent.
        """
        if self._place.active:
            self._log.write(messages.INFO, msg)

    def warning(self, msg: object) -> None:
        """Log a warning.

        Ranks: independent.
        """
        if self._place.active:
            self._log.write(messages.WARNING, msg)

    def error(self, msg: object) -> None:
        """Log an error; the run goes on.

        Ranks: independent.
        """
        if self._place.active:
            self._log.write(messages.ERROR, msg)

    # ----- arrays -----

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
        size = writers.save_array(os.path.join(self.datadir, file), piece.array)
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
        size = writers.save_bundle(os.path.join(self.datadir, file), whole, compressed)
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

    # ----- plots and artifacts -----

    def plot(
        self, name: str, fig: Any = None, dpi: int = 200, formats: Iterable[str] = ("png",)
    ) -> None:
        """Save a matplotlib figure as `plots/<name>.<format>`.

        Args:
            name: Its name, without extension.
            fig: The figure; by default the current one of `matplotlib.pyplot`.
            dpi: Dots per inch, for pixel formats.
            formats: File formats, such as `("png", "pdf")`.

        Raises:
            RuntimeError: If no figure is given and matplotlib is not installed.

        Ranks: independent.
        """
        if not self._place.active:
            return
        formats = tuple(formats)
        for ext in formats:
            layout.inside(name, f".{ext}")
        self._place.before()
        writers.save_figure(os.fspath(self.plotdir), name, fig, dpi, formats)
        self._log.write(messages.INFO, f"Saved plot {name} ({'/'.join(formats)}) in {layout.PLOTS}")

    def text(self, name: str, content: str) -> None:
        """Save text as `artifacts/<name>.txt`.

        Example:
            >>> log.text("notes", "converged after 12 steps")

        Ranks: independent.
        """
        if self._place.active:
            if not isinstance(content, str):
                raise UnsupportedValueError(
                    f"text {name!r}: the content is a {type(content).__name__}, not a string"
                )
            data = content.encode("utf-8", "surrogateescape")
            self._artifact("text", name, ".txt", data)

    def json(self, name: str, data: Any) -> None:
        """Save plain data as `artifacts/<name>.json`.

        An experiment's table takes its metrics from the one named `metrics`.

        Numpy numbers and arrays, tuples, paths, enums and dates are turned into plain JSON.

        Raises:
            UnsupportedValueError: If a value can't be plain JSON; the message names its key.

        Example:
            >>> log.json("metrics", {"drift": 1e-9, "steps": 1000})

        Ranks: independent.
        """
        if self._place.active:
            self._artifact("JSON", name, ".json", writers.json_bytes(data, f"json {name!r}"))

    def pickle(self, name: str, obj: Any, protocol: int = _HIGHEST_PROTOCOL) -> None:
        """Pickle an object to `artifacts/<name>.pkl`. No reader of notata will unpickle it.

        Ranks: independent.
        """
        if self._place.active:
            file = layout.inside(name, ".pkl")
            self._place.before()
            writers.save_pickle(os.path.join(self.artifactsdir, file), obj, protocol)
            self._log.write(messages.INFO, f"Saved pickle {name} in {layout.ARTIFACTS}/{file}")

    def bytes(self, name: str, data: Any) -> None:
        """Save raw bytes as `artifacts/<name>`, the name with its extension.

        Example:
            >>> log.bytes("weights.bin", bytes([0, 1, 2]))

        Ranks: independent.
        """
        if self._place.active:
            self._artifact("bytes", name, "", data)

    def _artifact(self, kind: str, name: str, suffix: str, data: Any) -> None:
        file = layout.inside(name, suffix)
        self._place.before()
        files.replace_bytes(os.path.join(self.artifactsdir, file), data)
        self._log.write(messages.INFO, f"Saved {kind} {name} in {layout.ARTIFACTS}/{file}")

    def __getitem__(self, relative: str) -> Path:
        """A path inside the run (on ranks other than 0, inside the rank's folder).

        Its folder is made, so that it can be written to. On ranks other than 0, `log.root[...]`
        is the null device.

        Raises:
            UnsafeNameError: If it would leave the run.

        Example:
            >>> _ = log["artifacts/config/solver.ini"].write_text("[solver]")

        Ranks: independent.
        """
        relative = layout.inside(os.fspath(relative))
        if not self._place.active:
            return Path(os.devnull)
        self._place.before()
        path = Path(self._place.home, relative)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    # Names that the documentation of notata uses as well.
    save_array = save_numpy = array
    save_arrays = arrays
    save_plot = plot
    save_text = text
    save_json = json
    save_pickle = pickle
    save_bytes = bytes


def _for_key(options: Mapping[str, Any], option: str, key: str, defaults: Mapping[str, Any]) -> Any:
    value = options[option]
    return value.get(key, defaults[option]) if isinstance(value, Mapping) else value
