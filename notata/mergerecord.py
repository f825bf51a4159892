"""What the last merge of a run made, as its record tells, and whether that still stands."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from notata import files, layout

Fingerprint = tuple[int, int]  # size, and time of change in nanoseconds
Fingerprints = dict[str, Fingerprint]  # of files, by their path relative to the run


class Stamp(NamedTuple):
    """What a file was like.

    Attributes:
        size: Its bytes.
        mtime_ns: When it was last changed.
        checksum: What it held.
    """

    size: int
    mtime_ns: int
    checksum: str

    @property
    def fingerprint(self) -> Fingerprint:
        """What can be compared without reading the file."""
        return self.size, self.mtime_ns


class Made(NamedTuple):
    """A file that a merge made.

    Attributes:
        kind: `array`, `bundle`, `log`, `json`, `table` or `mask`.
        itself: What it was like.
        inputs: The files that it was made of, and what they were like.
        left: Those of them that could not be joined.
    """

    kind: str
    itself: Stamp
    inputs: Mapping[str, Stamp]
    left: frozenset[str] = frozenset()


class MergeRecord(NamedTuple):
    """What `merge.json` says.

    Attributes:
        outputs: The files that the merge made.
        pending: Files that it was about to put in place when it was cut off.
        listing: Digest of all that the ranks had left, or `""`.
        holes: What was missing, one entry each.
        clocks: The corrections of clocks that went into the log, or None.
        archive: What the ranks' files were pruned to, or None.
    """

    outputs: Mapping[str, Made] = {}
    pending: frozenset[str] = frozenset()
    listing: str = ""
    holes: tuple[Mapping[str, Any], ...] = ()
    clocks: Any = None
    archive: Stamp | None = None

    @property
    def files(self) -> frozenset[str]:
        """The files that are a merge's own."""
        return self.pending | self.outputs.keys()


def read(run: str) -> MergeRecord:
    """What the last merge made; nothing where there is no record, or none that can be read.

    Ranks: independent.
    """
    path = os.path.join(run, layout.MERGE_RECORD)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return MergeRecord()
    return _read(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: str, *_identity: int) -> MergeRecord:
    """A record of thousands of ranks is long, and each array that is loaded asks for it."""
    try:
        return parse(json.loads(files.read_bytes(path) or b"{}"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return MergeRecord()


def parse(told: Mapping[str, Any]) -> MergeRecord:
    """Read what `merge.json` holds.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: If it is not as a merge writes it.

    Ranks: independent.
    """
    if told and told["format"] != layout.FORMAT_VERSION:
        raise ValueError(f"format {told['format']!r:.20} of another version")
    inputs = {name: _stamp(made) for name, made in told.get("inputs", {}).items()}
    outputs = {
        layout.inside(file): Made(
            str(made["kind"]),
            _stamp(made),
            {name: inputs[name] for name in made["inputs"]},
            frozenset(made.get("left", ())),
        )
        for file, made in told.get("outputs", {}).items()
    }
    archive = told.get("archive")
    return MergeRecord(
        outputs,
        frozenset(map(layout.inside, told.get("pending", ()))),
        str(told.get("listing", "")),
        tuple(dict(hole) for hole in told.get("holes", ())),
        _clocks(told.get("clocks")),
        None if archive is None else _stamp(archive),
    )


def _clocks(told: Any) -> Any:
    return None if told is None else {**told, "largest": float(told["largest"])}


def _stamp(made: Mapping[str, Any]) -> Stamp:
    return Stamp(int(made["size"]), int(made["mtime_ns"]), str(made["checksum"]))


def fingerprint(path: str) -> Fingerprint | None:
    """Size and time of change of a file, or None where there is none.

    Ranks: independent.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size, status.st_mtime_ns


def fingerprints(run: str, names: Iterable[str]) -> Fingerprints:
    """Size and time of change of the files that exist.

    Ranks: independent.
    """
    found = {name: fingerprint(os.path.join(run, name)) for name in sorted(names)}
    return {name: print_ for name, print_ in found.items() if print_ is not None}


def are_pieces_newer(run: str, file: str, record: MergeRecord, ranks: Iterable[int]) -> bool:
    """Whether pieces are to be read and not the file of the run that they are joined into.

    They are where there is no such file, or a merge made it and they have changed since. Where some
    have been taken away, the file is all there is.

    Args:
        run: The run's folder.
        file: The file, such as `data/T.npy`.
        record: What the merge made.
        ranks: The ranks that have a folder.

    Ranks: independent.
    """
    made = record.outputs.get(file)
    itself = fingerprint(os.path.join(run, file))
    if made is None and file not in record.pending and itself is not None:
        return False  # written whole
    if made is not None and made.kind == "mask":
        return False
    pieces = (f"{layout.rank_dir(rank)}/{file}" for rank in ranks)
    if made is None:
        return any(fingerprint(os.path.join(run, piece)) for piece in pieces)
    now = fingerprints(run, pieces)
    then = {name: stamp.fingerprint for name, stamp in made.inputs.items()}
    gone = then.keys() - now.keys()
    return not gone and (now != then or itself != made.itself.fingerprint)
