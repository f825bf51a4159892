"""One rank's piece of an array: what is cut from it, and what its manifest says of it.

Pure arithmetic on shapes; no file is touched here.
"""

from __future__ import annotations

import json
import operator
from binascii import crc32
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from notata import checksums
from notata.errors import PieceError

Shape = tuple[int, ...]
Halo = int | Sequence[int | Sequence[int]]
JOINS = ("concat", "stack", "none", "place")
Identity = tuple[str, str | None]  # name and key: `b:x` may be an array, and x of the bundle b
_T = TypeVar("_T")


class Piece(NamedTuple):
    """One rank's piece of an array, as it stands in the rank's manifest.

    Attributes:
        name: Name of the array, or of the bundle that holds it.
        key: Key inside the bundle, or None for an array of its own.
        file: The file, relative to the rank's folder.
        join: `place`, `concat`, `stack` or `none`.
        shape: Shape of the piece, without its halo.
        dtype: Its type, as `npy.dtype_text` spells it.
        fortran: Whether it lies in Fortran order.
        start: Index of its first element in the whole, for `place`.
        whole: Shape of the whole, for `place`.
        size: Size of the file in bytes.
        write: The same for all pieces that were written into the file at once, and for no others.
        checksum: Of what was written: of the file, or of the key in its bundle. None where nobody
            computed one, as older versions didn't.
        begun: Whether the line says what is about to take the place of an older file, which may not
            have happened.
    """

    name: str
    key: str | None
    file: str
    join: str
    shape: Shape
    dtype: str
    fortran: bool
    start: Shape | None
    whole: Shape | None
    size: int
    write: int
    checksum: str | None = None
    begun: bool = False

    @property
    def identity(self) -> Identity:
        """Its name and key, which tell it from all others."""
        return self.name, self.key

    @property
    def label(self) -> str:
        """The name that a reader loads it by, if no other array goes before it."""
        return label_of(self.identity)

    @property
    def is_empty(self) -> bool:
        """Whether it has no elements, so that its type says nothing."""
        return not all(self.shape)

    def line(self) -> bytes:
        """The line of the manifest that stands for it."""
        usual = self._field_defaults
        fields = {n: v for n, v in self._asdict().items() if n not in usual or v != usual[n]}
        text = json.dumps(fields, separators=(",", ":")).encode()[:-1]
        return b'%b%b"%b"}\n' % (text, _SEAL, _sum(text))

    @classmethod
    def from_line(cls, line: bytes) -> Piece:
        """Read a line of a manifest.

        Raises:
            ValueError: If the line is torn or not of a manifest, is not as it was written, or says
                of a piece what can't be.
        """
        fields = json.loads(line)
        text, seal, tail = line.rpartition(_SEAL)  # older versions wrote none
        if seal and tail.strip() != b'"%b"}' % _sum(text):
            raise ValueError("not as it was written")
        if not isinstance(fields, dict):
            raise ValueError("not a manifest's line")
        told = cls._field_defaults | fields
        try:
            piece = cls(
                **{
                    **{name: told[name] for name in cls._fields},
                    **{name: _shared(told[name]) for name in _MOSTLY_THE_SAME},
                    "shape": _shared(tuple(fields["shape"])),
                    "start": _tuple(fields["start"]),
                    "whole": _shared(_tuple(fields["whole"])),
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a manifest's line: {error}") from None
        if piece.join not in JOINS:
            raise ValueError(f"join {piece.join!r} is none of {', '.join(map(repr, JOINS))}")
        if piece.join == "place":
            placed(piece.shape, piece.start, piece.whole)
        return piece


_SEAL = b',"line":'


def _sum(text: bytes) -> bytes:
    """The checksum of a line, up to where that begins."""
    return checksums.text_of_crc(crc32(text)).encode()


def label_of(identity: Identity) -> str:
    """The name that a reader loads an array by: `T`, or `bundle:key`.

    Ranks: independent.
    """
    name, key = identity
    return name if key is None else f"{name}:{key}"


def ways(label: str) -> Iterator[Identity]:
    """What a name may mean, in the order in which readers try it.

    Example:
        >>> list(ways("a:b:c"))
        [('a:b:c', None), ('a', 'b:c'), ('a:b', 'c')]

    Ranks: independent.
    """
    yield label, None
    for position, character in enumerate(label):
        if character == ":" and 0 < position < len(label) - 1:
            yield label[:position], label[position + 1 :]


def by_label(found: Mapping[Identity, _T]) -> dict[str, _T]:
    """What readers find by each name; of several, that which `ways` gives first.

    Example:
        >>> by_label({("b", "x"): 1, ("b:x", None): 2, ("T", None): 3})
        {'T': 3, 'b:x': 2}

    Ranks: independent.
    """
    ordered = sorted(found, key=by_ways, reverse=True)
    return dict(sorted({label_of(identity): found[identity] for identity in ordered}.items()))


def by_ways(identity: Identity) -> tuple[bool, int]:
    """A key to sort arrays of one label by, in the order of `ways`.

    Ranks: independent.
    """
    return identity[1] is not None, len(identity[0])


def _tuple(value: Sequence[int] | None) -> Shape | None:
    return None if value is None else tuple(value)


_MOSTLY_THE_SAME = ("name", "key", "file", "join", "dtype")


def _shared(value: Any) -> Any:
    """The same value, held once: 4,096 ranks spell each name and shape of theirs 4,096 times."""
    plain = type(value) is tuple and all(type(item) is int for item in value)
    return _held_once(value) if plain or type(value) is str else value


@lru_cache(maxsize=1 << 12)
def _held_once(value: Any) -> Any:
    return value


def halo_slices(shape: Shape, halo: Halo) -> tuple[slice, ...]:
    """The part of an array that is not halo.

    Args:
        shape: Shape of the array with its halo.
        halo: Ghost cells on every side; or one number per axis; or a pair per axis.

    Returns:
        A slice for each axis.

    Raises:
        PieceError: If the halo does not fit the shape.

    Example:
        >>> halo_slices((6, 7), ((1, 1), (0, 2)))
        (slice(1, 5, None), slice(0, 5, None))

    Ranks: independent.
    """
    per_axis: Sequence[Any] = [halo] * len(shape) if _is_int(halo) else _items("halo", halo)
    if len(per_axis) != len(shape):
        raise PieceError(
            f"halo={halo!r} is for {len(per_axis)} axes, the piece of shape {shape} has "
            f"{len(shape)}: give one number, one per axis, or a pair per axis"
        )
    slices = []
    for axis, (length, sides) in enumerate(zip(shape, per_axis, strict=True)):
        pair = (sides, sides) if _is_int(sides) else _items("halo", sides)
        if len(pair) != 2 or not all(_is_int(side) and side >= 0 for side in pair):
            raise PieceError(f"halo={halo!r}: axis {axis} needs a number or a pair, not {sides!r}")
        low, high = operator.index(pair[0]), operator.index(pair[1])
        if low + high > length:
            raise PieceError(
                f"halo={halo!r} takes {low + high} cells of axis {axis}, which has {length}"
            )
        slices.append(slice(low, length - high))
    return tuple(slices)


def placed(shape: Shape, start: Any, whole: Any) -> tuple[Shape, Shape]:
    """Check where a piece goes.

    Args:
        shape: Shape of the piece without its halo.
        start: Index of its first element in the whole; a number will do for one axis.
        whole: Shape of the whole, likewise.

    Returns:
        Start and shape of the whole as tuples.

    Raises:
        PieceError: If one of them is missing, or the piece does not lie inside the whole.

    Example:
        >>> placed((2, 3), (4, 0), (6, 3))
        ((4, 0), (6, 3))

    Ranks: independent.
    """
    if start is None or whole is None:
        raise PieceError(
            "start and shape go together: where the piece begins, and the whole's shape"
        )
    at, of = _indices("start", start), _indices("shape", whole)
    if not len(at) == len(of) == len(shape):
        raise PieceError(
            f"start={start!r}, shape={whole!r} and a piece of shape {shape} differ in axes"
        )
    for axis, (first, length, total) in enumerate(zip(at, shape, of, strict=True)):
        if first < 0 or first + length > total:
            raise PieceError(
                f"a piece of shape {shape} at start={at} leaves the array of shape {of} on axis "
                f"{axis}: {first} + {length} > {total}; is a halo to be left out (halo=...)?"
            )
    return at, of


def _is_int(value: object) -> bool:
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:  # arrays have the method too, and mean several numbers
        return False
    return True


def _items(what: str, value: Any) -> tuple[Any, ...]:
    try:
        return tuple(value)
    except TypeError:
        raise PieceError(f"{what}={value!r} is no whole number and no tuple of them") from None


def _indices(what: str, value: Any) -> Shape:
    items = (value,) if _is_int(value) else _items(what, value)
    if not all(_is_int(item) for item in items):
        raise PieceError(f"{what}={value!r} is not a tuple of whole numbers")
    return tuple(operator.index(item) for item in items)


class Cut(NamedTuple):
    """A piece ready to be written: its cells without halo, and where they go."""

    array: Any
    join: str
    start: Shape | None
    whole: Shape | None


def cut(
    label: str, array: Any, *, start: Any, shape: Any, halo: Halo, join: str, alone: bool
) -> Cut:
    """Check how a piece is to be joined, and leave its halo out.

    Args:
        label: Name of the array, for errors.
        array: The piece with its halo.
        start: Where its first cell that is not halo lies in the whole, or None.
        shape: Shape of the whole, or None.
        halo: Ghost cells on every side, per axis, or per side.
        join: `concat`, `stack` or `none`, for a piece without a start.
        alone: Whether this one piece has to be the whole array.

    Raises:
        PieceError: If they contradict each other; the message names the array.

    Ranks: independent.
    """
    try:
        if join not in JOINS[:3]:
            raise PieceError(f"join={join!r}: give one of {', '.join(map(repr, JOINS[:3]))}")
        if not (_is_int(halo) and halo == 0):
            array = array[halo_slices(array.shape, halo)]
        if start is None and shape is None:
            return Cut(array[None] if alone and join == "stack" else array, join, None, None)
        at, whole = placed(array.shape, start, shape)
        if alone and array.shape != whole:
            raise PieceError(
                f"a piece of shape {array.shape} does not fill the array of shape {whole}, and "
                "there is no other rank to give the rest"
            )
        return Cut(array, "place", at, whole)
    except PieceError as error:
        raise PieceError(f"array {label!r}: {error}") from None
