"""A quick look: an array of a run, or values of many runs, as a picture."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from notata.errors import DrawingError
from notata.opened import SLAB, Opened
from notata.phrases import printable
from notata.querying import Line, check
from notata.regions import region_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from notata.npy import Array

_MOST = {1: 20_000, 2: 1500}  # elements along an axis of what is drawn, by its number of axes
_SEVERAL = 10  # values of a hue that get a colour each
_MODULUS = "absolute value"
KINDS = ("png", "pdf", "svg")  # of files


class View(NamedTuple):
    """What is drawn of an array.

    Attributes:
        values: One or two axes of numbers.
        axes: The axes of the array that they are.
        ranges: The indices along each of these axes.
        region: What stands between the brackets, such as `32, :, :`.
        is_modulus: Whether the array is complex, and its absolute values are shown.
    """

    values: Array
    axes: tuple[int, ...]
    ranges: tuple[range, ...]
    region: str
    is_modulus: bool = False


def view(array: Opened, region: Any = None) -> View:
    """Read as much of an array as a picture can show.

    Of more than two axes, the last two are shown, in the middle of the others. Of long axes every
    so-many-th element is, read slab by slab.

    Args:
        array: The array.
        region: The part to show, as `numpy.s_` gives it.

    Raises:
        DrawingError: If it holds no numbers, or a single one (a `ValueError`).
        IndexError: If the region lies outside.

    Ranks: independent.
    """
    import numpy as np

    if array.dtype.kind not in "biufc":
        named = f", with fields {', '.join(array.dtype.names)}" if array.dtype.names else ""
        raise DrawingError(f"array {array.name!r} holds {array.dtype}{named}: no numbers to draw")
    ranges = _ranges(region, array.shape)
    kept = [axis for axis, indices in enumerate(ranges) if isinstance(indices, range)]
    for axis in kept[:-2]:
        indices = ranges[axis]
        assert isinstance(indices, range)
        if not indices:
            raise DrawingError(f"array {array.name!r} is empty there")
        ranges[axis] = indices[len(indices) // 2]
    kept = kept[-2:]
    if not kept:
        value = array.read(_index(ranges))
        raise DrawingError(f"array {array.name!r} is one number there: {value[()]}")
    for axis in kept:
        indices = ranges[axis]
        assert isinstance(indices, range)
        if not indices:
            raise DrawingError(f"array {array.name!r} is empty there")
        ranges[axis] = indices[:: math.ceil(len(indices) / _MOST[len(kept)])]
    values = _read(array, ranges, kept[0])
    is_modulus = values.dtype.kind == "c"
    values = np.abs(values) if is_modulus else values
    if not np.isfinite(values).any():
        raise DrawingError(f"array {array.name!r} holds no finite number there")
    shown = tuple(indices for indices in ranges if isinstance(indices, range))
    told = ", ".join(_spelled(i, n) for i, n in zip(ranges, array.shape, strict=True))
    return View(values, tuple(kept), shown, told, is_modulus)


def _ranges(region: Any, shape: Sequence[int]) -> list[int | range]:
    """For each axis the index, or the indices, that a region means."""
    box = region_of(region, tuple(shape))
    found: list[int | range] = []
    for start, length, pick in zip(*box, strict=True):
        indices = range(start, start + length)
        found.append(indices[pick])
    return found


def _read(array: Opened, ranges: list[int | range], first: int) -> Array:
    """Read some indices, in parts along one axis."""
    import numpy as np

    indices = ranges[first]
    assert isinstance(indices, range)
    inner = array.dtype.itemsize
    for axis, others in enumerate(ranges):
        if axis != first and isinstance(others, range):
            inner *= abs(others.step) * len(others)
    step = max(1, SLAB // max(1, inner * abs(indices.step)))
    parts = []
    for at in range(0, len(indices), step):
        parts.append(
            array.read(_index([*ranges[:first], indices[at : at + step], *ranges[first + 1 :]]))
        )
    return np.concatenate(parts)


def _index(ranges: Iterable[int | range]) -> tuple[Any, ...]:
    return tuple(
        slice(r.start, r.stop if r.stop >= 0 else None, r.step) if isinstance(r, range) else r
        for r in ranges
    )


def _spelled(indices: int | range, length: int) -> str:
    if isinstance(indices, int):
        return str(indices)
    first, beyond = indices[0], indices[-1] + indices.step
    if (first == 0 and beyond >= length) or (first == length - 1 and beyond < 0):
        return ":" if indices.step == 1 else f"::{indices.step}"
    step = "" if indices.step == 1 else f":{indices.step}"
    return f"{indices.start}:{indices.stop if indices.stop >= 0 else ''}{step}"


# ----- pictures -----


def picture(found: View, title: str) -> Figure:
    """Draw a part of an array: a line, or an image with its scale.

    Raises:
        DrawingError: If its numbers are too large for a scale (a `ValueError`).

    Ranks: independent.
    """
    figure, axes = _figure()
    with _drawing():
        if len(found.axes) == 1:
            few = len(found.values) <= 60
            axes.plot(found.ranges[0], found.values, marker="o" if few else None, markersize=3)
            axes.set_xlabel(f"index along axis {found.axes[0]}")
            axes.set_ylabel(_MODULUS if found.is_modulus else "")
            axes.grid(alpha=0.3)
        else:
            image = axes.imshow(
                found.values, origin="lower", extent=_extent(*found.ranges), aspect=_aspect(found)
            )
            axes.set_ylabel(f"axis {found.axes[0]}")
            axes.set_xlabel(f"axis {found.axes[1]}")
            figure.colorbar(image, label=_MODULUS if found.is_modulus else "")
            axes.locator_params(axis="y", integer=True)
        axes.locator_params(axis="x", integer=True)
        axes.set_title(plain(title))
    return figure


@contextmanager
def _drawing() -> Iterator[None]:
    """Whatever matplotlib makes of numbers that it has no scale for, as an error of ours."""
    with warnings.catch_warnings():
        # Letters that the font doesn't have; and what overflows before it is refused.
        warnings.simplefilter("ignore")
        try:
            yield
        except (ValueError, OverflowError, RuntimeError) as error:
            why = " ".join(str(error).split())
            raise DrawingError(
                f"these numbers can't be drawn, they may be too large: {why}"
            ) from error


def _figure() -> tuple[Figure, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise DrawingError("drawing needs matplotlib: pip install 'notata[plot]'") from None
    figure = Figure(figsize=(7, 5), dpi=120, layout="constrained")
    return figure, figure.add_subplot()


def _extent(rows: range, columns: range) -> tuple[float, float, float, float]:
    (left, right), (bottom, top) = (
        (r[0] - r.step / 2, r[-1] + r.step / 2) for r in (columns, rows)
    )
    return left, right, bottom, top


def _aspect(found: View) -> str:
    rows, columns = (abs(r[-1] - r[0]) + abs(r.step) for r in found.ranges)
    return "equal" if max(rows, columns) <= 5 * min(rows, columns) else "auto"


def plain(text: str) -> str:
    """Text that matplotlib shows as it is: a dollar would begin a formula.

    Ranks: independent.
    """
    return printable(text).replace("$", r"\$")


class Sweep(NamedTuple):
    """What is drawn of many runs.

    Attributes:
        figure: The picture.
        shown: How many runs are in it.
        left_out: How many have no number to show.
    """

    figure: Figure
    shown: int
    left_out: int


def sweep(
    found: Sequence[Line], x: str, y: str, hue: str | None = None, log: str = "", title: str = ""
) -> Sweep:
    """Draw one value of many runs over another.

    Args:
        found: The runs.
        x: Name of the value along the horizontal axis: numbers, or else text.
        y: Name of the value along the vertical axis: numbers.
        hue: Name of the value that gives the colour.
        log: The axes with a logarithmic scale: `x`, `y` or `xy`.
        title: The title.

    Raises:
        QueryError: If no run has a value of that name (a `ValueError`).
        DrawingError: If no run has both values (a `ValueError`).

    Ranks: independent.
    """
    check((name for name in (x, y, hue) if name), found)
    rows = [
        (line.get(x), line.get(y), line.get(hue) if hue else None)
        for line in found
        if line.get(x) is not None and not _is_endless(line.get(x)) and _is_number(line.get(y))
    ]
    if not rows:
        raise DrawingError(f"no run has both a value {x!r} and a number {y!r}")
    rows = [row for row in rows if all(map(_fits, row, ("x" in log, "y" in log)))]
    if not rows:
        raise DrawingError("a logarithmic scale has no place for these values: none is above 0")
    if not all(_is_number(row[0]) for row in rows):
        rows = [(plain(str(row[0])), *row[1:]) for row in rows]
    rows.sort(key=lambda row: row[0])
    figure, axes = _figure()
    with _drawing():
        _points(figure, axes, rows, hue)
        axes.set_xlabel(plain(x))
        axes.set_ylabel(plain(y))
        axes.set_title(plain(title))
        axes.grid(alpha=0.3)
        if "x" in log:
            axes.set_xscale("log")
        if "y" in log:
            axes.set_yscale("log")
    return Sweep(figure, len(rows), len(found) - len(rows))


def _points(figure: Figure, axes: Any, rows: list[tuple[Any, Any, Any]], hue: str | None) -> None:
    """Dots with a scale of colours for many numbers; else a line for each value of the hue."""
    colours = [row[2] for row in rows]
    if hue and len(set(map(_key, colours))) > _SEVERAL and all(map(_is_number, colours)):
        dots = axes.scatter(*zip(*((r[0], r[1]) for r in rows), strict=True), c=colours)
        figure.colorbar(dots, label=plain(hue))
    else:
        _lines(axes, rows, hue)


def _lines(axes: Any, rows: list[tuple[Any, Any, Any]], hue: str | None) -> None:
    groups: dict[tuple[int, Any], list[tuple[Any, Any]]] = {}
    for x, y, colour in rows:
        groups.setdefault(_key(colour), []).append((x, y))
    for (_, colour), points in sorted(groups.items(), key=lambda item: item[0]):
        xs, ys = zip(*points, strict=True)
        # Between texts there is nothing that a line could stand for.
        dots = "o-" if all(map(_is_number, xs)) else "o"
        axes.plot(xs, ys, dots, markersize=4, linewidth=1, label=plain(str(colour)))
    if hue:
        axes.legend(title=plain(hue))


def _key(value: Any) -> tuple[int, Any]:
    """What sorts and groups values of any kind."""
    return (0, value) if _is_number(value) else (1, str(value))


def _is_number(value: Any) -> bool:
    """Whether a value is a number that can be drawn."""
    try:
        return _is_any_number(value) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _is_endless(value: Any) -> bool:
    return _is_any_number(value) and not _is_number(value)


def _fits(value: Any, logarithmic: bool) -> bool:
    """Whether an axis has a place for a value; one with a logarithmic scale has none at 0."""
    return not logarithmic or not _is_any_number(value) or value > 0


def _is_any_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def encoded(figure: Figure, kind: str) -> bytes:
    """A picture as the bytes of a file.

    Args:
        figure: The picture.
        kind: `png`, `pdf` or `svg`.

    Raises:
        DrawingError: If there are no such files, or its numbers are too large for a scale (a
            `ValueError`).

    Ranks: independent.
    """
    if kind not in KINDS:
        raise DrawingError(f"a file .{kind} can't be drawn: name a .png, .pdf or .svg")
    buffer = io.BytesIO()
    with _drawing():
        figure.savefig(buffer, format=kind, bbox_inches="tight")
    return buffer.getvalue()
