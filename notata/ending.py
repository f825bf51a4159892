"""How a run ended: what its metadata say of it, and what is synced then."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from notata import failure, layout, lifecycle, messages
from notata.agreement import Record
from notata.logwriter import LogWriter
from notata.opening import Opened
from notata.rankfolder import RankFolder


class Ending(Opened):
    """A run that one rank has opened, and whose outcome it can set."""

    def __init__(
        self,
        run_id: str,
        path: str,
        folder: RankFolder,
        log: LogWriter,
        ended: Callable[[], object],
        grace: float | None,
        may_abort: bool,
    ) -> None:
        """Prepare; nothing is made yet.

        Args:
            run_id: The run's id.
            path: The run's folder.
            folder: The folder that this rank alone writes to.
            log: The log that this rank writes.
            ended: Called on rank 0 each time the run's outcome is set.
            grace: Seconds to wait for other ranks.
            may_abort: Whether ranks that don't come then may be ended.
        """
        super().__init__(run_id, path, folder, log, grace, may_abort)
        self._ended = ended
        self._closed = False
        self._lost_told = 0  # lost lines of this rank that the metadata tell of
        self._unsaid: tuple[Record, Mapping[str, Any]] | None = None  # an outcome not on disk yet

    def note_facts(self, fields: Mapping[str, Any]) -> None:
        """Put fields into the metadata: as durably, once the run is closed, as its outcome.

        Ranks: root only.
        """
        self.metadata.update(fields, durable=self._closed and self.disk.at_close)

    def _apply(self, verdict: Record) -> None:
        """Set the run's outcome, on rank 0 on disk too, and tell whoever waits for it."""
        # What all ranks told of an outcome that the disk refused, they tell only once.
        facts = self._unsaid[1] if self._unsaid is not None else {}
        self._set_outcome(verdict, facts)
        if self.topology.is_root:
            self._ended()

    def _set_outcome(self, verdict: Record, facts: Mapping[str, Any]) -> None:
        self.status = verdict["status"]
        if not self.topology.is_root:
            return
        failed, reason = self.status == lifecycle.FAILED, verdict.get("reason")
        fields = lifecycle.outcome_fields(self.status, reason, self.elapsed)
        if "log_lines_lost" not in facts:  # those of all ranks, where they closed the run together
            self._lost_told = self._log.lost
            fields |= {"log_lines_lost": self._lost_told} if self._lost_told else {}
        durable = self._closed and self.disk.at_close
        self._unsaid = verdict, facts
        self.metadata.update(fields | dict(facts), drop=["failure_reason"], durable=durable)
        self._unsaid = None
        self._log.write(messages.INFO, f"Marked failed: {reason}" if failed else "Marked complete")

    def _say_unwritten(self, error: OSError, facts: Mapping[str, Any]) -> None:
        """Say that the run failed, if the disk takes that, as it did not take the outcome.

        It would seem to live, or to be killed, though its ranks end with this error.
        """
        told = str(failure.verdict(error)["reason"])
        reason = lifecycle.blamed(0, told) if self.topology.parallel else told
        with suppress(OSError):  # the one that is raised says more
            self._set_outcome({"status": lifecycle.FAILED, "reason": reason}, facts)
            self._ended()

    def _say_at_exit(self) -> None:
        """Set the outcome that a disk did not take, if it does now; nobody waits for another."""
        if self._unsaid is None:
            return
        with suppress(OSError):  # the program got the error as it closed the run
            if self.metadata.stands:
                self._set_outcome(*self._unsaid)
                self._ended()
                self._settle()

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
