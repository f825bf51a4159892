"""A rank's part in a run, from its opening to its end."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from notata import layout, lifecycle, messages, provenance, writers
from notata.agreement import Agreement, Record
from notata.errors import RankFailed, RanksMissingError
from notata.parameters import Params
from notata.rankfolder import RankFolder, now
from notata.stored import read_params

# How long a rank that is done waits for those that may still be at work. Unlike a rank that failed,
# which waits for the grace period only, it has no reason to think that something is wrong.
_PATIENCE = 3600.0


class Session:
    """Opens a run together with the other ranks, and ends it together with them.

    Attributes:
        topology: This process's place.
        folder: The folder that this rank alone writes to.
        params: The run's parameters, as this rank has them.
        metadata: The run's metadata, on rank 0.
        status: `initialized`, `complete` or `failed`, as far as this rank knows.
    """

    def __init__(
        self,
        run_id: str,
        path: str,
        folder: RankFolder,
        log: messages.LogWriter,
        ended: Callable[[], object],
        grace: float | None,
    ) -> None:
        """Prepare; nothing is made yet.

        Args:
            run_id: The run's id.
            path: The run's folder.
            folder: The folder that this rank alone writes to.
            log: The log that this rank writes.
            ended: Called on rank 0 each time the run's outcome is set.
            grace: Seconds to wait for other ranks.
        """
        self.topology = folder.topology
        self.folder = folder
        self.params = Params(self._save_params)
        self.metadata = lifecycle.Metadata(path)
        self.status = lifecycle.INITIALIZED
        self._run_id, self._path, self._log, self._ended = run_id, path, log, ended
        self._agreement = Agreement(folder.topology, grace)
        self._began = time.monotonic()
        self._mine: Record | None = None  # this rank's verdict, once it has one
        self._entered = self._closed = False
        self._differing: set[str] = set()  # parameters unlike rank 0's, as far as they were told

    @property
    def elapsed(self) -> float:
        """Seconds since the run was opened."""
        return time.monotonic() - self._began

    # ----- opening -----

    def begin(
        self,
        params: Mapping[str, Any],
        failure: Exception | None,
        *,
        overwrite: bool,
        preallocate: bool,
    ) -> None:
        """Open the run together with the other ranks, or tell them what this one met.

        Args:
            params: The parameters to begin with.
            failure: What went wrong on this rank before, if anything did.
            overwrite: Whether an earlier run gives way.
            preallocate: Whether to make the usual folders at once.

        Raises:
            Exception: This rank's failure, else whatever any rank met.

        Ranks: collective with a communicator.
        """
        try:
            self.params.take(params)
        except Exception as error:  # whatever a value's own methods raise
            failure = failure or error
        try:
            self._open_together(failure, overwrite, preallocate)
        except Exception:
            self._agreement.end()
            if failure is not None:
                raise failure from None
            raise

    def _open_together(self, failure: Exception | None, overwrite: bool, preallocate: bool) -> None:
        mine = lifecycle.opening_record(self._path, self.params.digest(), failure)
        answer = self._agreement.agree(
            f"open run {self._run_id!r}",
            mine,
            lambda records: self._open(records, overwrite, preallocate),
        )
        if answer:
            self._compare_params(answer["params"])
        elif failure is not None:
            raise failure
        elif overwrite:
            self.folder.retire()
        else:
            self.folder.check()

    def _open(self, records: list[Record], overwrite: bool, preallocate: bool) -> Record:
        """Make the run; called on rank 0, with what all ranks told."""
        lifecycle.check_opening(records)
        place = self.topology
        lifecycle.make_run_folder(self._path, place, overwrite)
        if preallocate:
            for name in (layout.DATA, layout.PLOTS, layout.ARTIFACTS):
                os.makedirs(os.path.join(self._path, name), exist_ok=True)
        if self.params:
            self._save_params("yaml")
        fields: dict[str, Any] = {}
        if place.parallel:
            hosts = {rank: str(record["host"]) for rank, record in enumerate(records)}
            fields["parallel"] = provenance.parallel_facts(place, hosts)
        self.metadata.update(run_id=self._run_id, status=self.status, start_time=now(), **fields)
        self._log.write(messages.INFO, "Logbook initialized")
        for note in place.notes:
            self._log.write(messages.WARNING, note)
        return {"params": records[0]["params"]}

    def _compare_params(self, roots: object = None, *, closing: bool = False) -> None:
        """Tell this rank, in its log, where its parameters are not those of rank 0."""
        if self.topology.is_root or roots == self.params.digest():
            return
        saved = read_params(self._path)
        keys = self.params.differences(saved)
        if closing:  # what rank 0 alone added since, it may have added for all
            keys = [key for key in keys if key in self.params]
        if roots is None:  # nobody waited for rank 0, which may not have saved all of them yet
            keys = [key for key in keys if key in saved]
        keys = [key for key in keys if key not in self._differing]
        if keys:
            self._differing.update(keys)
            text = f"parameters differ from those of rank 0, which are saved: {', '.join(keys)}"
            self._log.write(messages.WARNING, text)

    def _save_params(self, ext: str) -> None:
        if not self.topology.is_root:
            return
        writers.save_params(self._path, dict(self.params), ext)
        self._log.write(messages.INFO, f"Saved params ({ext}) in {layout.PARAMS[ext]}")

    # ----- closing -----

    def say(self, status: str, reason: str | None = None) -> None:
        """Give this rank's verdict on the run.

        Ranks: inside a `with` block independent, else collective with a communicator.
        """
        verdict: Record = {"status": status, "reason": reason}
        self._mine = verdict
        if not self._entered or not self.topology.parallel or self._closed:
            self._close(verdict)
        elif verdict["status"] == lifecycle.FAILED:
            self._apply(verdict)  # one rank's word is enough; completeness takes all of them

    def _apply(self, verdict: Record, **fields: Any) -> None:
        """Set the run's outcome; on rank 0, on disk."""
        self.status = verdict["status"]
        if not self.topology.is_root:
            return
        failed = self.status == lifecycle.FAILED
        reason = verdict.get("reason")
        fields |= {"failure_reason": reason} if failed else {}
        self.metadata.update(
            without=() if failed else ("failure_reason",),
            status=self.status,
            end_time=now(),
            runtime_sec=round(self.elapsed, 6),
            **fields,
        )
        self._log.write(messages.INFO, f"Marked failed: {reason}" if failed else "Marked complete")
        self._ended()

    def _close(self, mine: Record) -> Record:
        """Agree with the other ranks on the outcome, and let go of all files."""
        if self._closed:  # a second verdict by hand: the last one counts
            self._apply(mine)
            return mine
        self._closed = True
        noted = self.topology.parallel and (self.folder.claimed or bool(mine.get("raised")))
        if noted:
            self._note_end(mine)
        told = mine | {"pieces": self.folder.pieces, "params": self.params.digest()}
        what = f"close run {self._run_id!r}"
        try:
            patience = None if mine.get("raised") else _PATIENCE
            outcome = self._agreement.agree(what, told, self._decide, patience)
            self.status = outcome["status"] if outcome else mine["status"]
            if outcome or self.folder.claimed:
                self._compare_params(outcome.get("params"), closing=True)
            if self.folder.claimed and not noted:
                self._note_end(mine)  # a warning just now was the first thing that it wrote
            self._agreement.end()
        except RanksMissingError as error:
            self._apply({"status": lifecycle.FAILED, "reason": mine.get("reason") or str(error)})
            raise
        finally:
            self.folder.close()
            self._log.close()
        return outcome

    def _note_end(self, mine: Record) -> None:
        """Put this rank's verdict into its own record."""
        self.folder.note(
            status=mine["status"],
            failure_reason=mine.get("reason"),
            end_time=now(),
            pieces=self.folder.pieces,
            log_lines_lost=self._log.lost,
        )

    def _decide(self, records: list[Record]) -> Record:
        """Settle the outcome; called on rank 0, with what all ranks told."""
        verdict = lifecycle.joint_verdict(records)
        fields: dict[str, Any] = {}
        if len(records) > 1:
            counts = [int(record["pieces"]) for record in records]
            facts = {"pieces": provenance.piece_facts(counts)}
            fields["parallel"] = self.metadata.values["parallel"] | facts
        said = (self.status, self.metadata.values.get("failure_reason"))
        if said == (verdict["status"], verdict["reason"]):
            self.metadata.update(**fields)  # told inside the block already; now for all ranks
        else:
            self._apply(verdict, **fields)
        return verdict | {"params": records[0]["params"]}

    def enter(self) -> None:
        """Note that the run ends with its `with` block."""
        self._entered = True

    def leave(self, error: BaseException | None) -> None:
        """End the run at the end of its `with` block.

        Args:
            error: The exception that leaves the block, if one does.

        Raises:
            RankFailed: If another rank left its block by an exception, and this one didn't.

        Ranks: collective with a communicator.
        """
        if error is None:
            self._leave_well()
        else:
            self._leave_broken(error)

    def _leave_well(self) -> None:
        if self._closed:
            return
        mine = self._mine or {"status": lifecycle.COMPLETE, "reason": None}
        outcome = self._close(mine)
        culprit = outcome.get("culprit")
        if culprit is not None and culprit != self.topology.rank:
            raise RankFailed(f"run {self._run_id!r} failed: {outcome['reason']}")

    def _leave_broken(self, error: BaseException) -> None:
        reason = str(error) or type(error).__name__
        mine = {"status": lifecycle.FAILED, "reason": reason, "raised": True}
        try:
            if self.topology.parallel:
                text = "".join(traceback.format_exception(error)).rstrip()
                self.folder.note(error=type(error).__name__, traceback=text)
                self._log.write(messages.ERROR, text)
            self._close(mine)
        except Exception as another:  # the program's own error is the one to be seen
            error.add_note(f"notata, while closing run {self._run_id!r}: {another}")
