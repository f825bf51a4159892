"""What differs between two runs: how they were made, and what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from notata import overview
from notata.errors import NotataError
from notata.opened import Arrays, Opened
from notata.overview import Overview
from notata.phrases import error_text
from notata.stored import StrPath

if TYPE_CHECKING:
    from notata.npy import Array

MISSING = "—"  # stands where one of the runs has nothing of that name


class Change(NamedTuple):
    """Something that two runs have differently.

    Attributes:
        name: What it is; nested names are joined with dots.
        left: What the one has, or `MISSING`.
        right: What the other has, or `MISSING`.
    """

    name: str
    left: Any
    right: Any


class Group(NamedTuple):
    """Things of one kind.

    Attributes:
        what: The kind, such as `parameters`.
        changes: Those that differ.
        same: How many are the same.
    """

    what: str
    changes: list[Change]
    same: int


class Difference(NamedTuple):
    """How an array differs between two runs.

    Attributes:
        name: Its name.
        left: Shape and type in the one, or `MISSING`.
        right: The same in the other.
        apart: How many elements differ by more than is tolerated, or None if none were compared.
        total: Of how many.
        largest: The largest absolute difference of two finite numbers, or None.
        relative: That difference over the larger of the two numbers.
        where: Index of that element; of the first that differs, where they are no numbers.
        values: The two elements there.
        problem: Why it could not be compared, or `""`.
    """

    name: str
    left: str
    right: str
    apart: int | None = None
    total: int = 0
    largest: float | None = None
    relative: float | None = None
    where: tuple[int, ...] | None = None
    values: tuple[Any, Any] | None = None
    problem: str = ""

    @property
    def differs(self) -> bool:
        """Whether it is not known to be the same."""
        return bool(self.apart or self.problem or self.left != self.right)


class Comparison(NamedTuple):
    """What differs between two runs.

    Attributes:
        left: The one, summed up.
        right: The other.
        groups: Parameters, code, packages, ranks and metrics.
        arrays: All arrays that either has.
    """

    left: Overview
    right: Overview
    groups: list[Group]
    arrays: list[Difference]

    @property
    def results_differ(self) -> bool:
        """Whether metrics or arrays differ, or could not be compared."""
        metrics = any(group.changes for group in self.groups if group.what == "metrics")
        return metrics or any(array.differs for array in self.arrays)


def compare(
    left: StrPath,
    right: StrPath,
    *,
    data: bool = True,
    atol: float = 0.0,
    rtol: float = 0.0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare two runs, merged or not; arrays are read slab by slab.

    Args:
        left: Folder of the one.
        right: Folder of the other.
        data: Whether to read the arrays; else only their shapes and types are compared.
        atol: Differences up to this are none, in the arrays' units.
        rtol: Differences up to this share of the right number are none.
        tell: Called with the bytes of arrays that are read, and of how many.

    Raises:
        RunNotFoundError: If there is no such folder (a `FileNotFoundError`).
        NotARunError: If no run was written there (a `ValueError`).

    Ranks: independent.
    """
    one, other = overview.of(left, 0), overview.of(right, 0)
    groups = [
        _group("parameters", one.params, other.params),
        _group("code", _code(one), _code(other)),
        _group("packages", _told(one, "packages"), _told(other, "packages")),
        _group("ranks", _ranks(one), _ranks(other)),
        _group("metrics", one.metrics, other.metrics),
    ]
    return Comparison(one, other, groups, _Arrays(one, other, data, atol, rtol, tell).compared())


def _group(what: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> Group:
    one, other = flat(left), flat(right)
    names = [*one, *(name for name in other if name not in one)]
    changes = [
        Change(name, one.get(name, MISSING), other.get(name, MISSING))
        for name in names
        if name not in one or name not in other or not _same(one[name], other[name])
    ]
    return Group(what, changes, len(names) - len(changes))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by names that are joined with dots.

    Example:
        >>> flat({"grid": {"nx": 3, "ny": 4}, "dt": 0.1})
        {'grid.nx': 3, 'grid.ny': 4, 'dt': 0.1}

    Ranks: independent.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float) and left != left and right != right:
        return True
    return type(left) is type(right) and bool(left == right)


def _told(run: Overview, key: str) -> dict[str, Any]:
    provenance = run.meta.get("provenance")
    found = provenance.get(key) if isinstance(provenance, dict) else None
    return found if isinstance(found, dict) else {}


def _code(run: Overview) -> dict[str, Any]:
    provenance = run.meta.get("provenance")
    provenance = provenance if isinstance(provenance, dict) else {}
    command = provenance.get("command")
    told = {key: provenance[key] for key in ("git", "python", "modules") if key in provenance}
    if isinstance(command, list):
        told["command"] = " ".join(map(str, command))
    return told


def _ranks(run: Overview) -> dict[str, Any]:
    return {"number": run.size, "hosts": ", ".join(sorted(run.hosts))}


# ----- arrays -----


class _Arrays:
    """Compares the arrays of two runs."""

    def __init__(
        self,
        left: Overview,
        right: Overview,
        data: bool,
        atol: float,
        rtol: float,
        tell: Callable[[int, int], None],
    ) -> None:
        self._one = {facts.name: facts for facts in left.arrays}
        self._other = {facts.name: facts for facts in right.arrays}
        self._runs = Arrays(left.path), Arrays(right.path)
        self._data, self._atol, self._rtol, self._tell = data, atol, rtol, tell
        self._done = 0
        self._total = sum(
            2 * (self._one[name].nbytes or 0) for name in self._one if self._comparable(name)
        )

    def _comparable(self, name: str) -> bool:
        one, other = self._one.get(name), self._other.get(name)
        return bool(self._data and one and other and one.shape == other.shape is not None)

    def compared(self) -> list[Difference]:
        self._tell(0, self._total)
        return [self._array(name) for name in sorted({*self._one, *self._other})]

    def _array(self, name: str) -> Difference:
        one, other = self._one.get(name), self._other.get(name)
        found = Difference(name, _spelled(one), _spelled(other))
        problem = "; ".join(facts.problem for facts in (one, other) if facts and facts.problem)
        if problem or not self._comparable(name):
            return found._replace(problem=problem)
        try:
            return self._read(found, *(run.open(name) for run in self._runs))
        except (NotataError, OSError) as error:
            return found._replace(problem=error_text(error))

    def _read(self, found: Difference, left: Opened, right: Opened) -> Difference:
        numbers = left.dtype.kind in "biufc" and right.dtype.kind in "biufc"
        total = count = 0
        for box in left.slabs():
            one, other = left.read(box), right.read(box)
            part = self._numbers(one, other) if numbers else _others(one, other)
            total += one.size
            count += part.apart or 0
            if part.where is not None and _is_worse(part, found):
                inside = part.where if box else ()
                where = tuple(a.start + i for a, i in zip(box, inside, strict=True))
                found = found._replace(
                    largest=part.largest, relative=part.relative, where=where, values=part.values
                )
            self._done += one.nbytes + other.nbytes
            self._tell(self._done, max(self._total, self._done))
        return found._replace(apart=count, total=total)

    def _numbers(self, one: Array, other: Array) -> Difference:
        import numpy as np

        kind = np.result_type(one, other)
        one, other = np.atleast_1d(one.astype(kind)), np.atleast_1d(other.astype(kind))
        with np.errstate(all="ignore"):
            same = (one == other) | ((one != one) & (other != other))
            apart = _apart(one, other)
            finite = np.isfinite(apart)
            tolerated = finite & (apart <= self._atol + self._rtol * np.abs(other))
        wrong = ~(same | tolerated)
        count = int(wrong.sum())
        if not count:
            return Difference("", "", "", 0)
        # Where one is NaN or infinite, the first such place says most.
        place = np.where(wrong & finite, apart, -1).argmax() if (wrong & finite).any() else None
        at = int(np.flatnonzero(wrong)[0] if place is None else place)
        where = tuple(int(i) for i in np.unravel_index(at, one.shape))
        values = one[where].item(), other[where].item()
        largest = None if place is None else float(apart[where])
        scale = max(abs(values[0]), abs(values[1]))
        relative = None if largest is None or not scale else largest / scale
        return Difference("", "", "", count, 0, largest, relative, where, values)


def _apart(one: Array, other: Array) -> Array:
    """Absolute differences; those of whole numbers without overflow."""
    import numpy as np

    if one.dtype.kind == "b":
        found: Array = (one != other).astype(float)
        return found
    if one.dtype.kind in "iu":
        larger, smaller = np.maximum(one, other), np.minimum(one, other)
        found = (larger.astype(np.uint64) - smaller.astype(np.uint64)).astype(float)
        return found
    found = np.abs(one - other)
    return found


def _others(one: Array, other: Array) -> Difference:
    """Text, times and records: they are the same, or not."""
    import numpy as np

    one, other = np.atleast_1d(one), np.atleast_1d(other)
    try:
        same = _alike(one, other)
    except (TypeError, ValueError):
        same = np.zeros(one.shape, bool)
    wrong = np.flatnonzero(~same)
    if not wrong.size:
        return Difference("", "", "", 0)
    where = tuple(int(i) for i in np.unravel_index(int(wrong[0]), one.shape))
    return Difference(
        "", "", "", int(wrong.size), where=where, values=(one[where].item(), other[where].item())
    )


def _alike(one: Array, other: Array) -> Array:
    """Where two arrays of one shape hold the same; what is missing in both is the same."""
    import numpy as np

    if one.dtype.names and one.dtype.names == other.dtype.names:
        alike: Array = np.ones(one.shape, bool)
        for name in one.dtype.names:
            field = _alike(one[name], other[name])
            alike &= field.reshape(*one.shape, -1).all(axis=-1)  # a field may be an array
        return alike
    same = np.broadcast_to(one == other, one.shape)
    kinds = {one.dtype.kind, other.dtype.kind}
    return same | (one != one) & (other != other) if kinds <= set("fcmM") else same


def _is_worse(part: Difference, found: Difference) -> bool:
    if found.where is None:
        return True
    return part.largest is not None and part.largest > (
        -math.inf if found.largest is None else found.largest
    )


def _spelled(facts: Any) -> str:
    if facts is None:
        return MISSING
    shape = "?" if facts.shape is None else " × ".join(map(str, facts.shape)) or "number"
    return f"{shape} {facts.dtype}".rstrip()
