"""Ways to end a run.

closing.py MODE OUT
"""

import json
import time

import numpy as np
from mpi4py import MPI
from tell import attempt, main, tell

from notata import Logbook

WORLD = MPI.COMM_WORLD


class UnstableError(RuntimeError):
    """What the simulations below raise."""


def all_raise(out):
    def run():
        with Logbook("broken", base_dir=out) as log:
            log.array("x", np.array([WORLD.rank]))
            raise UnstableError("dt is too large")

    tell(closing=attempt(run))


def root_marks_failed(out):
    def run():
        with Logbook("marked", base_dir=out) as log:
            log.info("here")
            log.root.mark_failed("residual grows")
        tell(status=log.status)

    tell(closing=attempt(run))


def one_raises(out):
    """Rank 1 alone breaks; the others come to the end of the block."""

    def run():
        with Logbook("one", base_dir=out) as log:
            log.info("stepping")
            if WORLD.rank == 1:
                raise UnstableError("NaN in cell 7")
        tell(reached="the line behind the block")

    tell(closing=attempt(run))


def one_raises_by_itself(out):
    """Rank 1 alone breaks while the others wait for it, outside of notata."""
    with Logbook("stuck", base_dir=out) as log:
        log.info("stepping")
        WORLD.Barrier()
        if WORLD.rank == 1:
            tell(raised_at=time.time())
            raise UnstableError("NaN in cell 7")
        WORLD.Barrier()


def one_marks_failed(out):
    """Rank 1 says inside the block that the run failed; rank 0 looks what is on disk then."""
    with Logbook("one", base_dir=out) as log:
        if log.rank == 1:
            log.mark_failed("residual grows")
        WORLD.Barrier()
        if log.rank == 0:
            folder = log.path / "ranks" / "rank_00001"
            record = json.loads((folder / "rank.json").read_text())
            tell(record=record, log=(folder / "log.txt").read_text())
        WORLD.Barrier()
    tell(status=log.status)


def one_marks_failed_by_hand(out):
    """Life by hand: one rank says failed, the others complete."""

    def run():
        log = Logbook("by_hand", base_dir=out)
        if WORLD.rank == 2:
            log.mark_failed("probe broke")
        else:
            log.mark_complete()
        tell(status=log.status)

    tell(closing=attempt(run))


def callbacks(out):
    """The callback is called on rank 0 alone, when the run's outcome is known."""
    calls = []
    with Logbook("called", base_dir=out, callback=lambda log: calls.append(log.status)):
        pass
    tell(calls=calls)


def slow_callback(out):
    """What rank 0 does once the outcome is known keeps nobody waiting."""

    def run():
        with Logbook("slow", base_dir=out, callback=lambda log: time.sleep(3 * log.size)):
            raise UnstableError("dt is too large")

    tell(closing=attempt(run))


def record_cannot_be_written(out):
    """Rank 1 can't write down how it ended; the others must hear of it."""

    def run():
        with Logbook("full", base_dir=out) as log:
            log.info("stepping")
            if log.rank == 1:
                record = log.rank_dir / "rank.json"
                record.unlink()
                record.mkdir()

    tell(closing=attempt(run))


def root_marks_failed_by_hand(out):
    """Life by hand: rank 0's word stands, and nobody waits for it."""

    def run():
        log = Logbook("by_hand", base_dir=out)
        log.root.mark_failed("residual grows")
        tell(early=log.status)
        log.mark_failed("all give up")
        tell(status=log.status)

    tell(closing=attempt(run))


def only_rank_0_ends_by_hand(out):
    """Life by hand, ended by one rank alone: an error, not a wait for ever."""
    log = Logbook("by_hand", base_dir=out)
    if log.is_root:
        tell(closing=attempt(lambda: log.mark_failed("residual grows")))
    WORLD.Barrier()


def folders_made_by_hand(out):
    """A program may make its folders itself, and use paths of the root view on all ranks."""

    def run():
        with Logbook("folders", base_dir=out) as log:
            log.artifactsdir.mkdir(parents=True, exist_ok=True)
            (log.artifactsdir / "mine.txt").write_text(f"rank {log.rank}")
            log.array("x", np.array([log.rank]))
            log.info("here")
            np.save(log.root["data/y.npy"], np.full(3, log.rank))

    tell(closing=attempt(run))


def after_finalize(out):
    """Closing comes too late to ask the other ranks."""
    log = Logbook("late", base_dir=out)
    MPI.Finalize()
    tell(closing=attempt(log.mark_complete))


if __name__ == "__main__":
    modes = (
        all_raise,
        root_marks_failed,
        one_raises,
        one_raises_by_itself,
        one_marks_failed,
        one_marks_failed_by_hand,
        callbacks,
        slow_callback,
        record_cannot_be_written,
        root_marks_failed_by_hand,
        only_rank_0_ends_by_hand,
        folders_made_by_hand,
        after_finalize,
    )
    main({mode.__name__: mode for mode in modes})
