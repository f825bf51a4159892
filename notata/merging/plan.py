"""What there is to merge, and what is wrong with it: a value, made without writing anything."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from notata import gather, layout, npy
from notata.assembly import Box, Part, Whole, assemble
from notata.errors import DamagedError, HoleError
from notata.merging import hosts
from notata.pieces import Piece
from notata.ranges import expand, ranks_text
from notata.reader import LogReader
from notata.stored import read_json

ENDED = ("complete", "failed")


class Output(NamedTuple):
    """A file that the merge makes.

    Attributes:
        file: Its path, relative to the run.
        wholes: The arrays in it; empty for the log.
        inputs: The files that it is made of.
        fresh: Whether an earlier merge made it of these very inputs.
        holes: The boxes of each array, by its label, that no sound piece fills: they are to be
            filled with NaN, or with zeros where the type has no NaN.
    """

    file: str
    wholes: tuple[Whole, ...]
    inputs: gather.Fingerprints
    fresh: bool
    holes: Mapping[str, tuple[Box, ...]] = {}

    @property
    def is_log(self) -> bool:
        """Whether this is the log of all ranks."""
        return not self.wholes

    @property
    def bytes(self) -> int:
        """Bytes of its arrays, or of the logs that it joins."""
        sizes = (size for size, _ in self.inputs.values())
        return sum(map(bytes_of, self.wholes)) if self.wholes else sum(sizes)

    def is_like(self, other: Output | None) -> bool:
        """Whether the same is to be made of the same inputs."""
        mine = (self.wholes, self.inputs)
        return other is not None and mine == (other.wholes, other.inputs)


def bytes_of(whole: Whole) -> int:
    """Bytes of an array.

    Ranks: independent.
    """
    return npy.dtype_from_text(whole.dtype).itemsize * math.prod(whole.shape)


class Plan(NamedTuple):
    """What a merge will do.

    Attributes:
        run: Folder of the run.
        size: Number of its ranks.
        outputs: The files to make, also those that are up to date.
        problems: What is wrong, as sentences; nothing is merged unless this is empty.
        metadata: What the run's metadata is to be, if its ranks tell more than it says.
    """

    run: str
    size: int
    outputs: tuple[Output, ...]
    problems: tuple[str, ...]
    metadata: Mapping[str, Any] | None = None


def make_plan(run: str, *, unfinished: bool = False, before: Plan | None = None) -> Plan:
    """Look at all that the ranks wrote.

    Args:
        run: Folder of the run.
        unfinished: Whether the run is to be merged as far as it got.
        before: A plan without problems, made a moment ago: pieces that are as they were then are
            not looked into again.

    Raises:
        RunNotFoundError: If there is no such folder.
        NotARunError: If no run was written there.
        DamagedError: If its metadata does not say what it says of a run of several ranks.

    Ranks: independent.
    """
    meta = LogReader(run).meta
    size = gather.run_size(run, meta)
    if size == 1:
        return Plan(run, size, (), ())
    counted = _counted(run, meta)
    folders = gather.rank_folders(run)
    pieces, problems = _manifests(folders)
    wholes = assemble(pieces, size)
    if meta.get("status") not in ENDED and not unfinished:
        problems.append(
            f"the run has not ended (status {meta.get('status')!r}): merge it when it has, or with "
            "--unfinished if it was killed"
        )
    if not problems:
        problems += _missing(folders, pieces, size, counted or {})
        problems += [] if unfinished else _unclear(meta, folders, wholes, size, counted)
    merged = gather.merged_files(read_json(os.path.join(run, layout.MERGE_RECORD)))
    outputs = tuple(_outputs(run, wholes, folders, merged))
    sound = {} if before is None else {output.file: output for output in before.outputs}
    for output in outputs:
        if not output.fresh and not output.is_like(sound.get(output.file)):
            problems += _faults(run, output)
    problems += [
        f"{out.file} is there already, written whole (log.root), and ranks wrote pieces of it: "
        "move one of them away"
        for out in outputs
        if not out.is_log and out.file not in merged and os.path.exists(os.path.join(run, out.file))
    ]
    records = {rank: _record(folder) for rank, folder in folders.items()}
    ended = meta.get("status") in ENDED
    metadata = hosts.completed(run, meta, records) if ended else None
    return Plan(run, size, outputs, tuple(problems), metadata)


def _counted(run: str, meta: Mapping[str, Any]) -> dict[int, int] | None:
    """How many pieces each rank wrote, as the ranks told one another when they closed the run.

    None without a communicator, or where the run was not closed by all of them.
    """
    told = meta["parallel"].get("pieces")
    if told is None:
        return None
    try:
        return {rank: int(count) for count, ranks in told.items() for rank in expand(ranks)}
    except (AttributeError, ValueError):
        raise DamagedError(
            f"{os.path.join(run, layout.METADATA)} is damaged: parallel.pieces is {told!r:.80}, "
            "not ranks by the number of their pieces"
        ) from None


def _manifests(folders: Mapping[int, str]) -> tuple[dict[int, list[Piece]], list[str]]:
    """All ranks' pieces, and what is wrong with their manifests."""
    pieces: dict[int, list[Piece]] = {}
    problems: list[str] = []
    for rank, folder in folders.items():
        try:
            pieces[rank] = gather.read_manifest(folder)
        except DamagedError as error:
            problems.append(str(error))
    return pieces, problems


def _missing(
    folders: Mapping[int, str],
    pieces: Mapping[int, list[Piece]],
    size: int,
    counted: Mapping[int, int],
) -> Iterator[str]:
    """Ranks that wrote more than what is there: silent ranks are none of them."""
    promised = dict(counted)
    for rank, folder in folders.items():
        if rank >= size:
            yield f"rank {rank} has a folder, but the run has {size} ranks"
        count = _record(folder).get("pieces")
        if type(count) is int:
            promised.setdefault(rank, count)
        elif count is not None:
            path = os.path.join(folder, layout.RANK_RECORD)
            yield f"{path} is damaged: pieces is {count!r:.80}, not a number"
    for rank, count in sorted(promised.items()):
        found = len(pieces.get(rank, []))
        if found < count:
            gone = "its folder is missing" if rank not in folders else f"{found} are listed"
            yield f"rank {rank} wrote {count} pieces, but {gone}"


def _record(folder: str) -> dict[str, Any]:
    return read_json(os.path.join(folder, layout.RANK_RECORD)) or {}


def _unclear(
    meta: Mapping[str, Any],
    folders: Mapping[int, str],
    wholes: Mapping[str, Whole],
    size: int,
    counted: Mapping[int, int] | None,
) -> Iterator[str]:
    """Ranks that may have been about to write more, as far as what they left can tell."""
    for rank, folder in folders.items():
        record = _record(folder)
        if "pieces" not in record and rank not in (counted or ()):
            yield (
                f"rank {rank} never closed the run: it was killed or is still writing; merge what "
                "it finished with --unfinished"
            )
        elif record.get("status") == "failed" and meta.get("status") == "complete":
            yield (
                f"rank {rank} failed ({record.get('failure_reason')}), though the run says "
                "complete: merge what it finished with --unfinished"
            )
        elif record.get("status") == "failed":
            for whole in wholes.values():
                if whole.join == "concat" and rank not in {part.rank for part in whole.parts}:
                    yield (
                        f"rank {rank} failed ({record.get('failure_reason')}) without a piece of "
                        f"{whole.label!r}: join the others' with --unfinished"
                    )
    # Geometry tells whether a placed piece is missing. Rows that are joined one below the other
    # make a whole without it too.
    rows = [whole.label for whole in wholes.values() if whole.join == "concat"]
    absent = [rank for rank in range(size) if rank not in folders]
    if counted is None and rows and absent:
        together = meta["parallel"].get("communicator")
        why = "as not all ranks closed the run," if together else "without a communicator"
        yield (
            f"{ranks_text(absent)} left nothing, and {why} nobody counted their pieces of "
            f"{rows[0]!r}: pass --unfinished if they were silent"
        )


def _faults(run: str, output: Output) -> Iterator[str]:
    """Say what is wrong with pieces, as far as shapes, sizes of files and their headers tell."""
    files: dict[tuple[int, str], list[Part]] = {}
    for whole in output.wholes:
        try:
            gather.check(whole)
        except HoleError as error:
            yield str(error)
        for part in whole.parts:
            files.setdefault((part.rank, part.piece.file), []).append(part)
    for parts in files.values():
        yield from _faults_of_file(run, parts)


def _faults_of_file(run: str, parts: list[Part]) -> Iterator[str]:
    """Look at one file of a rank, once for all the pieces in it."""
    rank, piece = parts[0].rank, parts[0].piece
    path = os.path.join(run, layout.rank_dir(rank), piece.file)
    try:
        size = os.stat(path).st_size
        sizes = {part.piece.size for part in parts}
        if sizes != {size}:
            told = ", ".join(map(str, sorted(sizes)))
            yield (
                f"rank {rank}'s piece of {piece.label!r} has {size} bytes, its manifest says "
                f"{told}: {path}"
            )
        elif piece.key is None:
            gather.load_piece(run, parts[0], mapped=True)
        else:
            keys = set(npy.bundle_keys(path))
            for part in parts:
                if part.piece.key not in keys:
                    yield f"rank {rank}'s bundle {path} has no key {part.piece.key!r}"
    except FileNotFoundError:
        yield f"rank {rank}'s piece of {piece.label!r} is missing: {path}"
    except DamagedError as error:
        yield str(error)


def _outputs(
    run: str, wholes: Mapping[str, Whole], folders: Mapping[int, str], merged: gather.Merged
) -> Iterator[Output]:
    files: dict[str, list[Whole]] = {}
    for whole in wholes.values():
        file = whole.name + (".npy" if whole.key is None else ".npz")
        files.setdefault(f"{layout.DATA}/{layout.inside(file)}", []).append(whole)
    for file, members in files.items():
        names = {
            f"{layout.rank_dir(part.rank)}/{part.piece.file}" for m in members for part in m.parts
        }
        inputs = gather.fingerprints(run, names)
        yield Output(file, tuple(members), inputs, gather.is_fresh(run, file, inputs, merged))
    logs = {f"{layout.rank_dir(rank)}/{layout.LOG}" for rank in folders if rank != 0}
    inputs = gather.fingerprints(run, logs)
    if inputs:
        yield Output(layout.LOG, (), inputs, gather.is_fresh(run, layout.LOG, inputs, merged))
