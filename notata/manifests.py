"""Which pieces the ranks finished, as their manifests list them: which lines of one count.

A file that a manifest lists already is replaced in three steps: a line says what is about to take
its place, the file gets its name, a line says that it is there. Where a rank was stopped in
between, the file itself tells which of the two it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from notata import checksums, files, folders, freshness, gather, layout, npy, rankfiles
from notata.assembly import Whole, assemble
from notata.errors import ArrayNotFoundError, DamagedError
from notata.pieces import Identity, Piece
from notata.ranges import ranks_text

_Held = dict[Identity, Piece]  # what a file holds
_State = tuple[int, int, int] | None  # a file's inode, size and time of change


class _Open(NamedTuple):
    """A file that was about to be replaced when its rank was stopped.

    Attributes:
        done: What it held.
        begun: What it was to hold.
    """

    done: tuple[Piece, ...]
    begun: tuple[Piece, ...]


class _Listed(NamedTuple):
    """What a manifest says: of files that are settled, and of the others."""

    pieces: tuple[Piece, ...]
    open: tuple[_Open, ...]


def read(folder: str) -> list[Piece]:
    """The pieces that a rank finished, as they were last written.

    A torn last line, which a crash can leave, was no finished piece.

    Args:
        folder: The rank's folder.

    Raises:
        DamagedError: If any other line is not of a manifest.

    Ranks: independent.
    """
    path = f"{folder}/{layout.MANIFEST}"
    return _all_of(folder, _parsed(files.read_bytes(path) or b"", path))


def read_all(run: str) -> dict[int, list[Piece]]:
    """All ranks' pieces, by rank, also of ranks whose folders were pruned.

    Ranks: independent.
    """
    own = gather.rank_folders(run)
    found = {rank: read(folder) for rank, folder in own.items()}
    for rank in rankfiles.archived_ranks(run):
        if rank not in own or not folders.is_dir(own[rank]):  # pruned meanwhile
            found[rank] = read_archived(run, rank)
    return dict(sorted(found.items()))


def read_archived(run: str, rank: int) -> list[Piece]:
    """The pieces of a rank whose folder was pruned.

    Ranks: independent.
    """
    path = os.path.join(run, layout.rank_dir(rank), layout.MANIFEST)
    listed = _parsed(rankfiles.files_of(run, rank).read(layout.MANIFEST) or b"", path)
    return [*listed.pieces, *(piece for either in listed.open for piece in either.done)]


class Manifests:
    """All ranks' manifests as one reader sees them: each is read again once it is another one.

    Each is opened all the same, as that is when NFS asks the server.
    """

    def __init__(self, run: str) -> None:
        """Nothing is read yet.

        Args:
            run: The run's folder.
        """
        self._run = run
        self._known: dict[int, tuple[_State, list[Piece]]] = {}
        self._nothing: list[Piece] = []  # one for all: who compares sees that it is the same
        self._wholes: tuple[int, list[list[Piece]], dict[Identity, Whole]] | None = None

    def wholes(self, size: int) -> Mapping[Identity, Whole]:
        """The arrays that the pieces make.

        Args:
            size: Number of ranks of the run.

        Raises:
            DamagedError: If a manifest is none.

        Ranks: independent.
        """
        pieces, made = self._pieces(), self._wholes
        now = [*pieces.values()]
        same = made is not None and made[0] == size and len(made[1]) == len(now)
        if made is None or not same or any(a is not b for a, b in zip(made[1], now, strict=True)):
            made = self._wholes = size, now, assemble(pieces, size)
        return made[2]

    def _pieces(self) -> dict[int, list[Piece]]:
        own = gather.rank_folders(self._run)
        known, found = self._known, {}
        for rank, folder in own.items():
            found[rank] = self._read(folder, known.get(rank))
        for rank in rankfiles.archived_ranks(self._run):
            if rank not in own or not folders.is_dir(own[rank]):  # pruned meanwhile
                there = known.get(rank, (None, []))
                state = rankfiles.archive_state(self._run)
                same = state is not None and there[0] == state
                found[rank] = there if same else (state, read_archived(self._run, rank))
        self._known = found
        return {rank: pieces for rank, (_, pieces) in sorted(found.items())}

    def _read(
        self, folder: str, known: tuple[_State, list[Piece]] | None
    ) -> tuple[_State, list[Piece]]:
        path = f"{folder}/{layout.MANIFEST}"
        state, data = _unless(path, None if known is None else known[0])
        if data is None and known is not None:
            return known
        if not data:
            return state, self._nothing
        listed = _parsed(data, path)
        # What a file between two lines holds may be another tomorrow, though no line comes.
        return None if listed.open else state, _all_of(folder, listed)


def kept_apart(run: str) -> dict[str, list[int]]:
    """The ranks that have a piece of each array that no merge joins, by the array's name.

    Ranks: independent.
    """
    joined: set[str] = set()
    found: dict[str, list[int]] = {}
    for rank, pieces in read_all(run).items():
        for piece in pieces:
            if piece.join == "none":
                found.setdefault(piece.label, []).append(rank)
            else:
                joined.add(piece.label)
    return {label: ranks for label, ranks in sorted(found.items()) if label not in joined}


def no_array(run: str, name: object, known: Sequence[str]) -> ArrayNotFoundError:
    """The error that a run has no whole array of a name; it says where there are pieces instead.

    Args:
        run: The run's folder.
        name: The name.
        known: Names of the arrays that there are.

    Ranks: independent.
    """
    apart = kept_apart(run)
    text = str(name)
    if text in apart:
        return ArrayNotFoundError(
            f"array {text!r} in {run} is kept apart, as join='none' asked, on "
            f"{ranks_text(apart[text])}: run.ranks[{apart[text][0]}].load_array({text!r})"
        )
    told = ", ".join(known[:8]) or "none"
    more = f"; kept apart on ranks: {', '.join([*apart][:8])}" if apart else ""
    return ArrayNotFoundError(f"no array {name!r} in {run}; there is: {told}{more}")


def settled(folder: str) -> bytes | None:
    """What a manifest holds once the files have told which lines count; None if it does already.

    Raises:
        DamagedError: If a line other than a torn last one is not of a manifest.

    Ranks: independent.
    """
    path = f"{folder}/{layout.MANIFEST}"
    listed = _parsed(files.read_bytes(path) or b"", path)
    return bytes_of(read(folder)) if listed.open else None


def shortened(data: bytes, path: str) -> bytes:
    """A manifest that says the same in as few lines as can be; no file is asked what it holds.

    Args:
        data: The manifest.
        path: Its name, for an error.

    Raises:
        DamagedError: If a line other than a torn last one is not of a manifest.

    Ranks: independent.
    """
    listed = _listed(data, path)
    lines = [bytes_of(listed.pieces)]
    for either in listed.open:
        lines.append(bytes_of(either.done))
        lines.append(bytes_of(piece._replace(begun=True) for piece in either.begun))
    return b"".join(lines)


def bytes_of(pieces: Iterable[Piece]) -> bytes:
    """A manifest that lists these pieces.

    Ranks: independent.
    """
    return b"".join(piece.line() for piece in pieces)


# ----- lines -----


def _parsed(data: bytes, path: str) -> _Listed:
    return (_short if len(data) <= _SHORT else _listed)(data, path)


_SHORT = 2048  # bytes of a manifest that is remembered with what it lists: some 10 pieces


@lru_cache(maxsize=1024)
def _short(data: bytes, path: str) -> _Listed:
    """The same for a short one: who reads regions of one array reads the same again and again."""
    return _listed(data, path)


def _listed(data: bytes, path: str) -> _Listed:
    lines = data.split(b"\n")
    done: dict[str, _Held] = {}  # of each file
    begun: dict[str, _Held] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            piece = Piece.from_line(line)
            layout.inside(piece.file)
        except ValueError as error:
            if number == len(lines) or _is_torn(line):
                continue
            raise DamagedError(f"{path}, line {number}: {error}") from None
        if piece.begun:
            _put(begun, piece._replace(begun=False))
            continue
        for other in begun.pop(piece.file, {}).values():
            if other.write == piece.write:  # the file has its name, so that all of it is there
                _put(done, other)
        _put(done, piece)
    whole = (piece for file, held in done.items() if file not in begun for piece in held.values())
    either = (
        _Open(tuple(done.get(file, {}).values()), tuple(held.values()))
        for file, held in begun.items()
    )
    return _Listed(tuple(whole), tuple(either))


def _put(held: dict[str, _Held], piece: Piece) -> None:
    together = held.setdefault(piece.file, {})
    if together and next(iter(together.values())).write != piece.write:  # all of them share one
        together.clear()  # the file was replaced, with all that it held
    together[piece.identity] = piece


def _is_torn(line: bytes) -> bool:
    """Whether a line was cut off by a crash, and ended by the next writer."""
    return not line.endswith(b"}")


def _unless(path: str, known: _State) -> tuple[_State, bytes | None]:
    """What tells a manifest from others, and what it holds, or None if that is what is known."""

    def read() -> tuple[_State, bytes | None]:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            state = status.st_ino, status.st_size, status.st_mtime_ns
            return state, None if state == known else file.readall()

    try:
        return freshness.patiently(read)
    except (FileNotFoundError, NotADirectoryError):
        return None, b""


# ----- files that tell -----


def _all_of(folder: str, listed: _Listed) -> list[Piece]:
    return [*listed.pieces, *(piece for one in listed.open for piece in _settled(folder, one))]


def _settled(folder: str, either: _Open) -> tuple[Piece, ...]:
    """What a file holds; what was finished, unless it can only be the other."""
    if _is_in(folder, either.done) or not _is_in(folder, either.begun):
        return either.done
    return either.begun


def _is_in(folder: str, pieces: tuple[Piece, ...]) -> bool:
    """Whether a file holds just these, by their checksums."""
    if not pieces:
        return False
    told = {piece.key: piece.checksum for piece in pieces}
    path = os.path.join(folder, pieces[0].file)
    try:
        status = os.stat(path)
        if {piece.size for piece in pieces} != {status.st_size}:
            return False
        identity = status.st_ino, status.st_size, status.st_mtime_ns
        return told == _checksums(path, None not in told, *identity)
    except (OSError, DamagedError):  # nobody can tell; who reads the piece will say so
        return False


@lru_cache(maxsize=64)
def _checksums(path: str, bundled: bool, *_identity: int) -> Mapping[str | None, str]:
    """Of the file, or of each key of a bundle; who reads regions asks for the same again."""
    if not bundled:
        return {None: checksums.of_file(path)}
    return {key: checksums.text_of_crc(crc) for key, crc in npy.bundle_crcs(path).items()}
