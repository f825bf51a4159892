"""Where a run's verbs write: alone, as one rank of several, or as the root view."""

from __future__ import annotations

import os

from notata import files, layout, messages
from notata.errors import PieceError
from notata.pieces import Piece
from notata.rankfolder import RankFolder
from notata.topology import Topology


class Place:
    """Where verbs write.

    Attributes:
        active: Whether they write at all; a root view is inactive on all ranks but 0.
        home: The folder that names are relative to, with a log, artifacts and plots.
        data_home: The folder that holds the arrays.
        whole: Whether an array given here is a whole one, not a piece.
        log: The log that takes the messages.
    """

    def __init__(
        self, *, active: bool, home: str, data_home: str, whole: bool, log: messages.LogWriter
    ) -> None:
        self.active = active
        self.home = home
        self.data_home = data_home
        self.whole = whole
        self.log = log

    def before(self, *, data: bool = False) -> None:
        """Called before a file is written here; `data` says whether it is an array."""

    def reserve(self, file: str) -> None:
        """Called with the file of each array before it is written."""

    def enter(self, piece: Piece) -> None:
        """Called with each piece that is on disk, where arrays are pieces."""


class RankPlace(Place):
    """Where a rank of several writes: its folder; rank 0's plots and artifacts are the run's."""

    def __init__(
        self, folder: RankFolder, home: str, log: messages.LogWriter, names: Names
    ) -> None:
        super().__init__(active=True, home=home, data_home=folder.path, whole=False, log=log)
        self._folder = folder
        self._names = names

    def before(self, *, data: bool = False) -> None:
        """Claim the rank's folder before the first file in it."""
        if data or self.home == self.data_home:
            self._folder.claim()

    def reserve(self, file: str) -> None:
        """Note that this file holds a piece."""
        self._names.take(file, "piece")

    def enter(self, piece: Piece) -> None:
        """Enter the piece into the rank's manifest."""
        self._folder.add(piece)


class RootPlace(Place):
    """Where the root view writes: the run's own folders, from rank 0 alone."""

    def __init__(self, active: bool, run: str, log: messages.LogWriter, names: Names) -> None:
        super().__init__(active=active, home=run, data_home=run, whole=True, log=log)
        self._names = names

    def reserve(self, file: str) -> None:
        """Note that this file holds a whole array."""
        self._names.take(file, "whole")


class Names:
    """Which arrays rank 0 gives in pieces and which whole: one file can't be both."""

    def __init__(self) -> None:
        self._taken: dict[str, str] = {}

    def take(self, file: str, kind: str) -> None:
        """Note that an array's file is a `piece` or `whole`.

        Raises:
            PieceError: If it was the other one before.
        """
        if self._taken.setdefault(file, kind) != kind:
            raise PieceError(
                f"{file} is written in pieces by log.array(s) and whole by log.root.array(s); give "
                "one of them another name"
            )


def places_of(
    run: str, topology: Topology, folder: RankFolder, level: str | int
) -> tuple[Place, Place]:
    """Where a process writes, and where its root view does; both share one log.

    Args:
        run: Folder of the run.
        topology: The process's place among the ranks.
        folder: The folder that this rank alone writes to.
        level: The lowest level that is logged.

    Ranks: independent.
    """
    rank, names = topology.rank, Names()
    if not topology.parallel:
        log = messages.LogWriter(os.path.join(run, layout.LOG), level=level)
        own = Place(active=True, home=run, data_home=run, whole=True, log=log)
    else:
        home = run if rank == 0 else folder.path
        opener = files.open_append if rank == 0 else folder.open_log
        log = messages.LogWriter(os.path.join(home, layout.LOG), rank, level, opener)
        own = RankPlace(folder, home, log, names)
    return own, RootPlace(topology.is_root, run, log, names)
