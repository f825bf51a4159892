"""Structured filesystem logging for scientific runs, from one process to a cluster.

Each run is a folder of plain files: a log, metadata, parameters, arrays, plots and artifacts.
Under `mpirun` all ranks write into one run, and `notata merge` makes of it what one process would
have written::

    from notata import Logbook

    with Logbook("heat", params={"kappa": 0.01}) as log:
        log.info("stepping")
        log.array("T", T)

    from notata import LogReader

    LogReader("outputs/log_heat").load_array("T")

Importing notata loads the standard library alone and never starts MPI.
"""

from __future__ import annotations

from notata.version import __version__

TYPE_CHECKING = (
    False  # as type checkers take it; the module `typing` takes longer than all else here
)

if TYPE_CHECKING:
    from typing import Any

    from notata.errors import NotataError, RankFailed
    from notata.experiment import Experiment
    from notata.logbook import Logbook
    from notata.merging import merge
    from notata.reader import ExperimentReader, LogReader


__all__ = [
    "Experiment",
    "ExperimentReader",
    "LogReader",
    "Logbook",
    "NotataError",
    "RankFailed",
    "__version__",
    "merge",
]

_HOMES = {
    "Experiment": "notata.experiment",
    "ExperimentReader": "notata.reader",
    "LogReader": "notata.reader",
    "Logbook": "notata.logbook",
    "NotataError": "notata.errors",
    "RankFailed": "notata.errors",
    "merge": "notata.merging",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'notata' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
