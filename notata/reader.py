"""Runs and experiments, in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from notata import folders, freshness, layout, markup, stored
from notata.errors import KeyNotFoundError, NotARunError, RunNotFoundError
from notata.index import Index
from notata.runreader import LogReader, status_of
from notata.stored import DAMAGED, StrPath
from notata.tables import read_table

__all__ = ["ExperimentReader", "LogReader"]


class ExperimentReader:
    """Reads an experiment: its table and its runs.

    Args:
        path: Folder of the experiment.

    Raises:
        RunNotFoundError: If there is no such folder (a `FileNotFoundError`).
        NotARunError: If there is no experiment in it (a `ValueError`).

    Example:
        >>> exp = ExperimentReader("outputs/sweep")
        >>> [run.params["omega"] for run in exp]
        [1.0, 2.0]

    Ranks: independent.
    """

    def __init__(self, path: StrPath) -> None:
        self._shown, self._home = Path(path), os.path.abspath(path)
        self._listed: list[str] | None = None
        if not freshness.exists(self.path):
            raise RunNotFoundError(f"no such experiment: {self.path}")
        if not folders.is_dir(self.runs_path):
            raise NotARunError(f"{self.path} is no experiment: it has no folder {layout.RUNS}/")

    @property
    def path(self) -> Path:
        """Folder of the experiment, as it was given, or absolute once that leads elsewhere.

        Ranks: independent.
        """
        return folders.leading(self._shown, self._home)

    @property
    def index_path(self) -> Path:
        """The experiment's table.

        Ranks: independent.
        """
        return self.path / layout.INDEX

    @property
    def runs_path(self) -> Path:
        """The folder of its runs.

        Ranks: independent.
        """
        return self.path / layout.RUNS

    @property
    def runs(self) -> list[Path]:
        """The folders of the runs that are there now, sorted.

        Ranks: independent.
        """
        return list(map(Path, self._folders()))

    def _folders(self) -> list[str]:
        self._listed = stored.run_folders(os.path.join(self._home, layout.RUNS))
        return self._listed

    def __iter__(self) -> Iterator[LogReader]:
        return map(LogReader, self._folders())

    def __len__(self) -> int:
        return len(self._folders())

    def __getitem__(self, run_id: str | int) -> LogReader:
        """The run of an id, or of a position among those that were there at the last look.

        A look is a `len`, a loop or `runs`; a folder of many runs is not listed for each position.

        Raises:
            IndexError: If there is no such position.
            KeyNotFoundError: If there is no such run (a `KeyError`).
            TypeError: If it is neither a string nor a number.

        Ranks: independent.
        """
        if isinstance(run_id, int):
            there = self._listed if self._listed is not None else self._folders()
            if not 0 <= run_id < len(there):
                raise IndexError(f"run {run_id} of {len(there)} in {self.path}")
            return LogReader(there[run_id])
        if not isinstance(run_id, str):
            raise TypeError(f"give a run id or a position, not {run_id!r}")
        path = self.runs_path / f"{layout.RUN_PREFIX}{run_id}"
        if "/" in run_id or not freshness.exists(path / layout.METADATA):
            raise KeyNotFoundError(f"no run {run_id!r} in {self.path}")
        return LogReader(path)

    def index(self) -> Iterator[dict[str, Any]]:
        """The rows of the table, one a run: every value is text.

        Ranks: independent.
        """
        if freshness.exists(self.index_path):
            yield from read_table(self.index_path)[1]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table with their values: numbers, booleans, None where there is none.

        Raises:
            DamagedError: If the table can't be read (a `ValueError`).

        Example:
            >>> [row["omega"] for row in ExperimentReader("outputs/sweep").rows()]
            [1.0, 2.0]

        Ranks: independent.
        """
        return Index(self._home).rows()

    def to_dataframe(self) -> Any:
        """The table as a pandas DataFrame, a row a run, as `Experiment.to_dataframe` gives it.

        Raises:
            DamagedError: If the table can't be read (a `ValueError`).
            ImportError: If pandas is not installed.

        Ranks: independent.
        """
        return Index(self._home).frame()

    @property
    def params(self) -> dict[str, dict[str, Any]]:
        """The parameters of all runs, by run id.

        Raises:
            DamagedError: If those of a run can't be parsed; the message names the file.

        Ranks: independent.
        """
        return {run.run_id: run.params for run in self}

    @property
    def meta(self) -> dict[str, dict[str, Any]]:
        """The metadata of all runs, by run id.

        Ranks: independent.
        """
        return {run.run_id: run.meta for run in self}

    def _repr_html_(self) -> str:
        rows = []
        for path in self.runs[: markup.MOST]:
            row = {"run": layout.run_id_of(path.name), "status": status_of(path)}
            with suppress(ValueError, OSError):  # damaged parameters
                for name, value in stored.read_params(path).items():
                    row[f"params.{name}" if name in ("run", "status") else str(name)] = value
            rows.append(row)
        return markup.grid("ExperimentReader", self.path.name, rows, len(self))

    def __repr__(self) -> str:
        return f"ExperimentReader({os.fspath(self.path)!r})"

    def __str__(self) -> str:
        there = freshness.exists(self.index_path)
        fields, rows = read_table(self.index_path) if there else (["(missing)"], [])
        lines = [
            f"<ExperimentReader '{self.path.name}'>",
            f"Index file: {self.index_path.name} with {len(rows)} entries",
            f"Fields: {', '.join(fields)}",
            f"Runs directory: {self.runs_path.name} with {len(self)} runs",
        ]
        for run in self:
            meta = stored.read_json(run.path / layout.METADATA)
            status = DAMAGED if meta is None else meta.get("status", "unknown")
            lines.append(f"- {run.run_id}: {status}")
        return "\n".join(lines)
