"""How a rank's part in a run ends: its verdict, and what all ranks together make of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from notata import exits, failure, files, layout, lifecycle, messages, provenance, speaking
from notata.aborting import end_job
from notata.agreement import Record
from notata.errors import RankFailed, RanksMissingError, RunExistsError
from notata.logwriter import LogWriter
from notata.messages import now
from notata.opening import Opened
from notata.rankfolder import RankFolder
from notata.watchdog import Watchdog

# How long a rank that is done waits for those that may still be at work. Unlike a rank that failed,
# which waits for the grace period only, it has no reason to think that something is wrong.
_PATIENCE = 3600.0
_LATER = 5.0  # seconds that other ranks wait for longer: rank 0 knows best who is missing


class Session(Opened):
    """Ends a run together with the other ranks, having opened it together with them."""

    def __init__(
        self,
        run_id: str,
        path: str,
        folder: RankFolder,
        log: LogWriter,
        ended: Callable[[], object],
        grace: float | None,
        on_failure: str,
    ) -> None:
        """Prepare; nothing is made yet.

        Args:
            run_id: The run's id.
            path: The run's folder.
            folder: The folder that this rank alone writes to.
            log: The log that this rank writes.
            ended: Called on rank 0 each time the run's outcome is set.
            grace: Seconds to wait for other ranks.
            on_failure: What becomes of ranks that don't come then: `grace`, `abort` or `raise`.
        """
        super().__init__(run_id, path, folder, log, grace, on_failure != "raise")
        self._on_failure = on_failure
        self._ended = ended
        self._mine: Record | None = None  # this rank's verdict, once it has one
        self._traceback = ""  # of the exception that ended this rank's part
        self._lost_told = 0  # lost lines of this rank that the metadata tell of
        self._entered = self._closed = False
        self._watchdog: Watchdog | None = None

    def stand_by(self) -> None:
        """Be there when the interpreter ends, until the run is closed."""
        exits.add(self._path, self._end_at_exit)

    def watch(self, timeout: float, *, abort: bool) -> None:
        """Watch over this rank until the run is closed, in place of an earlier watch.

        Args:
            timeout: Seconds without a sign of life after which its stacks are written; 0 for ever.
            abort: Whether the job is ended then.

        Ranks: independent.
        """
        self._watch_no_more()
        if timeout and not self._closed:
            give_up = self._end_stuck if abort else None
            self._watchdog = Watchdog(timeout, self._log, self.folder, give_up)

    def _watch_no_more(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None

    def _end_stuck(self, reason: str) -> None:
        """End the job of ranks that are stuck; called by the watchdog."""
        stuck: Record = {"status": lifecycle.FAILED, "reason": reason}
        try:
            if self.topology.parallel:
                self._note_end(stuck, [])
            if self.topology.is_root:
                self._apply(stuck)
            elif not self.attempt.outdated:
                speaking.speak_for_root(self._path, reason, self.elapsed, self.disk)
            if self._watchdog is not None:
                self._watchdog.wait_for_stacks()
        finally:
            end_job(self.topology.comm, f"ending the job: {reason}")

    def agree(self, flag: bool) -> bool:
        """Learn whether the flag is set on any rank.

        Ranks: collective.
        """
        what = f"agree() in run {self._run_id!r}, which all ranks call"
        return self._agreement.any(what, flag, _PATIENCE)

    # ----- closing -----

    def say(self, status: str, reason: object = None) -> None:
        """Give this rank's verdict on the run.

        Ranks: inside a `with` block independent, else collective with a communicator.
        """
        told = failure.told(reason) if status == lifecycle.FAILED else None
        verdict: Record = {"status": status, "reason": told}
        self._mine = verdict
        if not self._entered or not self.topology.parallel or self._closed:
            self._close(verdict)
        elif status == lifecycle.FAILED:
            self._apply(verdict)  # one rank's word is enough; completeness takes all of them
            if not (self._agreement.talks or self.topology.is_root):
                self._note_end(verdict, [])  # a child's word, perhaps, unknown to its parent

    def say_failed_early(self, reason: str) -> None:
        """Note that the run fails, without ending it where other ranks have to be asked.

        Ranks: root only.
        """
        if self.topology.parallel and not self._closed:
            self._mine = {"status": lifecycle.FAILED, "reason": failure.plain_text(reason)}
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
        fields = lifecycle.outcome_fields(self.status, reason, self.elapsed)
        self._lost_told = self._log.lost
        fields |= {"log_lines_lost": self._lost_told} if self._lost_told else {}
        durable = self._closed and self.disk.at_close
        self.metadata.update(fields | dict(facts), drop=["failure_reason"], durable=durable)
        self._log.write(messages.INFO, f"Marked failed: {reason}" if failed else "Marked complete")

    def _close(self, mine: Record) -> Record:
        """Agree with the other ranks on the outcome, and let go of all files."""
        if self._closed:  # a second verdict by hand: the last one counts
            self._apply(self._heeded(mine))
            self._settle()
            return mine
        self._closed = True
        exits.remove(self._path, self._end_at_exit)
        if self._watchdog is not None:
            self._watchdog.spare()
        trouble: list[Exception] = []
        untold = mine["status"] == lifecycle.FAILED and not self._agreement.talks
        if self.topology.parallel and (self.folder.claimed or mine.get("raised") or untold):
            mine = self._note_end(mine, trouble)
        mine = self._heeded(mine)
        outcome: Record = {}
        try:
            if self._on_failure == "abort" and mine.get("raised") and self._agreement.talks:
                self._close_alone(mine, "on_failure='abort'", asked=False)
            outcome = self._agree_to_close(mine)
            try:
                if self.topology.parallel and (late := self._heeded(mine)) is not mine:
                    self._set_outcome(late, {})
                self._settle()
            except OSError as error:  # raised once all else is done: the run has ended as it says
                trouble.append(error)
        except RanksMissingError as error:
            self._close_alone(mine, str(error))
            raise
        finally:
            self._watch_no_more()
            self.beat.stop()
            self.notices.stop()
            self._agreement.end()
            self._log.close()
            self.folder.close()
        if outcome.get("new"):
            self._ended()  # only now: the other ranks don't wait for it
        if trouble:
            raise trouble[0]
        return outcome

    def _heeded(self, mine: Record) -> Record:
        if self._agreement.talks or not self.topology.is_root:
            return mine
        return speaking.heeded(mine, self.folder, self.metadata, self._mine is not None)

    def _settle(self) -> None:
        """Sync what the run's durability promises of a run that is closed, as far as it is ours."""
        self._log.settle(self.disk)
        self._log.release()
        more, self._lost_told = self._log.lost - self._lost_told, self._log.lost
        nothing = not (self.disk.at_close or more)
        if nothing or not self.topology.is_root or self.attempt.outdated:
            return
        if more:  # the last lines were refused, or were never synced
            told = self.metadata.values.get("log_lines_lost", 0)
            self.metadata.update({"log_lines_lost": told + more})
        names = [*layout.PARAMS.values(), *([] if self.metadata.synced else [layout.METADATA])]
        if self.attempt.number > 1:
            names.append(layout.attempt_file(self.attempt.number))
        self.disk.settle(*(os.path.join(self._path, name) for name in names))

    def _close_alone(self, mine: Record, why: str, *, asked: bool = True) -> None:
        """Say that the run failed, without the other ranks; if this one failed, end them."""
        rank, broke = self.topology.rank, mine.get("raised")
        reason = str(mine.get("reason") or why)
        told = lifecycle.blamed(rank, reason) if broke or not self.topology.is_root else reason
        no_answer = self._agreement.gave_up or not asked
        try:
            if self.topology.is_root:
                self._apply({"status": lifecycle.FAILED, "reason": told})
                self._settle()
            elif no_answer and not self.attempt.outdated:
                speaking.speak_for_root(self._path, told, self.elapsed, self.disk)
        finally:
            if no_answer and broke and self._on_failure != "raise":
                end_job(self.topology.comm, f"{why}: ending the job. {told}\n{self._traceback}")

    def _agree_to_close(self, mine: Record) -> Record:
        told = mine | {"pieces": self.folder.pieces, "folder": self.folder.claimed}
        told["params"] = self._params_digest()
        told |= {"lost": self._log.lost} if self._log.lost else {}
        what = f"close run {self._run_id!r}"
        later = 0.0 if self.topology.is_root else _LATER
        patience = _PATIENCE + later if mine["status"] == lifecycle.COMPLETE else None
        claimed = self.folder.claimed
        outcome = self._agreement.agree(what, told, self._decide, patience)
        self.status = outcome["status"] if outcome else mine["status"]
        self._agreement.compare_clocks(self.metadata)
        if outcome or claimed:
            self._compare_params(outcome.get("params"), closing=True)
        if self.folder.claimed and not claimed:
            self._note_end(mine, [])  # a warning just now was the first thing that it wrote
        return outcome if self.topology.is_root else outcome | {"new": False}

    def _note_end(self, mine: Record, trouble: list[Exception]) -> Record:
        """Put this rank's verdict into its own record; the verdict fails if that fails."""
        try:
            self.folder.close()  # NFS may have no room for its last lines, and says so now
            self._log.settle(self.disk)
            self._log.release()
            self.folder.note(
                status=mine["status"],
                failure_reason=mine.get("reason"),
                end_time=now(),
                pieces=self.folder.pieces,
                log_lines_lost=self._log.lost,
                **self.folder.left(),
            )
            self.folder.sync()
            if mine["status"] == lifecycle.FAILED and self.topology.comm is None:
                speaking.note_failure(self.folder, str(mine.get("reason")), self.elapsed)
        except Exception as error:  # the other ranks wait to hear of this one, whatever it met
            trouble.append(error)
            if mine["status"] == lifecycle.COMPLETE:
                mine = mine | failure.verdict(error)
        return mine

    def _decide(self, records: list[Record]) -> Record:
        """Settle the outcome; called on rank 0, with what all ranks told."""
        verdict = lifecycle.joint_verdict(records)
        facts: dict[str, Any] = {}
        if self.topology.parallel:  # without a communicator rank 0 speaks for itself alone
            told = provenance.closing_facts(records) if len(records) > 1 else {}
            told["log_bytes"] = files.size_of(self._log.path)
            facts["parallel"] = self.metadata.values["parallel"] | told
        lost = [int(record.get("lost", 0)) for record in records]
        if any(lost):
            facts["log_lines_lost"] = sum(lost)
        said = (self.status, self.metadata.values.get("failure_reason"))
        new = said != (verdict["status"], verdict["reason"])
        if new:
            self._set_outcome(verdict, facts)
        else:
            self.metadata.update(facts)  # told inside the block already; now for all ranks
        if any(lost):
            self._lost_told = lost[0]
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
        mine = failure.verdict(error)
        troubles: list[Exception] = []
        if self.topology.parallel:
            self._traceback, troubles = failure.write_down(error, self.folder, self._log)
        try:
            self._close(mine)
        except Exception as another:
            troubles.append(another)
        for trouble in troubles:  # the program's own error is the one to be seen
            error.add_note(f"notata, while closing run {self._run_id!r}: {trouble}")

    def _end_at_exit(self) -> None:
        """End a run that the program left open, as far as it is still this run that is there."""
        if self.topology.is_root and not self.metadata.stands:
            return
        if self._mine is None and (error := failure.uncaught()) is not None:
            self._leave_broken(error)
            return
        with suppress(RanksMissingError, RunExistsError):  # the run says so; another run is there
            self._close(self._mine or {"status": lifecycle.FAILED, "reason": failure.NEVER_CLOSED})
