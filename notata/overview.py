"""What a run is, summed up: enough for a person to know it again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from notata import contents, gather, layout, manifests, rankfiles, silence, tails
from notata.contents import ArrayFacts
from notata.errors import NotataError
from notata.messages import Record, began
from notata.phrases import error_text
from notata.provenance import with_hosts
from notata.pulse import LOST, Clock, state
from notata.ranges import compact, ranks_of
from notata.reader import LogReader
from notata.stored import DAMAGED, StrPath

T = TypeVar("T")

UNKNOWN = "?"  # the host of ranks that nobody told it of


class Overview(NamedTuple):
    """A run summed up.

    Attributes:
        path: Its folder.
        run_id: Its id.
        status: What became of it: `running` or `lost` where it has not ended.
        reason: Why it failed, or `""`.
        meta: Its metadata, as far as they can be read.
        started: When it began, in seconds since the epoch, or None.
        runtime: Seconds that it took, or has taken so far, or None.
        attempts: What the metadata say of each attempt; none if there was one alone.
        size: Number of ranks, or None where it isn't known.
        hosts: The ranks of each host, as ranges.
        params: Its parameters.
        metrics: What its `metrics.json` holds, or nothing.
        arrays: Its arrays.
        apart: The ranks that have a piece of an array that is kept apart, as ranges, by its name.
        artifacts: Names of rank 0's artifacts.
        plots: Names of rank 0's plots.
        rank_artifacts: The ranks other than 0 that wrote an artifact, as ranges, by its name.
        rank_plots: The same of plots.
        messages: Its last messages.
        damage: What could not be read, as sentences.
    """

    path: str
    run_id: str
    status: str
    reason: str
    meta: Mapping[str, Any]
    started: float | None
    runtime: float | None
    attempts: Sequence[Mapping[str, Any]]
    size: int | None
    hosts: Mapping[str, str]
    params: Mapping[str, Any]
    metrics: Mapping[str, Any]
    arrays: list[ArrayFacts]
    apart: Mapping[str, str]
    artifacts: list[str]
    plots: list[str]
    rank_artifacts: Mapping[str, str]
    rank_plots: Mapping[str, str]
    messages: list[Record]
    damage: list[str]


def of(run: StrPath, messages: int = 10) -> Overview:
    """Sum up a run; what is damaged is named, and the rest told.

    Args:
        run: Its folder.
        messages: How many of its last messages to give.

    Raises:
        RunNotFoundError: If there is no such folder (a `FileNotFoundError`).
        NotARunError: If no run was written there (a `ValueError`).
        SettingError: If `NOTATA_LOST_AFTER` is not a number of seconds.

    Ranks: independent.
    """
    reader = LogReader(run)
    path = os.fspath(reader.path)
    damage: list[str] = []

    def tried(read: Callable[[], T], otherwise: T) -> T:
        try:
            return read()
        except (NotataError, OSError, ValueError, TypeError) as error:
            if (text := error_text(error)) not in damage:
                damage.append(text)
            return otherwise

    clock = Clock(path)
    meta: dict[str, Any] = tried(lambda: reader.meta, {})
    status = meta.get("status") if meta else DAMAGED
    status = state(status, path, clock) if isinstance(status, str) else "unknown"
    started = began(meta)
    runtime = meta.get("runtime_sec")
    if not isinstance(runtime, int | float):
        running = status == "running" and started is not None
        runtime = max(0.0, clock.now - (started or 0.0)) if running else None
    arrays: list[ArrayFacts] = tried(lambda: contents.arrays(path), [])
    metrics: Any = tried(lambda: reader.load_json("metrics"), {})
    size = tried(lambda: reader.size, None) if meta else None
    return Overview(
        path,
        reader.run_id,
        status,
        _reason(path, status, meta),
        meta,
        started,
        runtime,
        _attempts(meta),
        size,
        tried(lambda: _hosts(reader, meta), {}),
        tried(lambda: reader.params, {}),
        metrics if isinstance(metrics, dict) else {},
        [facts for facts in arrays if facts.name != "?"],
        tried(lambda: {n: compact(ranks) for n, ranks in manifests.kept_apart(path).items()}, {}),
        tried(lambda: reader.artifacts, []),
        tried(lambda: reader.plots, []),
        tried(lambda: _of_ranks(path, size or 1, layout.ARTIFACTS), {}),
        tried(lambda: _of_ranks(path, size or 1, layout.PLOTS), {}),
        tried(lambda: tails.last(path, messages), []),
        [*damage, *(_wrong(facts) for facts in arrays if facts.problem)],
    )


def _wrong(facts: ArrayFacts) -> str:
    return facts.problem if facts.name == "?" else f"array {facts.name!r}: {facts.problem}"


def _reason(path: str, status: str, meta: Mapping[str, Any]) -> str:
    told = meta.get("failure_reason")
    reason = str(told) if told else None
    return (silence.explained(reason, path, meta) if status in ("failed", LOST) else reason) or ""


def _attempts(meta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    told = meta.get("attempts")
    return [entry for entry in told if isinstance(entry, dict)] if isinstance(told, list) else []


def _of_ranks(run: str, size: int, folder: str) -> dict[str, str]:
    """Which ranks have files below a folder of their own, by the files' names."""
    found: dict[str, list[int]] = {}
    for rank in sorted({*gather.rank_folders(run), *rankfiles.archived_ranks(run)}):
        if 0 < rank < size:
            for name in rankfiles.files_of(run, rank).names(folder):
                found.setdefault(name, []).append(rank)
    return {name: compact(found[name]) for name in sorted(found)}


def _hosts(reader: LogReader, meta: Mapping[str, Any]) -> dict[str, str]:
    """Hosts as the metadata has them; where it doesn't, as the ranks' own records have them."""
    parallel = meta.get("parallel")
    if not isinstance(parallel, dict) or "size" not in parallel:
        return {str(meta["host"]): "0"} if meta.get("host") else {}
    unknown = parallel.get("hosts_unknown")
    if isinstance(unknown, str):
        ranks = ranks_of(unknown, reader.size)
        told = {rank: reader.ranks[rank].record.get("host") for rank in ranks}
        parallel = with_hosts(parallel, {rank: str(h) for rank, h in told.items() if h})
    hosts = {str(host): str(ranks) for host, ranks in dict(parallel.get("hosts", {})).items()}
    unknown = parallel.get("hosts_unknown")
    return hosts | ({UNKNOWN: str(unknown)} if unknown else {})
