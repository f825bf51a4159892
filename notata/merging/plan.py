"""What there is to merge, and what is wrong with it: a value, made without writing anything."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from notata import clocks, corrections, freshness, gather, layout, mergerecord, npy
from notata.asleft import Left
from notata.assembly import Whole, assemble, by_array
from notata.mergerecord import Fingerprints, MergeRecord
from notata.merging import apart, artifacts, faults, hosts, losses, pruned, record, survey, unlike
from notata.merging.output import MISSING, NEVER, Problem
from notata.merging.output import Output as Output
from notata.merging.survey import ENDED, Survey
from notata.pieces import Identity, Piece
from notata.runreader import LogReader

# What was found in the pieces of each output, if anything was wrong, and a hash of what was looked
# into: a second plan needs no more of the first one, which is as long as there are pieces.
Looked = Mapping[str, tuple[int, faults.Found | None]]


class Plan(NamedTuple):
    """What a merge will do.

    Attributes:
        run: Folder of the run.
        size: Number of its ranks.
        outputs: The files to make, also those that are up to date.
        problems: What is wrong; nothing is merged unless this is empty.
        holes: What is wrong too, though the merge goes on.
        metadata: What the run's metadata is to be, if its ranks tell more than it says.
        merged: What an earlier merge made.
        unchanged: Whether nothing has changed since, so that `outputs` were not looked for.
        clocks: How clocks are corrected to order messages, for `merge.json`; None if they aren't.
        listing: Digest of all that the ranks left.
        looked: What was found in the pieces of outputs, for a second look.
        notes: What is odd, and does no harm.
        seen: What is another one by now if the run goes on.
        unread: What ranks noted of files that nothing joins, and that are read to compare them.
    """

    run: str
    size: int
    outputs: tuple[Output, ...] = ()
    problems: tuple[Problem, ...] = ()
    holes: tuple[Problem, ...] = ()
    metadata: Mapping[str, Any] | None = None
    merged: MergeRecord = MergeRecord()
    unchanged: bool = False
    clocks: Mapping[str, Any] | None = None
    listing: str = ""
    looked: Looked = MappingProxyType({})
    notes: tuple[str, ...] = ()
    seen: survey.Seen | None = None
    unread: Mapping[str, Left] = {}

    @property
    def stale(self) -> tuple[Output, ...]:
        """The files that have to be made."""
        return tuple(output for output in self.outputs if not output.fresh)


def make_plan(
    run: str,
    *,
    unfinished: bool = False,
    allow_missing: bool = False,
    before: Looked | None = None,
    quick: bool = False,
    damage: faults.Damage | None = None,
) -> Plan:
    """Look at all that the ranks wrote.

    Args:
        run: Folder of the run.
        unfinished: Whether the run is to be merged as far as it got.
        allow_missing: Whether holes are to be left where something is missing.
        before: What a plan made a moment ago has `looked` into: pieces that are as they were then
            are not looked into again.
        quick: Whether to look no further where no file has changed since the last merge.
        damage: What is known of pieces that have been read.

    Raises:
        RunNotFoundError: If there is no such folder.
        NotARunError: If no run was written there.
        DamagedError: If its metadata does not say what it says of a run of several ranks, or not
            that it is one.
        OSError: If a folder can't be read.

    Ranks: independent.
    """
    meta = LogReader(run).meta
    size = gather.run_size(run, meta)
    if size == 1:
        survey.check_alone(run, meta)
        return Plan(run, size)
    granted = {"unfinished"} if unfinished else set()
    granted |= {"missing"} if allow_missing else set()
    merged = mergerecord.read(run)
    seen = survey.look(run, meta)
    files = survey.walk(run)
    listing = survey.digest(meta, files)
    same = listing == merged.listing and record.as_made(run, merged)
    if quick and same and record.holes_allowed(merged, granted):
        return Plan(run, size, merged=merged, unchanged=True, listing=listing)
    if merged.archive is not None and not pruned.all_there(files, merged):
        outputs, problems = pruned.remains(run, files, merged)
        return Plan(run, size, outputs, problems, merged=merged, listing=listing)
    found = survey.survey(run, meta, size, files)
    wholes = assemble(found.pieces, size)
    wrong = [*found.problems, *losses.doubts(found, wholes, merged)]
    wrong += apart.problems(run, apart.listed(found.pieces), files)
    looked: dict[str, tuple[int, faults.Found | None]] = {}
    made: list[Output] = []
    pieces = by_array(found.pieces)  # once: each array asks for its own
    for output in _arrays(found, wholes):
        examined = _examined(found, output, pieces, merged, before or {}, damage or {})
        looked[output.file] = _hash_of(output), examined if examined.problems else None
        wrong += examined.problems
        if any(problem.excuses == NEVER for problem in examined.problems):
            continue  # nothing lets it be made
        if allow_missing:
            made += _mask(run, examined.output, merged)
        made.append(examined.output)
    groups = list(artifacts.gathered(found, merged))
    for group in groups:
        made += group.outputs
        wrong += group.problems
    known = damage or {}
    joined = {file for group in groups for output in group.outputs for file in output.inputs}
    wrong += unlike.problems(found, joined, known)
    corrected = _clocks(run, meta)
    made += _log(found, merged, corrected, unlike.logs(found, known))
    wrong += _collisions(run, made, merged)
    refused = tuple(problem for problem in wrong if not problem.excuses & granted)
    holes = tuple(problem for problem in wrong if problem.excuses & granted)
    ended = meta.get("status") in ENDED
    metadata = hosts.completed(run, meta, found.sound) if ended else None
    outputs = tuple(_sized(output, merged) for output in made)
    plan = Plan(run, size, outputs, refused, holes, metadata, merged)
    notes = tuple(filter(None, [*(group.note for group in groups), _order(meta, outputs)]))
    plan = plan._replace(clocks=corrected, listing=listing, looked=looked, notes=notes)
    return plan._replace(seen=seen, unread=unlike.unread(found, joined, known))


def _arrays(found: Survey, wholes: Mapping[Identity, Whole]) -> Iterator[Output]:
    members: dict[str, list[Whole]] = {}
    for whole in wholes.values():
        members.setdefault(layout.data_file(*whole.identity), []).append(whole)
    names: dict[str, set[str]] = {file: set() for file in members}
    ranks: dict[str, set[int]] = {file: set() for file in members}
    for rank, pieces in found.pieces.items():
        for piece in pieces:
            if piece.identity in wholes:
                whole_file = layout.data_file(*piece.identity)
                names[whole_file].add(f"{layout.rank_dir(rank)}/{piece.file}")
                ranks[whole_file].add(rank)
    for file, group in members.items():
        kind = "array" if group[0].key is None else "bundle"
        inputs = _fingerprints(found, names[file])
        who = tuple(sorted(ranks[file]))
        yield Output(file, tuple(group), inputs, False, kind=kind, ranks=who)


def _fingerprints(found: Survey, names: Iterable[str]) -> Fingerprints:
    known = {name: found.files[name] for name in sorted(names) if name in found.files}
    others = mergerecord.fingerprints(found.run, set(names) - known.keys())
    return dict(sorted((known | others).items()))


def _examined(
    found: Survey,
    output: Output,
    pieces: Mapping[Identity, Mapping[int, Piece]],
    merged: MergeRecord,
    before: Looked,
    damage: faults.Damage,
) -> faults.Found:
    """Look into the pieces of an output, unless an earlier merge or plan has done so."""
    run, file = found.run, output.file
    fresh = record.is_fresh(run, file, output.inputs, merged)
    if fresh and not merged.holes and not merged.outputs[file].left:
        return faults.Found(output._replace(fresh=True), ())
    held = output.identities
    known = {which: text for which, text in damage.items() if which[1] in held}
    seen = None if known else before.get(file)
    if seen is not None and seen[0] == _hash_of(output):
        examined = seen[1] or faults.Found(output, ())
    else:
        examined = faults.examine(run, output, pieces, found.size, known)
    same = fresh and merged.outputs[file].left == examined.output.left
    return examined._replace(output=examined.output._replace(fresh=same))


def _hash_of(output: Output) -> int:
    return hash((output.wholes, tuple(output.inputs.items())))


def _mask(run: str, output: Output, merged: MergeRecord) -> Iterator[Output]:
    """The mask of those arrays of an output that have holes and no NaN, if there are such."""
    masked = tuple(
        whole
        for whole in output.wholes
        if output.holes.get(whole.label) and not _can_be_missing(whole)
    )
    if masked:
        stem, extension = os.path.splitext(output.file)
        file = f"{stem}.mask{extension}"
        fresh = output.fresh and record.is_fresh(run, file, output.inputs, merged)
        mask = output._replace(file=file, wholes=masked, kind="mask", fresh=fresh)
        yield mask._replace(size=_mask_bytes(mask))


def _mask_bytes(mask: Output) -> int:
    import numpy as np

    shape = mask.wholes[0].shape
    one = mask.wholes[0].key is None
    return mask.bytes + (len(npy.header_bytes(npy.Header(shape, False, np.dtype(bool)))) * one)


def _sized(output: Output, merged: MergeRecord) -> Output:
    """An output with the size that it has, where it is up to date."""
    bundled = output.wholes and output.wholes[0].key is not None
    if output.fresh and output.kind in ("log", "json", "table", "mask") and not bundled:
        return output._replace(size=merged.outputs[output.file].itself.size)
    return output


def _can_be_missing(whole: Whole) -> bool:
    return npy.can_be_missing(npy.dtype_from_text(whole.dtype))


def _clocks(run: str, meta: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the messages' order owes to comparisons of the nodes' clocks."""
    found = corrections.of_run(run)
    if not found:
        return None
    parallel = meta["parallel"]
    told = {"largest": round(found.largest, 6), "compared": parallel.get("clocks", {})}
    return told | ({"earlier": parallel["earlier"]} if parallel.get("earlier") else {})


def _order(meta: Mapping[str, Any], outputs: Iterable[Output]) -> str:
    """What is to be said of the order of messages."""
    together = meta["parallel"].get("communicator") is True
    joins_log = any(output.is_log for output in outputs)
    return clocks.not_compared(meta["parallel"]) if together and joins_log else ""


def _log(
    found: Survey,
    merged: MergeRecord,
    corrected: Mapping[str, Any] | None,
    noted: unlike.Noted,
) -> Iterator[Output]:
    names = {f"{layout.rank_dir(rank)}/{layout.LOG}": rank for rank in found.folders if rank}
    inputs = _fingerprints(found, names)
    if inputs:
        fresh = record.is_fresh(found.run, layout.LOG, inputs, merged)
        fresh = fresh and merged.clocks == corrected
        # What a log held at its end is compared as it is joined: damage is to be found again.
        fresh = fresh and all(hole.get("name") != layout.LOG for hole in merged.holes)
        ranks = (0, *sorted(names[name] for name in inputs))
        size = record.own_log_bytes(found.run, merged) + sum(size for size, _ in inputs.values())
        made = Output(layout.LOG, (), inputs, fresh, kind="log", ranks=ranks, size=size)
        yield made._replace(noted=noted)


def _collisions(run: str, outputs: list[Output], merged: MergeRecord) -> Iterator[Problem]:
    """Files that stand where the merge would put one of its own."""
    taken: set[str] = set()
    for output in outputs:
        file = output.file
        above = {file[:at] for at, letter in enumerate(file) if letter == "/"}
        if file in taken or above & taken:
            text = f"{file}: two outputs of the merge would have this name"
            yield Problem(text, name=file, hint="give one of the arrays or artifacts another name")
        taken.add(file)
        there = freshness.exists(os.path.join(run, file))
        if output.kind == "log" or file in merged.files or not there:
            continue
        if output.wholes and output.kind != "mask":
            text = f"{file} is there already, written whole (log.root), and ranks wrote pieces of"
            yield Problem(f"{text} it", name=file, hint="move one of them away")
        else:
            text = f"{file} is there already, and no merge made it"
            yield Problem(text, name=file, hint="move it away, or give it another name")


EXCUSED_BY = {"missing": "--allow-missing", "unfinished": "--unfinished"}


def ways_out(problems: Iterable[Problem]) -> list[str]:
    """The options with which a merge would go on, where there are such.

    Example:
        >>> ways_out([Problem("rank 1's piece is missing", MISSING)])
        ['--allow-missing']

    Ranks: independent.
    """
    found = list(problems)
    if any(not problem.excuses for problem in found):
        return []
    needed = {"missing"} if any(p.excuses == MISSING for p in found) else set()
    if any(not problem.excuses & needed for problem in found):
        needed.add("unfinished")
    return [EXCUSED_BY[excuse] for excuse in sorted(needed)]
