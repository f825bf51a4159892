"""The heads of all records in a buffer, found in bulk: what `messages.blocks` finds line by line.

Each head is looked at as a few words of eight bytes, all heads at once. First comes what nearly all
lines of a log begin with: a fine stamp, one of the usual levels and the log's own rank. Any other
line that may be a record is looked at in more steps, and at last by `messages`, which says what a
record is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from notata import messages

if TYPE_CHECKING:
    from notata.npy import Array

BEFORE, BEHIND = 4, 96  # bytes that the buffer has to have around what is looked at
_WORDS = 6  # of eight bytes
_BLOCK = 1 << 17  # bytes in which lines are looked for at once
_AT_ONCE = 1 << 12  # lines that are looked at, few enough to stay near the processor
_MINUTE = re.compile(rb"\[(\d{4}-\d\d-\d\dT\d\d:\d\d)")
_NO_RANK = -1
_HEAD = 120  # bytes that tell whether a line is a record, and of which rank
_USUAL = ("INFO", "DEBUG", "WARNING", "ERROR")
_FIRST = 3  # the word in which a fine stamp ends, after three digits


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


def find_heads(
    data: bytes | bytearray, ends: Sequence[int] = (), ranks: Sequence[int] = ()
) -> Heads:
    """Find the records in whole lines.

    Args:
        data: `BEFORE` bytes, of which the last is a line break; the lines; and `BEHIND` more bytes.
        ends: Where each log's lines end, if there are several; they begin where the log above ends.
        ranks: The rank that the records of each log usually name.

    Ranks: independent.
    """
    import numpy as np

    if not ends:
        ends, ranks = (len(data) - BEHIND,), (0,)
    starts = _line_starts(np.frombuffer(data, np.uint8)[: ends[-1] + BEHIND])
    counts = np.diff(np.searchsorted(starts, ends), prepend=0)
    owners = np.repeat(np.arange(len(ends)), counts)
    usual = _Usual(ranks)
    found = [Heads(*[np.zeros(0, np.int64)] * 3)]
    for i, j in _blocks(counts.tolist()):
        mine = owners[i] if owners[i] == owners[j - 1] else owners[i:j]
        found.append(_heads_at(data, starts[i:j], usual, mine))
    return Heads(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _blocks(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Lines that are looked at together: of one log, unless it has few."""
    begin = end = 0
    for count in counts:
        large = count > _AT_ONCE // 2
        if large and end > begin:
            yield begin, end
            begin = end
        end += count
        while end - begin > _AT_ONCE:
            yield begin, begin + _AT_ONCE
            begin += _AT_ONCE
        if large:
            yield begin, end
            begin = end
    if end > begin:
        yield begin, end


class _Usual:
    """How the records of some logs usually go on behind the second.

    Attributes:
        ranks: The rank that each log's records name.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        import numpy as np

        self.ranks = np.array(ranks, np.int64)
        tails = ([f"] {level} [rank {rank}] ".encode() for rank in ranks] for level in _USUAL)
        self._levels = [_as_words(texts) for texts in tails]

    def match(self, w: Array, logs: Array) -> Array:
        """Which lines go on so, by their words and the logs that they are of."""
        import numpy as np

        match: Array = np.zeros(len(w), bool)
        for known, counting in self._levels:
            differ = (w[:, _FIRST] ^ known[0][logs]) & counting[0][logs]
            for i in (1, 2):
                differ |= (w[:, _FIRST + i] ^ known[i][logs]) & counting[i][logs]
            match |= differ == 0
            if match.all():
                break
        return match


def _as_words(texts: Sequence[bytes]) -> tuple[Array, Array]:
    """Texts behind three bytes of a word, and which bits are theirs. A long one matches nothing."""
    import numpy as np

    room = 8 * (_WORDS - _FIRST)
    known, bits = b"", b""
    for text in texts:
        fits = len(text) <= room - 3
        known += (b"\0\0\0" + text).ljust(room, b"\0") if fits else b"\xff" * room
        bits += (b"\0\0\0" + b"\xff" * len(text)).ljust(room, b"\0") if fits else b"\xff" * room
    words = (np.frombuffer(some, "<u8").reshape(-1, _WORDS - _FIRST).T for some in (known, bits))
    first, second = (np.ascontiguousarray(some) for some in words)
    return first, second


def _heads_at(data: bytes | bytearray, starts: Array, usual: _Usual, logs: Array) -> Heads:
    """Those of some lines that are records."""
    import numpy as np

    w = _words(data, starts, _WORDS)
    micros, sound = _micros(w[:, 2], w[:, 3])
    sound &= usual.match(w, logs)
    others = starts[:0]
    if not sound.all():
        others = starts[~sound & ((w[:, 0] & np.uint64(0xFF)) == ord("["))]
        starts, micros, w = starts[sound], micros[sound], w[sound]
        logs = logs[sound] if logs.ndim else logs
    minutes = _minutes(data, starts, (w[:, 0], w[:, 1], w[:, 2] & np.uint64(0xFF)))
    ranks = usual.ranks[logs] if logs.ndim else np.full(len(starts), usual.ranks[logs])
    found = Heads(starts, minutes + 2 * micros + 1, ranks)
    if len(minutes) and minutes.min() < 0:
        found = Heads(*(column[minutes >= 0] for column in found))
    if not len(others):
        return found
    more = _heads_of_any(data, others)
    columns = [np.concatenate(pair) for pair in zip(found, more, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Heads(*(column[order] for column in columns))


def _micros(second: Array, third: Array) -> tuple[Array, Array]:
    """The microseconds of `:SS.ffffff` from byte 17 of a line on, and whether they are there."""
    import numpy as np

    u = np.uint64
    digits = (second >> u(16)) & u(0xFFFF)
    digits |= (second >> u(40)) << u(16)
    digits |= third << u(40)
    digits ^= u(0x3030_3030_3030_3030)
    high = digits + u(0x0606_0606_0606_0606)
    high |= digits
    high &= u(0xF0F0_F0F0_F0F0_F0F0)
    # Two digits, then four, then eight to a number.
    digits = (digits * u(10) + (digits >> u(8))) & u(0x00FF_00FF_00FF_00FF)
    digits = (digits * u(100) + (digits >> u(16))) & u(0x0000_FFFF_0000_FFFF)
    digits = (digits * u(10_000) + (digits >> u(32))) & u(0xFFFF_FFFF)
    high |= (second & u(0xFF_0000_FF00)) ^ u(ord(".") << 32 | ord(":") << 8)
    return digits.astype(np.int64), high == 0


def _heads_of_any(data: bytes | bytearray, starts: Array) -> Heads:
    """Those of some lines that are records, of whatever kind."""
    import numpy as np

    w = list(np.ascontiguousarray(_words(data, starts - BEFORE, _WORDS).T))
    parts = (w[0] >> np.uint64(32), w[1], w[2] << np.uint64(24))
    minutes = _minutes(data, starts, parts)
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
    """Where lines begin, found block by block, so that little memory is touched."""
    import numpy as np

    found = [np.zeros(0, np.int64)]
    for begin in range(BEFORE - 1, len(a) - BEHIND - 1, _BLOCK):
        match = a[begin : min(begin + _BLOCK, len(a) - BEHIND - 1)] == ord("\n")
        found.append(_where(match) + (begin + 1))
    return np.concatenate(found)


def _where(match: Array) -> Array:
    """Where some of many truths are, eight of which are looked at at once."""
    import numpy as np

    whole = len(match) & ~7
    words = match[:whole].view("<u8")
    at = np.flatnonzero(words != 0)
    one = words[at]
    if (one & (one - np.uint64(1))).any():  # two in one word
        return np.flatnonzero(match)
    # A single byte of value 1 shifts that byte of the factor to the top which holds its number.
    places = (one * np.uint64(0x0001_0203_0405_0607)) >> np.uint64(56)
    rest = np.flatnonzero(match[whole:]) + whole
    return np.concatenate(((at << 3) + places.astype(np.int64), rest))


def _words(data: bytes | bytearray, at: Array, count: int) -> Array:
    """So many little-endian words of eight bytes at each of some places, a row a place."""
    import numpy as np

    size = 8 * count
    every: Any = np.ndarray((len(data) - size + 1,), f"V{size}", data, strides=(1,))
    words: Array = every[at].view("<u8").reshape(-1, count)
    return words


def _minutes(data: bytes | bytearray, starts: Array, parts: Sequence[Array]) -> Array:
    """The ticks of each head's minute, or -1 where there is none, by the bytes up to the minute.

    Most lines are of the same minute as the line above: only where it changes, it is read.
    """
    import numpy as np

    if not len(starts):
        return np.zeros(0, np.int64)
    changed = np.ones(len(starts), bool)
    changed[1:] = (parts[0][1:] != parts[0][:-1]) | (parts[1][1:] != parts[1][:-1])
    changed[1:] |= parts[2][1:] != parts[2][:-1]
    known: dict[bytes, int] = {}
    found = []
    for start in starts[changed].tolist():
        text = bytes(data[start : start + 17])
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


def _ranks(data: bytes | bytearray, texts: Array) -> Array:
    """The number in `[rank N] ` at the beginning of each text, or -1."""
    import numpy as np

    u = np.uint64
    first, second, third = _words(data, texts, 3).T
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
