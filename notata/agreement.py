"""What all ranks decide together, without ever waiting without a bound.

With a communicator, ranks talk over a duplicate of it, by operations that don't block, so that
nothing here meets the program's own messages. Without one, each rank decides for itself and
nobody waits.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from notata.errors import RanksMissingError, describe, revive
from notata.topology import Topology

DEFAULT_GRACE = 30.0
_RECORD_BYTES = 1024  # what a rank tells rank 0
_ANSWER_BYTES = 8192  # what rank 0 answers
_EAGER = 0.05  # seconds in which a rank looks again at once, only letting others run between
_LONGEST_PAUSE = 0.01

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

    def __init__(self, topology: Topology, grace: float | None = None) -> None:
        """Prepare; nothing is sent yet.

        Args:
            topology: This process's place.
            grace: Seconds to wait for other ranks.
        """
        self._topology = topology
        self.grace = self._patience = grace_seconds(grace)
        self._comm: Any = None

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
        if sys.modules["mpi4py.MPI"].Is_finalized():
            raise RanksMissingError(
                f"rank {self._topology.rank} came to {what} after MPI.Finalize(): ranks can't be "
                "asked any more; close the run before"
            )
        self._patience = max(self.grace, patience or 0.0)
        if self._comm is None:
            self._comm = self._duplicate(what)
        records = self._gather(what, mine)
        answer: Record = {}
        failure: Exception | None = None
        if records is not None:
            try:
                answer = {"value": decide(records)}
            except Exception as error:  # every rank must hear of it, whatever it is
                failure, answer = error, {"error": describe(error)}
        answer = self._broadcast(what, answer)
        if failure is not None:
            raise failure
        if "error" in answer:
            raise revive(answer["error"])
        value: Record = answer["value"]
        return value

    def end(self) -> None:
        """Give the duplicate communicator back.

        Ranks: collective with a communicator, after the last `agree`.
        """
        if self._comm is not None:
            if not sys.modules["mpi4py.MPI"].Is_finalized():
                self._comm.Free()
            self._comm = None

    def _duplicate(self, what: str) -> Any:
        comm, request = self._topology.comm.Idup()
        self._wait(what, request, comm)
        return comm

    def _gather(self, what: str, mine: Record) -> list[Record] | None:
        from mpi4py import MPI  # the program has it loaded: there is a communicator

        mine_bytes = _frame(mine, _RECORD_BYTES)
        is_root = self._topology.is_root
        everyone = bytearray(_RECORD_BYTES * self._topology.size) if is_root else None
        target = [everyone, MPI.BYTE] if is_root else None
        request = self._comm.Igather([mine_bytes, MPI.BYTE], target, root=0)
        self._wait(what, request, (mine_bytes, everyone))
        if everyone is None:
            return None
        starts = range(0, len(everyone), _RECORD_BYTES)
        return [_unframe(everyone[i : i + _RECORD_BYTES]) for i in starts]

    def _broadcast(self, what: str, answer: Record) -> Record:
        from mpi4py import MPI

        frame = _frame(answer, _ANSWER_BYTES)
        self._wait(what, self._comm.Ibcast([frame, MPI.BYTE], root=0), frame)
        return _unframe(frame)

    def _wait(self, what: str, request: Any, buffers: Any) -> None:
        began = time.monotonic()
        warn_after = self.grace
        pause = 0.0
        while not request.Test():
            waited = time.monotonic() - began
            if waited > self._patience:
                self._comm = None
                self._topology = self._topology._replace(comm=None)
                _abandon(request, buffers)
                raise RanksMissingError(self._missing(what))
            if waited > warn_after and self._topology.is_root:  # ten thousand need not say it
                warn_after = self._patience
                print(f"notata: {self._waiting(what)}", file=sys.stderr, flush=True)
            if waited > _EAGER:
                pause = min(2 * pause + 0.00001, _LONGEST_PAUSE)
            time.sleep(pause)

    def _waiting(self, what: str) -> str:
        rank, size = self._topology.rank, self._topology.size
        return (
            f"rank {rank} of {size} came to {what} {self.grace:g} s ago and waits for the other "
            f"ranks, for {self._patience:g} s at most"
        )

    def _missing(self, what: str) -> str:
        rank, size = self._topology.rank, self._topology.size
        return (
            f"rank {rank} of {size} came to {what} and waited {self._patience:g} s in vain for the "
            "other ranks. A run on a communicator is opened and closed by all of its ranks. For "
            "what rank 0 alone does in it, use log.root; for a run of one rank on its own, pass "
            "comm=None; for slower ranks, raise grace or NOTATA_GRACE"
        )


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
        return {key: _shortened(item, limit) for key, item in value.items()}
    return value


def _unframe(frame: bytearray) -> Record:
    record: Record = json.loads(bytes(frame))
    return record


_abandoned: list[tuple[Any, Any]] = []  # requests with their buffers, which MPI may still write to


def _abandon(request: Any, buffers: Any) -> None:
    if not _abandoned:
        atexit.register(_abort_if_stuck)
    _abandoned.append((request, buffers))


def _abort_if_stuck() -> None:
    """End the job when ranks are still missing as the interpreter exits.

    MPI can't be finalised with an operation that never completes, so the exit would hang for as
    long as the allocation lasts. Registered only once a rank was waited for in vain.
    """
    mpi = sys.modules["mpi4py.MPI"]
    if mpi.Is_finalized() or all(request.Test() for request, _ in _abandoned):
        return
    print(
        "notata: some ranks never came to open or close a run that this one waited for; ending "
        "the job, since MPI could not be finalised",
        file=sys.stderr,
        flush=True,
    )
    mpi.COMM_WORLD.Abort(1)
