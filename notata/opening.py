"""How a rank's part in a run begins: opened together with the other ranks, anew or once more."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from notata import (
    clocks,
    folders,
    freshness,
    jsontext,
    layout,
    lifecycle,
    messages,
    provenance,
    pulse,
    speaking,
    writers,
)
from notata.agreement import Agreement, Record
from notata.errors import DamagedError, NotataError
from notata.logwriter import LogWriter
from notata.messages import now
from notata.notices import Notices
from notata.parameters import Params
from notata.pulse import Beat
from notata.rankfolder import RankFolder
from notata.stored import params_format, read_params

_USUAL = (layout.DATA, layout.PLOTS, layout.ARTIFACTS)  # folders
# What a run's metadata say of its newest attempt alone.
_OF_AN_ATTEMPT = (
    "end_time",
    "runtime_sec",
    "failure_reason",
    "reconciled",
    "scheduler",
    "log_lines_lost",
)


class Opened:
    """A run as one rank has it, once all ranks have opened it.

    Attributes:
        topology: This process's place.
        folder: The folder that this rank alone writes to.
        attempt: This process's attempt at the run.
        disk: The disk, as this process uses it.
        params: The run's parameters, as this rank has them.
        metadata: The run's metadata, on rank 0.
        status: `initialized`, `complete` or `failed`, as far as this rank knows.
        beat: The run's sign of life, given by rank 0.
        notices: What notes signals while the run is open.
    """

    def __init__(
        self,
        run_id: str,
        path: str,
        folder: RankFolder,
        log: LogWriter,
        grace: float | None,
        may_abort: bool,
    ) -> None:
        """Prepare; nothing is made yet.

        Args:
            run_id: The run's id.
            path: The run's folder.
            folder: The folder that this rank alone writes to.
            log: The log that this rank writes.
            grace: Seconds to wait for other ranks.
            may_abort: Whether a job whose ranks were waited for in vain may be ended.
        """
        self.topology = folder.topology
        self.folder, self.attempt, self.disk = folder, folder.attempt, folder.disk
        self.params = Params(self._save_params)
        self.metadata = lifecycle.Metadata(path, folder.attempt)
        self.status = lifecycle.INITIALIZED
        self._run_id, self._path, self._log = run_id, path, log
        self._agreement = Agreement(folder.topology, grace, may_abort=may_abort)
        self._began = time.monotonic()
        self.beat = Beat(path, self.attempt.is_newest)
        self._env: Sequence[str] = ()
        self.notices = Notices(folder, self.metadata, log, lambda: self.elapsed)
        self._differing: set[str] = set()  # parameters unlike rank 0's, as far as they were told

    @property
    def elapsed(self) -> float:
        """Seconds since the run was opened, by this attempt."""
        return time.monotonic() - self._began

    def begin(
        self,
        params: Mapping[str, Any],
        failure: Exception | None,
        *,
        overwrite: bool,
        preallocate: bool,
        resume: int | None,
        signals: Iterable[int],
        env: Sequence[str] = (),
    ) -> None:
        """Open the run together with the other ranks, or tell them what this one met.

        Args:
            params: The parameters to begin with.
            failure: What went wrong on this rank before, if anything did.
            overwrite: Whether an earlier run gives way.
            preallocate: Whether to make the usual folders at once.
            resume: Whether to go on in an earlier run; None leaves it to the scheduler.
            signals: The signals to note while the run is open.
            env: Names of environment variables to keep in the metadata.

        Raises:
            SettingError: If `NOTATA_HEARTBEAT` is not a number of seconds.
            Exception: This rank's failure, else whatever any rank met.

        Ranks: collective with a communicator.
        """
        self._env = env
        try:
            self.params.take(params)
        except Exception as error:  # whatever a value's own methods raise
            failure = failure or error
        try:
            with self.disk.explaining(self._path):
                self._open_together(failure, overwrite, preallocate, resume)
        except Exception:
            self._agreement.end()
            if failure is not None:
                raise failure from None
            raise
        self.notices.start(signals)

    def _open_together(
        self, failure: Exception | None, overwrite: bool, preallocate: bool, resume: int | None
    ) -> None:
        mine = lifecycle.opening_record(self._path, self._params_digest(), failure)
        answer = self._agreement.agree(
            f"open run {self._run_id!r}",
            mine,
            lambda records: self._open_first(records, overwrite, preallocate, resume),
        )
        if answer:
            self.folder.replaces = overwrite
            if answer["attempt"] > 1:
                self._take_up_together(answer["attempt"])
            self._agreement.compare_clocks(self.metadata, answer["clocks"])
            self._compare_params(answer["params"])
        elif failure is not None:
            raise failure
        elif self.attempt.goes_on(resume):
            self.attempt.check_size()
            self.attempt.follow()
            self._take_up()
        elif overwrite:
            self.folder.retire()
        else:
            self.folder.check()

    def _open_first(
        self, records: list[Record], overwrite: bool, preallocate: bool, resume: int | None
    ) -> Record:
        """Make the run; what goes wrong is explained before the other ranks hear of it."""
        with self.disk.explaining(self._path):
            try:
                return self._open(records, overwrite, preallocate, resume)
            except BaseException as error:
                self._take_back(error)
                raise

    def _take_back(self, error: BaseException) -> None:
        """Undo an opening that failed, as far as nothing of anybody's can be lost by that."""
        self._log.close()
        if self.attempt.is_new and folders.take_back(self._path, _USUAL):
            return
        half_made = False
        with suppress(OSError):  # nobody is told to remove what can't be looked at
            begun = freshness.exists(os.path.join(self._path, layout.METADATA))
            half_made = folders.is_dir(self._path) and not begun
        if half_made and not isinstance(error, NotataError):
            error.add_note(
                f"notata: the run has not begun, and {self._path} is left half-made: remove it, or "
                "begin the run anew with overwrite=True"
            )

    def _open(
        self, records: list[Record], overwrite: bool, preallocate: bool, resume: int | None
    ) -> Record:
        """Make the run, or go on in it; called on rank 0, with what all ranks told."""
        lifecycle.check_opening(records)
        every = pulse.interval()  # before anything is made, if the variable makes no sense
        place, attempt = self.topology, self.attempt
        history = lifecycle.make_run_folder(
            self._path, attempt, place, overwrite=overwrite, resume=resume
        )
        if history:
            self._log.take_over(self.disk)
        if history or (overwrite and not attempt.is_new):
            speaking.forget(self.folder)
        if preallocate:
            for name in _USUAL:
                self.disk.make_folders(os.path.join(self._path, name))
        if history:
            self._merge_params()
        elif self.params:
            self._save_params("yaml")
        before = attempt.metadata() if history else {}
        fields: dict[str, Any] = {"run_id": self._run_id, "status": self.status}
        if not before.get("start_time"):
            fields |= {"start_time": now(), "start_epoch": round(time.time(), 3)}
        fields["opening"] = os.urandom(4).hex()
        facts = provenance.facts(self._env)
        told = jsontext.shared("provenance", facts["provenance"], writers.json_ready)
        fields |= facts | {"provenance": told}
        if place.parallel:
            hosts = {rank: str(record["host"]) for rank, record in enumerate(records)}
            fields["parallel"] = provenance.parallel_facts(place, hosts)
            if history:
                began = str(history[-1]["start_time"])
                fields["parallel"] |= clocks.carried(before.get("parallel"), began)
        if history:
            fields["attempts"] = history
        self.metadata.values = before
        self.metadata.update(fields, drop=_OF_AN_ATTEMPT)
        resumed = f"Logbook resumed: attempt {attempt.number}"
        self._log.write(messages.INFO, resumed if history else "Logbook initialized")
        for note in place.notes:
            self._log.write(messages.WARNING, note)
        self.beat.start(every)
        attempt.is_new = False
        return {
            "params": self._params_digest(),
            "attempt": attempt.number,
            "clocks": clocks.speakers(records) if place.parallel else "",
        }

    def _merge_params(self) -> None:
        """Add what was given to the parameters of the attempts before; called on rank 0."""
        saved = read_params(self._path)
        differing = [k for k in self.params.differences(saved) if k in saved and k in self.params]
        self.params.put_below(saved)
        if self.params.differences(saved):
            self._save_params(params_format(self._path) or "yaml")
        if differing:
            text = f"parameters differ from those of the attempt before: {', '.join(differing)}"
            self._log.write(messages.WARNING, text)

    def _take_up_together(self, number: int) -> None:
        """Go on in what this rank wrote before, and hear whether all ranks can."""
        failure: Exception | None = None
        try:
            with self.disk.explaining(self._path):  # here, as rank 0 would say that it was its own
                self.attempt.join(number)
                self._take_up()
        except Exception as error:
            failure = error
        told = lifecycle.opening_record(self._path, self._params_digest(), failure)
        try:
            self._agreement.agree(f"go on in run {self._run_id!r}", told, _check_all)
        except BaseException as error:
            if self.topology.is_root:
                self._note_failed_attempt(error)
            if failure is not None and isinstance(error, Exception):
                raise failure from None  # this rank's own, as it was
            raise

    def _note_failed_attempt(self, error: BaseException) -> None:
        """Say that the attempt that was begun has failed, rather than let the run seem to live."""
        self.beat.stop()
        reason = f"could not be gone on with: {str(error) or type(error).__name__}"
        fields = lifecycle.outcome_fields(lifecycle.FAILED, reason, self.elapsed)
        with suppress(OSError):  # the error that is raised says more
            self.metadata.update(fields)
        self._log.write(messages.INFO, f"Marked failed: {reason}")
        self._log.close()

    def _take_up(self) -> None:
        self.params.put_below(read_params(self._path))
        self.folder.take_up()
        if not self.topology.is_root:  # which did so before its first line
            self._log.take_over(self.disk)

    def _params_digest(self) -> str:
        """What ranks tell of their parameters; nothing where there is nobody to tell."""
        return self.params.digest() if self.topology.parallel else ""

    def _compare_params(self, roots: object = None, *, closing: bool = False) -> None:
        """Tell this rank, in its log, where its parameters are not those of rank 0."""
        if self.topology.is_root or roots == self._params_digest():
            return
        if roots is None and not self.folder.root_has_begun():
            if self.params:  # no warning: ranks of a short run often end before rank 0 begins
                self.folder.note(params_not_compared=sorted(self.params))
            if closing and self.folder.claimed:
                speaking.miss_root(self.folder)
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
        if not self.topology.is_root or self.attempt.outdated:
            return
        first = self.attempt.is_new
        writers.save_params(self.disk, self._path, dict(self.params), ext, first=first)
        self._log.write(messages.INFO, f"Saved params ({ext}) in {layout.PARAMS[ext]}")


def _check_all(records: list[Record]) -> Record:
    lifecycle.check_opening(records)
    return {}
