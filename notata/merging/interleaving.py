"""Records of several logs, put in order and one behind another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from notata.npy import Array

BEHIND = 128  # bytes up to which records are copied together, and that a batch has behind them
_AT_ONCE = 1 << 14  # records that are copied together


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

    def parts_of(self, batch: Batch) -> Iterator[memoryview]:
        """Records by time; of the same time, log by log. The next part overwrites them.

        A part is so small that it is still near the processor when it is hashed and written.
        """
        import numpy as np

        order = _order(np.concatenate(batch.ticks))
        starts = np.concatenate(batch.starts)[order]
        ends = np.concatenate(batch.ends)[order]
        apart = starts[1:] != ends[:-1]
        if np.count_nonzero(apart) < len(apart) // 2:
            starts, ends = starts[np.append(True, apart)], ends[np.append(apart, True)]
        sizes = ends - starts
        for i in range(0, len(starts), _AT_ONCE):
            some = slice(i, i + _AT_ONCE)
            yield self._gathered(batch.data, starts[some], sizes[some])

    def _gathered(self, data: bytearray, starts: Array, sizes: Array) -> memoryview:
        """Runs of bytes one behind another.

        The short ones are copied with what follows them, all as long as the longest, which the next
        ones then write over. The long ones are copied as they are, after that.
        """
        import numpy as np

        ends = np.cumsum(sizes)
        into = ends - sizes
        size = int(ends[-1])
        if len(self._made) < size + BEHIND:
            self._made = bytearray(size + size // 4 + BEHIND)
        long = np.flatnonzero(sizes > BEHIND).tolist()
        short = sizes <= BEHIND if long else slice(None)
        _runs(self._made)[into[short]] = _runs(data)[starts[short]]
        view, whole = memoryview(data), memoryview(self._made)
        for i in long:
            whole[into[i] : ends[i]] = view[starts[i] : starts[i] + sizes[i]]
        return whole[:size]


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


def _runs(data: bytearray) -> Array:
    """The bytes at each place and those that follow, as one item."""
    import numpy as np

    return np.ndarray((len(data) - BEHIND + 1,), f"V{BEHIND}", data, strides=(1,))
