"""What was joined takes its place, all of it or nothing, and the run says what was merged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import BrokenExecutor, Executor
from contextlib import suppress
from typing import NamedTuple

from notata import files, folders, freshness, layout, mergerecord
from notata.errors import DamagedError, MergeError
from notata.lock import locked
from notata.mergerecord import MergeRecord
from notata.merging import archive, hosts, record, room, small, survey
from notata.merging.artifacts import Metric
from notata.merging.faults import Damage, Damaged, DamagedPiecesError
from notata.merging.joining import Made, beside_of, join
from notata.merging.output import Output, Problem
from notata.merging.plan import Looked, Plan, make_plan, ways_out
from notata.merging.refusals import naming
from notata.runreader import LogReader

Progress = Callable[[int, int], None]  # bytes that are done, of how many


class Done(NamedTuple):
    """What was done.

    Attributes:
        plan: The plan that was carried out.
        joined: The files that were made.
        metrics: Numbers across ranks, of the tables that were made.
    """

    plan: Plan
    joined: tuple[Output, ...] = ()
    metrics: tuple[Metric, ...] = ()


class Way(NamedTuple):
    """How a merge is to be done.

    Attributes:
        unfinished: Whether a run is merged as far as it got.
        allow_missing: Whether holes are left where something is missing.
        timeout: Seconds to wait for another merge; by default `NOTATA_LOCK_TIMEOUT`, or 60.
        executor: Shares the work; None for this process alone.
        progress: Told of the bytes that are done.
        prune: Whether what nothing joins is to be put into an archive in the end.
    """

    unfinished: bool = False
    allow_missing: bool = False
    timeout: float | None = None
    executor: Executor | None = None
    progress: Progress = lambda done, total: None
    prune: bool = False


def carry_out(run: str, way: Way, after: Callable[[Done], None] | None = None) -> Done:
    """Plan, join and commit, unless there is nothing to do.

    Args:
        run: Folder of the run.
        way: How.
        after: What to do at the end, while no other merge of the run can begin.

    Raises:
        MergeError: If anything is wrong that `way` does not let pass; nothing was written.
        DamagedError: If the run's metadata does not say what it says of a run of several ranks.
        OSError: If a file can't be written, such as on a full disk; nothing was replaced.
        LockTimeoutError: If another merge of this run does not end.

    Ranks: root only.
    """
    plan = _looked_at(run, way, {})
    if plan.size == 1 or not (after or plan.problems or _has_work(plan)):
        return Done(plan)
    lock = os.path.join(run, layout.MERGE_LOCK)
    if not freshness.exists(lock):  # no other merge was at work, so that nothing need be made
        refuse(run, plan.problems)
    with locked(lock, way.timeout):
        _sweep(run, plan.outputs)
        looked = plan.looked
        del plan  # of thousands of ranks it is long, and so is the next
        plan = _planned(run, way, looked)  # another merge may have been at work
        done = _past_damage(plan, way)
        if after is not None:
            after(done)
    return done


def _past_damage(plan: Plan, way: Way) -> Done:
    """Carry out a plan; where pieces turn out to be damaged, another one, which knows of them."""
    damage: dict[Damaged, str] = {}
    while True:
        try:
            return _carry_out(plan, way)
        except DamagedPiecesError as error:
            found = error.damage
        assert not found.keys() <= damage.keys(), "what is known to be damaged is not joined"
        damage |= found
        plan = _planned(plan.run, way, plan.looked, damage)


def _planned(run: str, way: Way, before: Looked, damage: Damage | None = None) -> Plan:
    """A plan that nothing speaks against; while another merge is at work, something might."""
    plan = _looked_at(run, way, before, damage)
    refuse(run, plan.problems)
    return plan


def _looked_at(run: str, way: Way, before: Looked, damage: Damage | None = None) -> Plan:
    return make_plan(
        run,
        unfinished=way.unfinished,
        allow_missing=way.allow_missing,
        before=before,
        quick=not damage,
        damage=damage,
    )


def _has_work(plan: Plan) -> bool:
    left = freshness.exists(os.path.join(plan.run, layout.PRUNED))  # it could not be deleted
    some = plan.outputs or plan.merged.files or plan.metadata is not None
    return left or (not plan.unchanged and bool(some))


def refuse(run: str, problems: Iterable[Problem]) -> None:
    """Raise an error if there are problems.

    Raises:
        MergeError: It lists them all.

    Ranks: independent.
    """
    found = list(problems)
    if found:
        told = "; ".join(map(str, found[:3]))
        told += f"; and {len(found) - 3} more" if len(found) > 3 else ""
        text = f"{run} can't be merged: {told}"
        raise MergeError(text, list(map(str, found)), ways_out(found))


def _sweep(run: str, outputs: Iterable[Output]) -> None:
    """Take away what a merge that was killed left under temporary names."""
    for folder in {run, *(os.path.dirname(os.path.join(run, output.file)) for output in outputs)}:
        with suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(folder):
                if name.startswith(layout.MERGE_PREFIX):
                    with suppress(FileNotFoundError, IsADirectoryError):
                        os.unlink(os.path.join(folder, name))
    shutil.rmtree(os.path.join(run, layout.PRUNED), ignore_errors=True)


def _carry_out(plan: Plan, way: Way) -> Done:
    """Join everything that is not fresh, put it in place and record it."""
    stale = plan.stale
    made, metrics = _join(plan, way) if stale or plan.unread else ({}, [])
    if plan.metadata is not None:
        hosts.save(plan.run, plan.metadata)
    if not plan.unchanged and (plan.outputs or plan.merged.files):
        now = _recorded(plan, made)
        if now != plan.merged:
            record.save(plan.run, now)
    return Done(plan, stale, tuple(metrics))


def _join(plan: Plan, way: Way) -> tuple[dict[str, Made], list[Metric]]:
    run, stale = plan.run, plan.stale
    _check_room(plan, way)
    total = sum(output.bytes for output in stale)
    total += sum(left.size for left in plan.unread.values())
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        way.progress(min(done, total), total)

    temporaries: dict[str, str] = {}
    made_folders: list[str] = []
    try:
        for output in stale:
            folder = os.path.dirname(os.path.join(run, output.file))
            made_folders += folders.missing(folder)
            os.makedirs(folder, exist_ok=True)
            temporaries[output.file] = os.path.join(folder, layout.merge_temporary())
        way.progress(0, total)
        large = [(out, temporaries[out.file]) for out in stale if out.kind in _LARGE]
        made = join(run, large, way.executor, progress, plan.unread)
        for output in stale:
            if output.kind not in _LARGE:
                made[output.file] = small.make(run, output, temporaries[output.file])
                progress(output.bytes)
        tables = [output for output in stale if output.kind == "table"]
        metrics = [metric for output in tables for metric in small.metrics(run, output)]
        if temporaries:
            _put_in_place(plan, temporaries)  # last: what is in place has to be recorded
        return made, metrics
    except DamagedPiecesError:
        raise
    except DamagedError as error:
        raise _refused(run, str(error)) from error
    except BrokenExecutor as error:
        told = "a process that shared the work was killed, perhaps for want of memory"
        raise _refused(run, told) from error
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):  # one that stays goes with the next merge
                os.unlink(temporary)
        for folder in reversed(made_folders):
            with suppress(OSError):  # it is empty only if this merge came to nothing
                os.rmdir(folder)


def _check_room(plan: Plan, way: Way) -> None:
    """Make sure that there is room for all files, in the order in which they are made."""
    sizes: list[tuple[int, int]] = []
    for output in sorted(plan.stale, key=lambda output: output.kind not in _LARGE):
        beside = beside_of(output)
        if len(output.wholes) > 1:  # nothing of a bundle's file need be there yet
            sizes.append((0, beside))
            beside = 0
        sizes.append((room.needed(output), beside))
    joined, kept = sum(size for size, _ in sizes), _archived(plan) if way.prune else 0
    needed, what = room.most(sizes), ""
    if joined + kept > needed:
        needed, what = joined + kept, f"({kept} of them for {layout.ARCHIVE})"
    elif needed > joined:
        what = f"({needed - joined} of them only until pieces are joined)"
    room.check(plan.run, needed, what)


def _archived(plan: Plan) -> int:
    """Bytes that a pruning will put into the archive at least."""
    joined = {name for output in plan.outputs for name in output.inputs.keys() - output.left}
    found = survey.walk(plan.run)
    return archive.least(found, found.keys() - joined)


def _refused(run: str, told: str) -> MergeError:
    return MergeError(f"{run} can't be merged: {told}", [told])


_LARGE = ("array", "bundle", "log")


def _put_in_place(plan: Plan, temporaries: Mapping[str, str]) -> None:
    """Replace the targets.

    The record first says which files are about to be the merge's own. Cut off in between, the next
    merge knows them and makes them again, and readers take the pieces. A mask comes before its
    array, so that nobody takes a zero of a hole for a value; the log before all, since rank 0 of an
    attempt that begins just now would write on in the file that it replaces.
    """
    run, merged = plan.run, plan.merged
    for file, temporary in temporaries.items():
        with naming(os.path.join(run, file)):
            files.sync(temporary)
    _check_has_not_gone_on(plan)
    kept = {file: made for file, made in merged.outputs.items() if file not in temporaries}
    pending = frozenset({*temporaries, *merged.files} - kept.keys())
    record.save(run, merged._replace(outputs=kept, pending=pending, listing=""))
    first = {output.file: output.kind for output in plan.outputs if output.kind in _FIRST}
    if layout.LOG in temporaries:
        _keep_time(os.path.join(run, layout.LOG), temporaries[layout.LOG])
        _check_has_not_gone_on(plan)  # once more: the disk may have taken its time
    for file in sorted(temporaries, key=lambda file: _FIRST.get(first.get(file, ""), len(_FIRST))):
        os.replace(temporaries[file], os.path.join(run, file))
    for file in _obsolete(plan):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(run, file))
    for folder in {os.path.dirname(os.path.join(run, file)) for file in temporaries}:
        with naming(folder):
            files.sync(folder)


_FIRST = {"log": 0, "mask": 1}


def _check_has_not_gone_on(plan: Plan) -> None:
    """Make sure that nobody has written to the run's log since, or is about to."""
    seen = survey.look(plan.run, LogReader(plan.run).meta)
    if seen == plan.seen or plan.seen is None:
        return
    if seen.attempt != plan.seen.attempt:
        what = f"attempt {seen.attempt} at it has begun"
    elif seen.log != plan.seen.log:
        what = "rank 0 wrote messages"
    else:
        what = "its metadata changed"
    told = f"the run goes on: {what} during the merge; merge it when it has ended"
    raise _refused(plan.run, told)


def _keep_time(log: str, temporary: str) -> None:
    """Leave the log's time of change as it is: it is a sign of life, and not the merge's."""
    with suppress(FileNotFoundError), naming(log):
        changed = os.stat(log).st_mtime_ns
        os.utime(temporary, ns=(changed, changed))


def _obsolete(plan: Plan) -> list[str]:
    """Masks of arrays that have no holes any more."""
    now = {output.file for output in plan.outputs}
    old = (file for file, made in plan.merged.outputs.items() if made.kind == "mask")
    return [file for file in old if file not in now]


def _recorded(plan: Plan, made: Mapping[str, Made]) -> MergeRecord:
    """What is to be known of this merge."""
    run, merged = plan.run, plan.merged
    obsolete = _obsolete(plan)
    outputs = {file: old for file, old in merged.outputs.items() if file not in obsolete}
    for output in plan.outputs:
        if output.file not in made:
            outputs[output.file] = record.renewed(run, outputs[output.file], output.file)
            continue
        new = made[output.file]
        inputs = {
            name: mergerecord.Stamp(size, changed, new.inputs.get(name) or _checksum(run, name))
            for name, (size, changed) in output.inputs.items()
        }
        itself = record.stamp_of(run, output.file, new.checksum)
        outputs[output.file] = mergerecord.Made(output.kind, itself, inputs, output.left)
    clocks = plan.clocks if any(output.is_log for output in plan.outputs) else merged.clocks
    return merged._replace(
        outputs=outputs,
        pending=frozenset(),
        listing=plan.listing,
        holes=tuple(hole.told() for hole in plan.holes),
        clocks=clocks,
    )


def _checksum(run: str, name: str) -> str:
    return record.stamp_of(run, name).checksum
