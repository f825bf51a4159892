"""The table: a row a run in `index.csv`, which can always be made again from the runs."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from notata import files, layout
from notata.lock import locked
from notata.stored import read_json, read_params

RUN_ID, STATUS = "run_id", "status"
OURS = ("run_status", "failure_reason", "start_time", "runtime_sec")
RESERVED = frozenset((RUN_ID, STATUS, *OURS))
_BEING_REWRITTEN = b"#"  # stands in the first place of a table that is half rewritten


class Row(NamedTuple):
    """What the table says of a run.

    Attributes:
        run_id: Its id.
        params: Its parameters.
        status: `complete`, `failed` (a failed run with metrics), `missing` (no metrics) or
            `error` (metrics that can't be read).
        metrics: Its metrics.
        run: The run's own status, reason, start and duration, by the names in `OURS`.
    """

    run_id: str
    params: Mapping[str, Any]
    status: str
    metrics: Mapping[str, Any]
    run: Mapping[str, Any]


def row_of(folder: str, metrics_file: str = layout.METRICS) -> Row:
    """Read a run's row from its folder.

    Args:
        folder: Folder of the run.
        metrics_file: Its metrics, relative to the folder.

    Ranks: independent.
    """
    meta = read_json(os.path.join(folder, layout.METADATA)) or {}
    run_status = meta.get("status")
    status, metrics = _metrics(os.path.join(folder, metrics_file))
    if status == "complete" and run_status == "failed":
        status = "failed"
    run = {"run_status": run_status} | {key: meta.get(key) for key in OURS[1:]}
    run_id = layout.run_id_of(os.path.basename(os.path.normpath(folder)))
    return Row(run_id, read_params(folder), status, metrics, run)


def _metrics(path: str) -> tuple[str, dict[str, Any]]:
    data = files.read_bytes(path)
    if data is None:
        return "missing", {}
    try:
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError(f"{os.path.basename(path)} holds a {type(found).__name__}, no object")
        return "complete", found
    except ValueError as error:
        return "error", {"error_reason": str(error)}


class Columns:
    """The header of a table: parameters stand before `status`, metrics behind it."""

    def __init__(self, header: Iterable[str] = ()) -> None:
        names = list(header)
        at = names.index(STATUS) if STATUS in names else len(names)
        self._params = [name for name in names[:at] if name != RUN_ID]
        self._metrics = [name for name in names[at + 1 :] if name not in OURS]

    @property
    def names(self) -> list[str]:
        """The header, in order."""
        return [RUN_ID, *self._params, STATUS, *self._metrics, *OURS]

    def cells(self, row: Row) -> dict[str, str]:
        """Put a row under its columns, making those that are missing.

        Returns:
            The text of each cell that is not empty, by column.
        """
        cells = {RUN_ID: row.run_id, STATUS: row.status}
        for mine, others, kind, values in (
            (self._params, self._metrics, "params", row.params),
            (self._metrics, self._params, "metrics", row.metrics),
        ):
            for key in sorted(values, key=str):
                column = _column(str(key), mine, others, kind)
                cells[column] = _cell(values[key])
        cells |= {key: _cell(value) for key, value in row.run.items()}
        return {column: text for column, text in cells.items() if text}


def _column(key: str, mine: list[str], others: list[str], kind: str) -> str:
    """The column of a parameter or metric; a name that means something else gets a prefix."""
    name = key
    while name in RESERVED or name in others:
        name = f"{kind}.{name}"
    if name not in mine:
        mine.append(name)
    return name


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    return str(value)


def _lines(names: list[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([row.get(name, "") for name in names])
    return text.getvalue().encode("utf-8", "surrogateescape")


class Index:
    """The table of an experiment on disk, shared by many processes under a lock."""

    def __init__(self, experiment: str) -> None:
        """Name the table; nothing is read or made.

        Args:
            experiment: Folder of the experiment.
        """
        self._runs = os.path.join(experiment, layout.RUNS)
        self._path = os.path.join(experiment, layout.INDEX)
        self._lock = os.path.join(experiment, layout.INDEX_LOCK)

    def add(self, row: Row, *, new: bool = False) -> None:
        """Put a run's row into the table, in place of an earlier one.

        Args:
            row: The row.
            new: Whether the run can't have a row yet, so that none has to be looked for.

        Raises:
            LockTimeoutError: If other processes held the table all the time.
            OSError: If it can't be written.

        Ranks: root only.
        """
        with locked(self._lock):
            header = self._header()
            if header is None:
                self._rebuild({row.run_id: row})
                return
            columns = Columns(header)
            cells = columns.cells(row)
            if header != columns.names or not new:
                self._rewrite(columns, row.run_id, cells)
            else:
                files.append_line(self._path, _lines(header, [cells]))

    def rebuild(self) -> int:
        """Make the table anew from the runs that have ended.

        Returns:
            The number of rows.

        Raises:
            LockTimeoutError: If other processes held the table all the time.

        Ranks: root only.
        """
        with locked(self._lock):
            return self._rebuild({})

    def _header(self) -> list[str] | None:
        """The column names of a table that is whole, else None; read through a fresh open."""
        try:
            with open(self._path, "rb") as file:
                if file.read(1) in (b"", _BEING_REWRITTEN):
                    return None
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    return None  # an append that died half way
                file.seek(0)
                text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
                header = next(csv.reader(text), [])
        except FileNotFoundError:
            return None
        except csv.Error:
            return None
        return header if header[:1] == [RUN_ID] and STATUS in header else None

    def _rewrite(self, columns: Columns, run_id: str, cells: Mapping[str, str]) -> None:
        """Write all rows again, with new columns or in place of the run's earlier row."""
        with open(self._path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            old = [row for row in reader if row.get(RUN_ID) != run_id]
        if any(None in row or None in row.values() for row in old):
            self._rebuild({})  # rows that don't fit their header, as notata 0.3.0 leaves them
            return
        names = columns.names
        self._replace(_lines(names, [dict(zip(names, names, strict=True)), *old, cells]))

    def _rebuild(self, rows: dict[str, Row]) -> int:
        for name in sorted(os.listdir(self._runs)) if os.path.isdir(self._runs) else ():
            row = row_of(os.path.join(self._runs, name))
            if name.startswith(layout.RUN_PREFIX) and row.run["run_status"] in (
                "complete",
                "failed",
            ):
                rows.setdefault(row.run_id, row)
        columns = Columns()
        cells = [columns.cells(row) for row in rows.values()]
        names = columns.names
        self._replace(_lines(names, [dict(zip(names, names, strict=True)), *cells]))
        return len(rows)

    def _replace(self, data: bytes) -> None:
        """Rewrite the table in place: a rename would lose rows that other nodes append (NFS).

        Until the last byte is on disk, the first one says that the table is half written, so that
        the next writer makes it anew from the runs if this one dies.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.pwrite(descriptor, _BEING_REWRITTEN, 0)
            os.fsync(descriptor)
            view, offset = memoryview(data)[1:], 1
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written
            os.ftruncate(descriptor, len(data))
            os.fsync(descriptor)
            os.pwrite(descriptor, data[:1], 0)
        finally:
            os.close(descriptor)
