"""The heads of records of any kind, found in bulk: of fine and plain stamps, levels and ranks.

What is not recognised is looked at line by line by `messages`, which says what a record is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from notata import messages

if TYPE_CHECKING:
    from notata.npy import Array

_BACK = 4  # bytes before a line at which its words begin, so that the stamp's parts are words
_WORDS = 6  # of eight bytes
_PREFIX = re.compile(rb"\[(\d{4}-\d\d-\d\dT\d\d:\d\d)(?::(\d))?")
_FEW = 64  # lines that are sooner looked at one by one
_NO_RANK = -1
_HEAD = 120  # bytes that tell whether a line is a record, and of which rank


class Heads(NamedTuple):
    """Records that begin in a buffer.

    Attributes:
        starts: Where their lines begin.
        ticks: What orders them, as `messages.ticks` has it.
        ranks: The rank that each names, or -1.
    """

    starts: Array
    ticks: Array
    ranks: Array


def words_at(data: bytes | bytearray, at: Array, count: int) -> Array:
    """So many little-endian words of eight bytes at each of some places, a row a place.

    Ranks: independent.
    """
    import numpy as np

    size = 8 * count
    every: Any = np.ndarray((len(data) - size + 1,), f"V{size}", data, strides=(1,))
    words: Array = every[at].view("<u8").reshape(-1, count)
    return words


def prefix_ticks(
    data: bytes | bytearray, starts: Array, parts: Sequence[Array], size: int
) -> Array:
    """The ticks at which the minute of each head begins, or ten of its seconds.

    Most lines begin as the line above does: only where that changes, it is read.

    Args:
        data: What the lines are in.
        starts: Where each begins.
        parts: Words that differ where what is read differs.
        size: Bytes that are read: 17 up to the minute, 19 up to the seconds' first digit.

    Returns:
        Ticks, or -1 where a line does not begin so.

    Ranks: independent.
    """
    import numpy as np

    if len(starts) < _FEW:
        texts = [data[start : start + size] for start in starts.tolist()]
        return np.array([_ticks_of(bytes(text)) for text in texts], np.int64)
    changed = np.ones(len(starts), bool)
    changed[1:] = parts[0][1:] != parts[0][:-1]
    for part in parts[1:]:
        changed[1:] |= part[1:] != part[:-1]
    at = np.flatnonzero(changed)
    found = [_ticks_of(bytes(data[start : start + size])) for start in starts[at].tolist()]
    every: Array = np.repeat(np.array(found, np.int64), np.diff(at, append=len(starts)))
    return every


@functools.lru_cache(1 << 12)
def _ticks_of(text: bytes) -> int:
    match = _PREFIX.fullmatch(text)
    return messages.minute_ticks(match[1]) + 20_000_000 * int(match[2] or 0) if match else -1


def heads_of_any(data: bytes | bytearray, starts: Array) -> tuple[Array, Array, Array]:
    """Which of some lines are records, of whatever kind, and their ticks and ranks.

    Args:
        data: What they are in, with some bytes around them.
        starts: Where each begins.

    Ranks: independent.
    """
    import numpy as np

    w = list(np.ascontiguousarray(words_at(data, starts - _BACK, _WORDS).T))
    parts = (w[0] >> np.uint64(32), w[1], w[2] << np.uint64(24))
    minutes = prefix_ticks(data, starts, parts, 17)
    seconds, sound = _two_digits(w[2] >> np.uint64(40))
    fraction, fine = _six_digits(w[3])
    fine &= (w[4] & np.uint64(0xFF)) == ord(" ")
    plain = (w[3] & np.uint64(0xFFFF)) == int.from_bytes(b"] ", "little")
    sound &= (minutes >= 0) & (fine | plain)
    ticks = minutes + 2_000_000 * seconds + np.where(fine, 2 * fraction + 1, 0)
    text = _after_level(w)
    usual = sound & fine & (text > 0)
    ranks = np.where(usual, _ranks(data, starts + text), _NO_RANK)
    for i in np.flatnonzero(sound & ~usual):
        sound[i], ranks[i] = _looked_up(data, int(starts[i]))
    return sound, ticks, ranks


def _two_digits(word: Array) -> tuple[Array, Array]:
    """The number in `:SS`, and whether it is one."""
    import numpy as np

    tens = ((word >> np.uint64(8)) & np.uint64(0xFF)).astype(np.int64) - ord("0")
    ones = ((word >> np.uint64(16)) & np.uint64(0xFF)).astype(np.int64) - ord("0")
    sound = (word & np.uint64(0xFF)) == ord(":")
    sound &= (tens >= 0) & (tens <= 9) & (ones >= 0) & (ones <= 9)
    return 10 * tens + ones, sound


def _six_digits(word: Array) -> tuple[Array, Array]:
    """The number in `.ffffff]`, and whether it is one."""
    import numpy as np

    u = np.uint64
    digits = ((word >> u(8)) & u(0xFFFF_FFFF_FFFF)) ^ u(0x3030_3030_3030)
    high = (digits | (digits + u(0x0606_0606_0606))) & u(0xF0F0_F0F0_F0F0)
    ends = word & u(0xFF00_0000_0000_00FF)
    sound = (high == 0) & (ends == u(ord(".") | ord("]") << 56))
    pairs = (digits & u(0x00FF_00FF_00FF)) * u(10) + ((digits >> u(8)) & u(0x00FF_00FF_00FF))
    number = (pairs & u(0xFF)) * u(10_000) + ((pairs >> u(16)) & u(0xFF)) * u(100)
    return (number + ((pairs >> u(32)) & u(0xFF))).astype(np.int64), sound


def _after_level(w: list[Array]) -> Array:
    """How far into the line the text begins, behind a fine stamp and one of the usual levels."""
    import numpy as np

    found = np.zeros(len(w[0]), np.int64)
    for name in messages.LEVELS:
        level = f" {name} ".encode()
        first, second = level[:8], level[8:]
        match = _begins(w[4], first)
        if second:
            match &= _begins(w[5], second)
        found[match] = 28 + len(level)
    return found


def _begins(word: Array, text: bytes) -> Array:
    import numpy as np

    mask = np.uint64((1 << 8 * len(text)) - 1)
    match: Array = (word & mask) == np.uint64(int.from_bytes(text, "little"))
    return match


def _ranks(data: bytes | bytearray, texts: Array) -> Array:
    """The number in `[rank N] ` at the beginning of each text, or -1."""
    import numpy as np

    u = np.uint64
    first, second, third = words_at(data, texts, 3).T
    found = np.full(len(texts), _NO_RANK, np.int64)
    going = _begins(first, b"[rank ")
    number = np.zeros(len(texts), np.int64)
    second, third = (first >> u(48)) | (second << u(16)), (second >> u(48)) | (third << u(16))
    for length in range(10):
        byte = second & u(0xFF)
        if length:
            ended = going & ((second & u(0xFFFF)) == int.from_bytes(b"] ", "little"))
            found[ended] = number[ended]
        digit = byte ^ u(ord("0"))
        going &= digit <= 9
        if not going.any():
            break
        number = number * 10 + digit.astype(np.int64)
        second, third = (second >> u(8)) | (third << u(56)), third >> u(8)
    return found


def _looked_up(data: bytes | bytearray, start: int) -> tuple[bool, int]:
    """Whether a line is a record, and which rank it names, as `messages` has it."""
    head = bytes(data[start : start + _HEAD])  # what follows may lie in another part of the log
    (block,) = messages.blocks([head[: head.find(b"\n") + 1] or head])
    return bool(block.stamp), _NO_RANK if block.rank is None else block.rank
