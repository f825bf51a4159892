"""The columns of a table of runs: which there are, in which order, and what stands in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from notata.cells import OURS, RESERVED, RUN_ID, STATUS, encode, encode_own, utf8

_PARAM, _METRIC = "params.", "metrics."


class Row(NamedTuple):
    """What the table says of a run.

    Attributes:
        run_id: Its id.
        params: Its parameters.
        status: `complete`, `failed` (a failed run with metrics), `missing` (no metrics) or
            `error` (metrics or parameters that can't be read).
        metrics: Its metrics.
        run: The run's own status, reason, start and duration, by the names in `OURS`. Where its
            metadata can't be read, the status is `damaged` and the reason says why.
    """

    run_id: str
    params: Mapping[str, Any]
    status: str
    metrics: Mapping[str, Any]
    run: Mapping[str, Any]


class Columns:
    """The header of a table: parameters stand before `status`, metrics behind it.

    A parameter's column has its name, and so has a metric's unless a parameter has the same one.
    `params.` or `metrics.` stands before a name that means something else, and before one that
    begins so itself. So the columns depend on which parameters and metrics the runs have, and not
    on the order in which they came.
    """

    def __init__(self, header: Iterable[str] = ()) -> None:
        names = list(header)
        at = names.index(STATUS) if STATUS in names else len(names)
        self._params: set[str] = set()
        self._metrics: set[str] = set()
        # Columns of the header, each with what now names the column of the same cells.
        self._found: dict[str, tuple[Callable[[str], str], str]] = {}
        for kept, column_of, prefix, columns in (
            (self._params, self._param, _PARAM, names[:at]),
            (self._metrics, self._metric, _METRIC, names[at + 1 :]),
        ):
            for column in columns:
                if column == RUN_ID or (column in OURS and kept is self._metrics):
                    continue
                name = column.removeprefix(prefix)
                name = name if column_of(name) == column else column
                kept.add(name)
                self._found[column] = column_of, name

    def _param(self, name: str) -> str:
        taken = name in RESERVED or name.startswith((_PARAM, _METRIC))
        return _PARAM + name if taken else name

    def _metric(self, name: str) -> str:
        taken = name in RESERVED or name in self._params or name.startswith((_PARAM, _METRIC))
        return _METRIC + name if taken else name

    @property
    def names(self) -> list[str]:
        """The header, in order."""
        params, metrics = map(self._param, self._params), map(self._metric, self._metrics)
        return [RUN_ID, *sorted(params), STATUS, *sorted(metrics), *OURS]

    def include(self, row: Row) -> None:
        """Make the columns that a row needs; others may get another name by that."""
        self._params.update(map(_name, row.params))
        self._metrics.update(map(_name, row.metrics))

    def cells(self, row: Row) -> dict[str, str]:
        """Put a row that is included under its columns.

        Returns:
            The text of each cell that is not empty, by column.
        """
        cells = {RUN_ID: utf8(row.run_id), STATUS: row.status}
        cells |= {self._param(_name(key)): encode(value) for key, value in row.params.items()}
        cells |= {self._metric(_name(key)): encode(value) for key, value in row.metrics.items()}
        cells |= {key: encode_own(value) for key, value in row.run.items()}
        return {column: text for column, text in cells.items() if text}

    def moved(self, cells: Mapping[str, str]) -> dict[str, str]:
        """Put a row that stood under the header given at first under the columns of now."""
        now = {column: column_of(name) for column, (column_of, name) in self._found.items()}
        return {now.get(column, column): text for column, text in cells.items()}


def _name(key: Any) -> str:
    return utf8(str(key))
