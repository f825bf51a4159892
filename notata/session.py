"""A rank's part in a run, from its opening to its end."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from notata import layout, lifecycle, messages, provenance, writers
from notata.agreement import Agreement, Record
from notata.errors import DamagedError, RankFailed, RanksMissingError
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
        fields: dict[str, Any] = {
            "run_id": self._run_id,
            "status": self.status,
            "start_time": now(),
        }
        if place.parallel:
            hosts = {rank: str(record["host"]) for rank, record in enumerate(records)}
            fields["parallel"] = provenance.parallel_facts(place, hosts)
        self.metadata.update(fields)
        self._log.write(messages.INFO, "Logbook initialized")
        for note in place.notes:
            self._log.write(messages.WARNING, note)
        return {"params": records[0]["params"]}

    def _compare_params(self, roots: object = None, *, closing: bool = False) -> None:
        """Tell this rank, in its log, where its parameters are not those of rank 0."""
        if self.topology.is_root or roots == self.params.digest():
            return
        try:
            saved = read_params(self._path)
        except DamagedError:  # of an old run that is being overwritten
            return
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
        verdict: Record = {"status": status, "reason": None if reason is None else _text(reason)}
        self._mine = verdict
        if not self._entered or not self.topology.parallel or self._closed:
            self._close(verdict)
        elif status == lifecycle.FAILED:
            self._apply(verdict)  # one rank's word is enough; completeness takes all of them

    def say_failed_early(self, reason: str) -> None:
        """Note that the run fails, without ending it where other ranks have to be asked.

        Ranks: root only.
        """
        if self.topology.parallel and not self._closed:
            self._mine = {"status": lifecycle.FAILED, "reason": _text(reason)}
            self._apply(self._mine)
        else:
            self.say(lifecycle.FAILED, reason)

    def _apply(self, verdict: Record) -> None:
        """Set the run's outcome, on rank 0 on disk too, and tell whoever waits for it."""
        self._set_outcome(verdict, {})
        if self.topology.is_root:
            self._ended()

    def _set_outcome(self, verdict: Record, facts: Mapping[str, Any]) -> None:
        self.status = verdict["status"]
        if not self.topology.is_root:
            return
        failed, reason = self.status == lifecycle.FAILED, verdict.get("reason")
        fields = {"status": self.status, "end_time": now(), "runtime_sec": round(self.elapsed, 6)}
        why = {"failure_reason": reason} if failed else {}
        self.metadata.update(fields | why | dict(facts), drop=["failure_reason"])
        self._log.write(messages.INFO, f"Marked failed: {reason}" if failed else "Marked complete")

    def _close(self, mine: Record) -> Record:
        """Agree with the other ranks on the outcome, and let go of all files."""
        if self._closed:  # a second verdict by hand: the last one counts
            self._apply(mine)
            return mine
        self._closed = True
        trouble: list[Exception] = []
        if self.topology.parallel and (self.folder.claimed or mine.get("raised")):
            mine = self._note_end(mine, trouble)
        outcome: Record = {}
        try:
            outcome = self._agree_to_close(mine)
        except RanksMissingError as error:
            self._apply({"status": lifecycle.FAILED, "reason": mine.get("reason") or str(error)})
            raise
        finally:
            self._agreement.end()
            self.folder.close()
            self._log.close()
        if outcome.get("new"):
            self._ended()  # only now: the other ranks don't wait for it
        if trouble:
            raise trouble[0]
        return outcome

    def _agree_to_close(self, mine: Record) -> Record:
        told = mine | {"pieces": self.folder.pieces, "params": self.params.digest()}
        what = f"close run {self._run_id!r}"
        patience = _PATIENCE if mine["status"] == lifecycle.COMPLETE else None
        claimed = self.folder.claimed
        outcome = self._agreement.agree(what, told, self._decide, patience)
        self.status = outcome["status"] if outcome else mine["status"]
        if outcome or claimed:
            self._compare_params(outcome.get("params"), closing=True)
        if self.folder.claimed and not claimed:
            self._note_end(mine, [])  # a warning just now was the first thing that it wrote
        return outcome if self.topology.is_root else outcome | {"new": False}

    def _note_end(self, mine: Record, trouble: list[Exception]) -> Record:
        """Put this rank's verdict into its own record; the verdict fails if that fails."""
        try:
            self.folder.note(
                status=mine["status"],
                failure_reason=mine.get("reason"),
                end_time=now(),
                pieces=self.folder.pieces,
                log_lines_lost=self._log.lost,
            )
        except Exception as error:  # the other ranks wait to hear of this one, whatever it met
            trouble.append(error)
            if mine["status"] == lifecycle.COMPLETE:
                mine = mine | {"status": lifecycle.FAILED, "reason": str(error), "raised": True}
        return mine

    def _decide(self, records: list[Record]) -> Record:
        """Settle the outcome; called on rank 0, with what all ranks told."""
        verdict = lifecycle.joint_verdict(records)
        facts: dict[str, Any] = {}
        if len(records) > 1:
            counts = [int(record["pieces"]) for record in records]
            pieces = {"pieces": provenance.piece_facts(counts)}
            facts["parallel"] = self.metadata.values["parallel"] | pieces
        said = (self.status, self.metadata.values.get("failure_reason"))
        new = said != (verdict["status"], verdict["reason"])
        if new:
            self._set_outcome(verdict, facts)
        else:
            self.metadata.update(facts)  # told inside the block already; now for all ranks
        return verdict | {"params": records[0]["params"], "new": new}

    def note_status(self, status: str, reason: str | None) -> None:
        """Take over a status that the program put into the metadata by itself.

        Ranks: root only.
        """
        self.status = status
        if status in (lifecycle.COMPLETE, lifecycle.FAILED):
            self._mine = {"status": status, "reason": reason}

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
        mine: Record = {"status": lifecycle.FAILED, "reason": _reason(error), "raised": True}
        troubles: list[Exception] = []
        if self.topology.parallel:
            text = "".join(traceback.format_exception(error)).rstrip()
            try:
                self.folder.note(error=type(error).__name__, traceback=text)
            except Exception as another:
                troubles.append(another)
            self._log.write(messages.ERROR, text)
        try:
            self._close(mine)
        except Exception as another:
            troubles.append(another)
        for trouble in troubles:  # the program's own error is the one to be seen
            error.add_note(f"notata, while closing run {self._run_id!r}: {trouble}")


def _text(text: str) -> str:
    """Text that any file takes: a name that is not UTF-8 comes as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _reason(error: BaseException) -> str:
    try:
        return _text(str(error)) or type(error).__name__
    except Exception:  # an error that can't even say what it is must not hide that there was one
        return type(error).__name__
