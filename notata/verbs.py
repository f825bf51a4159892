"""What a run's verbs do, wherever they write: a rank's own place, or the run's."""

from __future__ import annotations

import builtins
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Never, Self

from notata import layout, spelling, writers
from notata.arrayverbs import ArrayVerbs
from notata.errors import UnsupportedValueError
from notata.messages import DEBUG, ERROR, INFO, WARNING

_HIGHEST_PROTOCOL = 5


class _Worded:
    """A message and what goes into it, put together only if it is logged."""

    def __init__(self, msg: object, args: tuple[object, ...]) -> None:
        self._msg, self._args = msg, args

    def __str__(self) -> str:
        one = self._args[0] if len(self._args) == 1 else None
        values = one if isinstance(one, Mapping) and one else self._args
        try:
            return str(self._msg) % values
        except Exception:  # no message ends a program, and none is lost
            return " ".join([str(self._msg), *map(_shown, self._args)])


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__name__}: {type(error).__name__} in its __repr__>"


class Verbs(ArrayVerbs):
    """The verbs that write: messages, arrays, plots and artifacts.

    Ranks: independent.
    """

    # ----- folders -----

    @property
    def plotdir(self) -> Path:
        """Folder of the plots that this rank writes.

        Ranks: independent.
        """
        return self._place.path(layout.PLOTS)

    @property
    def artifactsdir(self) -> Path:
        """Folder of the artifacts that this rank writes.

        Ranks: independent.
        """
        return self._place.path(layout.ARTIFACTS)

    @property
    def log_path(self) -> Path:
        """The log file that this rank writes.

        Ranks: independent.
        """
        return self._place.path(layout.LOG)

    # ----- messages -----

    def note(self, message: object, level: int = INFO) -> None:
        """Log a message at any level.

        Args:
            message: The text; continuation lines are indented in the file.
            level: A number as in the `logging` module.

        Example:
            >>> log.note("switched to implicit stepping", level=30)

        Ranks: independent.
        """
        self._write(level, message)

    def debug(self, msg: object, *args: object) -> None:
        """Log a message for those who look for a fault; dropped unless `level="DEBUG"`.

        Ranks: independent.
        """
        log = self._log
        if log.level > DEBUG:  # looked at here: a call more would cost a third of this one
            log.signs += 1
            return
        self._write(DEBUG, _Worded(msg, args) if args else msg)

    def info(self, msg: object, *args: object) -> None:
        """Log a message. It is in the file when the call returns.

        Args:
            msg: The text.
            args: Values that take the places of `%g` and the like in it, as in the standard
                library; `debug`, `warning` and `error` take them, too.

        Example:
            >>> log.info(f"step={100} residual={3.2e-6:.2e}")

        Ranks: independent.
        """
        self._write(INFO, _Worded(msg, args) if args else msg)

    def warning(self, msg: object, *args: object) -> None:
        """Log a warning.

        Ranks: independent.
        """
        self._write(WARNING, _Worded(msg, args) if args else msg)

    def error(self, msg: object, *args: object) -> None:
        """Log an error; the run goes on.

        Ranks: independent.
        """
        self._write(ERROR, _Worded(msg, args) if args else msg)

    # ----- plots and artifacts -----

    def plot(
        self,
        name: spelling.Name,
        fig: Any = None,
        dpi: int = 200,
        formats: str | Iterable[str] = ("png",),
    ) -> None:
        """Save a matplotlib figure as `plots/<name>.<format>`.

        Args:
            name: Its name, without extension.
            fig: The figure; by default the current one of `matplotlib.pyplot`.
            dpi: Dots per inch, for pixel formats.
            formats: File formats, such as `"pdf"` or `("png", "pdf")`.

        Raises:
            RuntimeError: If no figure is given and matplotlib is not installed.

        Ranks: independent.
        """
        if not self._place.active:
            return
        name = spelling.spelled(name)
        formats = (formats,) if isinstance(formats, str) else tuple(formats)
        for ext in formats:
            layout.inside(name, f".{ext}")
        self._place.before()
        writers.save_figure(self._disk, self._path(layout.PLOTS), name, fig, dpi, formats)
        self._place.wrote(*(f"{layout.PLOTS}/{name}.{ext}" for ext in formats))
        self._log.write(INFO, f"Saved plot {name} ({'/'.join(formats)}) in {layout.PLOTS}")

    def text(self, name: spelling.Name, content: str) -> None:
        """Save text as `artifacts/<name>.txt`.

        Example:
            >>> log.text("notes", "converged after 12 steps")

        Ranks: independent.
        """
        if self._place.active:
            if not isinstance(content, str):
                raise UnsupportedValueError(
                    f"text {name!r}: the content is of type {type(content).__name__}, no string"
                )
            data = content.encode("utf-8", "surrogateescape")
            self._artifact("text", name, ".txt", data)

    def json(self, name: spelling.Name, data: Any) -> None:
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

    def pickle(self, name: spelling.Name, obj: Any, protocol: int = _HIGHEST_PROTOCOL) -> None:
        """Pickle an object to `artifacts/<name>.pkl`. No reader of notata will unpickle it.

        Ranks: independent.
        """
        if self._place.active:
            name = spelling.spelled(name)
            file = layout.inside(name, ".pkl")
            self._place.before()
            writers.save_pickle(self._disk, self._path(layout.ARTIFACTS, file), obj, protocol)
            self._place.wrote(f"{layout.ARTIFACTS}/{file}")
            self._log.write(INFO, f"Saved pickle {name} in {layout.ARTIFACTS}/{file}")

    def bytes(self, name: spelling.Name, data: Any) -> None:
        """Save raw bytes as `artifacts/<name>`, the name with its extension.

        Args:
            name: Its name.
            data: Bytes, or what has some: a numpy array, an `array.array`.

        Raises:
            UnsupportedValueError: If it has none.

        Example:
            >>> log.bytes("weights.bin", bytes([0, 1, 2]))

        Ranks: independent.
        """
        if self._place.active:
            self._artifact("bytes", name, "", _raw(f"bytes {name!r}", data))

    def _path(self, *names: str) -> str:
        return "/".join((self._place.home, *names))

    def _artifact(self, kind: str, name: spelling.Name, suffix: str, data: Any) -> None:
        name = spelling.spelled(name)
        file = layout.inside(name, suffix)
        self._place.before()
        self._disk.replace(self._path(layout.ARTIFACTS, file), data)
        self._place.wrote(f"{layout.ARTIFACTS}/{file}")
        self._log.write(INFO, f"Saved {kind} {name} in {layout.ARTIFACTS}/{file}")

    def __getitem__(self, relative: str | os.PathLike[str]) -> Path:
        """A path inside the run (on ranks other than 0, inside the rank's folder).

        `log["."]` is the folder itself. Where the program has changed its directory since it opened
        a run below a relative `base_dir`, the path is absolute.

        Its folder is made, so that it can be written to. On ranks other than 0, `log.root[...]` is
        a path in a temporary folder that is gone when the process ends.

        Close files there before the run ends (HDF5, SQLite): a rank notes then what they hold, and
        a merge refuses those that change after that.

        Raises:
            UnsafeNameError: If it would leave the run.

        Example:
            >>> _ = log["artifacts/config/solver.ini"].write_text("[solver]")

        Ranks: independent.
        """
        name = spelling.spelled(relative)
        if name:
            layout.inside(name)
        self._place.before()
        self._disk.make_folders(os.path.dirname(os.path.join(self._place.home, name)))
        return self._place.path(name)

    # Names that the documentation of notata uses as well.
    save_plot = plot
    save_text = text
    save_json = json
    save_pickle = pickle
    save_bytes = bytes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._place.home!r}>"

    # ----- no copies: a file has one writer -----

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> Never:
        raise TypeError(
            f"a {type(self).__name__} can't be pickled for another process, which would write the "
            "same files: let workers return what they have, and log it here; or let each open a "
            "Logbook of its own"
        )


def _raw(what: str, data: Any) -> builtins.bytes | bytearray | memoryview:
    """The bytes of anything that has a buffer; in the order of its elements, if that has gaps."""
    if isinstance(data, builtins.bytes | bytearray):
        return data
    try:
        view = memoryview(data)
    except (TypeError, ValueError):  # numpy gives none of dates
        kind = type(data).__name__
        raise UnsupportedValueError(f"{what}: the content is a {kind}, not bytes") from None
    if "O" in re.sub(r":[^:]*:", "", view.format):  # in which fields have their names
        raise UnsupportedValueError(f"{what}: the content holds Python objects, not bytes")
    return view if view.c_contiguous else view.tobytes()
