"""Runs by what they say: the values of each by name, which of them are wanted, and their order."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from unicodedata import normalize

from notata import layout
from notata.errors import QueryError
from notata.expressions import Expression
from notata.listing import Entry
from notata.rows import row_of

# The values that every run has, whatever its parameters are called.
OWN = (
    *("name", "run_id", "kind", "status", "run_status", "ranks", "runtime_sec", "start_time"),
    *("age_sec", "failure_reason"),
)
# What the columns of a listing are headed, of values that have another name.
HEADED = {"age": "age_sec", "duration": "runtime_sec"}
_PARAMS, _METRICS = "params.", "metrics."


class Line(NamedTuple):
    """A run or experiment with all that can be asked of it.

    Attributes:
        entry: What a listing says of it.
        own: Values that every run has, by the names in `OWN`.
        params: Its parameters.
        metrics: Its metrics.
    """

    entry: Entry
    own: Mapping[str, Any]
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]

    def has(self, name: str) -> bool:
        """Whether it has a value of that name, be it None."""
        return self._find(name)[0]

    def get(self, name: str) -> Any:
        """The value of a name, or None.

        Our own names come first, then parameters, then metrics; `params.status` is the parameter.
        The headings of a listing, such as `age`, come last.
        """
        return self._find(name)[1]

    def _find(self, name: str) -> tuple[bool, Any]:
        if name in self.own:
            return True, self.own[name]
        groups = {_PARAMS: self.params, _METRICS: self.metrics}
        for values in groups.values():
            if name in values:
                return True, values[name]
        for prefix, values in groups.items():
            if name.startswith(prefix):
                return _inside(values, name.removeprefix(prefix))
        found = [_inside(values, name) for values in groups.values()]
        heading = (True, self.own[HEADED[name]]) if name in HEADED else (False, None)
        return next((pair for pair in found if pair[0]), heading)


def _inside(values: Any, name: str) -> tuple[bool, Any]:
    """A value by its name, or in nested ones by the names on the way."""
    if not isinstance(values, Mapping):
        return False, None
    key = _key(values, name)
    if key is not None:
        return True, values[key]
    first, dot, rest = name.partition(".")
    key = _key(values, first) if dot else None
    return (False, None) if key is None else _inside(values[key], rest)


def _key(values: Mapping[Any, Any], name: str) -> str | None:
    """The key that is meant: that very name, or one that looks like it, as `µ` and `μ` do."""
    if name in values:
        return name
    if name.isascii():
        return None
    alike = normalize("NFKC", name)
    keys = (key for key in values if isinstance(key, str))
    return next((key for key in keys if normalize("NFKC", key) == alike), None)


def lines(entries: Iterable[Entry], now: float) -> list[Line]:
    """Read what can be asked of runs; what is damaged has no values.

    Args:
        entries: Runs and experiments, as a listing has them.
        now: The time, in seconds since the epoch.

    Ranks: independent.
    """
    return [_line(entry, now) for entry in entries]


def _line(entry: Entry, now: float) -> Line:
    name = os.path.basename(os.path.abspath(entry.path))
    state = next(iter(entry.statuses)) if len(entry.statuses) == 1 else None
    own = {
        "name": name,
        "run_id": None,
        "kind": entry.kind,
        "status": state,
        "run_status": state,
        "ranks": entry.ranks[1] if entry.ranks else None,
        "runtime_sec": entry.runtime,
        "start_time": None,
        "age_sec": None if entry.started is None else max(0.0, now - entry.started),
        "failure_reason": None,
    }
    if entry.kind != "run":
        return Line(entry, own, {}, {})
    row = row_of(os.fspath(entry.path))
    told = {key: row.run.get(key) for key in ("start_time", "failure_reason")}
    own |= {"run_id": layout.run_id_of(name), **told}
    wrong = "error_reason" if row.status == "error" else None  # which is no value of the run
    metrics = {name: value for name, value in row.metrics.items() if name != wrong}
    return Line(entry, own, row.params, metrics)


def names_of(found: Iterable[Line]) -> list[str]:
    """The names of all values that any run has: our own, then parameters, then metrics.

    Ranks: independent.
    """
    found = list(found)
    params = sorted({str(key) for line in found for key in line.params})
    metrics = sorted({str(key) for line in found for key in line.metrics} - {*params})
    return [*OWN, *(name for name in (*params, *metrics) if name not in OWN)]


def check(names: Iterable[str], found: Sequence[Line]) -> None:
    """Make sure that there are such values.

    Raises:
        QueryError: If no run has a value of that name; the message says which there are.

    Ranks: independent.
    """
    for name in names:
        if name in OWN or any(line.has(name) for line in found):
            continue
        there = names_of(found)
        near = difflib.get_close_matches(name, there, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise QueryError(f"no run has a value {name!r}{hint} There are: {', '.join(there)}")


def wanted(found: Sequence[Line], condition: Expression) -> list[Line]:
    """The runs for which a condition holds.

    Raises:
        QueryError: If it names a value that no run has.

    Ranks: independent.
    """
    check(sorted(condition.names), found)
    return [line for line in found if condition(line.get)]


def ordered(found: Sequence[Line], keys: Iterable[str]) -> list[Line]:
    """Sort runs; those without a value, or with NaN, come last.

    Args:
        found: The runs.
        keys: Names, the most important first; `-` before one puts the largest first.

    Raises:
        QueryError: If no run has a value of that name.

    Ranks: independent.
    """
    result = list(found)
    for key in reversed(list(keys)):
        name = key.removeprefix("-")
        check([name], found)
        there = [line for line in result if _has_order(line.get(name))]
        there.sort(key=lambda line: _rank(line.get(name)), reverse=key.startswith("-"))
        result = [*there, *(line for line in result if not _has_order(line.get(name)))]
    return result


def _has_order(value: Any) -> bool:
    return value is not None and value == value  # NaN is neither the smallest nor the largest


def _rank(value: Any) -> tuple[int, Any]:
    """What can be compared with that of any other value: numbers before text."""
    return (0, value) if isinstance(value, int | float) else (1, str(value))
