"""A run's row, read from its folder."""

from __future__ import annotations

import os
from typing import Any

from notata import files, layout
from notata.cells import OURS
from notata.columns import Row
from notata.errors import DamagedError
from notata.stored import DAMAGED, parse_json, read_metadata, read_params


def row_of(folder: str, metrics_file: str = layout.METRICS) -> Row:
    """Read a run's row from its folder, as far as its files can be read.

    Args:
        folder: Folder of the run.
        metrics_file: Its metrics, relative to the folder.

    Ranks: independent.
    """
    try:
        meta = read_metadata(folder)
    except (DamagedError, OSError) as error:
        meta = {"status": DAMAGED, "failure_reason": str(error)}
    run_status = meta.get("status")
    status, metrics = _metrics(os.path.join(folder, metrics_file))
    try:
        params = read_params(folder)
    except (DamagedError, OSError) as error:
        why = "; ".join(filter(None, (str(error), metrics.get("error_reason"))))
        params, status, metrics = {}, "error", metrics | {"error_reason": why}
    if status == "complete" and run_status == "failed":
        status = "failed"
    run = {"run_status": run_status} | {key: meta.get(key) for key in OURS[1:]}
    run_id = layout.run_id_of(os.path.basename(os.path.normpath(folder)))
    return Row(run_id, params, status, metrics, run)


def _metrics(path: str) -> tuple[str, dict[str, Any]]:
    try:
        data = files.read_bytes(path)
        if data is None:
            return "missing", {}
        name = os.path.basename(path)
        found = parse_json(data, name)
        if not isinstance(found, dict):
            raise DamagedError(f"{name} holds a {type(found).__name__}, no object")
        return "complete", found
    except (DamagedError, OSError) as error:
        return "error", {"error_reason": str(error)}
