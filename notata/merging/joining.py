"""Joining: the files of a plan, made under temporary names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

from notata import files, freshness, layout
from notata.merging import arrays, logs, slabs, unjoined
from notata.merging.bundles import join_bundle
from notata.merging.faults import Damaged, DamagedPiecesError
from notata.merging.plan import Output
from notata.merging.refusals import naming
from notata.merging.tasks import Made, Steps, Task, Told, carry_out, silent
from notata.merging.unlike import Noted

__all__ = ["Made", "beside_of", "join"]

_LARGE = 1 << 26  # bytes from which on an output is divided
_BATCH = 1 << 25  # bytes of small outputs that one process takes at once
_MANY = 256  # and how many of them

Pairs = Sequence[tuple[Output, str]]
NOTHING: Noted = {}


def join(
    run: str,
    temporaries: Pairs,
    executor: Executor | None,
    progress: Callable[[int], None],
    unread: Noted | None = None,
) -> dict[str, Made]:
    """Make files of the pieces, and read what nothing joins.

    Args:
        run: Folder of the run.
        temporaries: The files to make, each with the path to make it under.
        executor: Shares the work, slab by slab; None for this process alone. Whoever does it, the
            files hold the same bytes.
        progress: Called with the number of bytes joined since it was called last.
        unread: What ranks noted of files that nothing joins.

    Returns:
        What was made, by the name of the output.

    Raises:
        DamagedError: If a piece is not what its manifest says, or a file not as its rank left it.
        OSError: If a file can't be written, such as on a disk that has no room for all of it.

    Ranks: independent.
    """
    if executor is None:
        return _join_all(run, temporaries, progress, unread or {})
    return carry_out(_jobs(run, temporaries, unread or {}), executor, progress)


def _join_all(
    run: str, temporaries: Pairs, progress: Told = silent, unread: Noted = NOTHING
) -> dict[str, Made]:
    made = {}
    damage: dict[Damaged, str] = {}
    try:
        unjoined.compare(run, unread, progress)
    except DamagedPiecesError as error:
        damage |= error.damage
    for output, temporary in temporaries:
        target, size = os.path.join(run, output.file), output.size or output.bytes
        with naming(target, size, beside_of(output)):
            try:
                made[output.file] = _join(run, output, temporary, progress)
            except DamagedPiecesError as error:  # there may be more, to be told all at once
                damage |= error.damage
    if damage:
        raise DamagedPiecesError(damage)
    return made


def beside_of(output: Output) -> int:
    """Bytes that making a file takes beside it, until it is made.

    Ranks: independent.
    """
    if output.kind not in ("array", "bundle"):
        return 0
    return max((slabs.spill_of(whole) for whole in output.wholes), default=0)


def _join(run: str, output: Output, temporary: str, progress: Told) -> Made:
    if output.file == layout.LOG:
        return logs.join_logs(run, temporary, progress, output.noted)
    whole = output.wholes[0]
    if whole.key is None:
        holes = output.holes.get(whole.label, ())
        return arrays.join_array(run, whole, holes, temporary, progress)
    inputs = tuple(output.inputs)
    return join_bundle(run, output.wholes, output.holes, temporary, inputs, progress)


def _jobs(run: str, temporaries: Pairs, unread: Noted) -> Iterator[Steps]:
    """The work in parts: large outputs, each of which is divided, then batches of small ones."""
    if unread:
        yield unjoined.divided(run, unread)
    batch: list[tuple[Output, str]] = []
    for output, temporary in temporaries:
        if output.bytes < _LARGE:
            batch.append((output, temporary))
        elif output.file == layout.LOG:
            yield logs.divided(run, output.size, temporary, output.noted)
        elif output.wholes[0].key is None:
            whole = output.wholes[0]
            holes = output.holes.get(whole.label, ())
            yield arrays.divided(run, output.file, whole, holes, temporary)
        else:
            yield _at_once(run, [(output, temporary)])
    while batch:
        count, size = 0, 0
        while count < min(len(batch), _MANY) and (count == 0 or size < _BATCH):
            size += batch[count][0].bytes
            count += 1
        yield _at_once(run, batch[:count])
        del batch[:count]


def _at_once(run: str, pairs: Pairs) -> Steps:
    """Outputs that one process makes."""
    size = sum(output.bytes for output, _ in pairs)
    (made,) = yield [Task(_join_elsewhere, (run, pairs), size)]
    return dict(made)


def _join_elsewhere(run: str, pairs: Pairs) -> dict[str, Made]:
    """The same as all at once, for a merge that may be at work on another node.

    That can't sync what this node still holds in memory, nor hear that it could not be written.
    """
    for folder in {os.path.dirname(temporary) for _, temporary in pairs}:
        freshness.is_reachable(folder)  # the merge may have made it a moment ago
    made = _join_all(run, pairs)
    for output, temporary in pairs:
        with naming(os.path.join(run, output.file), output.size or output.bytes):
            files.sync(temporary)
    return made
