"""Which run of an experiment a set of parameters is: its id, in one that 0.3.0 began too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from notata import layout, writers
from notata.stored import read_json, read_params


def named(name: str, params: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Parameters as plain values, and the id of their run.

    Args:
        name: Name of the experiment.
        params: The parameters.

    Raises:
        UnsupportedValueError: If one can't be stored plainly; the message names it.

    Ranks: independent.
    """
    values = writers.each_plain(params, "parameter")
    return values, layout.experiment_run_id(name, values, writers.digest)


def kept(runs: str, name: str, values: Mapping[str, Any], run_id: str) -> str:
    """The id of a run in an experiment where notata 0.3.0 may have named some.

    It cut floats to five digits and made one of several characters, so that sets of parameters
    shared an id. A run that it made of this very set is found under the id that it gave. Where it
    gave that to another set, this one has an id with a digest.

    Args:
        runs: Folder of the experiment's runs.
        name: Name of the experiment.
        values: The parameters, as plain values.
        run_id: Their id in a new experiment.

    Ranks: independent.
    """
    former = layout.former_run_id(name, values)
    folder = os.path.join(runs, f"{layout.RUN_PREFIX}{former}")
    try:
        if not os.path.lexists(folder) or not _is_of_030(folder):
            return run_id
        stored = read_params(folder)
    except (OSError, ValueError):
        return run_id
    there = {key: stored[key] for key in values if key in stored}
    if there == values:
        return former
    if former == run_id and layout.former_run_id(name, there) == run_id:
        return layout.experiment_run_id(name, values, writers.digest, taken=True)
    return run_id


def _is_of_030(folder: str) -> bool:
    metadata = read_json(os.path.join(folder, layout.METADATA))
    return metadata is not None and "provenance" not in metadata
