"""The verbs of one run."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from notata import layout, lifecycle, messages, provenance, topology, writers
from notata.agreement import Agreement, Record
from notata.errors import RankFailed, RanksMissingError, describe
from notata.parameters import Params
from notata.places import places_of
from notata.rankfolder import RankFolder, now
from notata.rootview import RootView
from notata.verbs import Verbs


class Logbook(Verbs):
    """The log of one run: a folder of plain files.

    Run alone, it is written by this process. Under `mpirun`, rank 0 owns the run's metadata,
    parameters, log, plots and artifacts; every other rank has a folder of its own for what it
    writes, and arrays are pieces until `notata merge` joins them.

    Use it as a context manager, which marks the run complete, or failed if an exception leaves the
    block; or end it by hand with `mark_complete` or `mark_failed`.

    Attributes:
        run_id: The id that the user chose.
        path: Folder of the run, the same on all ranks.
        callback: Called with the Logbook on rank 0 each time the run's outcome is set.

    Args:
        run_id: Name of the run; its folder is `log_<run_id>`.
        base_dir: Folder in which the run's folder is made.
        params: Parameters to save at once.
        overwrite: Whether an earlier run of this id is deleted first.
        preallocate: Whether to make the folders `data`, `plots` and `artifacts` at once.
        callback: Called with the Logbook when the run's outcome is set.
        comm: The communicator whose ranks share this run (mpi4py); None for a process on its own;
            `"auto"`: `COMM_WORLD` if the program uses mpi4py, else the launcher's variables.
        level: Messages below this level are dropped.
        grace: Seconds to wait for the other ranks at opening and closing (`NOTATA_GRACE`, 30).

    Raises:
        RunExistsError: If there is such a run already (a `FileExistsError`).
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

    Ranks: opening and closing are collective with a communicator; every method says of itself
    whether it is.
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
        grace: float | None = None,
    ) -> None:
        self.run_id = str(run_id)
        self.callback = callback
        self._began = time.monotonic()
        self._topology = topology.find(comm)
        self._agreement = Agreement(self._topology, grace)
        self._params = Params(self._save_params)
        self._status = lifecycle.INITIALIZED
        self._mine: Record | None = None  # this rank's verdict, once it has one
        self._entered = self._closed = False
        self.path = Path(base_dir, f"{layout.RUN_PREFIX}{self.run_id}")
        self._metadata = lifecycle.Metadata(os.fspath(self.path))
        self._folder = RankFolder(os.fspath(self.path), self._topology, self.run_id)
        mine: Record = {"host": topology.hostname(), "run": os.fspath(self.path)}
        try:
            level = messages.level_number(level)
            layout.run_dir(self.run_id)
            self._params.take(params or {})
            mine["params"] = self._params.digest()
        except Exception as error:  # the ranks that wait for this one have to hear of it
            mine["error"] = describe(error)
            level = messages.INFO
        own, root = places_of(os.fspath(self.path), self._topology, self._folder, level)
        super().__init__(own)
        self.root = RootView(root, self._params, self.meta, self.mark_failed)
        answer = self._agreement.agree(
            f"open run {self.run_id!r}",
            mine,
            lambda records: self._open(records, overwrite, preallocate),
        )
        if not answer:
            self._join_alone(overwrite)
        self._compare_params(answer.get("params"), mine.get("params"))

    # ----- opening -----

    def _open(self, records: list[Record], overwrite: bool, preallocate: bool) -> Record:
        """Make the run; called on rank 0, with what all ranks told."""
        lifecycle.check_opening(records)
        place = self._topology
        lifecycle.make_run_folder(os.fspath(self.path), place, overwrite)
        if preallocate:
            for name in (layout.DATA, layout.PLOTS, layout.ARTIFACTS):
                (self.path / name).mkdir(exist_ok=True)
        if self._params:
            self._save_params("yaml")
        fields: dict[str, Any] = {}
        if place.parallel:
            hosts = {rank: str(record["host"]) for rank, record in enumerate(records)}
            fields["parallel"] = provenance.parallel_facts(place, hosts)
        self._metadata.update(run_id=self.run_id, status=self._status, start_time=now(), **fields)
        self._log.write(messages.INFO, "Logbook initialized")
        for note in place.notes:
            self._log.write(messages.WARNING, note)
        return {"params": records[0]["params"]}

    def _join_alone(self, overwrite: bool) -> None:
        """Open on a rank that nobody tells what rank 0 met."""
        if overwrite:
            self._folder.retire()
        else:
            self._folder.check()

    def _compare_params(self, roots: object, mine: object) -> None:
        """Tell this rank, in its log, where its parameters are not those of rank 0."""
        if roots is None or roots == mine or self.is_root:
            return
        from notata.stored import read_params

        keys = ", ".join(self._params.differences(read_params(os.fspath(self.path))))
        self._log.write(
            messages.WARNING, f"parameters differ from those of rank 0, which are saved: {keys}"
        )

    # ----- who and where -----

    @property
    def rank(self) -> int:
        """This process's rank in the run."""
        return self._topology.rank

    @property
    def size(self) -> int:
        """Number of ranks of the run."""
        return self._topology.size

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0."""
        return self._topology.is_root

    @property
    def rank_dir(self) -> Path:
        """Folder that only this rank writes to: the run's own in a run of one rank."""
        return Path(self._folder.path) if self._topology.parallel else self.path

    @property
    def logger(self) -> Any:
        """A `logging.Logger` that writes into this run, for libraries that want one.

        Slower than `info`. Ranks: independent.
        """
        return self._log.logger(f"notata.logbook.{self.run_id}")

    @property
    def status(self) -> str:
        """`initialized`, `complete` or `failed`.

        Ranks: independent; ranks other than 0 know the run's outcome once it is closed.
        """
        return self._status

    @property
    def elapsed(self) -> float:
        """Seconds since the run was opened."""
        return time.monotonic() - self._began

    # ----- parameters and metadata -----

    @property
    def params(self) -> Params:
        """The parameters: call it to add some, index it to see one.

        Example:
            >>> log.params(omega=2.0, dt=1e-3)
            >>> log.params["omega"]
            2.0

        Ranks: independent; rank 0 writes.
        """
        return self._params

    def _save_params(self, ext: str) -> None:
        if not self.is_root:
            return
        writers.save_params(os.fspath(self.path), dict(self._params), ext)
        self._log.write(messages.INFO, f"Saved params ({ext}) in {layout.PARAMS[ext]}")

    def meta(self, **fields: Any) -> None:
        """Put fields into `metadata.json`.

        Raises:
            UnsupportedValueError: If a field can't be plain JSON; the message names it.

        Example:
            >>> log.meta(operator="ada", grid=(344, 403))

        Ranks: independent; rank 0 writes.
        """
        if self.is_root:
            self._metadata.update(**fields)

    # ----- closing -----

    def mark_complete(self) -> None:
        """Mark the run as complete.

        Ranks: inside a `with` block independent: the ranks agree at its end. By hand, collective
        with a communicator: the run is complete if all ranks say so.
        """
        self._say({"status": lifecycle.COMPLETE, "reason": None})

    def mark_failed(self, reason: str) -> None:
        """Mark the run as failed.

        Args:
            reason: Why, in a few words.

        Ranks: inside a `with` block independent: one rank's word is enough. By hand, collective
        with a communicator.
        """
        self._say({"status": lifecycle.FAILED, "reason": str(reason)})

    def _say(self, verdict: Record) -> None:
        self._mine = verdict
        if not self._entered or not self._agreement.talks or self._closed:
            self._close(verdict)
        elif verdict["status"] == lifecycle.FAILED:
            self._apply(verdict)  # one rank's word is enough; completeness takes all of them

    def _apply(self, verdict: Record, **fields: Any) -> None:
        """Set the run's outcome; on rank 0, on disk."""
        self._status = verdict["status"]
        if not self.is_root:
            return
        failed = self._status == lifecycle.FAILED
        reason = verdict.get("reason")
        fields |= {"failure_reason": reason} if failed else {}
        self._metadata.update(
            without=() if failed else ("failure_reason",),
            status=self._status,
            end_time=now(),
            runtime_sec=round(self.elapsed, 6),
            **fields,
        )
        self._log.write(messages.INFO, f"Marked failed: {reason}" if failed else "Marked complete")
        if self.callback:
            self.callback(self)

    def _close(self, mine: Record) -> Record:
        """Agree with the other ranks on the outcome, and let go of all files."""
        if self._closed:  # a second verdict by hand: the last one counts
            self._apply(mine)
            return mine
        self._closed = True
        if self._topology.parallel and (self._folder.claimed or mine.get("raised")):
            self._folder.note(
                status=mine["status"],
                failure_reason=mine.get("reason"),
                end_time=now(),
                pieces=self._folder.pieces,
                log_lines_lost=self._log.lost,
            )
        told = mine | {"pieces": self._folder.pieces, "params": self._params.digest()}
        what = f"close run {self.run_id!r}"
        try:
            outcome = self._agreement.agree(what, told, self._decide)
            if outcome:
                self._status = outcome["status"]
                if outcome["params"] != told["params"]:
                    self._compare_params(outcome["params"], told["params"])
            else:
                self._status = mine["status"]
            self._agreement.end()
        except RanksMissingError as error:
            self._apply({"status": lifecycle.FAILED, "reason": mine.get("reason") or str(error)})
            raise
        finally:
            self._folder.close()
            self._log.close()
        return outcome

    def _decide(self, records: list[Record]) -> Record:
        """Settle the outcome; called on rank 0, with what all ranks told."""
        verdict = lifecycle.joint_verdict(records)
        fields: dict[str, Any] = {}
        if len(records) > 1:
            counts = [int(record["pieces"]) for record in records]
            facts = {"pieces": provenance.piece_facts(counts)}
            fields["parallel"] = self._metadata.values["parallel"] | facts
        said = (self._status, self._metadata.values.get("failure_reason"))
        if said == (verdict["status"], verdict["reason"]):
            self._metadata.update(**fields)  # told inside the block already; now for all ranks
        else:
            self._apply(verdict, **fields)
        return verdict | {"params": records[0]["params"]}

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._exit_well()
        else:
            self._exit_broken(error)

    def _exit_well(self) -> None:
        if self._closed:
            return
        mine = self._mine or {"status": lifecycle.COMPLETE, "reason": None}
        outcome = self._close(mine)
        culprit = outcome.get("culprit")
        if culprit is not None and culprit != self.rank:
            raise RankFailed(f"run {self.run_id!r} failed: {outcome['reason']}")

    def _exit_broken(self, error: BaseException) -> None:
        reason = str(error) or type(error).__name__
        mine = {"status": lifecycle.FAILED, "reason": reason, "raised": True}
        try:
            if self._topology.parallel:
                text = "".join(traceback.format_exception(error)).rstrip()
                self._folder.note(error=type(error).__name__, traceback=text)
                self._log.write(messages.ERROR, text)
            self._close(mine)
        except Exception as another:  # the program's own error is the one to be seen
            error.add_note(f"notata, while closing run {self.run_id!r}: {another}")
