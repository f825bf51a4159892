"""What one rank wrote, in: from its folder, or from what a merge and a pruning made of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from notata import layout, manifests, mending, npy, rankfiles, stored
from notata.errors import ArrayNotFoundError
from notata.messages import Record
from notata.pieces import Identity, Piece, label_of
from notata.rankfiles import Folder, RankFiles, RunFolder
from notata.streams import read_messages

if TYPE_CHECKING:
    from notata.npy import Array


class RankReader(stored.Shelf):
    """What one rank wrote.

    Attributes:
        rank: The rank.
        path: Folder of its log, artifacts and plots; need not exist if it wrote nothing.

    Ranks: independent.
    """

    def __init__(self, run: Path, rank: int, size: int) -> None:
        self.rank = rank
        folder = run / layout.rank_dir(rank) if size > 1 else run
        home: RankFiles = RunFolder(os.fspath(run))
        own = rankfiles.files_of(os.fspath(run), rank) if size > 1 else home
        super().__init__(run if rank == 0 else folder, home if rank == 0 else own, own)
        self._folder, self._run, self._size = folder, run, size

    def __repr__(self) -> str:
        return f"LogReader({os.fspath(self._run)!r}).ranks[{self.rank}]"

    @property
    def record(self) -> dict[str, Any]:
        """What the rank said of itself (host, status, traceback); empty if it wrote nothing.

        Ranks: independent.
        """
        return stored.json_object(self._own.read(layout.RANK_RECORD)) or {}

    @property
    def arrays(self) -> list[str]:
        """Names of the arrays that the rank has a piece of.

        Ranks: independent.
        """
        return sorted({*self.stored(), *map(label_of, self._joined())})

    def _joined(self) -> dict[Identity, Piece]:
        """The pieces that are no file any more: a merge joined them, and they were pruned."""
        if isinstance(self._own, Folder):
            return {}
        pieces = manifests.read_archived(os.fspath(self._run), self.rank)
        there = {f"{layout.DATA}/{name}" for name in self._own.names(layout.DATA)}
        return {
            piece.identity: piece
            for piece in pieces
            if piece.file not in there and piece.join != "none"
        }

    def load_array(self, name: str, region: Any = None) -> Array:
        """Load this rank's piece of an array.

        Args:
            name: `"T"`, or `"bundle:key"`.
            region: The part of the piece to read, as `numpy.s_` gives it.

        Raises:
            ArrayNotFoundError: If the rank wrote none of this name.

        Ranks: independent.
        """
        joined = self._joined()

        def cut_out(identity: Identity) -> Array | None:
            piece = joined.get(identity)
            return None if piece is None else self._cut_out(piece, region)

        found = self.load_stored(name, region, cut_out)
        if found is None:
            raise ArrayNotFoundError(f"rank {self.rank} wrote no array {name!r} in {self._folder}")
        return found

    def _cut_out(self, piece: Piece, region: Any) -> Array | None:
        """A piece that was pruned, from the whole that it became a part of."""
        if piece.is_empty:  # of any type, beside others of another
            import numpy as np

            nothing = np.empty(piece.shape, npy.dtype_from_text(piece.dtype))
            return nothing if region is None else stored.part_of(nothing, region)
        run = os.fspath(self._run)
        ranked = {
            rank: other
            for rank, pieces in manifests.read_all(run).items()
            for other in pieces
            if other.identity == piece.identity
        }
        whole, _ = mending.mend(ranked, self._size)
        part = next((part for part in whole.parts if part.rank == self.rank), None)
        if part is None:
            return None
        box = tuple(slice(a, a + n) for a, n in zip(part.start, part.shape, strict=True))
        path = os.path.join(run, layout.data_file(*piece.identity))
        try:
            found = stored.load_file(path, piece.key, box)
        except FileNotFoundError:
            return None
        found = found.reshape(piece.shape)
        return found if region is None else stored.part_of(found, region)

    def messages(self, level: str | int = 0) -> Iterator[Record]:
        """The rank's messages, in the order in which it wrote them.

        Ranks: independent.
        """
        return read_messages(os.fspath(self._run), level, [self.rank])
