"""The table: a row a run in `index.csv`, which can always be made again from the runs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, NamedTuple

from notata import files, frames, freshness, inplace, layout
from notata.bloom import TAIL, Bloom, Table
from notata.cells import RUN_ID, STATUS, typed
from notata.columns import Columns, Row
from notata.disk import Disk
from notata.errors import DamagedError
from notata.lock import Held, locked
from notata.mounts import Mount, lock_doubt, mount_of
from notata.rows import Ended
from notata.tables import columns, has_row, long_cells, read_table, run_ids

# What is read while the table is locked, when it is made anew: others wait for it. Where more runs
# end each time than these, they are read under the lock in the last round.
_FEW = 32
_ROUNDS = 4


def _lines(names: list[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    for row in rows:
        cells = [row.get(name, "") for name in names]
        if any("\r" in cell for cell in cells):  # the plain one leaves it bare, as the row's end
            csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(cells)
        else:
            plain.writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _table(file: io.FileIO) -> Table:
    """Which table it is; its tail tells whether the last append was whole."""
    size = file.seek(0, os.SEEK_END)
    return Table(size, os.pread(file.fileno(), TAIL, max(0, size - TAIL)))


class _Lines:
    """The lines of a file as text, with those that were read so far as they are."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = io.BufferedReader(file)
        self.read: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.read.append(line)
            yield line.decode("utf-8", "surrogateescape")


class _Entry(NamedTuple):
    """A row as it stands in a table with a certain header.

    Attributes:
        header: The columns of the table.
        columns: Those that the row needs besides, too.
        cells: Its cells, by column.
        line: Its line; empty where the table has not all of its columns.
    """

    header: list[str]
    columns: Columns
    cells: dict[str, str]
    line: bytes


def _entry(header: list[str], row: Row) -> _Entry:
    columns = Columns(header)
    columns.include(row)
    cells = columns.cells(row)
    line = _lines(header, [cells]) if header == columns.names else b""
    return _Entry(header, columns, cells, line)


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
        self._known = (b"", list[str]())  # the first line of the table, and the columns in it

    @cached_property
    def _bloom(self) -> Bloom:
        path = os.path.join(os.path.dirname(self._path), layout.INDEX_BLOOM)
        return Bloom(path, shared=not self._mount.close_to_open)

    @cached_property
    def _mount(self) -> Mount:
        return mount_of(self._path)

    @cached_property
    def doubt(self) -> str | None:
        """Why locks on this file system are known not to exclude other nodes, or None."""
        return lock_doubt(self._mount)

    def add(self, row: Row, *, durable: bool = True) -> Held:
        """Put a run's row into the table, in place of an earlier one.

        Args:
            row: The row.
            durable: Whether to wait until the row is on disk, so that it outlives the node.

        Returns:
            How the table was locked.

        Raises:
            LockTimeoutError: If other processes held the table all the time.
            OSError: If it can't be written.

        Ranks: root only.
        """
        entry = _entry(self._known[1], row)  # while nobody waits: mostly the header is this still
        with self._locked() as held:
            self._add(row, entry, durable or not self._mount.close_to_open)
        return held

    @contextmanager
    def _locked(self) -> Iterator[Held]:
        """Hold the table, and see what other nodes wrote to it."""
        with self._explained(), locked(self._lock) as held:
            if not self._mount.close_to_open:
                with suppress(FileNotFoundError):
                    freshness.ask_anew(self._path)
            yield held

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Let errors say what to do, those of the table's lock and of the runs' folders too."""
        disk = Disk()
        with disk.explaining(os.path.dirname(self._path)), disk.explaining(self._path):
            yield

    def _add(self, row: Row, entry: _Entry, durable: bool) -> None:
        found = self._header()
        if found is None:
            self._mend(row, durable)
            return
        header, table = found
        if header is not entry.header:
            entry = _entry(header, row)
        try:
            if entry.line and not self._enter(entry.cells[RUN_ID], table, entry.line):
                inplace.append(self._path, entry.line, durable=durable)
                return
            self._rewrite(entry.columns, entry.cells, durable)
        except DamagedError:
            self._mend(row, durable)

    def _enter(self, run_id: str, before: Table, line: bytes) -> bool:
        """Note that a run is about to get a row, this line; gives whether it has one already.

        Raises:
            DamagedError: If the table would have to be read, and is no CSV.
        """
        after, known = before.and_(line), None
        with suppress(OSError):  # it only saves looking for an earlier row
            known = self._bloom.enter(run_id, before, after)
        if known is False:
            return False
        data = files.read_bytes(self._path) or b""
        if known:
            return has_row(data, run_id)
        told = run_ids(data, self._path)
        if run_id in told:
            return True
        self._make_bloom([*told, run_id], after)
        return False

    def _make_bloom(self, told: list[str], table: Table) -> None:
        try:
            self._bloom.make(told, table)
        except OSError:
            with suppress(OSError):
                self._bloom.forget()

    def rows(self) -> list[dict[str, Any]]:
        """The rows as they are on disk, one a run, with their values by column.

        Raises:
            DamagedError: If the table is no CSV, or is just being rewritten.

        Ranks: independent.
        """
        values = self._typed(self._data())
        return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]

    def frame(self) -> Any:
        """The rows as a pandas DataFrame, with the values of `rows`.

        Raises:
            DamagedError: If the table is no CSV, or is just being rewritten.
            ImportError: If pandas is not installed.

        Ranks: independent.
        """
        data = self._data()
        found = frames.parsed(data)
        return frames.frame_of(self._typed(data)) if found is None else found

    def _typed(self, data: bytes) -> dict[str, list[Any]]:
        texts = columns(data, self._path)
        return {name: typed(name, column) for name, column in texts.items()}

    def _data(self) -> bytes:
        """The table as it is on disk; empty if there is none."""
        with self._explained():
            if not freshness.exists(self._path):
                return b""
            # What is being written is waited for. A process that may not lock reads as it can.
            with suppress(OSError), self._locked():
                return self._whole()
            return self._whole()

    def _whole(self) -> bytes:
        data = files.read_bytes(self._path) or b""
        if data.startswith(inplace.MARK):
            raise DamagedError(
                f"{self._path} is half written, and whoever was at it is gone: make it anew with "
                "notata index, or rebuild_index()"
            )
        return data

    def rebuild(self) -> int:
        """Make the table anew from the runs that have ended, and those with damaged metadata.

        Most runs are read while others may use the table, which would else wait for a minute where
        there are thousands: a run that ends meanwhile would give up, and get no row.

        Returns:
            The number of rows.

        Raises:
            LockTimeoutError: If other processes held the table all the time.

        Ranks: root only.
        """
        ended, rounds = Ended(self._runs), 0
        while True:
            rounds += 1
            with self._locked():
                unsure = ended.unsure(files.read_bytes(self._path) or b"")
                if len(unsure) <= _FEW or rounds == _ROUNDS:
                    ended.read(unsure)
                    return self._put(ended.rows)
            ended.read(unsure)

    def _header(self) -> tuple[list[str], Table] | None:
        """The column names of a table that is whole, else None; read through a fresh open."""
        try:
            with open(self._path, "rb", buffering=0) as file:
                line, names = self._known
                same = bool(line) and file.read(len(line)) == line
                table = _table(file)
                if same and table.tail.endswith(b"\n"):
                    return names, table
                file.seek(0)
                if file.read(1) in (b"", inplace.MARK) or not table.tail.endswith(b"\n"):
                    return None
                file.seek(0)
                lines = _Lines(file)
                with long_cells():
                    header = next(csv.reader(lines), [])
        except (FileNotFoundError, csv.Error):
            return None
        if header[:1] != [RUN_ID] or STATUS not in header:
            return None
        self._known = b"".join(lines.read), header
        return header, table

    def _rewrite(self, columns: Columns, cells: Mapping[str, str], durable: bool) -> None:
        """Write all rows again, with new columns or in place of the run's earlier row.

        Raises:
            DamagedError: If a row can't be read; nothing was written.
        """
        header, old = read_table(self._path)
        if RUN_ID not in header:  # where locks fail, another node may be at it just now
            raise DamagedError(f"{self._path} has lost its column {RUN_ID}")
        if any(None in cells or None in cells.values() for cells in old):
            raise DamagedError("rows that don't fit their header, as notata 0.3.0 leaves them")
        kept = [columns.moved(other) for other in old if other[RUN_ID] != cells[RUN_ID]]
        self._write(columns, [*kept, cells], durable)

    def _mend(self, told: Row, durable: bool) -> None:
        """Make the table anew where it is missing or half written; the row that is told counts.

        The lock is held all the while: others who end can't add to such a table either, but would
        each read all runs as well.
        """
        ended = Ended(self._runs)
        ended.read(ended.unsure(b""))
        self._put(({row.run_id: row for row in ended.rows} | {told.run_id: told}).values(), durable)

    def _put(self, rows: Collection[Row], durable: bool = True) -> int:
        """Write a table of these rows; gives how many there are."""
        columns = Columns()
        for row in rows:
            columns.include(row)
        self._write(columns, [columns.cells(row) for row in rows], durable)
        if durable:
            files.sync(os.path.dirname(self._path))
        return len(rows)

    def _write(self, columns: Columns, rows: Iterable[Mapping[str, str]], durable: bool) -> None:
        """Rewrite the table in place: a rename would lose rows that other nodes append (NFS)."""
        names, rows = columns.names, list(rows)
        data = _lines(names, [dict(zip(names, names, strict=True)), *rows])
        with suppress(OSError):
            self._bloom.forget()
        inplace.rewrite(self._path, data, durable=durable)
        self._make_bloom([cells.get(RUN_ID, "") for cells in rows], Table(0, b"").and_(data))
