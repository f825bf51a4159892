"""The verbs of one run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from notata import deadline, disk, folders, layout, lifecycle, messages, topology, watchdog
from notata.agreement import DEFAULT_GRACE, grace_seconds
from notata.errors import UnsafeNameError
from notata.failure import policy
from notata.leaving import Part
from notata.notices import numbers_of
from notata.parameters import Params
from notata.places import places_of
from notata.rankfolder import RankFolder
from notata.rootview import RootView
from notata.signals import WARNINGS
from notata.steering import Steering
from notata.verbs import Verbs

if TYPE_CHECKING:
    import logging


class Logbook(Verbs, Steering):
    """The log of one run: a folder of plain files.

    Run alone, it is written by this process. Under `mpirun`, rank 0 owns the run's metadata,
    parameters, log, plots and artifacts; every other rank has a folder of its own for what it
    writes, and arrays are pieces until `notata merge` joins them.

    Use it as a context manager, which marks the run complete, or failed if an exception leaves the
    block; or end it by hand with `mark_complete` or `mark_failed`.

    Attributes:
        run_id: The id that the user chose.
        callback: Called with the Logbook on rank 0 each time the run's outcome is set.
        durability: `process`, `close` or `node`.

    Args:
        run_id: Name of the run; its folder is `log_<run_id>`.
        base_dir: Folder in which the run's folder is made.
        params: Parameters to save at once.
        overwrite: Whether an earlier run of this id is deleted first; nobody may still write it.
        preallocate: Whether to make the folders `data`, `plots` and `artifacts` at once.
        callback: Called with the Logbook when the run's outcome is set.
        comm: The communicator whose ranks share this run (mpi4py); None for a process on its own;
            `"auto"`: `COMM_WORLD` if the program uses mpi4py, else the launcher's variables, by
            which all processes of one `mpirun` share each run, whose id all of them give.
        level: Messages below this level are dropped.
        resume: Whether to go on in the run if it is there: True does, False doesn't, 2 or more does
            as that very attempt; by default a job that Slurm restarted goes on in what it began.
        grace: Seconds to wait for the other ranks at opening, and at closing once something failed
            (`NOTATA_GRACE`, 30). Ranks that are done wait for slower ones for up to an hour.
        signals: Signals to note while the run is open, as warnings: `SIGTERM`, `SIGINT`, `SIGUSR1`,
            `SIGUSR2` and `SIGXCPU` by default; `()` installs nothing. Handlers that are there run
            as before, and `SIGTERM` still ends the process, once Python can run (docs: failures).
        margin: Seconds before the end of the job from which on `should_stop` is true.
        on_failure: What a rank that leaves the block by an exception does about ranks that don't
            come to its end: `"grace"` waits for them for `grace` seconds and then ends the job
            (`MPI_Abort`), `"abort"` ends it at once, `"raise"` waits and never ends it.
        env: Names of environment variables to keep in the metadata; what looks secret is hidden.
        durability: What outlives the loss of the node; whatever a call has returned from outlives
            the process, always. `"process"` syncs nothing; `"close"` the metadata, parameters, log
            and the table's row once, when the run closes; `"node"` every file and its folder before
            the call returns, and the log at warnings. By default `NOTATA_DURABILITY`, or `"close"`.

    Raises:
        ValueError: If an option has a value that it can't have.
        RunExistsError: If there is such a run already (a `FileExistsError`), or if it can't be gone
            on with, since it has another number of ranks or another process goes on just now.
        RanksMissingError: If some ranks of the communicator don't open it (a `TimeoutError`).
        RanksDisagreeError: If they open different runs (a `ValueError`).
        LauncherMismatchError: If the launcher's MPI is not the one that mpi4py uses.
        UnsafeNameError: If the run id can't be a folder's name (a `ValueError`).
        UnsupportedValueError: If a parameter can't be plain YAML (a `TypeError`).

    Example:
        >>> with Logbook("oscillator", params={"omega": 2.0}) as run:
        ...     run.info("integrating")
        ...     run.json("metrics", {"energy": 0.5})
        >>> run.status
        'complete'

    Ranks: opening and closing are collective with a communicator; each method says what it is.
    """

    def __init__(
        self,
        run_id: str | int,
        base_dir: str | os.PathLike[str] = "outputs",
        params: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        preallocate: bool = False,
        callback: Callable[[Logbook], object] | None = None,
        *,
        comm: Any = "auto",
        level: str | int = messages.INFO,
        resume: bool | int | None = None,
        grace: float | None = None,
        signals: Iterable[Any] = WARNINGS,
        margin: float = 60.0,
        on_failure: str = "grace",
        env: Sequence[str] = (),
        durability: str | None = None,
    ) -> None:
        self.run_id, self.callback = str(run_id), callback
        self._shown = os.path.join(base_dir, f"{layout.RUN_PREFIX}{self.run_id}")
        place = topology.find(comm)
        # Absolute, so that a program may change its directory while it writes.
        path = self._home = os.path.abspath(self._shown)
        failure: Exception | None = None
        try:
            level = messages.level_number(level)
            layout.run_dir(self.run_id)
            if overwrite and resume:
                raise ValueError("overwrite=True and resume=True contradict each other: give one")
            on_failure = policy(on_failure)
            durability = disk.chosen(durability)
            timeout, numbers = watchdog.seconds(), numbers_of(signals)
            deadline.end_time()
            self._margin, grace = float(margin), grace_seconds(grace)
        except ValueError as error:  # the ranks that wait for this one have to hear of it
            failure, level, on_failure, timeout = error, messages.INFO, "grace", 0.0
            numbers, durability, grace = (), disk.CLOSE, DEFAULT_GRACE
        used = disk.Disk(durability, place.rank if place.parallel else None)
        self.durability, folder = durability, RankFolder(path, place, self.run_id, used)
        own, root = places_of(path, self._shown, folder, level)
        super().__init__(own)
        self._session = Part(self.run_id, path, folder, own.log, self._call_back, grace, on_failure)
        self.root = RootView(root, self._session.params, self.meta, self._session.say_failed_early)
        self._session.begin(
            params or {},
            failure,
            overwrite=overwrite,
            preallocate=preallocate,
            resume=resume,
            env=env,
            signals=numbers,
        )
        self._session.stand_by(self._session.end_at_exit)
        self._session.watch(timeout, abort=False)

    def _call_back(self) -> None:
        if self.callback and not self._session.attempt.noticed:
            self.callback(self)

    # ----- who and where -----

    @property
    def path(self) -> Path:
        """Folder of the run, the same on all ranks.

        Ranks: independent.
        """
        return folders.leading(self._shown, self._home)

    @property
    def rank(self) -> int:
        """This process's rank in the run.

        Ranks: independent.
        """
        return self._session.topology.rank

    @property
    def size(self) -> int:
        """Number of ranks of the run.

        Ranks: independent.
        """
        return self._session.topology.size

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0.

        Ranks: independent.
        """
        return self._session.topology.is_root

    @property
    def rank_dir(self) -> Path:
        """Folder that only this rank writes to; the run's own in a run of one rank.

        Ranks: independent.
        """
        return self.path / layout.rank_dir(self.rank) if self.size > 1 else self.path

    @cached_property
    def logger(self) -> logging.Logger:
        """A `logging.Logger` that writes into this run, for libraries; slower than `info`.

        Ranks: independent.
        """
        return self._log.logger(f"notata.logbook.{self.run_id}")

    def handler(self) -> logging.Handler:
        """A `logging.Handler` that writes into this run, with rank and level.

        For programs and libraries that log by themselves. It drops what comes after the run has
        ended, so that it may stay where it was added. Slower than `info`.

        Example:
            >>> import logging
            >>> logging.getLogger("solver").addHandler(log.handler())
            >>> logging.getLogger("solver").warning("residual grows")

        Ranks: independent.
        """
        return self._log.handler()

    @property
    def status(self) -> str:
        """`initialized`, `complete` or `failed`.

        Ranks: independent; ranks other than 0 know the run's outcome once it is closed.
        """
        return self._session.status

    @property
    def elapsed(self) -> float:
        """Seconds since the run was opened.

        Ranks: independent.
        """
        return self._session.elapsed

    # ----- parameters and metadata -----

    @property
    def params(self) -> Params:
        """The parameters; call it to add some, index it to see one.

        Example:
            >>> log.params(omega=2.0, dt=1e-3)
            >>> log.params["omega"]
            2.0

        Ranks: independent; rank 0 writes.
        """
        return self._session.params

    def meta(self, /, **fields: Any) -> None:
        """Put fields into `metadata.json`.

        Raises:
            UnsupportedValueError: If a field can't be plain JSON; the message names it.
            UnsafeNameError: If notata keeps a field of this name itself.

        Example:
            >>> log.meta(operator="ada", grid=(344, 403))

        Ranks: independent; rank 0 writes.
        """
        if self.is_root:
            kept = sorted(lifecycle.KEPT & fields.keys())
            if kept:
                what = "this field" if len(kept) == 1 else "these fields"
                raise UnsafeNameError(
                    f"metadata {', '.join(kept)}: notata keeps {what} itself; choose another name"
                )
            self._session.note_facts(fields)
            if "status" in fields:
                reason = fields.get("failure_reason")
                self._session.note_status(str(fields["status"]), reason and str(reason))

    # ----- signs of life -----

    def tick(self) -> None:
        """Give a sign of life to the watchdog of `watch`: for loops that log nothing.

        It adds one to a number and touches no file, so that each step of a loop may have one.

        Example:
            >>> for step in range(1000):
            ...     log.tick()

        Ranks: independent.
        """
        self._log.signs += 1

    def watch(self, timeout: float = 600.0, *, abort: bool = False) -> None:
        """Watch over this rank: if it gives no sign of life, write down where it stands.

        Signs of life are what it logs and `tick()`. Without any for `timeout` seconds, the stacks
        of all its threads go into `stacks.txt` in its folder, and `notata stuck` shows which ranks
        stand together and which elsewhere. `NOTATA_WATCH=600` does the same from the outside. It
        ends with the run. Until then a file is open, empty, for a rank that holds Python's lock.

        Args:
            timeout: Seconds; longer than a step takes, and than this rank waits for others.
            abort: Whether the job is ended then, also if it was suspended, once the metadata say
                where ranks stand. A rank that waits for others at the run's end lets them live.

        Raises:
            ValueError: If it is not a number of seconds.

        Example:
            >>> log.watch(timeout=1800)

        Ranks: independent; on all of them, to see which rank the others wait for.
        """
        self._session.watch(watchdog.seconds(timeout), abort=abort)

    # ----- closing -----

    def mark_complete(self) -> None:
        """Mark the run as complete.

        Ranks: inside a `with` block independent: the ranks agree at its end. By hand, collective
        with a communicator: the run is complete if all ranks say so.
        """
        self._session.say(lifecycle.COMPLETE)

    def mark_failed(self, reason: str) -> None:
        """Mark the run as failed.

        Args:
            reason: Why, in a few words.

        Ranks: inside a `with` block independent: one rank's word is enough. By hand, collective
        with a communicator.
        """
        self._session.say(lifecycle.FAILED, reason)

    def _repr_html_(self) -> str:
        from notata import markup

        told = {"path": str(self.path), "parameters": markup.pairs(self.params)}
        told |= {"rank": f"{self.rank} of {self.size}"} if self.size > 1 else {}
        return markup.card("Logbook", self.run_id, self.status, told)

    def __enter__(self) -> Self:
        self._session.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.leave(error)
