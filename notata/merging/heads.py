"""The heads of all records in a buffer, found in bulk: what `messages.blocks` finds line by line.

Each head is looked at as a few words of eight bytes, all heads at once. Most lines have the same
level and rank as the line above and were written in the same ten seconds: those need no more than
their last digits read. Where a head differs from the one above, it is compared with what the log's
records usually begin with; any other line that may be a record is looked at in more steps.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from notata.merging.anyheads import Heads, heads_of_any, prefix_ticks, words_at

if TYPE_CHECKING:
    from notata.npy import Array

BEFORE, BEHIND = 8, 96  # bytes that the buffer has to have around what is looked at
_BLOCK = 1 << 20  # bytes in which lines are looked for at once
_AT_ONCE = 1 << 13  # lines that are looked at, few enough to stay near the processor
_USUAL = ("INFO", "DEBUG", "WARNING", "ERROR")

# The words of a head begin before its line, so that one of them is the last digits of its stamp:
# `.....[20`, `26-11-23`, `T03:00:1`, `2.345678`, `] INFO [` and so on.
_BACK = 5
_WORDS = 7
_DIGITS = 3  # the word of the last digits
_TAIL = 27  # the byte of the line at which the next word begins
_DOT = ord(".") << 8


def find_heads(
    data: bytes | bytearray, ends: Sequence[int] = (), ranks: Sequence[int] = ()
) -> Heads:
    """Find the records in whole lines.

    Args:
        data: `BEFORE` bytes, of which the last is a line break; the lines; and `BEHIND` more bytes.
        ends: Where each log's lines end, if there are several. Those of the next one begin there,
            or one byte behind.
        ranks: The rank that the records of each log usually name.

    Ranks: independent.
    """
    import numpy as np

    if not ends:
        ends, ranks = (len(data) - BEHIND,), (0,)
    starts = _line_starts(np.frombuffer(data, np.uint8)[: ends[-1] + BEHIND])
    between = np.array([end for end in ends[:-1] if data[end] != ord("[")], np.int64)
    if len(between):
        at, behind = (np.searchsorted(starts, between, side) for side in ("left", "right"))
        starts = np.delete(starts, at[at < behind])
    counts = np.diff(np.searchsorted(starts, ends), prepend=0)
    owners = np.repeat(np.arange(len(ends)), counts)
    usual = _Usual(ranks)
    heads = Heads(starts, np.empty(len(starts), np.int64), np.repeat(usual.ranks, counts))
    sound = np.empty(len(starts), bool)
    for i, j in _blocks(counts.tolist()):
        mine = owners[i] if owners[i] == owners[j - 1] else owners[i:j]
        sound[i:j] = _read(data, Heads(*(column[i:j] for column in heads)), usual, mine)
    return heads if sound.all() else Heads(*(column[sound] for column in heads))


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
    """How the records of some logs usually go on behind the last digits of the stamp.

    Attributes:
        ranks: The rank that each log's records name.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        import numpy as np

        self.ranks = np.array(ranks, np.int64)
        known, bits = (b"".join(some) for some in zip(*map(_as_words, ranks), strict=True))
        shape = (len(ranks), len(_USUAL), _WORDS - _DIGITS)
        self._known = np.frombuffer(known, "<u8").reshape(shape)
        self._bits = np.frombuffer(bits, "<u8").reshape(shape)
        # What counts of a head that has the first of the levels, but for the digits.
        self._counts = np.zeros((len(ranks), _WORDS), np.uint64)
        self._counts[:, 0] = 0xFFFF_FF00_0000_0000
        self._counts[:, 1:_DIGITS] = 0xFFFF_FFFF_FFFF_FFFF
        self._counts[:, _DIGITS:] = self._bits[:, 0]

    def changes(self, w: Array, logs: Array) -> Array:
        """The lines whose head is not that of the line above but for the last digits.

        This is so for the first of the usual levels; other levels are not told apart.
        """
        import numpy as np

        changed = np.zeros(len(w), bool)
        changed[:1] = True
        if logs.ndim:
            changed[1:] = logs[1:] != logs[:-1]  # other ranks
        some = self._counts[logs.min() : logs.max() + 1]
        if (some == some[0]).all():  # ranks of as many digits
            counts = _over_and_over(some[0].tobytes(), _AT_ONCE)[: w.size - _WORDS]
        else:
            counts = self._counts[logs[1:]].reshape(-1)
        words = w.reshape(-1)
        differ: Array = words[_WORDS:] ^ words[:-_WORDS]
        differ &= counts
        changed[np.flatnonzero(differ != 0) // _WORDS + 1] = True
        return np.flatnonzero(changed)

    def match(self, w: Array, logs: Array, levels: Sequence[int]) -> Array:
        """Which lines go on with one of some levels, by their words and the logs they are of."""
        import numpy as np

        match: Array = np.zeros(len(w), bool)
        for level in levels:
            known, counting = self._known[:, level], self._bits[:, level]
            differ = (w[:, _DIGITS] ^ known[logs, 0]) & counting[logs, 0]
            for i in range(1, _WORDS - _DIGITS):
                differ |= (w[:, _DIGITS + i] ^ known[logs, i]) & counting[logs, i]
            match |= differ == 0
        return match


@functools.lru_cache(4)  # one for each length of ranks in a run
def _over_and_over(words: bytes, times: int) -> Array:
    import numpy as np

    return np.frombuffer(words * times, np.uint64)


@functools.lru_cache(1 << 12)
def _as_words(rank: int) -> tuple[bytes, bytes]:
    """The word of the digits and what follows, for each usual level, and which bits count.

    A long one matches nothing.
    """
    room = 8 * (_WORDS - _DIGITS)
    known, bits = b"", b""
    for level in _USUAL:
        text = f"] {level} [rank {rank}] ".encode()
        fits = len(text) <= room - 8
        known += (b"\0.".ljust(8, b"\0") + text).ljust(room, b"\0") if fits else b"\xff" * room
        some = b"\0\xff".ljust(8, b"\0") + b"\xff" * len(text)
        bits += some.ljust(room, b"\0") if fits else b"\xff" * room
    return known, bits


def _read(data: bytes | bytearray, heads: Heads, usual: _Usual, logs: Array) -> Array | bool:
    """Which of some lines are records; their ticks are filled in, and their ranks if unusual."""
    import numpy as np

    starts, ticks, ranks = heads
    w = words_at(data, starts - _BACK, _WORDS)
    digits, right = _digits(w[:, _DIGITS])
    first = usual.changes(w, logs)
    begun = _begun(data, starts, w, usual, logs, first, (0,))
    counts = np.diff(first, append=len(starts))
    np.add(np.repeat(begun + 1, counts), digits, out=ticks)  # fine stamps have odd ticks
    if right.all() and (begun >= 0).all():
        return True
    sound = np.repeat(begun >= 0, counts)
    sound &= right
    rest = np.flatnonzero(~sound & ((w[:, 0] >> np.uint64(40) & np.uint64(0xFF)) == ord("[")))
    begun = _begun(data, starts, w, usual, logs, rest, range(1, len(_USUAL)))
    sound[rest] = right[rest] & (begun >= 0)
    ticks[rest] = begun + 1 + digits[rest]
    left = rest[~sound[rest]]
    if len(left):
        sound[left], ticks[left], ranks[left] = heads_of_any(data, starts[left])
    return sound


def _begun(
    data: bytes | bytearray,
    starts: Array,
    w: Array,
    usual: _Usual,
    logs: Array,
    some: Array,
    levels: Sequence[int],
) -> Array:
    """The ticks of the ten seconds of some of the lines, or -1 if a line is no usual head."""
    import numpy as np

    mine = w[some]
    parts = (mine[:, 0] >> np.uint64(40), mine[:, 1], mine[:, 2])
    ticks = prefix_ticks(data, starts[some], parts, 19)
    ticks[~usual.match(mine, logs[some] if logs.ndim else logs, levels)] = -1
    return ticks


def _digits(word: Array) -> tuple[Array, Array]:
    """The ticks of the last digits of a stamp, `S.ffffff`, and whether they are digits."""
    import numpy as np

    u = np.uint64
    digits = word ^ u(0x3030_3030_3030_0030 | _DOT)
    high = digits + u(0x0606_0606_0606_0606)
    high |= digits
    high &= u(0xF0F0_F0F0_F0F0_F0F0)
    digits += (digits & u(0xFF)) * u(0xFF)  # the first goes where the dot was
    # Two digits to a number, then four, then eight, of which each is two ticks.
    for ones, tens, shift, bits in (
        (1, 10, 8, 0x00FF_00FF_00FF_00FF),
        (1, 100, 16, 0x0000_FFFF_0000_FFFF),
        (2, 20_000, 32, 0),
    ):
        digits *= u(ones + (tens << shift))
        digits >>= u(shift)
        if bits:
            digits &= u(bits)
    return digits.view(np.int64), high == 0


def _line_starts(a: Array) -> Array:
    """Where lines begin, found block by block, so that little memory is touched."""
    import numpy as np

    found = [np.zeros(0, np.int64)]
    match = np.empty(_BLOCK, bool)
    end = len(a) - BEHIND - 1
    for begin in range(BEFORE - 1, end, _BLOCK):
        block = a[begin : min(begin + _BLOCK, end)]
        found.append(_where(np.equal(block, ord("\n"), out=match[: len(block)]), begin + 1))
    return np.concatenate(found)


def _where(match: Array, first: int) -> Array:
    """Where some of many truths are, counted from a number, of which 32 are looked at at once."""
    import numpy as np

    whole = len(match) & ~31
    bits = np.packbits(match[:whole], bitorder="little").view("<u4")
    at = np.flatnonzero(bits != 0)
    one = bits[at]
    if (one & (one - np.uint32(1))).any():  # two of them
        return np.flatnonzero(match) + first
    at <<= 5
    at += one.astype(np.float32).view(np.uint32) >> np.uint32(23)  # the exponent: which bit it is
    at += first - 127
    rest = np.flatnonzero(match[whole:]) + (whole + first)
    return np.concatenate((at, rest)) if len(rest) else at
