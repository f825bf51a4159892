"""The heads of all records in a buffer, found in bulk: what `messages.blocks` finds line by line.

Each head is looked at as a few words of eight bytes, all heads at once. What does not look like
the usual head of a record is left to `messages`, which says what a record is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from notata import messages

if TYPE_CHECKING:
    from notata.npy import Array

BEFORE, BEHIND = 4, 96  # bytes that the buffer has to have around what is looked at
_WORDS = 6  # of eight bytes, from four before the line on
_BLOCK = 1 << 17  # bytes in which lines are looked for at once
_AT_ONCE = 1 << 13  # lines that are looked at, few enough to stay near the processor
_MINUTE = re.compile(rb"\[(\d{4}-\d\d-\d\dT\d\d:\d\d)")
_NO_RANK = -1


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


def find_heads(data: bytes) -> Heads:
    """Find the records in whole lines.

    Args:
        data: `BEFORE` bytes, of which the last is a line break; the lines; and `BEHIND` more bytes.

    Ranks: independent.
    """
    import numpy as np

    starts = _line_starts(np.frombuffer(data, np.uint8))
    blocks = range(0, max(1, len(starts)), _AT_ONCE)
    found = [_heads_at(data, starts[i : i + _AT_ONCE]) for i in blocks]
    return Heads(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _heads_at(data: bytes, starts: Array) -> Heads:
    """Those of some lines that are records."""
    import numpy as np

    w = _words(data, starts - BEFORE, _WORDS)
    minutes = _minutes(data, starts, w)
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
    return Heads(starts[sound], ticks[sound], ranks[sound])


def _line_starts(a: Array) -> Array:
    """Where lines begin with a bracket, found block by block, so that little memory is touched."""
    import numpy as np

    found = [np.zeros(0, np.int64)]
    for begin in range(BEFORE - 1, len(a) - BEHIND, _BLOCK):
        block = a[begin : min(begin + _BLOCK, len(a) - BEHIND - 1) + 1]
        match = block[:-1] == ord("\n")
        match &= block[1:] == ord("[")
        found.append(np.flatnonzero(match) + (begin + 1))
    return np.concatenate(found)


def _words(data: bytes, at: Array, count: int) -> list[Array]:
    """So many little-endian words of eight bytes at each of some places."""
    import numpy as np

    size = 8 * count
    every: Any = np.ndarray((len(data) - size + 1,), f"V{size}", data, strides=(1,))
    return list(np.ascontiguousarray(every[at].view("<u8").reshape(-1, count).T))


def _minutes(data: bytes, starts: Array, w: list[Array]) -> Array:
    """The ticks of each head's minute, or -1 where there is none.

    Most lines are of the same minute as the line above: only where it changes, it is read.
    """
    import numpy as np

    if not len(starts):
        return np.zeros(0, np.int64)
    changed = np.ones(len(starts), bool)
    parts = (w[0] >> np.uint64(32), w[1], w[2] << np.uint64(24))
    changed[1:] = (parts[0][1:] != parts[0][:-1]) | (parts[1][1:] != parts[1][:-1])
    changed[1:] |= parts[2][1:] != parts[2][:-1]
    known: dict[bytes, int] = {}
    found = []
    for start in starts[changed].tolist():
        text = data[start : start + 17]
        ticks = known.get(text)
        if ticks is None:
            match = _MINUTE.match(text)
            ticks = known[text] = messages.minute_ticks(match[1]) if match else -1
        found.append(ticks)
    every: Array = np.array(found, np.int64)[np.cumsum(changed) - 1]
    return every


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


def _ranks(data: bytes, texts: Array) -> Array:
    """The number in `[rank N] ` at the beginning of each text, or -1."""
    import numpy as np

    u = np.uint64
    first, second, third = _words(data, texts, 3)
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


def _looked_up(data: bytes, start: int) -> tuple[bool, int]:
    """Whether a line is a record, and which rank it names, as `messages` has it."""
    line = data[start : data.index(b"\n", start) + 1]
    (block,) = messages.blocks([line])
    return bool(block.stamp), _NO_RANK if block.rank is None else block.rank
