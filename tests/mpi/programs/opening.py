"""Ways to open a run wrongly.

opening.py MODE OUT
"""

import pickle
import resource
import time
from pathlib import Path

from mpi4py import MPI
from tell import attempt, main, tell

from notata import Logbook

WORLD = MPI.COMM_WORLD
GIVEN = []


class Watched(MPI.Intracomm):
    """A communicator that notes what its calls are given, as its duplicates do."""

    def __getattribute__(self, name):
        found = super().__getattribute__(name)

        def noted(*args, **named):
            GIVEN.extend(map(as_bytes, (*args, *named.values())))
            return found(*args, **named)

        return noted if callable(found) else found


def as_bytes(value):
    """What MPI sends of a buffer, and mpi4py of an object."""
    try:
        return bytes(memoryview(value[0] if isinstance(value, list) else value))
    except TypeError:
        return pickle.dumps(value)


def refusals(out):
    """Openings that fail on all ranks, one after the other, and one that then succeeds."""
    out = Path(out)
    if WORLD.rank == 0:
        (out / "file").write_text("in the way")
        (out / "log_foreign").mkdir()
        (out / "log_foreign" / "thesis.tex").write_text("not a run")
    WORLD.Barrier()
    rank = WORLD.rank
    params = {"good": 1} if rank != 1 else {"good": 1, "bad": object()}

    def old_run():
        with Logbook("taken", base_dir=out, params={"age": "old"}) as log:
            log.info(f"old line of rank {rank}")
            log.json("old", {})
            log.array("old", [rank])
        log.mark_failed("old reason")

    plays = {
        "different_ids": lambda: Logbook(f"id_{rank}", base_dir=out),
        "different_folders": lambda: Logbook("same", base_dir=out / f"folder_{rank % 2}"),
        "first": old_run,
        "exists": lambda: Logbook("taken", base_dir=out),
        "file_in_the_way": lambda: Logbook("x", base_dir=out / "file" / "deeper"),
        "bad_params_on_one": lambda: Logbook("params", base_dir=out, params=params),
        "bad_id": lambda: Logbook("../escaped", base_dir=out),
        "bad_level_on_one": lambda: Logbook(
            "level", base_dir=out, level="LOUD" if rank == 2 else "INFO"
        ),
        "bad_grace_on_one": lambda: Logbook(
            "grace", base_dir=out, grace="soon" if rank == 2 else None
        ),
        "overwrite_no_run": lambda: Logbook("foreign", base_dir=out, overwrite=True),
        "no_room": lambda: no_room(out, rank, {}),
        "no_room_for_metadata": lambda: no_room(out, rank, {"a": 1}),
        "room_again": lambda: room_again(out),
        "overwrite": lambda: overwrite(out, rank),
    }
    for name, play in plays.items():
        tell(**{name: attempt(play)})
        WORLD.Barrier()


def no_folder(out, *bases):
    """Openings below what can't be a folder, one after another, and one that then succeeds."""
    for base in bases:
        tell(**{base: attempt(lambda base=base: Logbook("x", base_dir=base))})
        WORLD.Barrier()
    with Logbook("after", base_dir=out) as log:
        pass
    tell(status=log.status)


def no_room(out, rank, params):
    """Rank 0 can make the folder, but no file of more than 200 bytes in it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if rank == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        Logbook(f"no_room_{len(params)}", base_dir=out, params=params)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def room_again(out):
    with Logbook("no_room_0", base_dir=out), Logbook("no_room_1", out, overwrite=True):
        pass


def overwrite(out, rank):
    with Logbook("taken", base_dir=out, params={"age": "new"}, overwrite=True) as log:
        log.info(f"new line of rank {rank}")
        log.array("new", [rank])


def only_root(out):
    """What people write: `if rank == 0: log = Logbook(...)`; the others go on to the next step."""
    if WORLD.rank == 0:
        tell(opening=attempt(lambda: Logbook("lonely", base_dir=out)))
        raise SystemExit(3)
    WORLD.Barrier()


def only_root_others_leave(out, grace):
    """The same, where the others are already at the end of the program."""
    if WORLD.rank == 0:
        tell(opening=attempt(lambda: Logbook("lonely", base_dir=out, grace=float(grace))))
        raise SystemExit(3)


def one_missing(out, late):
    """All but the last rank open the run, rank 1 some seconds after rank 0."""
    WORLD.Barrier()
    if WORLD.rank < WORLD.size - 1:
        time.sleep(float(late) * WORLD.rank)
        tell(opening=attempt(lambda: Logbook("lonely", base_dir=out)))
        raise SystemExit(3)
    time.sleep(60)


def one_late(out):
    """A rank comes late, but within the grace period."""
    if WORLD.rank == WORLD.size - 1:
        time.sleep(1)
    with Logbook("late", base_dir=out) as log:
        pass
    tell(status=log.status)


def params_differ(out):
    """Rank 2 has other parameters; the one it shares is far longer than what travels."""
    params = {"shared": "x" * 200_000, "kappa": 0.01, "steps": 10}
    if WORLD.rank == 2:
        params |= {"kappa": 0.02, "extra": True}
        del params["steps"]
    with Logbook("differ", base_dir=out, params=params) as log:
        log.info("here")


def what_travels(out):
    """Long parameters, of which rank 2 has another one."""
    params = {"mesh": "finer" * 40_000, "kappa": 0.02 if WORLD.rank == 2 else 0.01}
    with Logbook("watched", base_dir=out, params=params, comm=Watched(WORLD)):
        pass
    sent = b"".join(GIVEN)
    tell(bytes=len(sent), text=sent[:100_000].decode("latin-1"))


def params_later(out):
    """Parameters that are added after opening; rank 3 has another value of one of them."""
    with Logbook("later", base_dir=out, params={"a": 1}) as log:
        log.params(b=2 if WORLD.rank != 3 else 4)
        log.root.params(of_root=3)
    tell(status=log.status)


if __name__ == "__main__":
    modes = (
        refusals,
        no_folder,
        only_root,
        only_root_others_leave,
        one_missing,
        one_late,
        params_differ,
        what_travels,
        params_later,
    )
    main({mode.__name__: mode for mode in modes})
