"""How a rank leaves a run: by a word, at the end of its block, or when the interpreter ends."""

from __future__ import annotations

from contextlib import suppress

from notata import failure, lifecycle, messages, speaking
from notata.aborting import end_job
from notata.agreement import Record
from notata.errors import RankFailed, RanksMissingError, RunExistsError
from notata.session import Session
from notata.watchdog import Watchdog


class Part(Session):
    """A rank's part in a run, until it leaves that."""

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

    def _end_stuck(self, watchdog: Watchdog, silent: float) -> None:
        """End the job of ranks that are stuck; called by the watchdog.

        One of them looks where all stand, and ends it. The others do so only if that one doesn't,
        and know nothing then but where they stand themselves.
        """
        reason = f"no sign of life for {silent:.0f} s"
        try:
            collects = speaking.collects(self.folder)
            reason += f": {watchdog.where(everybody=collects)}"
            stuck: Record = {"status": lifecycle.FAILED, "reason": reason}
            if self.topology.parallel:
                with suppress(Exception):  # the job ends all the same
                    self._write_end(stuck, closes=False)  # what is stuck may be the disk
            if not collects:
                watchdog.wait_for_collector()
            if self.topology.is_root:
                self._apply(stuck)
            elif not self.attempt.outdated:
                speaking.speak_for_root(self._path, reason, self.elapsed, self.disk)
            if collects:
                watchdog.wait_for_stacks()
                if self.topology.comm is not None:  # else the others go on, each for itself
                    speaking.has_collected(self.folder)
        finally:
            end_job(self.topology.comm, f"ending the job: {reason}")

    def say(self, status: str, reason: object = None) -> None:
        """Give this rank's verdict on the run.

        Ranks: inside a `with` block independent, else collective with a communicator.
        """
        told = failure.told(reason) if status == lifecycle.FAILED else None
        verdict: Record = {"status": status, "reason": told}
        self._mine = verdict
        if self.is_forked and self._agreement.talks:  # MPI is its parent's; so is completeness
            if status == lifecycle.FAILED:
                self._say_failed(verdict)
        elif not self._entered or not self.topology.parallel or self._closed:
            self._close(verdict)
        elif status == lifecycle.FAILED:
            self._say_failed(verdict)  # one rank's word is enough; completeness takes all of them
            if not (self._agreement.talks or self.topology.is_root):
                # A child's word, perhaps, unknown to its parent. Files have their say at the close.
                self._note_end(verdict, [], closes=False)

    def _say_failed(self, verdict: Record) -> None:
        """Have this rank's word on disk, whatever becomes of it until all close the run."""
        self._apply(verdict)
        if self._agreement.talks and not self.topology.is_root:
            self.folder.note(failure_reason=verdict["reason"])
            self._log.write(messages.INFO, f"Marked failed: {verdict['reason']}")

    def say_failed_early(self, reason: str) -> None:
        """Note that the run fails, without ending it where other ranks have to be asked.

        Ranks: root only.
        """
        if self.topology.parallel and not self._closed:
            self._mine = {"status": lifecycle.FAILED, "reason": failure.storable(reason)}
            self._apply(self._mine)
        else:
            self.say(lifecycle.FAILED, reason)

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

        A forked child that leaves it ends nothing: the run is its parent's.

        Ranks: collective with a communicator.
        """
        if self.is_forked:
            return
        if error is None:
            self._leave_well()
        else:
            self._leave_broken(error)

    def _leave_well(self) -> None:
        if self._closed:
            if self._unsaid is not None:  # by hand, in the block, and the disk was full
                self._apply(self._unsaid[0])
                self._settle()
            return
        mine = self._mine or {"status": lifecycle.COMPLETE, "reason": None}
        outcome = self._close(mine)
        culprit = outcome.get("culprit")
        if culprit is not None and culprit != self.topology.rank:
            raise RankFailed(f"run {self._run_id!r} failed: {outcome['reason']}")

    def _leave_broken(self, error: BaseException) -> None:
        mine = failure.verdict(error)
        troubles: list[Exception] = []
        recorded = self.folder if self.topology.parallel else None
        self._traceback, troubles = failure.write_down(error, recorded, self._log)
        try:
            self._close(mine)
        except Exception as another:
            troubles.append(another)
        for trouble in troubles:  # the program's own error is the one to be seen
            error.add_note(f"notata, while closing run {self._run_id!r}: {trouble}")

    def end_at_exit(self) -> None:
        """End a run that the program left open, as far as it is still this run that is there.

        Ranks: collective with a communicator.
        """
        self._log.release()  # runs that were never closed may have taken all descriptors
        if self.topology.is_root and not self.metadata.stands:
            return
        if self._mine is None and (error := failure.uncaught()) is not None:
            self._leave_broken(error)
            return
        with suppress(RanksMissingError, RunExistsError):  # the run says so; another run is there
            self._close(self._mine or {"status": lifecycle.FAILED, "reason": failure.NEVER_CLOSED})
