"""A run of several ranks with a bit of everything, and all that a reader can tell of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from simulated import put_record, write_as

from notata import Logbook, LogReader
from notata.errors import NotataError

SIZE = 4


def work(log: Logbook) -> None:
    """What each rank writes; rank 2 writes nothing at all."""
    rank = log.rank
    if rank == 2:
        return
    place = {0: 0, 1: 1, 3: 2}[rank]
    log.info(f"hello from {rank}\nover two lines")
    log.array("T", np.full((2, 5), rank + 0.5), start=(2 * place, 0), shape=(6, 5))
    log.array("F", np.asfortranarray(np.arange(6.0).reshape(2, 3) + rank))
    log.array("rows/n", np.arange(rank + 1))
    log.array("kept", [rank, 7], join="none")
    log.arrays("b", u=np.full(2, rank), v=[rank * 1.5])
    log.arrays("z", compressed=True, k=np.arange(50) * rank)
    log.arrays("mixed/b", join="none", u=np.full(3, rank))
    log.json("metrics", {"solve": 1.0 + rank, "wait": float("nan") if rank == 3 else 2.0})
    log.json("conf/solver", {"name": f"n{rank}", "levels": [1, {"a": None}]})
    log.text("notes", f"of {rank}")
    log.bytes("raw.bin", bytes([rank, 255]))
    log["plots/sub/p.png"].write_bytes(b"png" * rank)
    log.warning("done")
    log.root.array("energy", [1.0, 2.0])
    log.root.json("summary", {"steps": 10})
    if rank == 1:
        log.json("only_mine", {"x": 1})


def rich(base: Path) -> Path:
    """Write it; gives its folder."""
    run = write_as(SIZE, base, work, params={"kappa": 0.1})
    # Nobody counted the ranks' pieces without a communicator; here somebody did.
    return counted(run)


def counted(run: Path) -> Path:
    """Say in the metadata what each rank left, as ranks of a communicator would."""
    import json

    told = {
        "0": [],
    }
    for rank in range(LogReader(run).size):
        record = LogReader(run).ranks[rank].record
        told.setdefault(str(record.get("pieces", 0)), []).append(rank)
    meta = json.loads((run / "metadata.json").read_text())
    pieces = {count: ",".join(map(str, ranks)) for count, ranks in told.items() if ranks}
    folders = ",".join(str(rank.rank) for rank in LogReader(run).ranks if rank.record)
    meta["parallel"] |= {"pieces": pieces, "folders": folders}
    put_record(run / "metadata.json", meta)
    return run


def answers(run: Path) -> dict[str, Any]:
    """All that a reader tells of a run and of each of its ranks."""
    reader = LogReader(run)
    told = {"params": reader.params, "size": reader.size, "status": reader.meta["status"]}
    told |= _of(reader) | {"messages": list(reader.messages())}
    told["warnings of 0 and 3"] = list(reader.messages("WARNING", ranks=[0, 3]))
    told["part of T"] = _plain(reader.load_array("T", region=np.s_[1:5, ::-2]))
    for rank in reader.ranks:
        own = _of(rank) | {"record": rank.record, "messages": list(rank.messages())}
        if "T" in rank.arrays:
            own["part of T"] = _plain(rank.load_array("T", region=np.s_[0, 1:3]))
        told |= {f"rank {rank.rank}: {key}": value for key, value in own.items()}
    return told


def _of(reader: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"arrays": reader.arrays, "plots": reader.plots}
    told["artifacts"] = reader.artifacts
    for name in reader.arrays:
        told[f"array {name}"] = _plain(reader.load_array(name))
    for name in ("metrics", "conf/solver", "only_mine", "summary", "nothing"):
        told[f"json {name}"] = repr(reader.load_json(name))
    try:
        reader.load_array("nowhere")
    except NotataError as error:
        told["nowhere"] = type(error).__name__
    return told


def _plain(array: Any) -> tuple[str, Any, str]:
    return str(array.dtype), array.shape, repr(np.asarray(array).tolist())


def tree_of(run: Path) -> dict[str, bytes]:
    """What each file holds, but for the lock, which is empty or not as it pleases."""
    found = {}
    for parent, _, names in os.walk(run):
        for name in names:
            path = Path(parent, name)
            if name != ".merge.lock":
                found[os.path.relpath(path, run)] = path.read_bytes()
    return found
