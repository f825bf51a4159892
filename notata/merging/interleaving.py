"""Records of several logs, put in order and one behind another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from notata.npy import Array

BEHIND = 128  # bytes up to which records are copied together, and that a batch has behind them
_AT_ONCE = 1 << 13  # records that are copied together


class Batch(NamedTuple):
    """Records of several logs, none of which comes after a record of a later batch.

    Attributes:
        data: What they are in, and `BEHIND` bytes more.
        starts: Where each begins, log by log.
        ends: Where it ends.
        ticks: What orders them.
    """

    data: bytearray
    starts: list[Array]
    ends: list[Array]
    ticks: list[Array]


class Interleaver:
    """Puts the records of batches in order."""

    def __init__(self) -> None:
        self._made = bytearray()

    def bytes_of(self, batch: Batch) -> memoryview:
        """Records by time; of the same time, log by log. The next batch overwrites them."""
        import numpy as np

        order = _order(np.concatenate(batch.ticks))
        starts = np.concatenate(batch.starts)[order]
        ends = np.concatenate(batch.ends)[order]
        apart = starts[1:] != ends[:-1]
        if np.count_nonzero(apart) < len(apart) // 2:
            starts, ends = starts[np.append(True, apart)], ends[np.append(apart, True)]
        sizes = ends - starts
        if len(self._made) < sizes.sum() + BEHIND:
            self._made = bytearray(int(sizes.sum()) + BEHIND)
        return _gathered(batch.data, starts, sizes, self._made)


def _order(ticks: Array) -> Array:
    """What `argsort` gives, by the time and the number in one word, which sorts sooner."""
    import numpy as np

    least = ticks.min()
    bits = len(ticks).bit_length()
    if int(ticks.max()) - int(least) >= 1 << (63 - bits):
        return np.argsort(ticks, kind="stable")
    keys: Array = ticks - least
    keys <<= bits
    keys |= np.arange(len(keys))
    keys.sort()
    keys &= (1 << bits) - 1
    return keys


def _gathered(data: bytearray, starts: Array, sizes: Array, made: bytearray) -> memoryview:
    """Put runs of bytes one behind another.

    The short ones are copied with what follows them, all as long as the longest, which the next
    ones then write over. The long ones are copied as they are, after that.
    """
    import numpy as np

    ends = np.cumsum(sizes)
    into = ends - sizes
    source: Array = np.ndarray((len(data) - BEHIND + 1,), f"V{BEHIND}", data, strides=(1,))
    target: Array = np.ndarray((len(made) - BEHIND + 1,), f"V{BEHIND}", made, strides=(1,))
    long = np.flatnonzero(sizes > BEHIND)
    for i in range(0, len(starts), _AT_ONCE):
        some = slice(i, i + _AT_ONCE)
        a, b = into[some], starts[some]
        if len(long):
            short = sizes[some] <= BEHIND
            a, b = a[short], b[short]
        target[a] = source[b]
    view, whole = memoryview(data), memoryview(made)
    for i in long.tolist():
        whole[into[i] : ends[i]] = view[starts[i] : starts[i] + sizes[i]]
    return whole[: int(ends[-1])]
