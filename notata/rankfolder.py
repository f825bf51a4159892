"""What one rank alone writes in a run of several: its folder, its manifest, its record."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from notata import aside, asleft, folders, freshness, layout
from notata.attempts import Attempt
from notata.disk import Disk
from notata.errors import RunExistsError
from notata.manifestwriter import ManifestWriter
from notata.messages import now, stamp_seconds
from notata.parking import Lock, held
from notata.sealed import sealed
from notata.stored import read_json
from notata.topology import Topology, hostname, process_start, same_launch


def belongs_to(topology: Topology, record: dict[str, Any]) -> str:
    """Whether a record on disk is of this launch: `ours`, `another` or `unknown`.

    Args:
        topology: This process's place.
        record: A run's metadata or a rank's record.

    Ranks: independent.
    """
    parallel = record.get("parallel")
    facts = parallel if isinstance(parallel, dict) else record
    if facts.get("size", topology.size) != topology.size or (
        facts is record and "rank" not in record
    ):
        return "another"  # of another number of ranks, or of one
    here = hostname() in (facts.get("host"), *(facts.get("hosts") or ()))
    started, ended = _seconds(record.get("start_time")), _seconds(record.get("end_time"))
    return same_launch(topology, facts.get("launch"), started, ended, same_host=here)


def _seconds(stamp: object) -> float | None:
    try:
        return stamp_seconds(str(stamp)) if stamp else None
    except ValueError:
        return None


_openings: Counter[tuple[str, int]] = Counter()


def has_opened(run: str, rank: int) -> bool:
    """Whether this process has opened a run of several ranks, as one of them.

    Ranks: independent.
    """
    return (run, rank) in _openings


class RankFolder:
    """The folder of a rank, made by the first thing that the rank writes there.

    A rank that writes nothing leaves nothing.

    Attributes:
        path: The folder.
        claimed: Whether it was made.
        topology: This process's place.
        attempt: This process's attempt at the run.
        disk: The disk, as this process uses it.
        manifest: The rank's manifest.
        replaces: Whether the run that was there, if one was, gave way.
        tell: Called where what rank 0 noted of its files has changed.
        opening: How many times this process has opened the run: as many on all ranks of a launch;
            1 in a run of one rank, whose openings nobody else has to know.
    """

    def __init__(self, run: str, topology: Topology, run_id: str, disk: Disk | None = None) -> None:
        """Prepare; nothing is made yet.

        Args:
            run: The run's folder.
            topology: This process's place.
            run_id: The run's id.
            disk: The disk; by default as it is used where nobody chose a durability.
        """
        self.run = run
        self.path = f"{run}/{layout.rank_dir(topology.rank)}"
        self.claimed = False
        self.topology = topology
        self.attempt = Attempt(run, topology, disk)
        self.disk = self.attempt.disk
        path = os.path.join(self.path, layout.MANIFEST)
        self.manifest = ManifestWriter(path, self.disk, self.attempt.is_newest)
        self.replaces = False
        self._goes_on = False  # whether it is gone on with
        self._lock = Lock()  # signals and a watchdog note something, too
        self._pid = os.getpid()  # a forked child writes for the rank
        self._record: dict[str, Any] = {"run_id": run_id}
        self._left: dict[str, asleft.Left] | None = None  # once the rank has closed the run
        self._renewals = asleft.Renewals()
        self.tell: Callable[[], object] = lambda: None
        self.opening = 1
        if not topology.parallel:  # there is no such record, nor another rank
            return
        if topology.comm is None:
            process_start()  # while it is not that of a child
        self._record["start_time"] = now()
        self.opening = _openings[run, topology.rank] = _openings[run, topology.rank] + 1

    @property
    def record(self) -> dict[str, Any]:
        """What the rank's record says."""
        return self._who() | self._record

    def root_has_begun(self) -> bool:
        """Whether rank 0 of this launch has begun the run, where no communicator tells.

        Ranks: independent.
        """
        metadata = read_json(os.path.join(self.run, layout.METADATA))
        return metadata is not None and belongs_to(self.topology, metadata) != "another"

    def check(self) -> None:
        """Make sure that the run is of this launch, where no communicator has made sure.

        Raises:
            RunExistsError: If an earlier launch wrote it.
            NotADirectoryError: If something above it is no folder, so that rank 0 can't make it.

        Ranks: independent.
        """
        metadata = read_json(os.path.join(self.run, layout.METADATA))
        if metadata is None:
            with suppress(FileNotFoundError):  # rank 0 has not made it yet
                os.stat(self.run)
        elif belongs_to(self.topology, metadata) == "another":
            raise RunExistsError(self._taken(self.run))

    def claim(self) -> None:
        """Make the folder, unless this rank has done so already.

        Raises:
            RunExistsError: If it exists: an earlier run of this id wrote there.

        Ranks: independent.
        """
        if not self.claimed:
            with held(self._lock):
                if not self.claimed:
                    self._make()

    def _make(self) -> None:
        if self.topology.comm is None and not (self.replaces or self._goes_on):
            self.check()
        try:
            self.disk.claim_dir(self.path)
        except FileExistsError:
            # With a communicator rank 0 has just made the run, so that nobody else can have been
            # here; a program may have made the folder by itself (`log.datadir.mkdir()`).
            there = os.path.join(self.path, layout.RANK_RECORD)
            if self._goes_on:
                self._take_over()
            elif self.topology.comm is None and self._is_anothers(there):
                raise RunExistsError(self._taken(self.path)) from None
        self.claimed = True
        self.note()

    def _is_anothers(self, path: str) -> bool:
        """Whether a record is there, and not this rank's own Logbook's by a forked child of it."""
        if not freshness.exists(path):
            return False
        there, mine = read_json(path) or {}, self.record
        names = ("rank", "host", "pid", "launch", "start_time")
        return any(there.get(name) != mine[name] for name in names)

    def take_up(self) -> None:
        """Go on in the folder of the attempts before, if this rank wrote anything in them.

        Raises:
            DamagedError: If its manifest is none.

        Ranks: independent.
        """
        self._goes_on = True
        if self.topology.parallel and folders.is_dir(self.path):
            self.claim()

    def _take_over(self) -> None:
        """Put the manifest in a file that no process of an older attempt has open."""
        from notata import manifests

        pieces = manifests.read(self.path)
        self.manifest.take_over(pieces, manifests.bytes_of(pieces))

    def _taken(self, path: str) -> str:
        return (
            f"rank {self.topology.rank}: {path} belongs to an earlier run of this id; choose "
            "another run id, or pass overwrite=True to replace it"
        )

    def retire(self) -> None:
        """Take an earlier run's folder of this rank out of the way.

        The rest of that run may stand for a while yet: rank 0 takes it away.

        Ranks: independent.
        """
        self.replaces = True
        aside.forget(self.run, self.topology.rank, self.topology.parallel)
        old = os.path.join(self.run, layout.temporary())
        try:
            os.rename(self.path, old)
        except FileNotFoundError:
            return
        import shutil

        shutil.rmtree(old, ignore_errors=True)

    def note(self, **fields: Any) -> None:
        """Put facts into the rank's record; the folder is claimed if need be.

        Ranks: independent.
        """
        with held(self._lock):  # until it is on disk, so that none takes back what another noted
            self._record = self.record | fields
            if self.attempt.outdated:
                return
            self.claim()
            data = json.dumps(sealed(self._record), indent=2, sort_keys=True).encode()
            self.disk.replace(os.path.join(self.path, layout.RANK_RECORD), data)

    def note_end(self, **fields: Any) -> None:
        """Put into the rank's record how it ended, and what it leaves beside its pieces.

        Rank 0 writes that into the run's own folders.

        Ranks: independent.
        """
        if self.topology.rank == 0 or (not self.claimed and self.attempt.outdated):
            self.note(**fields)
            return
        self.claim()  # which may be the first that is written of a rank that fails
        fields["json_files"] = folders.count_json(os.path.join(self.path, layout.ARTIFACTS))
        sizes = asleft.found(self.path)
        log = sizes.get(layout.LOG)
        fields["log_bytes"] = log.size if log else 0
        first = asleft.first(sizes)
        if more := len(sizes) - len(first):
            fields["more_files"] = more
        if asleft.takes_long(first):  # whoever kills it meanwhile is to find how it ended
            self.note(**fields)
        self._left = asleft.read(self.path, first)
        self.note(**fields, files=asleft.to_plain(self._left))

    def note_own(self) -> None:
        """Note what rank 0 leaves in the run's own folders for a merge to read.

        Ranks: root only.
        """
        with held(self._lock):
            self._left = {}  # what is written from now on is noted by `changed`
        found = asleft.read(self.run, asleft.of_root(self.run, mixed=self._is_merged()))
        with held(self._lock):
            self._left = found | self._left

    def _is_merged(self) -> bool:
        """Whether a merge has joined the run's log."""
        if not os.path.exists(os.path.join(self.run, layout.MERGE_RECORD)):
            return False
        from notata import mergerecord

        return layout.LOG in mergerecord.read(self.run).files

    def own_files(self) -> dict[str, Any]:
        """What is noted of those files, as the metadata have it; nothing before it is.

        Ranks: root only.
        """
        left = self._left if self.topology.is_root else None
        return {} if left is None else {"files": asleft.to_plain(dict(left))}

    def changed(self, *names: str) -> None:
        """Called with files that were written: what is said of what they held is said anew.

        Ranks: independent.
        """
        if self._left is None:
            return
        is_root = self.topology.is_root
        names = tuple(filter(asleft.may_be_joined, names)) if is_root else names
        home = self.run if is_root else self.path
        with held(self._lock):
            left = self._left
            news = [self._renewals.put(left, home, name, timed=is_root) for name in names]
            if any(news) and not is_root:
                self.note(files=asleft.to_plain(left))
        if any(news) and is_root:
            self.tell()  # who writes the metadata asks for `own_files`, and may hold its own lock

    def _who(self) -> dict[str, Any]:
        return {
            "rank": self.topology.rank,
            "size": self.topology.size,
            "host": hostname(),
            "pid": self._pid,
            "launch": self.topology.launch,
            "status": "initialized",
        }

    def sync(self) -> None:
        """Have the rank's record survive the loss of this node, if that was promised.

        Raises:
            OSError: If the disk can't promise it.

        Ranks: independent.
        """
        self.disk.settle(os.path.join(self.path, layout.RANK_RECORD))

    def open_log(self, path: str) -> int:
        """Open the rank's log to append to, claiming the folder first.

        Ranks: independent.
        """
        self.claim()
        return self.disk.open_append(path)

    def close(self) -> None:
        """Let go of the manifest.

        Ranks: independent.
        """
        self.manifest.close()
