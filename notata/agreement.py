"""What all ranks decide together, without ever waiting without a bound.

With a communicator, ranks talk over a duplicate of it, by operations that don't block, so that
nothing here meets the program's own messages. Without one, each rank decides for itself and
nobody waits.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from notata import clocks
from notata.aborting import abandon
from notata.errors import NoCommunicatorError, RanksMissingError, describe, revive
from notata.ranges import ranks_text
from notata.topology import Topology, mpi_is_the_parents

DEFAULT_GRACE = 30.0
_RECORD_BYTES = 1024  # what a rank tells rank 0
_ANSWER_BYTES = 8192  # what rank 0 answers
_A_NOTE = 64  # bytes of an error's note that are worth sending
_EAGER = 0.05  # seconds in which a rank looks again at once, only letting others run between
_LONGEST_PAUSE = 0.01
_RECORDS = 7  # the tag of records; those of `clocks`, which may come too late, are others

Record = dict[str, Any]
Decision = Callable[[list[Record]], Record]


def grace_seconds(grace: float | None) -> float:
    """How long a rank waits for the others: the argument, else `NOTATA_GRACE`, else 30 s.

    Raises:
        ValueError: If it is not a positive number.

    Ranks: independent.
    """
    given: Any = os.environ.get("NOTATA_GRACE") or DEFAULT_GRACE if grace is None else grace
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = -1.0
    if not seconds > 0:
        raise ValueError(f"grace={given!r} (NOTATA_GRACE) is not a positive number of seconds")
    return seconds


class Agreement:
    """Lets rank 0 decide for all ranks of a run.

    Without a communicator rank 0 decides on what it knows, and the other ranks learn nothing.
    """

    def __init__(
        self, topology: Topology, grace: float | None = None, *, may_abort: bool = True
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            topology: This process's place.
            grace: Seconds to wait for other ranks.
            may_abort: Whether a job whose ranks were waited for in vain may be ended at exit.
        """
        self._topology = topology
        self.grace = self._patience = grace_seconds(grace)
        self.gave_up = False  # whether this rank waited for others in vain, or waits no more
        self._may_abort = may_abort
        self._comm: Any = None
        self._asked = ""  # the ranks whose clocks are compared
        self._voting: Any = None  # for `any`

    @property
    def talks(self) -> bool:
        """Whether there is a communicator, so that every rank learns the outcome."""
        return self._topology.comm is not None

    def agree(
        self, what: str, mine: Record, decide: Decision, patience: float | None = None
    ) -> Record:
        """Tell rank 0 this rank's record, let it decide, and learn the outcome.

        Args:
            what: What is being agreed on, for the error: "open run 'x'".
            mine: This rank's record: plain values, short texts.
            decide: Called on rank 0 with all ranks' records; gives the answer for all.
            patience: Seconds to wait where that is more than the grace period; after that
                period rank 0 says on standard error that ranks are missing.

        Returns:
            Rank 0's answer; without a communicator, an empty record on other ranks.

        Raises:
            RanksMissingError: If some rank did not come in time.
            Exception: Whatever `decide` raised, on every rank.

        Ranks: collective with a communicator, else independent.
        """
        if not self.talks:
            return decide([mine]) if self._topology.is_root else {}
        self._check_process(what)
        if sys.modules["mpi4py.MPI"].Is_finalized():
            raise RanksMissingError(
                f"rank {self._topology.rank} came to {what} after MPI.Finalize(): ranks can't be "
                "asked any more; close the run before"
            )
        self._patience, self.gave_up = max(self.grace, patience or 0.0), False
        answer: Record = {}
        failure: BaseException | None = None
        try:
            if self._comm is None:
                self._comm = self._duplicate(what)
            records = self._gather(what, mine)
            if records is not None:
                try:
                    answer = {"value": decide(records)}
                except BaseException as error:  # every rank must hear of it, whatever it is
                    failure, answer = error, {"error": describe(error)}
            answer = self._broadcast(what, answer)
        finally:
            if self.gave_up:  # ranks that come later would meet what they were not asked
                self._comm = None
        if failure is not None:
            raise failure
        if "error" in answer:
            raise revive(answer["error"])
        value: Record = answer["value"]
        return value

    def _check_process(self, what: str) -> None:
        if mpi_is_the_parents():
            raise RanksMissingError(
                f"rank {self._topology.rank} can't {what} in a forked child: MPI knows its parent "
                "alone"
            )

    def compare_clocks(self, metadata: clocks.Notes, asked: str | None = None) -> None:
        """Compare some ranks' clocks with rank 0's, which notes the outcome.

        Args:
            metadata: Rank 0's metadata.
            asked: The ranks, as ranges; the same as before by default.

        Ranks: collective with a communicator, after `agree`.
        """
        again, self._asked = asked is None, self._asked if asked is None else asked
        if self._comm is not None and self._asked:
            rank = self._topology.rank
            clocks.note(metadata, clocks.compare(self._comm, rank, self._asked, int(again)))

    def end(self) -> None:
        """Give the duplicate communicator back.

        Ranks: collective with a communicator, after the last `agree`.
        """
        for comm in () if mpi_is_the_parents() else (self._comm, self._voting):
            if comm is not None and not sys.modules["mpi4py.MPI"].Is_finalized():
                comm.Free()
        self._comm = self._voting = None

    def any(self, what: str, flag: bool, patience: float) -> bool:
        """Learn whether the flag is set on any rank.

        It goes over a communicator of its own, made by the first call: ranks that close the run
        meanwhile must not meet those that are here.

        Args:
            what: What is being agreed on, for the error.
            flag: This rank's flag.
            patience: Seconds to wait where that is more than the grace period.

        Raises:
            RanksMissingError: If some rank did not come in time.
            NoCommunicatorError: If there are other ranks, and no communicator to ask them over.

        Ranks: collective.
        """
        if not self._topology.parallel:
            return flag
        if not self.talks:
            raise NoCommunicatorError(
                f"rank {self._topology.rank} can't {what}: without a communicator no rank hears of "
                "the others. Import mpi4py.MPI before the run is opened, or pass comm"
            )
        self._check_process(what)
        from mpi4py import MPI

        self._patience = max(self.grace, patience)
        if self._voting is None:
            self._voting = self._duplicate(what)
        word = bytearray([flag])
        mine, all_ = [word, MPI.BYTE], bytearray(1)
        request = self._voting.Iallreduce(mine, [all_, MPI.BYTE], MPI.BOR)
        try:
            self._wait(what, [request], (word, all_))
        except BaseException:  # the run is closed over the other one
            self._voting = None
            raise
        return bool(all_[0])

    def _duplicate(self, what: str) -> Any:
        comm, request = self._topology.comm.Idup()
        self._wait(what, [request], comm)
        return comm

    def _gather(self, what: str, mine: Record) -> list[Record] | None:
        """Give rank 0 all records: by a message a rank, so that it knows whose is missing."""
        from mpi4py import MPI  # the program has it loaded: there is a communicator

        frame = _frame(mine, _RECORD_BYTES)
        if not self._topology.is_root:
            self._wait(what, [self._comm.Isend([frame, MPI.BYTE], 0, _RECORDS)], frame)
            return None
        others = range(1, self._topology.size)
        frames = [frame, *(bytearray(_RECORD_BYTES) for _ in others)]
        comm = self._comm
        requests = [comm.Irecv([frames[rank], MPI.BYTE], rank, _RECORDS) for rank in others]
        try:
            self._wait(what, requests, frames, others)
        except BaseException as error:
            # Ranks that come later hear of it, rather than wait for rank 0 as well.
            missing = isinstance(error, RanksMissingError)
            why = error if missing else RanksMissingError(_impatient(what, error))
            word = _frame({"error": describe(why)}, _ANSWER_BYTES)
            self._abandon([comm.Ibcast([word, MPI.BYTE], 0)], word, self.grace)
            raise
        return [_unframe(frame) for frame in frames]

    def _broadcast(self, what: str, answer: Record) -> Record:
        from mpi4py import MPI

        frame = _frame(answer, _ANSWER_BYTES)
        self._wait(what, [self._comm.Ibcast([frame, MPI.BYTE], 0)], frame)
        return _unframe(frame)

    def _wait(self, what: str, requests: list[Any], buffers: Any, of: Sequence[int] = ()) -> None:
        """Wait until all requests are complete; `of` are the ranks that they are of, if known."""
        try:
            self._wait_for_all(what, requests, of)
        except BaseException as error:  # one of a signal, too: MPI still writes to the buffers
            self._abandon(requests, buffers, self._spare(error))
            raise

    def _wait_for_all(self, what: str, requests: list[Any], of: Sequence[int]) -> None:
        from mpi4py import MPI

        began = time.monotonic()
        warn_after = self.grace
        pause = 0.0
        while not MPI.Request.Testall(requests):
            waited = time.monotonic() - began
            late = waited > self._patience
            if late or (waited > warn_after and self._topology.is_root):
                missing = _names(of, requests)
                if late:
                    raise RanksMissingError(self._in_vain(what, missing))
                warn_after = self._patience  # once, and by rank 0: ten thousand need not say it
                print(f"notata: {self._waiting(what, missing)}", file=sys.stderr, flush=True)
            if waited > _EAGER:
                pause = min(2 * pause + 0.00001, _LONGEST_PAUSE)
            time.sleep(pause)

    def _abandon(self, requests: Sequence[Any], buffers: Any, spare: float) -> None:
        abandon(self._topology.comm if self._may_abort else None, requests, buffers, spare)
        self.gave_up = True

    def _spare(self, error: BaseException) -> float:
        """Seconds that other ranks still have to come, once this one waits no more."""
        # Before there is a duplicate no rank can tell another. Those that came later than this one
        # hear of it from their own patience, if they live as long.
        waited = isinstance(error, RanksMissingError) and self._comm is not None
        return 0.0 if waited else self.grace

    def _waiting(self, what: str, missing: str) -> str:
        rank, size = self._topology.rank, self._topology.size
        return (
            f"rank {rank} of {size} came to {what} {self.grace:g} s ago and waits for {missing}, "
            f"for {self._patience:g} s at most"
        )

    def _in_vain(self, what: str, missing: str) -> str:
        rank, size = self._topology.rank, self._topology.size
        return (
            f"rank {rank} of {size} came to {what} and waited {self._patience:g} s in vain for "
            f"{missing}. A run on a communicator is opened and closed by all of its ranks. For "
            "what rank 0 alone does in it, use log.root; for a run of one rank on its own, pass "
            "comm=None; for slower ranks, raise grace or NOTATA_GRACE"
        )


def _impatient(what: str, error: BaseException) -> str:
    return f"rank 0 left by {type(error).__name__} while it waited for other ranks to {what}"


def _names(of: Sequence[int], requests: Sequence[Any]) -> str:
    """The ranks whose requests are not complete."""
    pending = [rank for rank, one in zip(of, requests, strict=False) if not one.Test()]
    return ranks_text(pending) if pending else "the other ranks"


def _frame(record: Record, size: int) -> bytearray:
    """A record as JSON in a frame of fixed size; its longest texts give way if it is too long."""
    data = json.dumps(record).encode()
    limit = size // 4
    while len(data) > size:
        if limit == 0:
            raise ValueError(f"a record of {len(data)} bytes does not fit into {size}")
        data = json.dumps(_shortened(record, limit)).encode()
        limit //= 2
    return bytearray(data.ljust(size))


def _shortened(value: Any, limit: int) -> Any:
    if isinstance(value, str) and len(value) > limit:
        return value[:limit] + "…"
    if isinstance(value, dict):
        short = {key: _shortened(item, limit) for key, item in value.items()}
        if notes := value.get("notes"):  # of an error; the first ones count
            short["notes"] = [_shortened(note, limit) for note in notes[: limit // _A_NOTE]]
        return short
    return value


def _unframe(frame: bytearray) -> Record:
    record: Record = json.loads(bytes(frame))
    return record
