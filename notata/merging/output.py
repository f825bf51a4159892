"""A file that a merge makes, and what is wrong with what it is made of: values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from notata import npy
from notata.asleft import Left
from notata.assembly import Box, Whole
from notata.mergerecord import Fingerprints
from notata.pieces import Identity
from notata.ranges import compact


class Output(NamedTuple):
    """A file that the merge makes.

    Attributes:
        file: Its path, relative to the run.
        wholes: The arrays in it; empty for anything but arrays.
        inputs: The files that it is made of.
        fresh: Whether an earlier merge made it of these very inputs.
        holes: The boxes of each array, by its label, that no sound piece fills: they are to be
            filled with NaN, or with zeros where the type has no NaN.
        kind: `array`, `bundle`, `log`, `json`, `table` or `mask`.
        left: Those of the inputs that can't be joined, or not all of them.
        ranks: The ranks whose outputs are in it.
        size: Bytes of the file, of kinds other than arrays and bundles; for the mask of a bundle,
            bytes of the masks in it.
        noted: What ranks noted of those inputs whose contents are compared as they are joined.
    """

    file: str
    wholes: tuple[Whole, ...]
    inputs: Fingerprints
    fresh: bool
    holes: Mapping[str, tuple[Box, ...]] = {}
    kind: str = "array"
    left: frozenset[str] = frozenset()
    ranks: tuple[int, ...] = ()
    size: int = 0
    noted: Mapping[str, Left] = {}

    @property
    def is_log(self) -> bool:
        """Whether this is the log of all ranks."""
        return self.kind == "log"

    @property
    def identities(self) -> frozenset[Identity]:
        """The arrays in it."""
        return frozenset(whole.identity for whole in self.wholes)

    @property
    def bytes(self) -> int:
        """Bytes of its arrays, or of the files that it joins."""
        if self.kind == "mask":
            return sum(math.prod(whole.shape) for whole in self.wholes)
        return sum(map(bytes_of, self.wholes)) if self.wholes else self.input_bytes

    @property
    def input_bytes(self) -> int:
        """Bytes of the files that it is made of."""
        return sum(size for size, _ in self.inputs.values())


def bytes_of(whole: Whole) -> int:
    """Bytes of an array.

    Ranks: independent.
    """
    return npy.dtype_from_text(whole.dtype).itemsize * math.prod(whole.shape)


# What may be wrong, by what lets a merge go on all the same.
NEVER = frozenset[str]()
RUN_GOES_ON = frozenset({"unfinished"})
RANK_UNCLEAR = frozenset({"unfinished", "missing"})
MISSING = frozenset({"missing"})


class Problem(NamedTuple):
    """Something that is wrong, or that can't be known.

    Attributes:
        text: What, in a sentence with ranks and names.
        excuses: Which permissions let the merge go on.
        ranks: The ranks that it is about, where they are known.
        name: The output that it is about, where it is one.
        boxes: The parts of it that are missing, where they are known.
        hint: What to do about it.
    """

    text: str
    excuses: frozenset[str] = NEVER
    ranks: tuple[int, ...] = ()
    name: str | None = None
    boxes: tuple[Box, ...] = ()
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.text}: {self.hint}" if self.hint else self.text

    def told(self) -> dict[str, object]:
        """The same as plain values, for `merge.json`."""
        return {
            "ranks": compact(self.ranks),
            "name": self.name,
            "what": self.text,
            "excuses": sorted(self.excuses),
            "boxes": [[list(start), list(shape)] for start, shape in self.boxes],
        }
