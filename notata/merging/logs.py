"""Joining logs: all ranks' records in time order in one file under a temporary name.

In several processes each takes a range of time. When the ranges begin is chosen by samples of the
logs; where in each log that is, is searched for. A log in which time steps back, or that is not
written as it is, may have been searched in vain: who joins a range finds that out. Then such logs
are read to find it, and all is joined again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

from notata import (
    checksums,
    corrections,
    files,
    freshness,
    gather,
    layout,
    mergerecord,
    messages,
    streams,
)
from notata.asleft import Left
from notata.merging.faults import Damaged, DamagedPiecesError
from notata.merging.logcuts import Cut, find_cuts
from notata.merging.logparts import Log, Span
from notata.merging.places import begin_shared, write_at, writing
from notata.merging.refusals import naming
from notata.merging.tasks import Made, Steps, Task, Told, silent
from notata.merging.unlike import Noted, key_of, text_of
from notata.merging.windows import in_order
from notata.runreader import LogReader

RANGE = 1 << 26  # bytes of all logs that a process joins at once
_OF_EACH = 1 << 19  # bytes of each log, on average, that it takes at least
_SAMPLE = 1 << 20  # bytes of a log for each of which its time is looked up
_PEEK = 1 << 13  # bytes that are read for that
_BATCH = 1 << 25  # bytes of logs that a process searches at once


def spans_of(run: str) -> list[Span]:
    """All logs of a run: its own, and those that ranks hold.

    Ranks: independent.
    """
    own = streams.own_logs(run, gather.rank_folders(run))
    shared = os.path.join(run, layout.LOG)
    paths: list[tuple[str, int | None]] = [(path, rank) for rank, path in own.items()]
    if freshness.exists(shared):
        paths.insert(0, (shared, None))
    return [
        Span(path, rank, 0, os.stat(path).st_size, frozenset(own if rank is None else ()))
        for path, rank in paths
    ]


def join_logs(
    run: str, temporary: str, progress: Told = silent, noted: Noted | None = None
) -> Made:
    """Write all ranks' records in time order; within a rank the order stays.

    The order goes by rank 0's clock, as far as other nodes' clocks were compared with it. Each
    record keeps the stamp that its rank wrote.

    Args:
        run: Folder of the run.
        temporary: Path of the file to make.
        progress: Called with the number of bytes read of ranks' logs since it was called last.
        noted: What ranks noted of their logs when they closed the run.

    Returns:
        Checksums of the file and of the ranks' own logs.

    Raises:
        DamagedError: If a log becomes shorter meanwhile, or is not as its rank left it.
        OSError: If the file can't be written.

    Ranks: independent.
    """
    shifts = corrections.of_run(run)
    logs = [Log(run, span, shifts) for span in spans_of(run)]
    own = [log for log in logs if log.span.rank is not None]
    hashed = checksums.hasher()
    done = 0
    with open(temporary, "xb", buffering=0) as file:
        for parts in in_order(logs, threads=True):
            for data in parts:
                files.write_all(file.fileno(), data)
                hashed.update(data)
            read = sum(log.next for log in own)
            progress(read - done)
            done = read
    files_of = {os.path.relpath(log.span.path, run): log for log in logs}
    sums = {file: log.checksum() for file, log in files_of.items()}
    _compare(run, {file: log.span.end for file, log in files_of.items()}, sums, noted)
    inputs = {file: found for file, found in sums.items() if file != layout.LOG}
    return Made(checksums.text_of(hashed), inputs)


def _compare(
    run: str, sizes: Mapping[str, int], found: Mapping[str, str], noted: Noted | None
) -> None:
    """Make sure that logs are as their ranks left them, by the checksums of what was joined."""
    damage: dict[Damaged, str] = {}
    for file, left in (noted or {}).items():
        like = partial(_is_like, run, file, sizes=sizes, found=found)
        if not (_has_rank_0s(run, left, like) if file == layout.LOG else like(left)):
            damage[key_of(file)] = text_of(run, file)
    if damage:
        raise DamagedPiecesError(damage)


def _has_rank_0s(run: str, left: Left, like: Callable[[Left], bool]) -> bool:
    """Whether what rank 0 wrote is in the run's log as it left it.

    The log is as rank 0 left it, or as the last merge made it. Where a merge was cut off, or its
    record is lost, nobody knows which; where its damage was let pass, it goes on to be damage.
    """
    merged = mergerecord.read(run)
    made = merged.outputs.get(layout.LOG)
    excused = any((h.get("name"), h.get("ranks")) == (layout.LOG, "0") for h in merged.holes)
    if made is not None and not excused and like(Left(made.itself.size, made.itself.checksum)):
        return True
    if like(left):
        return True
    if left.mixed:  # other ranks' records stood between them already
        return made is None or excused
    return _own_checksum(run, left.size) == left.checksum


def _is_like(
    run: str, file: str, left: Left, *, sizes: Mapping[str, int], found: Mapping[str, str]
) -> bool:
    if sizes.get(file) == left.size:
        return not checksums.contradicts(left.checksum, found[file])
    return left.is_at(os.path.join(run, file))  # something was logged after the end


def _own_checksum(run: str, size: int) -> str:
    """That of so many bytes of rank 0's records, where the run's log has other ranks' too."""
    log = os.path.join(run, layout.LOG)
    others = frozenset(range(1, gather.run_size(run, LogReader(run).meta)))
    span = Span(log, None, 0, os.stat(log).st_size, others)
    hashed = checksums.hasher()
    for data in chain.from_iterable(in_order([Log(run, span, corrections.Corrections({}, {}))])):
        hashed.update(data[:size])
        size -= len(data)
        if size <= 0:
            break
    return checksums.text_of(hashed)


def divided(run: str, size: int, temporary: str, noted: Noted | None = None) -> Steps:
    """The same in several tasks, each of which joins a range of time.

    Args:
        run: Folder of the run.
        size: Bytes that the file will have, for errors.
        temporary: Path of the file to make.
        noted: What ranks noted of their logs when they closed the run.

    Ranks: independent.
    """
    spans = spans_of(run)
    ticks = _beginnings(run, spans)
    batches = list(_batches(spans))
    exact: frozenset[str] = frozenset()
    while True:
        found = yield [Task(find_cuts, (run, batch, ticks, exact)) for batch in batches]
        cuts = [cut for some in found for cut in some]
        with naming(os.path.join(run, layout.LOG), size):
            begin_shared(temporary, sum(sum(cut.sizes) for cut in cuts))
        ranges = _ranges(run, spans, cuts, temporary, (ticks, size))
        told = yield [task._replace(bytes=0) for task in ranges] if exact else ranges
        sure = {span.path for span, cut in zip(spans, cuts, strict=True) if cut.sure}
        wrong = frozenset(path for paths in told for path in paths) - sure
        if not wrong:
            break
        exact |= wrong
    itself, *hashed = yield [
        Task(checksums.of_file, (temporary,)),
        *(Task(hash_logs, (batch,)) for batch in batches),
    ]
    sizes = {os.path.relpath(span.path, run): span.end for span in spans}
    sums = dict(zip(sizes, (one for some in hashed for one in some), strict=True))
    _compare(run, sizes, sums, noted)
    inputs = {file: found for file, found in sums.items() if file != layout.LOG}
    return {layout.LOG: Made(itself, inputs)}


def _ranges(
    run: str,
    spans: Sequence[Span],
    cuts: Sequence[Cut],
    temporary: str,
    known: tuple[Sequence[int], int],
) -> list[Task]:
    """A task for each range of time, by where they begin and how large all of it will be."""
    ticks, size = known
    target = os.path.join(run, layout.LOG)
    tasks, at = [], 0
    for number, until in enumerate([*ticks, None]):
        mine = [_part(span, cut, number) for span, cut in zip(spans, cuts, strict=True)]
        read = sum(span.end - span.begin for span in mine if span.rank is not None)
        tasks.append(Task(join_range, (run, target, mine, temporary, at, size, until), read))
        at += sum(cut.sizes[number] for cut in cuts)
    assert sum(task.bytes for task in tasks) == sum(s.end for s in spans if s.rank is not None)
    return tasks


def _part(span: Span, cut: Cut, number: int) -> Span:
    """What a log has of one range."""
    marks = [span.begin, *cut.offsets, span.end]
    return span._replace(begin=marks[number], end=marks[number + 1])


def _batches(spans: Sequence[Span]) -> Iterator[list[Span]]:
    batch: list[Span] = []
    for span in spans:
        batch.append(span)
        if sum(one.end for one in batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _beginnings(run: str, spans: Sequence[Span]) -> list[int]:
    """The ticks at which the second range and those after it begin, from samples of all logs."""
    samples: list[tuple[int, float]] = []
    for span in spans:
        count = -(-span.end // _SAMPLE)
        found = [_ticks_at(span, k * span.end // count) for k in range(count)]
        samples += [(ticks, span.end / count) for ticks in found if ticks is not None]
    samples.sort()
    chosen: list[int] = []
    passed, size = 0.0, max(RANGE, _OF_EACH * len(spans))
    for ticks, weight in samples:
        if passed >= (len(chosen) + 1) * size:
            chosen.append(ticks)
        passed += weight
    return sorted(set(chosen))


def _ticks_at(span: Span, at: int) -> int | None:
    """The ticks of the first record behind a byte of a log, if there is one close by."""
    with open(span.path, "rb") as file:
        file.seek(at)
        lines = file.read(_PEEK).splitlines(keepends=True)[1 if at else 0 :]
    stamps = (block.stamp for block in messages.blocks(lines))
    return next((messages.ticks(stamp) for stamp in stamps if stamp), None)


def join_range(
    run: str,
    target: str,
    spans: Sequence[Span],
    temporary: str,
    at: int,
    size: int,
    until: int | None,
) -> list[str]:
    """Write a range of time into the file that others write to as well.

    Args:
        run: Folder of the run.
        target: Path that the file will have, for errors.
        spans: The parts of the logs that the range takes.
        temporary: Path of the file.
        at: Where in it the range begins.
        size: Bytes of all logs, for errors.
        until: The ticks at which the next range begins.

    Returns:
        The logs that are not as they were believed to be: records are later than the range, or not
        written as they are.

    Ranks: independent.
    """
    shifts = corrections.of_run(run)
    logs = [Log(run, span, shifts) for span in spans if span.begin < span.end]
    with naming(target, size), writing(temporary, shared=True) as descriptor:
        for data in chain.from_iterable(in_order(logs)):
            write_at(descriptor, at, data)
            at += len(data)
    late = [log for log in logs if until is not None and log.latest >= until]
    return [log.span.path for log in logs if log in late or not log.as_is]


def hash_logs(spans: Sequence[Span]) -> list[str]:
    """Checksums of logs, as far as they were joined.

    Ranks: independent.
    """
    return [checksums.of_file(span.path, span.end) for span in spans]
