"""What a file holds, in a short text that another file has only if it holds the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol, cast

from notata import freshness

_CHUNK = 1 << 18  # bytes, few enough to stay in a core's own cache


class Hasher(Protocol):
    """Takes a file's bytes in order."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Take the next bytes."""

    def hexdigest(self) -> str:
        """The digest of all bytes so far."""


def hasher() -> Hasher:
    """What computes the digest: XXH3, 128 bits, which costs less than reading the file.

    It finds damage; it is no protection against forgery.

    Ranks: independent.
    """
    import xxhash

    return cast("Hasher", xxhash.xxh3_128())


def text_of(hashed: Hasher) -> str:
    """A digest as records have it: `xxh128:` and what `xxhsum -H2` prints.

    Ranks: independent.
    """
    return f"xxh128:{hashed.hexdigest()}"


def text_of_crc(crc: int) -> str:
    """The CRC-32 that a ZIP archive has of a member, as manifests have it.

    Example:
        >>> text_of_crc(0xBEEF)
        'crc32:0000beef'

    Ranks: independent.
    """
    return f"crc32:{crc:08x}"


def contradicts(told: str | None, found: str) -> bool:
    """Whether a checksum is another one than was noted; not, where none of this kind was.

    Example:
        >>> contradicts("xxh128:1", "xxh128:2"), contradicts("later:1", "xxh128:2")
        (True, False)

    Ranks: independent.
    """
    return told is not None and told != found and _kind(told) == _kind(found)


def _kind(checksum: str) -> str:
    return checksum.partition(":")[0]


def of_bytes(data: bytes) -> str:
    """Checksum of bytes.

    Example:
        >>> of_bytes(b"")
        'xxh128:99aa06d3014798d86001c324468d497f'

    Ranks: independent.
    """
    hashed = hasher()
    hashed.update(data)
    return text_of(hashed)


def number_of(data: bytes) -> int:
    """Bytes as a number of 128 bits that hardly any others have.

    Example:
        >>> number_of(b"") == int(of_bytes(b"").partition(":")[2], 16)
        True

    Ranks: independent.
    """
    import xxhash

    return xxhash.xxh3_128_intdigest(data)


def of_file(
    path: str | os.PathLike[str],
    size: int | None = None,
    told: Callable[[int], object] = lambda count: None,
) -> str:
    """Checksum of a file, read in parts.

    Args:
        path: The file.
        size: Bytes from its beginning that count; all of it by default.
        told: Called with the number of bytes of each part.

    Raises:
        OSError: If it can't be read.

    Ranks: independent.
    """
    hashed = hasher()
    with open(path, "rb", buffering=0, opener=freshness.opener) as file:
        left = os.fstat(file.fileno()).st_size + 1 if size is None else size
        view = memoryview(bytearray(min(_CHUNK, left)))
        while count := file.readinto(view if size is None else view[:left]):
            hashed.update(view[:count])
            left -= count
            told(count)
    return text_of(hashed)
