"""What lies in a folder: its runs and experiments, each summed up in a line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from notata import folders, freshness, layout
from notata.errors import DamagedError, NotARunError, RunNotFoundError
from notata.messages import began
from notata.pulse import Clock, state
from notata.stored import DAMAGED as DAMAGED
from notata.stored import StrPath, read_json, read_params, run_folders

_ENDLESS = 1e12  # seconds


class Entry(NamedTuple):
    """A run, or an experiment with all of its runs taken together.

    Attributes:
        path: The folder.
        kind: `run` or `experiment`.
        statuses: How many runs are in each state: what their metadata say, but `running` or `lost`
            where they haven't ended; for a run, one has one.
        ranks: The least and the largest number of ranks, or None where it isn't known.
        runtime: Seconds that the runs which ended took, in sum, or None if none ended.
        started: When the newest run began, in seconds since the epoch, or None if unknown.
        damage: A sentence for each file of metadata or parameters that can't be read.
    """

    path: Path
    kind: str
    statuses: Mapping[str, int]
    ranks: tuple[int, int] | None
    runtime: float | None
    started: float | None
    damage: tuple[str, ...]


def find(folder: StrPath) -> list[Entry]:
    """Sum up the runs and experiments of a folder, by name.

    Args:
        folder: A folder in which there are runs and experiments; or an experiment, for its runs;
            or a run, for itself alone.

    Raises:
        RunNotFoundError: If there is no such folder (a `FileNotFoundError`).
        NotARunError: If it is a file (a `ValueError`).
        SettingError: If `NOTATA_LOST_AFTER` is not a number of seconds.
        OSError: If it can't be read.

    Ranks: independent.
    """
    path = Path(folder)
    if not freshness.exists(path):
        raise RunNotFoundError(f"no such folder: {path}")
    if not folders.is_dir(path):
        raise NotARunError(f"{path} is a file, not a folder of runs")
    clock = Clock(path)
    if holds_run(path):
        return [_run(path, clock)]
    if is_experiment(path):
        return [_run(run, clock) for run in runs_of(path)]
    runs = {run: _run(run, clock) for run in _runs_in(path)}
    others = [path / name for name in os.listdir(path) if path / name not in runs]
    sweeps = {exp: _experiment(exp, clock) for exp in others if is_experiment(exp)}
    return [entry for _, entry in sorted((runs | sweeps).items())]


def is_experiment(folder: StrPath) -> bool:
    """Whether a folder is an experiment: it has a folder of runs, and is no run itself.

    Ranks: independent.
    """
    path = Path(folder)
    return os.path.isdir(path / layout.RUNS) and not os.path.lexists(path / layout.METADATA)


def runs_of(experiment: StrPath) -> list[Path]:
    """The folders of an experiment's runs, by name; damaged ones too.

    Ranks: independent.
    """
    return sorted(_runs_in(Path(experiment) / layout.RUNS))


def folders_with_runs(folder: StrPath) -> list[Path]:
    """The folders one floor below that hold runs or experiments.

    Ranks: independent.
    """
    below = (Path(folder) / name for name in os.listdir(folder))
    return sorted(path for path in below if os.path.isdir(path) and _any_in(path))


def _any_in(folder: Path) -> bool:
    if not os.access(folder, os.R_OK | os.X_OK):
        return False
    return any(_runs_in(folder)) or any(is_experiment(folder / n) for n in os.listdir(folder))


def _runs_in(folder: Path) -> Iterator[Path]:
    return filter(holds_run, map(Path, run_folders(folder, opened=False)))


def runs_in(folder: StrPath) -> list[Path]:
    """The runs that lie in a folder itself, by name; damaged ones too.

    Ranks: independent.
    """
    return sorted(_runs_in(Path(folder)))


def experiments_in(folder: StrPath) -> list[Path]:
    """The experiments that lie in a folder, by name.

    Ranks: independent.
    """
    path = Path(folder)
    return sorted(path / name for name in os.listdir(path) if is_experiment(path / name))


def holds_run(folder: StrPath) -> bool:
    """Whether a run, or some of its ranks, wrote there; a folder that is shut counts as a run.

    Ranks: independent.
    """
    path = Path(folder)
    if path.name.startswith(layout.RUN_PREFIX) and not os.access(path, os.R_OK | os.X_OK):
        return True
    return os.path.lexists(path / layout.METADATA) or _has_ranks(path)


def _has_ranks(path: Path) -> bool:
    try:
        names = os.listdir(path / layout.RANKS)
    except OSError:
        return False
    return any(layout.rank_of(name) is not None for name in names)


def _run(path: Path, clock: Clock) -> Entry:
    file = path / layout.METADATA
    try:
        meta = read_json(file)
        why = "not a JSON object" if os.path.lexists(file) else "missing: rank 0 never opened it"
    except OSError as error:
        meta, why = None, error.strerror or type(error).__name__
    if meta is None:
        return Entry(path, "run", {DAMAGED: 1}, None, None, None, (f"{file}: {why}",))
    size = _ranks(meta)
    runtime = _number(meta.get("runtime_sec"))
    status = meta.get("status")
    status = state(status, path, clock) if isinstance(status, str) else "unknown"
    damage = _damaged_params(path)
    return Entry(path, "run", {status: 1}, (size, size), runtime, began(meta), damage)


def _damaged_params(path: Path) -> tuple[str, ...]:
    """What is wrong with a run's parameters: else a run without any looks the same."""
    try:
        read_params(path)
    except DamagedError as error:
        return (str(error),)
    except OSError as error:
        return (f"{error.filename or path}: {error.strerror or type(error).__name__}",)
    return ()


def _experiment(path: Path, clock: Clock) -> Entry:
    try:
        runs = [_run(run, clock) for run in runs_of(path)]
    except OSError as error:  # the folder of its runs is shut; the others' are not
        why = f"{error.filename or path}: {error.strerror or type(error).__name__}"
        return Entry(path, "experiment", {DAMAGED: 1}, None, None, None, (why,))
    ranks = [entry.ranks for entry in runs if entry.ranks is not None]
    runtimes = [entry.runtime for entry in runs if entry.runtime is not None]
    started = [entry.started for entry in runs if entry.started is not None]
    return Entry(
        path,
        "experiment",
        sum((Counter(entry.statuses) for entry in runs), Counter[str]()),
        (min(low for low, _ in ranks), max(high for _, high in ranks)) if ranks else None,
        sum(runtimes) if runtimes else None,
        max(started, default=None),
        tuple(sentence for entry in runs for sentence in entry.damage),
    )


def _ranks(meta: Mapping[str, Any]) -> int:
    parallel = meta.get("parallel")
    size = parallel.get("size") if isinstance(parallel, dict) else None
    return size if isinstance(size, int) else 1


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or not abs(value) < _ENDLESS:  # NaN isn't either
        return None
    return float(value)
