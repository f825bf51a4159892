"""What nothing joins, in one archive that readers open: written, read back, compared."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from notata import checksums, layout, manifests
from notata.errors import DamagedError, MergeError
from notata.mergerecord import Fingerprints


def least(files: Fingerprints, kept: Iterable[str]) -> int:
    """Bytes that an archive takes at least: how far text can be compressed is not known before.

    Args:
        files: The ranks' files.
        kept: Those that it is to hold.

    Ranks: independent.
    """
    return sum(files[name][0] for name in kept if not _is_text(name))


def _is_text(name: str) -> bool:
    return name.endswith((".json", ".jsonl", ".txt", ".csv", ".yaml"))


def write(
    run: str, kept: list[str], path: str, told: Callable[[int], object] = lambda count: None
) -> tuple[Mapping[str, tuple[int, int]], Mapping[str, str]]:
    """Write an archive.

    Args:
        run: The run's folder.
        kept: The files that it is to hold, relative to that.
        path: Path to write it under.
        told: Called with the number of bytes of each part that was written.

    Returns:
        Size and CRC-32 of each member, and the checksum of each file, as they were read from it.

    Raises:
        OSError: If it can't be written.

    Ranks: root only.
    """
    sums: dict[str, str] = {}
    with zipfile.ZipFile(path, "x", allowZip64=True, strict_timestamps=False) as archive:
        for name in kept:
            member, source = name.removeprefix(f"{layout.RANKS}/"), os.path.join(run, name)
            entry = zipfile.ZipInfo.from_file(source, member, strict_timestamps=False)
            entry.compress_type = zipfile.ZIP_DEFLATED if _is_text(name) else zipfile.ZIP_STORED
            lines = _settled(source)
            if lines is None:
                sums[name] = _copy(source, entry, archive, told)
            else:
                archive.writestr(entry, lines)
                told(len(lines))
        crcs = {info.filename: (info.file_size, info.CRC) for info in archive.infolist()}
    return crcs, sums


def _copy(
    source: str,
    entry: zipfile.ZipInfo,
    archive: zipfile.ZipFile,
    told: Callable[[int], object],
) -> str:
    hashed = checksums.hasher()
    with open(source, "rb", buffering=0) as file, archive.open(entry, "w") as member:
        while part := file.read(_PART):
            hashed.update(part)
            member.write(part)
            told(len(part))
    return checksums.text_of(hashed)


_PART = 1 << 18  # bytes that are copied at once


def _settled(path: str) -> bytes | None:
    """A manifest without lines that only files which are about to go can tell the meaning of."""
    folder, name = os.path.split(path)
    if name != layout.MANIFEST or layout.rank_of(os.path.basename(folder)) is None:
        return None
    with suppress(DamagedError):
        return manifests.settled(folder)
    return None


def read_back(
    path: str,
    crcs: Mapping[str, tuple[int, int]],
    told: Callable[[int], object] = lambda count: None,
) -> None:
    """Make sure that an archive holds what was written to it.

    Args:
        path: The archive.
        crcs: Size and CRC-32 of each member.
        told: Called with the number of bytes of each part that was read.

    Raises:
        MergeError: If it doesn't.

    Ranks: root only.
    """
    with zipfile.ZipFile(path) as archive:
        bad = _first_bad(archive, told)
        found = {info.filename: (info.file_size, info.CRC) for info in archive.infolist()}
    if bad is not None or found != crcs:
        raise MergeError(f"{path} does not hold what was written to it ({bad}); nothing is deleted")


def _first_bad(archive: zipfile.ZipFile, told: Callable[[int], object]) -> str | None:
    """As `testzip` does, telling how far it is."""
    for info in archive.infolist():
        try:
            with archive.open(info) as member:
                while part := member.read(_PART):
                    told(len(part))
        except (zipfile.BadZipFile, zlib.error, EOFError):
            return info.filename
    return None


def lost(path: str, crcs: Mapping[str, tuple[int, int]]) -> list[str]:
    """What an archive of an earlier pruning holds and the new one would not, as sentences.

    Args:
        path: The earlier archive.
        crcs: Size and CRC-32 of each member of the new one.

    Ranks: independent.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            old = {info.filename: (info.file_size, info.CRC) for info in archive.infolist()}
    except FileNotFoundError:
        return []
    except zipfile.BadZipFile as error:
        return [f"{path} is there, and is no whole archive ({error}): move it away"]
    gone = [name for name, crc in old.items() if crcs.get(name) != crc]
    return [f"{path} holds {name}, which is not in {layout.RANKS}/ any more" for name in gone[:5]]
