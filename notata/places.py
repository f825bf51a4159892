"""Where a run's verbs write: alone, as one rank of several, or as the root view."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from notata import files, folders, layout, mergerecord
from notata.attempts import Attempt
from notata.errors import PieceError
from notata.logwriter import LogWriter
from notata.messages import WARNING
from notata.pieces import Piece
from notata.rankfolder import RankFolder


class Place:
    """Where verbs write.

    Attributes:
        active: Whether they write at all; a root view is inactive on all ranks but 0.
        home: The folder that names are relative to, with a log, artifacts and plots; absolute.
        data_home: The folder that holds the arrays; absolute.
        shown: The same two as the user gave them, which may be relative.
        whole: Whether an array given here is a whole one, not a piece.
        log: The log that takes the messages.
        attempt: This process's attempt at the run.
        disk: The disk, as this process uses it.
    """

    def __init__(
        self,
        *,
        active: bool,
        home: str,
        data_home: str,
        shown: tuple[str, str],
        whole: bool,
        log: LogWriter,
        attempt: Attempt,
    ) -> None:
        self.active = active
        self.shown = shown
        self.home = home
        self.data_home = data_home
        self.whole = whole
        self.log = log
        self.attempt, self.disk = attempt, attempt.disk

    def path(self, *names: str) -> Path:
        """A path to something in `home`, relative if the user gave it so and it still leads there.

        Ranks: independent.
        """
        return folders.leading(self.shown[0], self.home).joinpath(*names)

    def data_path(self, *names: str) -> Path:
        """The same in `data_home`.

        Ranks: independent.
        """
        return folders.leading(self.shown[1], self.data_home).joinpath(*names)

    def before(self, *, data: bool = False) -> None:
        """Called before a file is written here; `data` says whether it is an array.

        Raises:
            OutdatedError: If a newer attempt goes on in the run.
        """
        self.attempt.check()

    def wrote(self, *names: str) -> None:
        """Called with plots and artifacts that were written here, by name relative to `home`."""

    def reserve(self, file: str) -> None:
        """Called with the file of each array before it is written."""

    def begin(self, pieces: Sequence[Piece]) -> None:
        """Called with the pieces of each file before it gets its name, where arrays are pieces."""

    def enter(self, pieces: Sequence[Piece]) -> None:
        """Called with the pieces of each file that is on disk, where arrays are pieces."""


class RankPlace(Place):
    """Where a rank of several writes: its folder; rank 0's plots and artifacts are the run's."""

    def __init__(
        self,
        folder: RankFolder,
        home: str,
        shown: tuple[str, str],
        log: LogWriter,
        names: Names,
    ) -> None:
        super().__init__(
            active=True,
            home=home,
            data_home=folder.path,
            shown=shown,
            whole=False,
            log=log,
            attempt=folder.attempt,
        )
        self._folder = folder
        self._names = names

    def before(self, *, data: bool = False) -> None:
        """Claim the rank's folder before the first file in it."""
        super().before()
        if data or self.home == self.data_home:
            self._folder.claim()

    def wrote(self, *names: str) -> None:
        """Let the rank's record say what they hold, if the rank has said already how it ended."""
        self._folder.changed(*names)

    def reserve(self, file: str) -> None:
        """Note that this file holds a piece."""
        self._names.take(file, "piece")

    def begin(self, pieces: Sequence[Piece]) -> None:
        """Let the rank's manifest say what an older file gives way to."""
        self._folder.manifest.begin(pieces)

    def enter(self, pieces: Sequence[Piece]) -> None:
        """Enter the pieces into the rank's manifest."""
        self._folder.manifest.add(pieces)


class RootPlace(Place):
    """Where the root view writes: the run's own folders, from rank 0 alone."""

    def __init__(
        self,
        active: bool,
        run: str,
        shown: str,
        log: LogWriter,
        attempt: Attempt,
        names: Names,
    ) -> None:
        super().__init__(
            active=active,
            home=run,
            data_home=run,
            shown=(shown, shown),
            whole=True,
            log=log,
            attempt=attempt,
        )
        self._names = names
        self._void = ""

    def path(self, *names: str) -> Path:
        """A path in the run; on other ranks one in a folder that nobody looks at."""
        self._keep_out()
        return super().path(*names)

    def data_path(self, *names: str) -> Path:
        """The same for arrays."""
        self._keep_out()
        return super().data_path(*names)

    def before(self, *, data: bool = False) -> None:
        """On other ranks, make a folder for what paths of the root view are used for there."""
        self._keep_out()
        if self.active:
            super().before()

    def _keep_out(self) -> None:
        if self.active or self.home == self._void:
            return
        import shutil
        import tempfile

        self.home = self.data_home = self._void = tempfile.mkdtemp(prefix="notata-")
        self.shown = (self.home, self.home)
        weakref.finalize(self, shutil.rmtree, self.home, ignore_errors=True)
        for folder in (layout.DATA, layout.PLOTS, layout.ARTIFACTS):
            os.mkdir(os.path.join(self.home, folder))

    def reserve(self, file: str) -> None:
        """Note that this file holds a whole array.

        Raises:
            PieceError: If this attempt gave it in pieces, or a merge made it of some.
        """
        self._names.take(file, "whole")
        joined: frozenset[str] = frozenset()
        with suppress(OSError):  # a record that can't be read is no reason to lose an array
            joined = mergerecord.read(self.home).files
        if f"{layout.DATA}/{file}" in joined:
            raise PieceError(
                f"{layout.DATA}/{file} was made by notata merge, of pieces that ranks wrote in an "
                "earlier attempt; give the array of log.root another name"
            )


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


def places_of(run: str, shown: str, folder: RankFolder, level: str | int) -> tuple[Place, Place]:
    """Where a process writes, and where its root view does; both share one log.

    Args:
        run: Folder of the run, absolute.
        shown: The same as the user gave it.
        folder: The folder that this rank alone writes to.
        level: The lowest level that is logged.

    Ranks: independent.
    """
    topology, names, attempt = folder.topology, Names(), folder.attempt
    rank, sync_from = topology.rank, WARNING if attempt.disk.at_once else None
    if not topology.parallel:
        path = f"{run}/{layout.LOG}"
        log = LogWriter(path, level=level, look=attempt.look, sync_from=sync_from)
        both = (shown, shown)
        own = Place(
            active=True,
            home=run,
            data_home=run,
            shown=both,
            whole=True,
            log=log,
            attempt=attempt,
        )
    else:
        home = run if rank == 0 else folder.path
        opener = files.open_append if rank == 0 else folder.open_log
        path = os.path.join(home, layout.LOG)
        log = LogWriter(path, rank, level, opener, attempt.look, sync_from)
        data = os.path.join(shown, layout.rank_dir(rank))
        own = RankPlace(folder, home, (shown if rank == 0 else data, data), log, names)
    attempt.when_outdated(log.mute)
    return own, RootPlace(topology.is_root, run, shown, log, attempt, names)
