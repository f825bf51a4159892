"""Runs, in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from notata import (
    contents,
    datasets,
    folders,
    freshness,
    gather,
    layout,
    manifests,
    markup,
    pulse,
    spelling,
    stored,
)
from notata.assembly import Whole
from notata.errors import NotARunError, RunNotFoundError
from notata.messages import Record
from notata.phrases import counted
from notata.pieces import Identity, by_label, label_of
from notata.rankfiles import RunFolder
from notata.rankreader import RankReader
from notata.regions import region_of
from notata.stored import DAMAGED, Made, Shelf, StrPath
from notata.streams import read_messages

if TYPE_CHECKING:
    from notata.npy import Array


class LogReader(Shelf):
    """Reads a run, of one rank or many, before and after it is merged.

    It gives the same answers before a merge, after it, and after the ranks' folders were pruned.
    So `artifacts` are what the program wrote: a merge's own documents load, but aren't listed.

    Args:
        path: Folder of the run.

    Raises:
        RunNotFoundError: If there is no such folder (a `FileNotFoundError`).
        NotARunError: If no run was written there (a `ValueError`).

    Example:
        >>> run = LogReader("outputs/log_demo")
        >>> run.params["omega"]
        2.0

    Ranks: independent; a reader never talks to other ranks.
    """

    def __init__(self, path: StrPath) -> None:
        self._leads_to = os.path.abspath(path)  # the program may change its directory
        home = RunFolder(self._leads_to)
        super().__init__(path, home, home)
        self._manifests = manifests.Manifests(self._leads_to)
        if freshness.exists(os.path.join(self._run, layout.METADATA)):
            return
        if not freshness.exists(self._run):
            raise RunNotFoundError(f"no such run: {self.path}")
        if not folders.is_dir(self._run):
            raise NotARunError(f"{self.path} is a file, and no folder of a run")
        # A node that looked before rank 0 wrote may know of no file for half a minute (NFS), unless
        # it lists the folder.
        if layout.METADATA not in os.listdir(self._run):
            raise NotARunError(_no_run(self.path))

    @property
    def path(self) -> Path:
        """The run's folder, as it was given, or absolute once that leads elsewhere.

        Ranks: independent.
        """
        return folders.leading(self._shown, self._leads_to)

    @property
    def _run(self) -> str:
        return os.fspath(self.path)

    @property
    def run_id(self) -> str:
        """The run's id, from the name of its folder.

        Ranks: independent.
        """
        return layout.run_id_of(os.path.basename(os.path.realpath(self._leads_to)))

    @property
    def meta(self) -> dict[str, Any]:
        """The metadata (status, times, and what else was noted).

        Raises:
            DamagedError: If the file is no JSON object (a `ValueError`).

        Ranks: independent.
        """
        return stored.read_metadata(self._run)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters.

        Raises:
            DamagedError: If their file can't be parsed (a `ValueError`).

        Ranks: independent.
        """
        return stored.read_params(self._run)

    @property
    def size(self) -> int:
        """Number of ranks that the run had.

        Ranks: independent.
        """
        return gather.run_size(self._run, self.meta)

    @property
    def ranks(self) -> Sequence[RankReader]:
        """A reader for each rank, also for those that wrote nothing, made as it is asked for.

        Ranks: independent.
        """
        size = self.size
        return Made(lambda rank: RankReader(self.path, rank, size), range(size))

    @property
    def arrays(self) -> list[str]:
        """Names of all whole arrays, merged or not; each of them loads.

        Ranks: independent.
        """
        return sorted({*self.stored(), *map(label_of, self._wholes())})

    def _wholes(self) -> Mapping[Identity, Whole]:
        return self._manifests.wholes(self.size)

    def load_array(self, name: spelling.Name, region: Any = None) -> Array:
        """Load an array, from the merged file or, where that is missing or older, from the pieces.

        Args:
            name: `"T"`, or `"bundle:key"` for one of `arrays`.
            region: The part to read, as `numpy.s_` gives it; only the files that hold it are
                opened.

        Raises:
            ArrayNotFoundError: If there is none (a `FileNotFoundError`).
            KeyNotFoundError: If the bundle has no such key (a `KeyError`).
            HoleError: If the pieces that are there don't make a whole.
            DamagedError: If a file is cut off or isn't what it says.

        Example:
            >>> import numpy as np
            >>> LogReader("outputs/log_demo").load_array("T", region=np.s_[1:3, 0])
            array([3., 6.])

        Ranks: independent.
        """

        def pieces(identity: Identity) -> Array | None:
            whole = gather.newer(self._run, identity, self._wholes)
            return None if whole is None else self._put_together(whole, region)

        found = self.load_stored(name, region, pieces)
        if found is not None:
            return found
        whole = by_label(self._wholes()).get(spelling.spelled(name))
        if whole is None:
            raise manifests.no_array(os.fspath(self.path), name, self.arrays)
        return self._put_together(whole, region)

    def _put_together(self, whole: Whole, region: Any) -> Array:
        gather.check(whole, ((0,) * len(whole.shape), (0,) * len(whole.shape)))
        box = region_of(region, whole.shape)
        part = gather.load_whole(self._run, whole, (box.start, box.shape))
        return part if region is None else part[box.pick]

    def to_xarray(
        self,
        names: Iterable[str] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
    ) -> Any:
        """The arrays as an xarray Dataset, merged or not; each is read where it is used.

        Args:
            names: The arrays; all by default.
            dims: Names of the axes of some arrays, such as `{"T": ("x", "y")}`; else `T_0`, `T_1`.

        Returns:
            The Dataset; its attributes are parameters and metadata.

        Raises:
            ExportError: If xarray is not installed (a `ValueError`).

        Ranks: independent.
        """
        return datasets.dataset(Path(self._leads_to), names, dims)

    def messages(
        self, level: str | int = 0, ranks: int | Iterable[int] | None = None
    ) -> Iterator[Record]:
        """The run's messages in time order, and of each rank in the order it wrote them.

        Args:
            level: The lowest level to give, by name or number.
            ranks: The rank or ranks to give; all by default.

        Yields:
            Time, level, rank and text of each message.

        Example:
            >>> [m.message for m in LogReader("outputs/log_demo").messages("WARNING")]
            ['too hot']

        Ranks: independent.
        """
        return read_messages(self._run, level, [ranks] if isinstance(ranks, int) else ranks)

    def _repr_html_(self) -> str:
        run = self._run
        rows = {
            "path": run,
            "parameters": markup.tried(lambda: markup.pairs(self.params)),
            "ranks": markup.tried(lambda: str(self.size)),
            "arrays": markup.tried(lambda: map(str, contents.arrays(run))),
            "artifacts": markup.tried(lambda: self.artifacts),
            "plots": markup.tried(lambda: self.plots),
        }
        return markup.card("LogReader", self.run_id, status_of(self.path), rows)

    def __repr__(self) -> str:
        return f"LogReader({self._run!r})"

    def __str__(self) -> str:
        params = ", ".join(f"{key}={value}" for key, value in self.params.items())
        lines = [f"<LogReader '{self.run_id}'>", f"  params: {params or '(missing)'}"]
        lines.append(f"  meta: status={self.meta.get('status', 'unknown')}")
        for label, names in (
            ("arrays", self.arrays),
            ("artifacts", self.artifacts),
            ("plots", self.plots),
        ):
            lines += [f"  {label}:", *(f"    - {name}" for name in names)] if names else []
        return "\n".join(lines)


def _no_run(folder: Path) -> str:
    wrote = gather.rank_folders(os.fspath(folder))
    if wrote:
        return (
            f"{folder} is no run: rank 0 never opened it, though {len(wrote)} other ranks wrote "
            "there"
        )
    if folders.is_dir(folder / layout.RUNS):
        count = counted(len(stored.run_folders(folder / layout.RUNS, opened=False)), "run")
        return (
            f"{folder} is an experiment of {count}, and no run: `notata ls {folder}` lists them, "
            "and ExperimentReader reads it"
        )
    return f"{folder} is no run: it has no {layout.METADATA}"


def status_of(run: Path) -> str:
    """The status of a run as people are told it, that of a damaged one too.

    Ranks: independent.
    """
    meta = stored.read_json(run / layout.METADATA)
    status = DAMAGED if meta is None else str(meta.get("status", "unknown"))
    return pulse.state(status, run, pulse.Clock(run))
