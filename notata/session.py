"""How all ranks close a run together: each one's verdict, and what becomes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from notata import (
    clocks,
    exits,
    failure,
    files,
    folders,
    holders,
    layout,
    lifecycle,
    messages,
    provenance,
    speaking,
)
from notata.aborting import end_job
from notata.agreement import Record
from notata.ending import Ending
from notata.errors import RanksMissingError, note
from notata.logwriter import LogWriter
from notata.messages import now
from notata.ranges import compact
from notata.rankfolder import RankFolder
from notata.watchdog import Watchdog

# How long a rank that is done waits for those that may still be at work. Unlike a rank that failed,
# which waits for the grace period only, it has no reason to think that something is wrong.
_PATIENCE = 3600.0
_LATER = 5.0  # seconds that other ranks wait for longer: rank 0 knows best who is missing


class Session(Ending):
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
        super().__init__(run_id, path, folder, log, ended, grace, on_failure != "raise")
        self._on_failure = on_failure
        self._mine: Record | None = None  # this rank's verdict, once it has one
        self._traceback = ""  # of the exception that ended this rank's part
        self._entered = False
        self._pid = os.getpid()
        self._decided = False  # whether all ranks' outcome is known; on rank 0
        self._at_exit: exits.Step | None = None
        self._watchdog: Watchdog | None = None

    @property
    def is_forked(self) -> bool:
        """Whether this is a child of the process that opened the run, which is still there.

        Where that is gone, since the program has become a daemon, the run is the child's.
        """
        if os.getpid() == self._pid:
            return False
        try:
            return holders.runs_on(self._pid)
        except OSError:
            return False

    def stand_by(self, end: exits.Step) -> None:
        """Be there when the interpreter ends, until the run is closed.

        Args:
            end: What ends it then.

        Ranks: independent.
        """
        self._at_exit = end
        exits.add(self._path, end)

    def _watch_no_more(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None

    def agree(self, flag: bool) -> bool:
        """Learn whether the flag is set on any rank.

        Ranks: collective.
        """
        what = f"agree() in run {self._run_id!r}, which all ranks call"
        return self._agreement.any(what, flag, _PATIENCE)

    # ----- closing -----

    def _close(self, mine: Record) -> Record:
        """Agree with the other ranks on the outcome, and let go of all files."""
        if self._closed:  # a second verdict by hand: the last one counts
            self._apply(self._heeded(mine))
            self._settle()
            self._note_own(mine)
            return mine
        self._closed = True
        exits.remove(self._path, self._at_exit)
        trouble: list[BaseException] = []
        mine = self._prepared(mine, trouble)
        outcome: Record = {}
        try:
            if self._on_failure == "abort" and mine.get("raised") and self._agreement.talks:
                self._close_alone(mine, "on_failure='abort'", asked=False)
            outcome = self._agree_to_close(mine)
            try:
                self._look_again(mine)
                self._settle()
                self._note_own(mine)
            except OSError as error:  # raised once all else is done: the run has ended as it says
                trouble.append(error)
        except RanksMissingError as error:
            note(error, trouble)
            self._close_alone(mine, str(error))
            raise
        except BaseException as error:  # of a signal, while this rank waited
            note(error, trouble)
            if self._agreement.gave_up or not isinstance(error, Exception):
                self._close_impatiently(error)
            raise
        finally:
            self._watch_no_more()
            self.beat.stop()
            self.notices.stop()
            self._agreement.end()
            self._log.close()
            self.folder.close()
            if self._unsaid is not None:
                self.stand_by(self._say_at_exit)
        if outcome.get("new"):
            self._ended()  # only now: the other ranks don't wait for it
        if trouble:
            note(trouble[0], trouble[1:])
            raise trouble[0]
        return outcome

    def _prepared(self, mine: Record, trouble: list[BaseException]) -> Record:
        """This rank's verdict, once it is on disk; what is raised meanwhile is a part of it."""
        try:
            if self._watchdog is not None:
                self._watchdog.spare()
            untold = mine["status"] == lifecycle.FAILED and not self._agreement.talks
            if self.topology.parallel and (self.folder.claimed or mine.get("raised") or untold):
                mine = self._note_end(mine, trouble)
            return self._heeded(mine)
        except BaseException as error:  # of a signal: the others must not wait for this rank
            trouble.append(error)
            return mine if mine["status"] == lifecycle.FAILED else mine | failure.verdict(error)

    def _heeded(self, mine: Record) -> Record:
        if self._agreement.talks or not self.topology.is_root:
            return mine
        return speaking.heeded(mine, self.folder, self.metadata, self._mine is not None)

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

    def _close_impatiently(self, error: BaseException) -> None:
        """Say that the run failed, as this rank waits no more; the job goes on for now.

        Ranks that come in time hear of it; if some don't, the job ends when this process does. The
        word of a rank other than 0 counts until rank 0 gives one.
        """
        verdict = failure.verdict(error)
        place, told = self.topology, str(verdict["reason"])
        told = lifecycle.blamed(place.rank, told) if place.parallel else told
        try:
            if self._decided:
                self._ended()  # all ranks had ended their parts, and the run says so
            elif place.is_root:
                self._apply(verdict | {"reason": told})
                self._settle()
            elif self._agreement.gave_up and not self.attempt.outdated:
                speaking.speak_for_root(self._path, told, self.elapsed, self.disk)
        finally:
            if self._agreement.gave_up and self._on_failure == "abort":
                end_job(place.comm, f"on_failure='abort': ending the job. {told}")

    def _agree_to_close(self, mine: Record) -> Record:
        told = mine | {"pieces": self.folder.manifest.pieces, "folder": self.folder.claimed}
        told["params"] = self._params_digest()
        told |= {"lost": self._log.lost} if self._log.lost else {}
        noted = self.notices.packed()
        told |= {"signals": noted} if noted else {}
        what = f"close run {self._run_id!r}"
        later = 0.0 if self.topology.is_root else _LATER
        patience = _PATIENCE + later if mine["status"] == lifecycle.COMPLETE else None
        claimed = self.folder.claimed
        try:
            outcome = self._agreement.agree(what, told, self._decide, patience)
        except OSError:  # on rank 0, for all
            self.status = lifecycle.FAILED
            raise
        self.status = outcome["status"] if outcome else mine["status"]
        self._agreement.compare_clocks(self.metadata)
        told = self.metadata.values.get("parallel", {}) if self._agreement.talks else {}
        if self.topology.is_root and (said := clocks.not_compared(told)):
            self._log.write(messages.WARNING, f"{said}: messages are ordered without that")
        if outcome or claimed:
            self._compare_params(outcome.get("params"), closing=True)
        if self.folder.claimed and not claimed:
            self._note_end(mine, [])  # a warning just now was the first thing that it wrote
        return outcome if self.topology.is_root else outcome | {"new": False}

    def _others_seen(self) -> dict[str, Any]:
        """The ranks that have written something by now, where no communicator tells of more."""
        if self.folder.replaces:  # others may take their older folders away yet
            return {}
        names = folders.listed(os.path.join(self._path, layout.RANKS))
        seen = (rank for name in names if (rank := layout.rank_of(name)) is not None)
        return {"folders_seen": compact(sorted(rank for rank in seen if rank < self.topology.size))}

    def _look_again(self, mine: Record) -> None:
        """Hear of a rank that failed while rank 0 wrote that the run is complete."""
        if self.topology.parallel and self.status != lifecycle.FAILED:
            late = self._heeded(mine)
            if late is not mine:
                self._set_outcome(late, {})

    def _note_own(self, mine: Record) -> None:
        """Note what rank 0 leaves for a merge to read: when the outcome is there, log line and all.

        No other rank waits any more, however much is to be read.
        """
        if not (self.topology.parallel and self.topology.is_root) or self.attempt.outdated:
            return

        def tell() -> None:
            self.note_facts({})
            self._look_again(mine)  # who found no outcome, or another, may have been overwritten

        self.folder.tell = tell
        self.metadata.noted = self.folder.own_files
        with suppress(Exception):  # a run that ended as it says doesn't fail of this
            self.folder.note_own()
            tell()

    def _note_end(
        self, mine: Record, trouble: list[BaseException], *, closes: bool = True
    ) -> Record:
        """Put this rank's verdict into its own record; the verdict fails if that fails."""
        mine = self._but_for(self._let_go, mine, trouble)
        return self._but_for(lambda: self._write_end(mine, closes=closes), mine, trouble)

    def _but_for(
        self, step: Callable[[], object], mine: Record, trouble: list[BaseException]
    ) -> Record:
        """This rank's verdict after a step; others wait to hear of it, whatever it met there."""
        try:
            step()
        except Exception as error:
            trouble.append(error)
            if mine["status"] == lifecycle.COMPLETE:
                return mine | failure.verdict(error)
        return mine

    def _let_go(self) -> None:
        self.folder.close()  # NFS may have no room for its last lines, and says so now
        self._log.settle(self.disk)
        self._log.release()

    def _write_end(self, mine: Record, *, closes: bool) -> None:
        """Put the verdict into the record; at the close what files hold too, which are read."""
        put = self.folder.note_end if closes else self.folder.note
        put(
            status=mine["status"],
            failure_reason=mine.get("reason"),
            end_time=now(),
            pieces=self.folder.manifest.pieces,
            log_lines_lost=self._log.lost,
        )
        self.folder.sync()
        if mine["status"] == lifecycle.FAILED and self.topology.comm is None:
            speaking.note_failure(self.folder, str(mine.get("reason")), self.elapsed)

    def _decide(self, records: list[Record]) -> Record:
        """Settle the outcome; called on rank 0, with what all ranks told."""
        records = clocks.by_rank_0(records, self.metadata.values.get("parallel", {}))
        verdict = lifecycle.joint_verdict(records)
        facts: dict[str, Any] = {}
        if self.topology.parallel:  # without a communicator rank 0 speaks for itself alone
            told = provenance.closing_facts(records) if len(records) > 1 else self._others_seen()
            told["log_bytes"] = files.size_of(self._log.path)
            facts["parallel"] = self.metadata.values["parallel"] | told
        lost = [int(record.get("lost", 0)) for record in records]
        if any(lost):
            facts["log_lines_lost"], self._lost_told = sum(lost), lost[0]
        said = (self.status, self.metadata.values.get("failure_reason"))
        new = said != (verdict["status"], verdict["reason"]) or self._unsaid is not None
        try:
            with self.notices.hearing(records) as signals:
                facts |= signals
                if new:
                    self._set_outcome(verdict, facts)
                else:  # told inside the block already; now for all ranks
                    self.metadata.update(facts)
        except OSError as error:
            self._say_unwritten(error, facts)
            raise
        self._decided = True
        return verdict | {"params": records[0]["params"], "new": new}
