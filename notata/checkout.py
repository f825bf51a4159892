"""Which commit is a program's code, and was it changed since: read from `.git` itself.

No program is run, since an MPI job may not fork, and nothing is written. What would take long to
find out is said to be unknown, with the reason.
"""

from __future__ import annotations

import os
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

MOST_FILES = 5000  # tracked files that are looked at
_LONGEST = 0.25  # seconds: a file system may be slow
_MOST_BYTES = 16 << 20  # of files whose time differs, and whose content has to be read

_LINK, _SUBMODULE = 0o12, 0o16  # kinds of entries, as the upper bits of their mode have them
_ASSUME_VALID, _EXTENDED, _STAGE, _NAME_LENGTH = 0x8000, 0x4000, 0x3000, 0x0FFF
_SKIP_WORKTREE, _INTENT_TO_ADD = 0x4000, 0x2000


class _Unknown(Exception):  # noqa: N818
    """What was asked can't be known from here; the message says why."""


class _Repository(NamedTuple):
    """Where a work tree's files about itself lie."""

    top: str
    git: str  # of this work tree
    common: str  # of all work trees of the repository
    hash_name: str
    modes: bool  # whether the file system keeps who may execute a file

    @property
    def hash_size(self) -> int:
        return 32 if self.hash_name == "sha256" else 20


class _Entry(NamedTuple):
    """A tracked file, as the index notes it."""

    path: bytes
    mode: int
    seconds: int
    nanoseconds: int
    size: int
    digest: bytes
    staged: bool  # not an ordinary entry: a conflict, or a file that was only announced


def state(folder: str) -> dict[str, Any] | None:
    """The commit that a folder's work tree is at, and whether it was changed.

    A tree is dirty if a tracked file is not as it was when it was last added or checked out, if
    one is missing, or if something is staged that is not committed. Files that git doesn't track
    and the inside of submodules don't count.

    Args:
        folder: A folder anywhere in the work tree.

    Returns:
        `folder` (the work tree's top), `commit`, `branch` (None where the head is detached),
        `dirty`, and `unknown`, a reason, where `commit` or `dirty` is None for want of knowledge.
        None if the folder is in no work tree.

    Ranks: independent.
    """
    repository = _find(folder)
    if repository is None:
        return None
    facts: dict[str, Any] = {"folder": repository.top, "commit": None, "branch": None}
    facts["dirty"] = None
    try:
        facts["branch"], facts["commit"] = _head(repository)
        facts["dirty"] = _is_dirty(repository, facts["commit"])
    except _Unknown as why:
        facts["unknown"] = str(why)
    except (OSError, ValueError, struct.error, zlib.error, IndexError) as error:
        facts["unknown"] = f"{repository.git} can't be read: {error}"
    return facts


def _find(folder: str) -> _Repository | None:
    top = os.path.abspath(folder)
    while True:
        git = os.path.join(top, ".git")
        if os.path.isfile(git):  # of a submodule, or of another work tree
            text = _text(git)
            if text is not None and text.startswith("gitdir:"):
                git = os.path.join(top, text.removeprefix("gitdir:").strip())
        if os.path.isfile(os.path.join(git, "HEAD")):
            break
        above = os.path.dirname(top)
        if above == top:
            return None
        top = above
    common = os.path.join(git, _text(os.path.join(git, "commondir")) or "")
    config = (_text(os.path.join(common, "config")) or "").lower()
    hash_name = "sha256" if "objectformat = sha256" in config else "sha1"
    return _Repository(top, git, common, hash_name, "filemode = false" not in config)


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _head(repository: _Repository) -> tuple[str | None, str | None]:
    """The branch and the commit."""
    head = _text(os.path.join(repository.git, "HEAD")) or ""
    if not head.startswith("ref:"):
        return None, head
    name = head.removeprefix("ref:").strip()
    if name == "refs/heads/.invalid":
        raise _Unknown("its branches are kept in reftables, which are not read here")
    branch = name.removeprefix("refs/heads/")
    for _ in range(5):  # a name may stand for another
        value = _text(os.path.join(repository.git, name)) or _text(
            os.path.join(repository.common, name)
        )
        if value is None or not value.startswith("ref:"):
            break
        name = value.removeprefix("ref:").strip()
    return branch, value or _packed(repository, name)


def _packed(repository: _Repository, name: str) -> str | None:
    packed = _text(os.path.join(repository.common, "packed-refs")) or ""
    for line in packed.splitlines():
        commit, _, ref = line.partition(" ")
        if ref == name:
            return commit
    return None  # a branch without a commit yet


# ----- changes since -----


def _is_dirty(repository: _Repository, commit: str | None) -> bool:
    with open(os.path.join(repository.git, "index"), "rb") as file:
        index = file.read()
        written = os.fstat(file.fileno())
    signature, version, count = struct.unpack_from(">4sLL", index)
    if signature != b"DIRC" or not 2 <= version <= 4:
        raise _Unknown(f"its index has version {version}, which is not read here")
    if count > MOST_FILES:
        raise _Unknown(f"it has {count} files; up to {MOST_FILES} are looked at")
    reader = _IndexReader(index, version, repository.hash_size)
    entries = list(reader.entries(count))
    more = reader.extensions()
    if b"link" in more:
        raise _Unknown("its index is split, which is not read here")
    files = _Files(repository, (int(written.st_mtime), written.st_mtime_ns % 10**9))
    return any(map(files.differs, entries)) or _is_staged(repository, commit, more.get(b"TREE"))


class _IndexReader:
    """Reads the entries of an index one after another, and what follows them."""

    def __init__(self, data: bytes, version: int, hash_size: int) -> None:
        self._data, self._version, self._hash_size = data, version, hash_size
        self._at = 12

    def entries(self, count: int) -> Iterator[_Entry]:
        data, head, path = self._data, struct.Struct(">LLLLLLLLLL"), b""
        for _ in range(count):
            begin = self._at
            _, _, seconds, nanoseconds, _, _, mode, _, _, size = head.unpack_from(data, begin)
            at = begin + 40 + self._hash_size
            digest = data[begin + 40 : at]
            flags, more = int.from_bytes(data[at : at + 2]), 0
            at += 2
            if flags & _EXTENDED:
                more = int.from_bytes(data[at : at + 2])
                at += 2
            if self._version == 4:  # the name begins as the one before
                cut, at = _number(data, at)
                end = data.index(b"\0", at)
                path = path[: len(path) - cut] + data[at:end]
                self._at = end + 1
            else:
                end = data.index(b"\0", at)
                path = data[at:end]
                self._at = begin + (end - begin + 8) // 8 * 8
            if flags & _ASSUME_VALID or more & _SKIP_WORKTREE:
                continue
            staged = bool(flags & _STAGE or more & _INTENT_TO_ADD)
            yield _Entry(path, mode, seconds, nanoseconds, size, digest, staged)

    def extensions(self) -> dict[bytes, bytes]:
        found, data, at = {}, self._data, self._at
        while at + 8 <= len(data) - self._hash_size:
            name, size = struct.unpack_from(">4sL", data, at)
            found[name] = data[at + 8 : at + 8 + size]
            at += 8 + size
        return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of as many bytes as it needs, and where it ends."""
    value = data[at] & 127
    while data[at] & 128:
        at += 1
        value = ((value + 1) << 7) | (data[at] & 127)
    return value, at + 1


class _Files:
    """Compares files with what the index notes of them, as long as that is cheap."""

    def __init__(self, repository: _Repository, index_time: tuple[int, int]) -> None:
        self._repository, self._index_time = repository, index_time
        self._top = os.fsencode(repository.top) + b"/"
        self._deadline = time.monotonic() + _LONGEST
        self._bytes_left = _MOST_BYTES

    def differs(self, entry: _Entry) -> bool:
        kind = entry.mode >> 12
        if kind == _SUBMODULE or kind == 0o4:  # the latter: a folder of files that aren't here
            return False
        if entry.staged:
            return True
        if time.monotonic() > self._deadline:
            raise _Unknown(f"its files could not be looked at in {_LONGEST:g} s")
        path = self._top + entry.path
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        if stat.S_ISLNK(found.st_mode) != (kind == _LINK):
            return True
        if kind != _LINK and self._repository.modes and (found.st_mode ^ entry.mode) & 0o100:
            return True
        noted = entry.seconds, entry.nanoseconds or 10**9  # 0 where git notes seconds alone
        second, nanosecond = divmod(found.st_mtime_ns, 10**9)
        same_time = second & 0xFFFFFFFF == entry.seconds and entry.nanoseconds in (0, nanosecond)
        # A file that was changed right after it was added may have the time that the index notes;
        # git marks such an entry, if it notices it, by a size of 0.
        if same_time and noted < self._index_time and found.st_size & 0xFFFFFFFF == entry.size:
            return False
        return self._content_differs(path, kind, found.st_size, entry)

    def _content_differs(self, path: bytes, kind: int, size: int, entry: _Entry) -> bool:
        if entry.size and size & 0xFFFFFFFF != entry.size:
            return True
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise _Unknown("its files have other times than git notes, and are too large to read")
        if kind == _LINK:
            content = os.readlink(path)
        else:
            with open(path, "rb") as file:
                content = file.read()
        import hashlib

        digest = hashlib.new(self._repository.hash_name, b"blob %d\0" % len(content))
        digest.update(content)
        if digest.digest() == entry.digest:
            return False
        if "filter=" in (_text(os.path.join(self._repository.top, ".gitattributes")) or ""):
            raise _Unknown("its files have other times than git notes, and pass through filters")
        return True


# ----- what is staged -----


def _is_staged(repository: _Repository, commit: str | None, trees: bytes | None) -> bool:
    """Whether the index holds something that the commit doesn't.

    Git notes in the index which tree its entries make, and forgets it when one is added.
    """
    if commit is None:
        return True
    if trees is None:
        raise _Unknown("its index does not say which tree it holds")
    end = trees.index(b"\0") + 1
    line_end = trees.index(b"\n", end)
    if trees[end:line_end].startswith(b"-"):
        return True
    tree = trees[line_end + 1 : line_end + 1 + repository.hash_size].hex()
    text = _commit_text(repository, commit)
    return not text.startswith(b"tree " + tree.encode())


def _commit_text(repository: _Repository, commit: str) -> bytes:
    for objects in _object_folders(os.path.join(repository.common, "objects")):
        try:
            with open(os.path.join(objects, commit[:2], commit[2:]), "rb") as file:
                return zlib.decompressobj().decompress(file.read(4096), 4096).partition(b"\0")[2]
        except FileNotFoundError:
            packs = os.path.join(objects, "pack")
            for name in os.listdir(packs) if os.path.isdir(packs) else ():
                if name.endswith(".idx"):
                    text = _packed_commit(os.path.join(packs, name), bytes.fromhex(commit))
                    if text is not None:
                        return text
    raise _Unknown(f"its commit {commit} was not found among its objects")


def _object_folders(objects: str) -> list[str]:
    """The repository's objects, and those that it borrows from others."""
    alternates = _text(os.path.join(objects, "info", "alternates")) or ""
    return [objects, *(os.path.join(objects, line) for line in alternates.splitlines() if line)]


def _packed_commit(index: str, commit: bytes) -> bytes | None:
    """A commit from a pack, found by bisection of the pack's index; None if it isn't there."""
    with open(index, "rb") as file:
        if file.read(8) != b"\xfftOc\0\0\0\2":
            return None
        fan = struct.unpack(">256L", file.read(1024))
        low, high, count = fan[commit[0] - 1] if commit[0] else 0, fan[commit[0]], fan[255]
        size = len(commit)
        names = 8 + 1024
        while low < high:
            middle = (low + high) // 2
            file.seek(names + middle * size)
            found = file.read(size)
            if found == commit:
                break
            low, high = (middle + 1, high) if found < commit else (low, middle)
        else:
            return None
        offsets = names + count * (size + 4)
        file.seek(offsets + middle * 4)
        (offset,) = struct.unpack(">L", file.read(4))
        if offset & 0x80000000:
            file.seek(offsets + count * 4 + (offset & 0x7FFFFFFF) * 8)
            (offset,) = struct.unpack(">Q", file.read(8))
    with open(index.removesuffix(".idx") + ".pack", "rb") as file:
        file.seek(offset)
        data = file.read(4096)
    if data[0] >> 4 & 7 != 1:
        raise _Unknown("its commit is packed as a difference, which is not read here")
    begin = next(place for place, byte in enumerate(data) if byte < 128) + 1
    return zlib.decompressobj().decompress(data[begin:], 4096)
