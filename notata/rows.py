"""Rows of the table, read from the folders of the runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from notata import files, folders, layout
from notata.cells import OURS
from notata.columns import Row
from notata.errors import DamagedError
from notata.stored import DAMAGED, may_be_folder, parse_json, read_metadata, read_params
from notata.tables import cells_by_run

ENDED = ("complete", "failed", DAMAGED)  # what runs say of themselves that have a row


def row_of(folder: str, metrics_file: str = layout.METRICS) -> Row:
    """Read a run's row from its folder, as far as its files can be read.

    Args:
        folder: Folder of the run.
        metrics_file: Its metrics, relative to the folder.

    Ranks: independent.
    """
    try:
        meta = read_metadata(folder)
    except (DamagedError, OSError) as error:
        meta = {"status": DAMAGED, "failure_reason": str(error)}
    run_status = meta.get("status")
    status, metrics = _metrics(os.path.join(folder, metrics_file))
    try:
        params = read_params(folder)
    except (DamagedError, OSError) as error:
        why = "; ".join(filter(None, (str(error), metrics.get("error_reason"))))
        params, status, metrics = {}, "error", metrics | {"error_reason": why}
    if status == "complete" and run_status == "failed":
        status = "failed"
    run = {"run_status": run_status} | {key: meta.get(key) for key in OURS[1:]}
    run_id = layout.run_id_of(os.path.basename(os.path.normpath(folder)))
    return Row(run_id, params, status, metrics, run)


def _metrics(path: str) -> tuple[str, dict[str, Any]]:
    try:
        data = files.read_bytes(path)
        if data is None:
            return "missing", {}
        name = os.path.basename(path)
        found = parse_json(data, name)
        if not isinstance(found, dict):
            raise DamagedError(f"{name} holds a {type(found).__name__}, no object")
        return "complete", found
    except (DamagedError, OSError) as error:
        return "error", {"error_reason": str(error)}


class Ended:
    """The rows of the runs that have ended, as long as nothing says that they are others by now.

    To read ten thousand runs takes a minute on NFS. So it is done while others use the table, and
    what they did to that tells which runs to read again: a run that ends says so in its own folder
    first, and then in the table. What `read` gave is right as of the table that `unsure` was last
    given; a run that ends later will find the table made anew, and add its row to that.
    """

    def __init__(self, runs: str) -> None:
        """Nothing is read yet.

        Args:
            runs: The folder that the runs lie in.
        """
        self._runs = runs
        self._found: dict[str, Row | None] = {}  # by folder; None where a run has not ended
        self._table: bytes | None = None

    @property
    def rows(self) -> list[Row]:
        """The rows that were read."""
        return [row for _, row in sorted(self._found.items()) if row is not None]

    def unsure(self, table: bytes) -> list[str]:
        """The runs that were not read yet, or whose rows others have written since.

        Runs that were deleted are forgotten.

        Args:
            table: The table as it is, read while it is locked.

        Raises:
            OSError: If the runs' folder can't be listed.

        Ranks: root only; called under the table's lock.
        """
        before, self._table = self._table, table
        names = os.listdir(self._runs) if folders.is_dir(self._runs) else []
        there = [n for n in sorted(names) if n.startswith(layout.RUN_PREFIX)]
        changed = _changed(before, table)
        sure = {n for n in there if changed is not None and layout.run_id_of(n) not in changed}
        self._found = {n: row for n, row in self._found.items() if n in sure}
        return [name for name in there if name not in self._found]

    def read(self, names: Iterable[str]) -> None:
        """Read runs.

        Args:
            names: Names of their folders.

        Ranks: root only.
        """
        for name in names:
            path = os.path.join(self._runs, name)
            row = row_of(path) if may_be_folder(path) else None
            self._found[name] = row if row and row.run["run_status"] in ENDED else None


def _changed(before: bytes | None, now: bytes) -> set[str] | None:
    """The runs that got a row, another one, or lost theirs; None where nobody can tell.

    Where the table can't be read, who ends makes it anew, so that its bytes are others then. And of
    one that could be read and can't now, rows are lost.
    """
    if before == now:
        return set()
    there = _cells(now)
    if before is None or there is None:
        return None
    known = _cells(before) or {}
    return {run for run in known.keys() | there.keys() if known.get(run) != there.get(run)}


def _cells(table: bytes) -> Mapping[str, frozenset[object]] | None:
    with suppress(DamagedError):
        return cells_by_run(table, "")
    return None
