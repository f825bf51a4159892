"""What there is to merge, and what is wrong with it: a value, made without writing anything."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from notata import gather, layout, npy
from notata.assembly import Part, Whole, assemble
from notata.errors import DamagedError, HoleError
from notata.pieces import Piece
from notata.ranges import expand
from notata.reader import LogReader
from notata.stored import read_json

Fingerprints = dict[str, list[int]]  # of each file, relative to the run: size and time of change
ENDED = ("complete", "failed")


class Output(NamedTuple):
    """A file that the merge makes.

    Attributes:
        file: Its path, relative to the run.
        wholes: The arrays in it; empty for the log.
        inputs: The files that it is made of.
        fresh: Whether an earlier merge made it of these very inputs.
    """

    file: str
    wholes: tuple[Whole, ...]
    inputs: Fingerprints
    fresh: bool

    @property
    def is_log(self) -> bool:
        """Whether this is the log of all ranks."""
        return not self.wholes


class Plan(NamedTuple):
    """What a merge will do.

    Attributes:
        run: Folder of the run.
        size: Number of its ranks.
        outputs: The files to make, also those that are up to date.
        problems: What is wrong, as sentences; nothing is merged unless this is empty.
    """

    run: str
    size: int
    outputs: tuple[Output, ...]
    problems: tuple[str, ...]


def make_plan(run: str, *, unfinished: bool = False) -> Plan:
    """Look at all that the ranks wrote.

    Args:
        run: Folder of the run.
        unfinished: Whether a run that never closed is to be merged as far as it got.

    Raises:
        RunNotFoundError: If there is no such folder.
        NotARunError: If no run was written there.

    Ranks: independent.
    """
    reader = LogReader(run)
    size, meta = reader.size, reader.meta
    if size == 1:
        return Plan(run, size, (), ())
    problems: list[str] = []
    if meta.get("status") not in ENDED and not unfinished:
        problems.append(
            f"the run has not ended (status {meta.get('status')!r}): merge it when it has, or with "
            "--unfinished if it was killed"
        )
    pieces: dict[int, list[Piece]] = {}
    folders = gather.rank_folders(run)
    for rank, folder in folders.items():
        try:
            pieces[rank] = gather.read_manifest(folder)
        except DamagedError as error:
            problems.append(str(error))
    if not problems:
        problems += _missing(meta, folders, pieces, size, unfinished)
    wholes = assemble(pieces, size)
    for whole in wholes.values():
        problems += _faults(run, whole)
    record = read_json(os.path.join(run, layout.MERGE_RECORD)) or {}
    outputs = tuple(_outputs(run, wholes, folders, record))
    ours = {*record.get("outputs", {}), *record.get("pending", [])}
    problems += [
        f"{out.file} is there already, written whole (log.root), and ranks wrote pieces of it: "
        "move one of them away"
        for out in outputs
        if not out.is_log and out.file not in ours and os.path.exists(os.path.join(run, out.file))
    ]
    return Plan(run, size, outputs, tuple(problems))


def _missing(
    meta: Mapping[str, Any],
    folders: Mapping[int, str],
    pieces: Mapping[int, list[Piece]],
    size: int,
    unfinished: bool,
) -> list[str]:
    """Ranks that wrote more than what is there: silent ranks are none of them."""
    problems = [
        f"rank {rank} has a folder, but the run has {size} ranks"
        for rank in folders
        if rank >= size
    ]
    promised: dict[int, int] = {}
    for count, ranks in meta.get("parallel", {}).get("pieces", {}).items():
        promised.update(dict.fromkeys(expand(ranks), int(count)))
    for rank, folder in folders.items():
        record = read_json(os.path.join(folder, layout.RANK_RECORD)) or {}
        if "pieces" in record:
            promised.setdefault(rank, int(record["pieces"]))
        elif rank not in promised and not unfinished:
            problems.append(
                f"rank {rank} never closed the run: it was killed or is still writing; merge what "
                "it finished with --unfinished"
            )
    for rank, count in sorted(promised.items()):
        found = len(pieces.get(rank, []))
        if found < count:
            gone = "its folder is missing" if rank not in folders else f"{found} are listed"
            problems.append(f"rank {rank} wrote {count} pieces, but {gone}")
    return problems


def _faults(run: str, whole: Whole) -> Iterator[str]:
    try:
        gather.check(whole)
    except HoleError as error:
        yield str(error)
    for part in whole.parts:
        fault = _fault(run, part)
        if fault:
            yield fault


def _fault(run: str, part: Part) -> str | None:
    """Say what is wrong with a piece's file, as far as its size and header tell."""
    piece = part.piece
    path = os.path.join(run, layout.rank_dir(part.rank), piece.file)
    try:
        size = os.stat(path).st_size
        if size != piece.size:
            return (
                f"rank {part.rank}'s piece of {piece.label!r} has {size} bytes, its manifest says "
                f"{piece.size}: {path}"
            )
        if piece.key is None:
            gather.load_piece(run, part, mapped=True)
        elif piece.key not in npy.bundle_keys(path):
            return f"rank {part.rank}'s bundle {path} has no key {piece.key!r}"
    except FileNotFoundError:
        return f"rank {part.rank}'s piece of {piece.label!r} is missing: {path}"
    except DamagedError as error:
        return str(error)
    return None


def _outputs(
    run: str, wholes: Mapping[str, Whole], folders: Mapping[int, str], record: Mapping[str, Any]
) -> Iterator[Output]:
    files: dict[str, list[Whole]] = {}
    for whole in wholes.values():
        file = whole.name + (".npy" if whole.key is None else ".npz")
        files.setdefault(f"{layout.DATA}/{layout.inside(file)}", []).append(whole)
    for file, members in files.items():
        names = {
            f"{layout.rank_dir(part.rank)}/{part.piece.file}" for m in members for part in m.parts
        }
        inputs = fingerprints(run, names)
        yield Output(file, tuple(members), inputs, _is_fresh(run, file, inputs, record))
    logs = {f"{layout.rank_dir(rank)}/{layout.LOG}" for rank in folders if rank != 0}
    inputs = fingerprints(run, logs)
    if inputs:
        yield Output(layout.LOG, (), inputs, _is_fresh(run, layout.LOG, inputs, record))


def fingerprints(run: str, names: set[str]) -> Fingerprints:
    """Size and time of change of the files that exist.

    Ranks: independent.
    """
    found: Fingerprints = {}
    for name in sorted(names):
        try:
            status = os.stat(os.path.join(run, name))
        except FileNotFoundError:
            continue
        found[name] = [status.st_size, status.st_mtime_ns]
    return found


def _is_fresh(run: str, file: str, inputs: Fingerprints, record: Mapping[str, Any]) -> bool:
    made = record.get("outputs", {}).get(file)
    now = fingerprints(run, {file})
    return made is not None and made.get("inputs") == inputs and made.get("self") == now.get(file)
