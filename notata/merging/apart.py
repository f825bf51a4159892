"""Pieces that no merge joins, as `join="none"` asked: whether each is there as it was written."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping

from notata import checksums, layout, mergerecord, npy
from notata.errors import DamagedError
from notata.mergerecord import Fingerprints
from notata.merging.output import MISSING, Problem
from notata.pieces import Piece

# Pieces by the file that they lie in, which is relative to the run.
Listed = Mapping[str, list[Piece]]


def listed(pieces: Mapping[int, list[Piece]]) -> Listed:
    """The pieces that nothing joins.

    Args:
        pieces: What the manifests list, by rank.

    Ranks: independent.
    """
    found: dict[str, list[Piece]] = {}
    for rank, own in pieces.items():
        for piece in own:
            if piece.join == "none":
                found.setdefault(f"{layout.rank_dir(rank)}/{piece.file}", []).append(piece)
    return found


def problems(run: str, pieces: Listed, files: Fingerprints) -> Iterator[Problem]:
    """Say which of them are missing or of another size; no file is opened.

    Args:
        run: Folder of the run.
        pieces: The pieces.
        files: The ranks' files, as they were found.

    Ranks: independent.
    """
    for file, own in pieces.items():
        sizes = {piece.size for piece in own}
        now, path = files.get(file), os.path.join(run, file)
        if now is None or sizes != {now[0]}:  # it may be newer than the list, or behind a link
            now = mergerecord.fingerprint(path)
        if now is None:
            yield from _of_each(file, own, f"is missing: {path}")
        elif sizes != {now[0]}:
            told = ", ".join(map(str, sorted(sizes)))
            yield from _of_each(file, own, f"has {now[0]} bytes, its manifest says {told}: {path}")


def unlike(run: str, file: str, own: list[Piece], checksum: str) -> Iterator[Problem]:
    """Say which pieces of a file do not hold what was written.

    Args:
        run: Folder of the run.
        file: The file.
        own: The pieces in it.
        checksum: Of the file as it was read just now.

    Ranks: independent.
    """
    path = os.path.join(run, file)
    found: Mapping[str | None, str] = {None: checksum}
    if own[0].key is not None:
        try:
            found = _members(path)
        except _DAMAGE as error:
            yield from _of_each(file, own, f"is damaged: {path}: {error}")
            return
    for piece in own:
        if piece.key not in found:
            yield from _of_each(file, [piece], f"is missing: {path} has no key {piece.key!r}")
        elif checksums.contradicts(piece.checksum, found[piece.key]):
            text = f"is damaged: {path} does not hold what was written"
            yield from _of_each(file, [piece], text)


# An archive that is damaged may say that it is encrypted, or patched: RuntimeError. An OSError is
# of a table of contents that sends the reader before the file's beginning.
_DAMAGED = (DamagedError, EOFError, zipfile.BadZipFile, zlib.error, ValueError, RuntimeError)
_DAMAGE = (*_DAMAGED, OSError)


def _members(path: str) -> Mapping[str | None, str]:
    """The checksums of a bundle's arrays, which are read."""
    with zipfile.ZipFile(path) as archive:
        if (bad := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{bad} does not hold what was written")
    return {key: checksums.text_of_crc(crc) for key, crc in npy.bundle_crcs(path).items()}


def _of_each(file: str, own: list[Piece], what: str) -> Iterator[Problem]:
    place = layout.inside_rank(file)
    assert place is not None, "it lies in a rank's folder"
    for piece in own:
        text = f"rank {place[0]}'s piece of {piece.label!r} {what}"
        yield Problem(text, MISSING, (place[0],), piece.label)
