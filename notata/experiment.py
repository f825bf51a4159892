"""The verbs of many runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from notata import disk, files, folders, frames, layout, lifecycle, messages, topology, writers
from notata.attempts import current_job
from notata.errors import RunExistsError
from notata.index import Index
from notata.lock import Held
from notata.logbook import Logbook
from notata.naming import kept, named
from notata.rows import row_of
from notata.spelling import Name, spelled
from notata.stored import StrPath, read_json
from notata.sweeping import Point, Sweep
from notata.sweeps import points_of

_OURS = object()  # stands for the experiment's own communicator


class Experiment:
    """Many runs of one program with different parameters, and their table.

    Each run has its folder under `runs/` and, once it has ended, a row in `index.csv` with its
    parameters, status and metrics (what it saved with `log.json("metrics", …)`). A metric that is
    named as a parameter stands in the column `metrics.<name>`.

    Attributes:
        name: Name of the experiment.
        base_dir: Folder that holds the experiment's.
        exp_dir: Folder of the experiment.
        runs_dir: Folder of its runs.
        index_file: Its table.

    Args:
        name: Name of the experiment and of its folder.
        base_dir: Folder in which that is made.
        comm: The communicator whose ranks share each run, as for `Logbook`.
        env: Names of environment variables that each run keeps, as for `Logbook`.
        level: The least level of messages that each run logs, as for `Logbook`.

    Example:
        >>> exp = Experiment("decay")
        >>> for rate in (0.1, 0.2):
        ...     with exp.add(rate=rate) as run:
        ...         run.json("metrics", {"left": 1 - rate})
        >>> len(exp.index_file.read_text().splitlines())
        3

    Ranks: made on every rank; `add` is collective with a communicator.
    """

    def __init__(
        self,
        name: Name,
        base_dir: StrPath = "outputs",
        *,
        comm: Any = "auto",
        env: Sequence[str] = (),
        level: str | int = messages.INFO,
    ) -> None:
        self.name = layout.inside(spelled(name))
        self.base_dir = Path(base_dir)
        self.exp_dir = self.base_dir / self.name
        self.runs_dir = self.exp_dir / layout.RUNS
        self.index_file = self.exp_dir / layout.INDEX
        self._comm, self._env, self._level = comm, env, messages.level_number(level)
        self._home = os.path.abspath(self.exp_dir)
        self._runs = os.path.join(self._home, layout.RUNS)
        self._index = Index(self._home)
        self._lock_told: set[str] = set()
        self._made: list[str] = []  # folders whose names are not synced yet
        place = topology.find(comm)
        self._alone = not place.parallel  # so were the programs that 0.3.0 was for
        if place.is_root:
            try:
                with disk.Disk().explaining(self._runs):
                    self._made = folders.make_folders(self._runs)
            except OSError:  # opening a run meets it, too, and tells the other ranks
                if place.comm is None:
                    raise

    def add(
        self, skip_existing: bool = False, *, durability: str | None = None, **params: Any
    ) -> Logbook | None:
        """Open the run of these parameters.

        Args:
            skip_existing: Whether to return None where the run exists already.
            durability: What outlives the loss of the node, as for `Logbook`.
            **params: The parameters, which also name the run.

        Returns:
            Its Logbook, or None if it exists and is to be skipped.

        Raises:
            RunExistsError: If it exists and is not to be skipped (a `FileExistsError`).
            UnsupportedValueError: If a parameter can't be stored plainly; the message names it.

        Example:
            >>> exp = Experiment("decay")
            >>> with exp.add(rate=0.5) as run:
            ...     run.json("metrics", {"left": 0.5})
            >>> exp.add(rate=0.5, skip_existing=True) is None
            True

        Ranks: collective with a communicator; all ranks get a Logbook, or all get None.
        """
        values, run_id = named(self.name, params)
        if self._alone:
            run_id = kept(self._runs, self.name, values, run_id)
        # A requeued job goes on in the runs that it began, but not in those that it finished.
        done = skip_existing and current_job().restarts > 0 and self._is_complete(run_id)
        try:
            resume = False if done else None
            return self._open(run_id, values, resume, self._comm, durability)
        except RunExistsError:
            if skip_existing:
                return None
            raise

    def _open(
        self,
        run_id: str,
        params: dict[str, Any],
        resume: int | None,
        comm: Any,
        durability: str | None,
    ) -> Logbook:
        log = Logbook(
            run_id,
            base_dir=folders.leading(self.runs_dir, self._runs),
            params=params,
            preallocate=True,
            callback=self._record_ended,
            comm=comm,
            resume=resume,
            durability=durability,
            env=self._env,
            level=self._level,
        )
        self._sync_names(log.durability == disk.NODE)
        return log

    def _sync_names(self, now: bool) -> None:
        """Sync the names of the folders that this process made for the experiment, once."""
        while now and self._made:
            with disk.Disk().explaining(self._made[-1]):
                files.sync(os.path.dirname(self._made[-1]))
            self._made.pop()

    def _folder(self, run_id: str) -> str:
        return f"{self._runs}/{layout.run_dir(run_id)}"

    def sweep(
        self,
        grid: Mapping[str, Iterable[Any]] | Iterable[Mapping[str, Any]],
        mode: str = "claim",
        *,
        retry: Iterable[str] = (),
        comm: Any = _OURS,
        durability: str | None = None,
    ) -> Iterator[Logbook]:
        """Open the runs of a grid's points that this task should do, one after another.

        Points that are complete, or that another task is at, are left out. The grid is kept in
        `sweep.json`, so that points which were never begun are known.

        Args:
            grid: Values for each parameter, of which every combination is a point; or the points,
                each a dict of parameters.
            mode: `"claim"`: take the next point that nobody has begun, until none is left, so that
                fast tasks do more. `"static"`: do this array task's share of the points. Slurm,
                SGE and LSF tell a task which tasks there are (LSF in the job's name); for PBS
                and Flux the job script sets `NOTATA_ARRAY=1-100`, to what the array was submitted
                with. An array that is part of the one before keeps that one's shares. A process
                that is no array task has all points as its share.
            retry: What is done again, as the run's next attempt: `"failed"` runs; `"lost"` ones,
                whose job the scheduler says has ended or, where it doesn't know, which gave no sign
                of life for 10 minutes (`NOTATA_LOST_AFTER`). A job that was started again goes on
                without it where it was stopped.
            comm: The communicator whose ranks share each run; by default the experiment's. With
                None each process does points of its own, under `mpirun` too.
            durability: What outlives the loss of the node, as for `Logbook`.

        Yields:
            The Logbook of each point, to be used in a `with` block.

        Raises:
            SettingError: If an array task can't know its share (a `ValueError`).
            UnsupportedValueError: If a parameter can't be stored plainly; the message names it.
            ValueError: If a mode, state or durability doesn't exist, or the ranks of a launcher
                have no communicator over which to agree on points.

        Example:
            >>> exp = Experiment("damping")
            >>> for run in exp.sweep({"omega": [1.0, 2.0], "gamma": [0.1, 0.2]}):
            ...     with run:
            ...         run.json("metrics", {"energy": run.params["omega"] ** 2})
            >>> len(exp.rows())
            4

        Ranks: collective with a communicator, else independent.
        """
        comm, durability = self._comm if comm is _OURS else comm, disk.chosen(durability)
        points = [
            Point(run_id, values, self._folder(run_id))
            for values, run_id in (named(self.name, params) for params in points_of(grid))
        ]
        durable = durability == disk.NODE
        with disk.Disk().explaining(self._home):
            sweep = Sweep(self._home, points, topology.find(comm), mode, retry, durable=durable)
        return sweep.opened(lambda p, resume: self._open(*p[:2], resume, comm, durability))

    def _is_complete(self, run_id: str) -> bool:
        metadata = None
        with suppress(OSError):  # which opening the run meets, too, and tells all ranks of
            metadata = read_json(os.path.join(self._folder(run_id), layout.METADATA))
        return (metadata or {}).get("status") == lifecycle.COMPLETE

    def _record_ended(self, log: Logbook) -> None:
        """Record a run that `add` opened."""
        held: Held | None = None
        try:
            row = row_of(self._folder(log.run_id))
            held = self._index.add(row, durable=log.durability != disk.PROCESS)
        except Exception as error:  # whatever it is, no simulation fails for want of a row
            told = isinstance(error, OSError | ValueError) and str(error)
            log.warning(
                f"no row in {self.index_file} for this run: "
                f"{told or f'{type(error).__name__} {error}'.strip()}; "
                "rebuild_index() of the experiment brings it back"
            )
        try:
            self._sync_names(log.durability != disk.PROCESS)
        except OSError as error:
            log.warning(f"the names of new folders may not outlive this node: {error}")
        with suppress(Exception):  # the row is there, or the run says that it isn't
            self._tell_lock(log, held)

    def _tell_lock(self, log: Logbook, held: Held | None) -> None:
        """Say once of a run that its table isn't under the kernel's lock, or one that may fail."""
        doubt = self._index.doubt
        kind, why = held or (None, None)
        if log.run_id in self._lock_told or (why is None and doubt is None):
            return
        self._lock_told.add(log.run_id)
        if why is not None:
            log.info(f"the table is locked by files that processes make in turn: {why}")
        if doubt is not None:
            log.warning(
                f"the table's lock can't be trusted: {doubt}; if rows are missing, notata index "
                "brings them back"
            )
        facts = {"kind": kind, "why": why, "doubt": doubt}
        log.meta(lock={key: value for key, value in facts.items() if value is not None})

    def record(self, log: Logbook, metrics_file: str = layout.METRICS) -> None:
        """Put a run's row into the table, in place of an earlier one.

        Args:
            log: The run.
            metrics_file: Where its metrics are, relative to its folder.

        Raises:
            LockTimeoutError: If other processes held the table all the time.

        Ranks: independent; rank 0 writes.
        """
        if log.is_root:
            durable = log.durability != disk.PROCESS
            self._index.add(row_of(os.fspath(log.path), metrics_file), durable=durable)

    def rebuild_index(self) -> int:
        """Make the table anew from the folders of the runs that have ended.

        A run with a damaged file keeps its row, with what could be read of it.

        Returns:
            The number of rows.

        Raises:
            LockTimeoutError: If other processes held the table all the time.

        Ranks: independent; call it from one process.
        """
        return self._index.rebuild()

    def rows(self) -> list[dict[str, Any]]:
        """The table without pandas: a dict for each run, with a value or None in every column.

        Values have the types with which they were saved: numbers, booleans, text, lists.

        Raises:
            DamagedError: If the table can't be read (a `ValueError`).

        Example:
            >>> [(row["omega"], row["energy"]) for row in Experiment("sweep").rows()]
            [(1.0, 1.0), (2.0, 4.0)]

        Ranks: independent.
        """
        return self._index.rows()

    def to_dataframe(self) -> Any:
        """The table as a pandas DataFrame, a row a run; empty if there is none yet.

        Values are those of `rows`. Whole numbers and booleans stay what they are where some runs
        have none (`Int64`, `boolean`).

        Raises:
            DamagedError: If the table can't be read (a `ValueError`).
            ImportError: If pandas is not installed.

        Ranks: independent.
        """
        return self._index.frame()

    def select(self, **filters: Any) -> Any:
        """The rows whose columns have these values, as a DataFrame.

        Numbers are compared as numbers, `2` with `2.0` too; True is no number. None means that
        there is no value.

        Args:
            **filters: Column names and the values to look for.

        Raises:
            KeyNotFoundError: If the table has no such column (a `KeyError`).
            DamagedError: If the table can't be read (a `ValueError`).
            ImportError: If pandas is not installed.

        Example:
            >>> Experiment("sweep").select(omega=2.0)["status"].tolist()
            ['complete']

        Ranks: independent.
        """
        wanted = {name: writers.plain(value, name) for name, value in filters.items()}
        return frames.selected(self.rows(), wanted, self.index_file)
