"""Who shares the work of a merge: this process, several on this machine, or the ranks of a job."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from notata import topology


class Crew(NamedTuple):
    """The processes that share the work.

    Attributes:
        executor: Runs tasks in them; None where this process works alone.
        leads: Whether this process merges. One that does not has worked for rank 0 until rank 0
            was done, and has nothing left to do.
        size: How many processes work.
    """

    executor: Executor | None
    leads: bool
    size: int


@contextmanager
def crew(jobs: int = 1) -> Iterator[Crew]:
    """Gather those who share the work.

    Where a launcher started this program as several ranks, rank 0 merges and the others work for
    it, while rank 0 is in the `with` block. They get a crew that doesn't lead, and once rank 0 has
    left its block.

    Args:
        jobs: How many processes to use on this machine. The ranks of a launcher are as many as
            they are, whatever it says.

    Yields:
        The crew, of which `executor` goes to the merge.

    Raises:
        LauncherMismatchError: If a launcher started several processes that MPI can't connect.
        ModuleNotFoundError: If it did, and mpi4py is not installed.
        ValueError: If a launcher's variables don't make sense.

    Example:
        >>> with crew(jobs=1) as workers:
        ...     workers.executor is None, workers.leads
        (True, True)

    Ranks: collective.
    """
    if topology.find().parallel:
        from mpi4py import MPI  # starts MPI, which a launcher is waiting for

        place = topology.find()  # by MPI now: N programs of one rank are an error
        from mpi4py.futures import MPICommExecutor

        with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
            if executor is not None:
                yield Crew(cast(Executor, executor), True, place.size)
                return
        yield Crew(None, False, place.size)
    elif jobs > 1:
        import multiprocessing
        import signal
        from concurrent.futures import ProcessPoolExecutor

        # Forked processes would take over what threads of this one hold.
        context = multiprocessing.get_context("spawn")

        class Pool(ProcessPoolExecutor):
            """Workers who never hear of Ctrl-C, which is for the merge: it ends them in order."""

            def submit(self, *args: Any, **named: Any) -> Future[Any]:
                """Hand out a task; the first ones start the workers."""
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
                try:
                    return super().submit(*args, **named)
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)

        with Pool(jobs, context, _end_with_parent) as pool:
            yield Crew(pool, True, jobs)
    else:
        yield Crew(None, True, 1)


def _end_with_parent() -> None:
    """Let a worker end where the process that it works for was killed and can't tell it to."""
    import os
    import threading
    from multiprocessing import connection, parent_process

    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
