"""How a run begins and ends: who makes its folder, and what becomes of it when ranks differ."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from notata import files, folders, freshness, jsontext, layout, writers
from notata.agreement import Record
from notata.attempts import Attempt
from notata.errors import NotARunError, RanksDisagreeError, RunExistsError, describe, revive
from notata.history import Entry, mirrored
from notata.messages import now
from notata.parking import Lock, held
from notata.ranges import ranks_text
from notata.rankfolder import RankFolder, belongs_to
from notata.sealed import sealed
from notata.stored import read_json
from notata.topology import Topology, hostname

COMPLETE, FAILED, INITIALIZED = "complete", "failed", "initialized"


def make_run_folder(
    path: str, attempt: Attempt, topology: Topology, *, overwrite: bool, resume: int | None
) -> list[Entry]:
    """Make the folder of a run that begins, or claim the next attempt at it.

    Args:
        path: The run's folder.
        attempt: Rank 0's attempt at it.
        topology: Rank 0's place.
        overwrite: Whether an earlier run of this id gives way.
        resume: Whether it is gone on with, or from 2 on as which attempt; None leaves that to the
            scheduler.

    Returns:
        The attempts at the run, this one too, where it is gone on with; else nothing.

    Raises:
        RunExistsError: If there is a run already, or one of another number of ranks to go on with.
        NotARunError: If what would be overwritten or gone on with is no run.
        OSError: If the folder can't be made.

    Ranks: root only.
    """
    try:
        attempt.disk.claim_dir(path)
        attempt.is_new = True
    except FileExistsError:
        if not folders.is_dir(path):
            what = "a file"
            if os.path.islink(path):
                what = f"a link to {os.readlink(path)}, where no folder is"
            raise RunExistsError(f"{path} is {what}; choose another run id or base_dir") from None
        alone = topology.comm is None
        if not overwrite and alone and _holds_only_our_ranks(path, topology):
            return []
        if attempt.goes_on(resume):
            _check_holds_run(path, "gone on with")
            try:
                attempt.check_size()
            except RunExistsError as error:  # that the folder is there is no news
                raise error from None
            return attempt.claim(resume)
        if not overwrite:
            raise RunExistsError(_taken(path)) from None
        _check_holds_run(path, "overwritten")
        _clear(path, topology)
    return []


def _taken(path: str) -> str:
    if freshness.exists(os.path.join(path, layout.METADATA)):
        return (
            f"run folder {path} already exists; choose another run id, or pass resume=True to go "
            "on in that run, or overwrite=True to replace it"
        )
    return (
        f"run folder {path} already exists, without {layout.METADATA}: either another process "
        "opens the run just now, or one failed or was killed while it did; then remove it, or "
        "begin the run anew with overwrite=True"
    )


def _check_holds_run(path: str, what: str) -> None:
    names = {n for n in os.listdir(path) if not layout.is_hidden(n)}
    of_a_run = {layout.LOG, layout.METADATA, layout.RANKS, layout.ARCHIVE, layout.MERGE_RECORD}
    empty = {layout.DATA, layout.PLOTS, layout.ARTIFACTS, *layout.PARAMS.values()}
    if not (names & of_a_run or names <= empty):
        raise NotARunError(
            f"{path} holds files but no run, and won't be {what}: move it away, or choose "
            "another run id"
        )


def _clear(path: str, topology: Topology) -> None:
    if topology.comm is not None or not topology.parallel:
        folders.discard(path)
        return
    # The other ranks can't be waited for: each takes its own old folder away, by `retire`.
    folders.discard(path, keep=lambda name: name == layout.RANKS)
    for name in folders.listed(os.path.join(path, layout.RANKS)):
        rank = layout.rank_of(name)
        if rank == 0 or (rank is not None and rank >= topology.size):
            RankFolder(path, topology._replace(rank=rank), "").retire()
        elif f"{layout.RANKS}/{name}".startswith(layout.STUCK):  # by a rank of the earlier run
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(path, layout.RANKS, name))


def _holds_only_our_ranks(path: str, topology: Topology) -> bool:
    """Whether ranks of this launch, which nobody could tell to wait, came before rank 0."""
    if not topology.parallel or set(folders.listed(path)) - {layout.RANKS}:
        return False
    ranks = os.path.join(path, layout.RANKS)
    records = [
        read_json(os.path.join(ranks, name, layout.RANK_RECORD)) for name in folders.listed(ranks)
    ]
    return all(record is None or belongs_to(topology, record) != "another" for record in records)


_LONGEST_PATH = 200  # in a record, which may be cut further where it is not ASCII: a digest tells


def opening_record(path: str, params: str, failure: Exception | None) -> Record:
    """What a rank tells rank 0 when it opens a run.

    Args:
        path: The run's folder.
        params: Digest of the rank's parameters.
        failure: What went wrong on this rank before, if anything did.

    Ranks: independent.
    """
    record: Record = {"host": hostname(), "run": path, "params": params}
    if len(path) > _LONGEST_PATH or not path.isascii():
        import hashlib

        record["run"] = path if len(path) <= _LONGEST_PATH else f"…{path[-_LONGEST_PATH // 2 :]}"
        record["which"] = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    return record | {"error": describe(failure)} if failure is not None else record


def check_opening(records: Sequence[Record]) -> None:
    """Make sure that all ranks came to open one and the same run.

    Args:
        records: What each rank told, in rank order: `run`, or the `error` that it met.

    Raises:
        Exception: The first rank's error, on behalf of all.
        RanksDisagreeError: If they name different folders.

    Ranks: root only.
    """
    for rank, record in enumerate(records):
        if "error" in record:
            told = record["error"]
            prefix = f"rank {rank}: " if len(records) > 1 else ""
            raise revive({**told, "message": f"{prefix}{told['message']}"})
    runs: dict[str, list[int]] = {}
    for rank, record in enumerate(records):
        runs.setdefault(str(record.get("which") or record["run"]), []).append(rank)
    if len(runs) > 1:
        told = "; ".join(
            f"{records[ranks[0]]['run']} on {ranks_text(ranks)}" for ranks in runs.values()
        )
        raise RanksDisagreeError(
            f"the ranks of one communicator opened different runs: {told}. Give all of them the "
            "same run id and base_dir, or each group of ranks a communicator of its own (comm=...)"
        )


def joint_verdict(records: Sequence[Record]) -> Record:
    """What becomes of the run, from what each rank says of itself.

    A run is complete only if every rank says so.

    Args:
        records: For each rank `status` and `reason`; `raised`, where it left by an exception; `at`,
            when it failed, by one clock for all.

    Returns:
        `status` and `reason` of the run, and `culprit`: the first rank that left by an exception,
        or None.

    Example:
        >>> joint_verdict([{"status": "complete"}, {"status": "failed", "reason": "NaN"}])["reason"]
        'rank 1: NaN'

    Ranks: root only.
    """
    failed = [rank for rank, record in enumerate(records) if record["status"] != COMPLETE]
    if not failed:
        return {"status": COMPLETE, "reason": None, "culprit": None}
    first = min(failed, key=lambda rank: _when(records[rank]))
    reasons = {str(records[rank].get("reason")) for rank in failed}
    reason = str(records[first].get("reason"))
    raised = bool(records[first].get("raised"))
    alike = len(reasons) == 1 and len(failed) == len(records)
    if not alike and (raised or first != 0):  # rank 0's mere word is the run's
        reason = blamed(first, reason, len(failed) - 1)
    return {"status": FAILED, "reason": reason, "culprit": first if raised else None}


def _when(record: Record) -> tuple[bool, float]:
    """What orders failures: those by an exception first, by the time that their ranks had."""
    return not record.get("raised"), record.get("at", math.inf)


def blamed(rank: int, reason: str, others: int = 0) -> str:
    """Why a run failed, with the rank that failed first.

    Example:
        >>> blamed(3, "NaN", others=2)
        'rank 3, and 2 more ranks: NaN'

    Ranks: independent.
    """
    more = f", and {others} more rank{'s' if others > 1 else ''}" if others else ""
    return f"rank {rank}{more}: {reason}"


def outcome_fields(status: str, reason: str | None, elapsed: float) -> dict[str, Any]:
    """What the metadata says of a run that has ended.

    Ranks: independent.
    """
    fields = {"status": status, "end_time": now(), "runtime_sec": round(elapsed, 6)}
    return fields | ({"failure_reason": reason} if status == FAILED else {})


_OPENING = "opening"
# Fields by which runs are read, gone on with and judged: no program writes over them.
KEPT = frozenset(
    {"run_id", "parallel", "attempts", "scheduler", "signals", "start_epoch", "reconciled"}
    | {"log_lines_lost", _OPENING}
)
_OUTCOME = ("status", "end_time", "runtime_sec", "failure_reason")


class Metadata:
    """`metadata.json` of the run, held in memory by the one process that writes it."""

    def __init__(self, folder: str, attempt: Attempt) -> None:
        """Begin with nothing.

        Args:
            folder: The run's folder.
            attempt: The attempt at the run that this is written in.
        """
        self._attempt = attempt
        self._path = f"{folder}/{layout.METADATA}"
        self._written = b""
        self._left: tuple[int, int, int] | None = None  # the file as it was left here
        self._replaced = False  # whether another run was found in this one's place
        self._lock = Lock()  # a signal is noted from another thread
        self.values: dict[str, Any] = {}
        self.noted: Callable[[], dict[str, Any]] = dict  # what is put into `parallel` as it is now
        self.synced = False  # whether the file is, as it was last written

    @property
    def stands(self) -> bool:
        """Whether the file is still as this process wrote it."""
        return files.read_bytes(self._path) == self._written

    def update(
        self, fields: Mapping[str, Any], /, drop: Collection[str] = (), *, durable: bool = False
    ) -> None:
        """Put fields in, take others out, and write the file, unless a newer attempt does.

        Where another rank has written the outcome meanwhile, since this one did not answer, that
        outcome stays, unless the fields have a newer one.

        Args:
            fields: The fields.
            drop: Names of fields to take out.
            durable: Whether the file is synced even if not everything is.

        Raises:
            UnsupportedValueError: If a field can't be stored; nothing changes.

        Ranks: root only.
        """
        plain = writers.each_plain(fields, "meta", writers.json_ready)
        with held(self._lock):
            self._update(plain, drop, durable)

    def _update(self, plain: dict[str, Any], drop: Collection[str], durable: bool) -> None:
        news = self._news()
        if "status" in plain:
            news = {key: value for key, value in news.items() if key not in _OUTCOME}
        values = self.values | news
        for name in drop:
            values.pop(name, None)
        values = mirrored(values | plain)
        if isinstance(parallel := values.get("parallel"), dict) and "size" in parallel:
            values["parallel"] = sealed(parallel | self.noted())
        if not (self._attempt.outdated or self._replaced):
            data = jsontext.indented(values)
            self._attempt.disk.replace(self._path, data, durable=durable)
            self._written, self._left, self.synced = data, self._stamp(), durable
        self.values = values

    def heed(self) -> Record:
        """Take over what somebody else put into the file, such as a forked child.

        Returns:
            How the run ended, if that was said.

        Ranks: root only.
        """
        with held(self._lock):
            self.values = self.values | self._news()
            return {key: self.values[key] for key in _OUTCOME if key in self.values}

    def _news(self) -> dict[str, Any]:
        """The file, if somebody else has written it since; nothing where it is another run's.

        From then on it is not written from here any more.
        """
        if self._replaced or self._left is None or self._stamp() == self._left:
            return {}
        there = read_json(self._path) or {}
        if there and there.get(_OPENING) != self.values.get(_OPENING):
            self._replaced = True
            if self._attempt.outdated:  # which says so itself
                return {}
            with suppress(Exception):
                told = f"{self._path} is another run's by now; this process writes it no more"
                print(f"notata: {told}", file=sys.stderr, flush=True)
        return {} if self._replaced else there

    def _stamp(self) -> tuple[int, int, int] | None:
        """What tells the file from one that replaced it. A sign of life changes it, too."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
