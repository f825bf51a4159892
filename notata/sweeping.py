"""The points of a sweep one after another: which one is next, and what is kept of the grid."""

from __future__ import annotations

import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from notata import (
    claims,
    files,
    folders,
    freshness,
    layout,
    pulse,
    scheduler,
    slurm,
    sweeps,
    writers,
)
from notata.agreement import Agreement, Record
from notata.attempts import current_job
from notata.disk import Disk
from notata.errors import NotResumableError, RunExistsError
from notata.stored import read_json
from notata.topology import Topology

# How long ranks wait for one another between two points: their work in the program may be uneven.
_PATIENCE = 3600.0

Log = TypeVar("Log")


class Point(NamedTuple):
    """A point of a sweep.

    Attributes:
        run_id: The id of its run.
        params: Its parameters, as plain values.
        folder: The folder of its run.
    """

    run_id: str
    params: dict[str, Any]
    folder: str


class Sweep:
    """A task's way through a sweep, together with its other ranks."""

    def __init__(
        self,
        experiment: str,
        points: Sequence[Point],
        place: Topology,
        mode: str,
        retry: Iterable[str],
        ends: claims.Ends = slurm.ends,
        *,
        durable: bool = False,
    ) -> None:
        """Keep the grid on disk, and find out which points are to be looked at.

        Args:
            experiment: Folder of the experiment.
            points: All points.
            place: This process's place among the ranks that share each run.
            mode: `static` or `claim`.
            retry: Which states are done again.
            ends: Says of jobs whether they have ended; Slurm by default.
            durable: Whether the grid is to outlive the loss of the node.

        Raises:
            SettingError: If an array task can't know its share (a `ValueError`).
            ValueError: If a mode or state doesn't exist, or ranks have no communicator.
        """
        self._again = frozenset((retry,) if isinstance(retry, str) else retry)
        if mode not in sweeps.MODES:
            raise ValueError(f"mode={mode!r}: give {' or '.join(map(repr, sweeps.MODES))}")
        if not self._again <= {claims.FAILED, claims.LOST}:
            raise ValueError(f"retry={sorted(self._again)}: give 'failed', 'lost' or both")
        if place.parallel and place.comm is None:
            raise ValueError(
                "the ranks can't agree on points without a communicator: import mpi4py before, or "
                "pass comm=None, with which each rank does points of its own"
            )
        self._experiment, self._points, self._place = experiment, points, place
        # Only whoever does failed points again has to know which failed in this very sweep.
        retries = place.is_root and claims.FAILED in self._again
        began = pulse.dividing_time(experiment) if retries else math.inf
        self._left = False  # whether a point was found that can't be gone on with
        self._half_made: list[str] = []  # runs that were found without metadata
        # Where nothing is done again, what is there is left, whatever became of it.
        self._only_new = not self._again and current_job().restarts == 0
        order = self._kept(mode, durable) if place.is_root else ()
        if self._only_new and place.is_root:
            there = frozenset(folders.listed(os.path.join(experiment, layout.RUNS)))
            order = [n for n in order if os.path.basename(points[n].folder) not in there]
        # What failed may fail again and end this task: it comes after what nobody has begun;
        # what is lost may even kill its process, and comes last.
        self._queues: dict[str, deque[int]] = {
            claims.FREE: deque(order),
            claims.FAILED: deque(),
            claims.LOST: deque(),
        }
        # Nobody is asked for what other tasks do.
        runs = [points[number].folder for number in order]
        self._claims = claims.Claims(runs, experiment, ends, began)

    def _kept(self, mode: str, durable: bool) -> Sequence[int]:
        """Keep the grid; gives the points to look at, in order."""
        path = os.path.join(self._experiment, layout.SWEEP)
        job, before = scheduler.job(), read_json(path) or {}
        kept: dict[str, Any] = {"points": [point.params for point in self._points], "mode": mode}
        order, tasks = sweeps.in_turn(len(self._points), job), None
        if mode == "static":
            saved = _tasks_kept(before, kept)
            tasks = sweeps.tasks_of(job, saved)
            order = sweeps.share(len(self._points), tasks, job.get("array_task_id"))
            tasks = tasks or saved  # a process on its own does all, and leaves the tasks theirs
        if tasks is not None:
            kept["array"] = tasks._asdict()
        data = writers.json_bytes(kept, "sweep")
        if files.read_bytes(path) != data:
            files.replace_bytes(path, data, durable=durable)
            files.share(path)
        return order

    def opened(self, open_run: Callable[[Point, int | None], Log]) -> Iterator[Log]:
        """Open each point's run as long as there is one to do.

        Args:
            open_run: Opens a run; a number goes on in one that is there, as that very attempt,
                False doesn't, None does where the scheduler started this job again and the run is
                its own.

        Ranks: collective with a communicator.
        """
        agreement = Agreement(self._place)
        what = f"choose the next point of {self._experiment}"
        while answer := agreement.agree(what, {}, self._chosen, _PATIENCE):
            try:
                log = open_run(self._points[answer["point"]], answer["resume"])
            except NotResumableError as error:
                self._leave(error)
                continue
            except RunExistsError:  # another task was faster
                continue
            yield log
        agreement.end()
        self._tell_half_made()

    def _tell_half_made(self) -> None:
        """Say that there are points that nobody may do yet, as nothing tells who is at them."""
        runs = [run for run in self._half_made if self._claims.is_half_made(run)]
        if not runs:
            return
        more = f", and {len(runs) - 1} more like it" if len(runs) > 1 else ""
        with suppress(Exception):
            told = (
                f"notata: a point of the sweep is left{more}: {runs[0]} has no {layout.METADATA}. "
                "Another task may be opening it, or one could not, or was killed while it did: "
                f"then remove it; else it is done again once it is {pulse.bound():.0f} s old"
            )
            print(told, file=sys.stderr, flush=True)

    def _leave(self, error: NotResumableError) -> None:
        """Say that a point is left; of a sweep with many such points, of the first."""
        if self._place.is_root and not self._left:
            with suppress(Exception):
                told = "a point of the sweep is left, and so is any other like it"
                print(f"notata: {told}: {error}", file=sys.stderr, flush=True)
        self._left = True

    def _chosen(self, _: object) -> Record:
        """Choose a point; called on rank 0."""
        with Disk().explaining(self._experiment):
            return self._next()

    def _next(self) -> Record:
        for behind, queue in self._queues.items():
            while queue:
                chosen = queue.popleft()
                run = self._points[chosen].folder
                if self._only_new and freshness.exists(run):
                    continue
                seen = self._claims.look(run)
                if seen.state == claims.FREE:
                    return {"point": chosen, "resume": False}
                if self._claims.is_cut_off(seen, self._place):
                    return {"point": chosen, "resume": None}
                # Of the tasks that find it as it is now, one can claim this attempt.
                attempt = None if behind == claims.FREE else self._claims.next_attempt(seen)
                if self._is_wanted(seen):
                    if attempt:
                        return {"point": chosen, "resume": attempt}
                    kind = claims.FAILED if seen.state == claims.FAILED else claims.LOST
                    self._queues[kind].append(chosen)
                elif self._again and not seen.metadata and seen.state == claims.OPEN:
                    self._half_made.append(run)
        return {}

    def _is_wanted(self, seen: claims.Seen) -> bool:
        """Whether a run is to be done again: once, and not by each task in turn that sees it."""
        if seen.state == claims.FAILED:
            return seen.state in self._again and not self._claims.is_of_this_sweep(seen)
        if self._claims.was_done_again(seen):
            return False
        if seen.state == claims.LOST:  # its status is failed
            return bool(self._again)
        wanted = seen.state == claims.OPEN and claims.LOST in self._again
        return wanted and self._claims.is_lost(seen)


def _tasks_kept(before: dict[str, Any], kept: dict[str, Any]) -> sweeps.Tasks | None:
    """The tasks that this same grid was divided among before."""
    same = all(
        writers.digest({"": before.get(key)}) == writers.digest({"": kept[key]}) for key in kept
    )
    array = before.get("array")
    if not same or not isinstance(array, dict):
        return None
    try:
        return sweeps.Tasks(int(array["min"]), int(array["max"]), int(array["step"]))
    except (KeyError, TypeError, ValueError):
        return None
