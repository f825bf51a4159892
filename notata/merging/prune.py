"""What has been joined goes; what nothing joins stays in one archive, which readers open."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from notata import (
    checksums,
    files,
    folders,
    freshness,
    gather,
    layout,
    manifests,
    mergerecord,
    npy,
    pulse,
)
from notata.errors import DamagedError, MergeError
from notata.mergerecord import Fingerprints, MergeRecord
from notata.merging import apart, archive, record, room, survey, unlike, verify
from notata.merging.output import MISSING, Problem
from notata.merging.refusals import naming
from notata.pieces import Piece
from notata.ranges import compact, ranks_text
from notata.runreader import LogReader
from notata.stored import read_json


class Pruned(NamedTuple):
    """What a pruning did.

    Attributes:
        gone: How many files were deleted.
        kept: How many the archive holds.
        holes: What turned out to be damaged of what it holds, as sentences.
    """

    gone: int = 0
    kept: int = 0
    holes: tuple[str, ...] = ()


def prune(
    run: str,
    *,
    allow_missing: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pruned:
    """Put what nothing joins into `ranks.zip`, and delete the ranks' folders.

    Nothing is deleted before the archive and all that was merged are on disk and have been read
    back. The folders then disappear in one step, so that a reader sees all of them or the archive.

    Args:
        run: Folder of a run that has just been merged, and that nobody else merges now.
        allow_missing: Whether pieces that nothing joins are kept as they are, and named, where they
            do not hold what was written.
        progress: Told of the bytes that are verified, archived and read back, of how many.

    Raises:
        MergeError: If something is not as the record says, or can't be kept; nothing was deleted.
        OSError: If the archive can't be written; nothing was deleted.

    Ranks: root only.
    """
    found = survey.walk(run)
    if not found:
        _finish(run)
        return Pruned()
    merged, meta = mergerecord.read(run), LogReader(run).meta
    if meta.get("status") not in survey.ENDED:
        _refuse(run, [f"it has not ended (status {meta.get('status')!r}): its ranks may write on"])
    _refuse(run, list(_at_work(run, meta)))
    counter = _counter(merged, found, progress)
    _refuse(run, [*_not_as_recorded(run, merged, found, counter), *_can_t_be_kept(run, found)])
    pieces = _pieces(run)
    joined = _joined(run, merged, pieces)
    kept = [name for name in found if name not in joined]
    path = os.path.join(run, layout.ARCHIVE)
    size = archive.least(found, kept)
    room.check(run, size, f"for {layout.ARCHIVE}")
    temporary = os.path.join(run, layout.merge_temporary())
    try:
        with naming(path, size):
            crcs, sums = archive.write(run, kept, temporary, counter.read)
            files.sync(temporary)
        archive.read_back(temporary, crcs, counter.read)
        _refuse(run, archive.lost(path, crcs))
        holes = [*_unlike(run, merged, pieces, found, sums), *_not_as_left(run, merged, sums)]
        if not allow_missing:
            way_out = "with --allow-missing it is kept as it is"
            _refuse(run, [f"{hole.text} ({way_out})" for hole in holes])
        if survey.walk(run) != found:
            _refuse(run, ["a rank is still writing: its files changed while they were archived"])
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # then the next merge takes it away
            os.unlink(temporary)
        raise
    with naming(run):
        files.sync(run)
    stamp = record.stamp_of(run, layout.ARCHIVE, checksums.of_file(path, told=counter.read))
    listing = survey.digest(meta, {})
    told = (*merged.holes, *(hole.told() for hole in holes))
    record.save(run, merged._replace(archive=stamp, listing=listing, holes=told))
    _finish(run)
    return Pruned(len(found), len(kept), tuple(hole.text for hole in holes))


def _counter(
    merged: MergeRecord, found: Fingerprints, progress: Callable[[int, int], None]
) -> verify.Counter:
    """Counts outputs once, as they are read, and what the archive will hold three times.

    That is written, read back, and its checksum is computed. Whether files that were joined have to
    be kept all the same is not known yet: the count just ends before its total, or stays there.
    """
    inputs = {name for made in merged.outputs.values() for name in made.inputs.keys() - made.left}
    kept = sum(size for name, (size, _) in found.items() if name not in inputs)
    outputs = sum(made.itself.size for made in merged.outputs.values())
    return verify.Counter(progress, outputs + 3 * kept)


def _at_work(run: str, meta: Mapping[str, Any]) -> Iterator[str]:
    """Ranks that may write on, though rank 0 has said how the run ended."""
    records = {
        rank: read_json(os.path.join(folder, layout.RANK_RECORD)) or {}
        for rank, folder in gather.rank_folders(run).items()
    }
    together = (meta.get("parallel") or {}).get("pieces") is not None  # all have closed it
    if together or "reconciled" in meta or not pulse.bound():
        return
    silent = [rank for rank, own in records.items() if own.get("status") not in survey.ENDED]
    if silent:
        yield (
            f"{ranks_text(silent)} never closed it, and may be at work: where all processes have "
            "ended, NOTATA_LOST_AFTER=0 says so by hand"
        )


def _finish(run: str) -> None:
    """Let the ranks' folders disappear at once, and delete them after.

    So do the claims of all attempts but the newest: nobody goes on in a pruned run, and a process
    of an older attempt knows by the archive and the newest that it is one.
    """
    aside, ranks = os.path.join(run, layout.PRUNED), os.path.join(run, layout.RANKS)
    shutil.rmtree(aside, ignore_errors=True)
    if folders.is_dir(ranks) and freshness.exists(os.path.join(run, layout.ARCHIVE)):
        os.rename(ranks, aside)
        with naming(run):
            files.sync(run)
        shutil.rmtree(aside, ignore_errors=True)
    if os.path.exists(os.path.join(run, layout.ARCHIVE)):
        claims = {number: name for name in os.listdir(run) if (number := layout.attempt_of(name))}
        for number in sorted(claims)[:-1]:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(run, claims[number]))
        with naming(run):  # else what was deleted is there again once the node has lost its power
            files.sync(run)


def _refuse(run: str, problems: list[str]) -> None:
    if problems:
        raise MergeError(f"{run} can't be pruned: {'; '.join(problems[:3])}", problems)


def _pieces(run: str) -> dict[int, list[Piece]]:
    """What the manifests list, of ranks whose manifest can be read."""
    pieces: dict[int, list[Piece]] = {}
    for rank, folder in gather.rank_folders(run).items():
        with suppress(DamagedError):  # then none of its pieces is known to be joined
            pieces[rank] = manifests.read(folder)
    return pieces


def _unlike(
    run: str,
    merged: MergeRecord,
    pieces: Mapping[int, list[Piece]],
    found: Fingerprints,
    sums: Mapping[str, str],
) -> Iterator[Problem]:
    """Say which pieces that nothing joins are not as written, but for those known as holes."""
    known = {(hole.get("name"), hole.get("ranks")) for hole in merged.holes}
    listed = apart.listed(pieces)
    wrong = list(apart.problems(run, listed, found))
    told = {(problem.name, problem.ranks) for problem in wrong}
    for file, own in listed.items():
        if file in sums:
            wrong += [
                problem
                for problem in apart.unlike(run, file, own, sums[file])
                if (problem.name, problem.ranks) not in told
            ]
    yield from (p for p in wrong if (p.name, compact(p.ranks)) not in known)


def _not_as_left(run: str, merged: MergeRecord, sums: Mapping[str, str]) -> Iterator[Problem]:
    """Say which of the other files are not as their rank left them, but for known holes."""
    for file, left in survey.all_left(run).items():
        if file not in sums or unlike.is_known(file, merged):
            continue
        path = os.path.join(run, file)
        if files.size_of(path) == left.size:
            same = not checksums.contradicts(left.checksum, sums[file])
        else:  # something was appended after the end
            same = left.is_at(path)
        if not same:
            rank, name = unlike.key_of(file)
            yield Problem(unlike.text_of(run, file), MISSING, (rank,), name)


def _joined(run: str, merged: MergeRecord, listed: Mapping[int, list[Piece]]) -> set[str]:
    """The files whose contents are wholly in what was merged.

    That a file was an input is not enough: a bundle may hold what is joined beside what is kept
    apart. So each of its pieces, as the manifest lists them, has to be in an output.
    """
    inputs = {name for made in merged.outputs.values() for name in made.inputs}
    left = {name for made in merged.outputs.values() for name in made.left}
    pieces: dict[str, list[Piece]] = {}
    for rank, own in listed.items():
        for piece in own:
            pieces.setdefault(f"{layout.rank_dir(rank)}/{piece.file}", []).append(piece)
    held = _Held(run, merged)

    def is_joined(name: str) -> bool:
        place = layout.inside_rank(name)
        if place is None or not place[1].startswith(f"{layout.DATA}/"):
            return True
        own = pieces.get(name, [])
        return bool(own) and all(held.holds(piece, name) for piece in own)

    return {name for name in inputs - left if is_joined(name)}


class _Held:
    """What the outputs of a merge hold."""

    def __init__(self, run: str, merged: MergeRecord) -> None:
        self._run, self._merged = run, merged
        self._keys: dict[str, frozenset[str]] = {}

    def holds(self, piece: Piece, name: str) -> bool:
        """Whether a piece, which lies in a file of this name, is in the output that is its own."""
        if piece.join == "none":
            return False
        output = layout.data_file(*piece.identity)
        made = self._merged.outputs.get(output)
        if made is None or made.kind == "mask" or name not in made.inputs:
            return False
        if piece.key is None:
            return True
        if output not in self._keys:
            path = os.path.join(self._run, output)
            self._keys[output] = frozenset(npy.bundle_keys(path))
        return piece.key in self._keys[output]


def _not_as_recorded(
    run: str, merged: MergeRecord, found: Fingerprints, counter: verify.Counter
) -> list[str]:
    """What differs from the record: outputs are read, inputs must not have changed since."""
    outputs = {file: made.itself for file, made in merged.outputs.items()}
    verdict = verify.unlike_record(run, outputs, counter)
    recorded = {name: s for made in merged.outputs.values() for name, s in made.inputs.items()}
    changed = [
        f"{name} has changed since it was merged"
        for name, stamp in recorded.items()
        if layout.inside_rank(name) and found.get(name) != stamp.fingerprint
    ]
    return [*verdict, *changed]


def _can_t_be_kept(run: str, found: Fingerprints) -> Iterator[str]:
    """Files that an archive can't hold: links to folders, and names that are no text."""
    for parent, below, names in os.walk(os.path.join(run, layout.RANKS)):
        for name in below + names:
            path = os.path.join(parent, name)
            file = os.path.relpath(path, run)
            if not os.path.isdir(path) or os.path.islink(path):
                if file not in found:
                    yield f"{file} is no plain file: move it away"
                elif not file.isprintable():
                    yield f"{file!r}: an archive can't hold this name: rename it"
