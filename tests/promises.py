"""What notata promises of the runs that `allverbs.py` writes, held against what is on disk."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from allverbs import CELLS, FAILS, GRID, Figure, verbs

from notata import Experiment, Logbook, LogReader, exits, layout
from notata.stored import read_json

RUN = "log_s_k_1"
LINES = {
    "info": "line {}",
    "warning": "hot {}",
    "note": "noted {}",
    "error": "bad {}",
    "logger": "told {}",
    "handler": "handled {}",
    "last": "end of {}",
}
# Verbs of rank 0 alone.
OF_ROOT = ("params", "params_json", "meta", "root_array", "root_json")
_OF_NO_FILE = ("path", "watch", "tick", "debug", "time_left", "agree")
_NOTED = ("meta", "params", "params_json")
SYNCED_LATER = ("info", "path")  # what durability="node" does not sync at once


def run_in(base: Path) -> Path:
    return base / "s" / "runs" / RUN


def litter(base: Path) -> list[Path]:
    """What stands under temporary names."""
    return [
        path
        for path in base.rglob("*")
        if path.name.startswith(layout.TEMP_PREFIX) and path.suffix == ".tmp"
    ]


def prepare(folder: Path, kind: str) -> tuple[Path, Path]:
    """Where the program is to write, with a run that was killed if it goes on in one."""
    base, told = folder / "base", folder / "told"
    base.mkdir(parents=True)
    if kind != "first":
        log = Logbook("s_k_1", run_in(base).parent, params={"k": 1}, signals=())
        for call in verbs(log, 0).values():
            call()
        exits.remove(log._session._path)  # as if it had been killed
        log._log.close()
    return base, told


def acknowledged(told: Path) -> list[dict[str, Any]]:
    """What the program said; its last line may be cut off."""
    if not told.exists():
        return []
    return [json.loads(line) for line in told.read_text().splitlines() if line.endswith("}")]


def newest(told: list[dict[str, Any]]) -> dict[str, int]:
    """The version of each verb that returned last."""
    return {a["verb"]: a["version"] for a in told if "verb" in a and "errno" not in a}


def _array(values: Any) -> int:
    assert values.shape == (CELLS,), values.shape
    (version,) = set(values.tolist())
    return int(version)


def _bundle(path: Path) -> int:
    with np.load(path) as bundle:
        assert set(bundle) == {"u", "w"}
        assert len(bundle["w"]) == _array(bundle["u"])
        return len(bundle["w"])


def _text(path: Path) -> int:
    (version,) = set(path.read_text().splitlines())
    assert path.read_text() == f"{version}\n" * 500
    return int(version)


def _bytes(path: Path) -> int:
    (version,) = set(path.read_bytes())
    assert path.stat().st_size == 5000
    return version


def _pickle(path: Path) -> int:
    values = pickle.loads(path.read_bytes())
    assert len(values) == 500
    return int(values[0])


def _figure(path: Path) -> int:
    version = int(path.read_bytes().split()[1])
    assert path.read_bytes() == Figure(version).data
    return version


FILES = {
    "array": ("data/a/T.npy", lambda path: _array(np.load(path))),
    "arrays": ("data/b.npz", _bundle),
    "json": ("artifacts/metrics.json", lambda path: json.loads(path.read_text())["m"]),
    "text": ("artifacts/notes.txt", _text),
    "bytes": ("artifacts/raw.bin", _bytes),
    "pickle": ("artifacts/object.pkl", _pickle),
    "plot": ("plots/p.png", _figure),
    "root_array": ("data/energy.npy", lambda path: _array(np.load(path))),
    "root_json": ("artifacts/summary.json", lambda path: json.loads(path.read_text())["v"]),
}


def versions(run: Path, rank: int, size: int) -> dict[str, int]:
    """The version of each file that a rank wrote; each is whole, or this fails."""
    own = run if size == 1 else run / "ranks" / f"rank_{rank:05d}"
    found = {}
    for verb, (name, read) in FILES.items():
        data = verb in ("array", "arrays")
        path = (own if data or (rank and verb not in OF_ROOT) else run) / name
        if (rank == 0 or verb not in OF_ROOT) and path.exists():
            found[verb] = read(path)
    if rank == 0:
        reader = LogReader(run)
        given = reader.params
        noted = {"meta": reader.meta.get("note"), "params": given.get("p")}
        noted["params_json"] = given.get("q")
        found |= {verb: version for verb, version in noted.items() if version is not None}
    return found


def lines(run: Path, rank: int, size: int) -> set[str]:
    reader = LogReader(run)
    found = (reader.ranks[rank] if size > 1 else reader).messages()
    return {m.message.rstrip("\0\n") for m in found}  # zeros behind the last are of a power loss


def check(
    base: Path,
    told: Path,
    size: int = 1,
    *,
    oldest: int = 1,
    lossy: bool = False,
    ended: str = "complete",
) -> None:
    """A program that was killed: what returned is there; what did not is whole or absent.

    `lossy`: lines of the log may have been refused. `ended`: what a run that was closed says.
    """
    run = run_in(base)
    for rank in range(size):
        said = acknowledged(Path(f"{told}.{rank}"))
        got = newest(said)
        if "open" not in got:
            if (run / "metadata.json").exists():
                assert LogReader(run).meta["run_id"] == "s_k_1"
            continue
        found = versions(run, rank, size)
        expected = {v: n for v, n in got.items() if v in FILES or v in _NOTED}
        for verb, version in expected.items():
            if rank == 0 or verb not in OF_ROOT:
                assert version <= found[verb] <= 2, (rank, verb, version, found)
        assert all(version >= oldest for version in found.values()), found
        there = lines(run, rank, size)
        for verb, text in LINES.items():
            for version in range(1, got.get(verb, 0) + 1):
                assert lossy or text.format(version) in there, (rank, verb, version)
        if size > 1:  # through the manifest, too
            reader = LogReader(run).ranks[rank]
            if got.get("array"):
                assert got["array"] <= _array(reader.load_array("a/T")) <= 2
            if got.get("arrays"):
                assert reader.load_array("b:u").shape == (CELLS,)
        if "close" in got:
            assert LogReader(run).meta["status"] == ended


def check_after_power_loss(
    base: Path, told: Path, durability: str, size: int = 1, kind: str = "first"
) -> None:
    """What is promised of a run whose power was cut; one that was there before had been synced."""
    run = run_in(base)
    if kind == "resumed":
        assert {text.format(0) for text in LINES.values()} <= lines(run, 0, size)
        if durability == "node":  # else a file that replaced one may be lost, and that one is gone
            assert versions(run, 0, size).keys() >= {*FILES, *_NOTED}
    for rank in range(size):
        said = acknowledged(Path(f"{told}.{rank}"))
        got, expected = newest(said), []
        if durability == "node":
            found = versions(run, rank, size) if "open" in got else {}
            for verb in got:
                if _is_file(verb) and (rank == 0 or verb not in OF_ROOT):
                    assert got[verb] <= found[verb] <= 2, (rank, verb, got[verb], found)
            kept = [a for a in said if a.get("verb") in LINES]
            warnings = [n for n, a in enumerate(kept) if a["verb"] != "info"]
            expected = kept[: warnings[-1] + 1] if warnings else []
        if durability != "process" and "close" in got:
            if rank == 0:
                check_closed(base, kind)
            expected = [a for a in said if a.get("verb") in LINES]
        there = lines(run, rank, size) if expected else set()
        for answer in expected:
            assert LINES[answer["verb"]].format(answer["version"]) in there, (rank, answer)


def check_closed(base: Path, kind: str = "first") -> None:
    """A run that was closed says so, and has its row if it is an experiment's."""
    reader = LogReader(run_in(base))
    assert reader.meta["status"] == "complete"
    assert reader.meta["note"] == 2
    assert reader.params == ({} if kind == "overwrite" else {"k": 1}) | {"p": 2, "q": 2}
    if kind != "first":
        return
    assert [(row["p"], row["m"]) for row in Experiment("s", base).rows()] == [(2, 2)]


def _is_file(verb: str) -> bool:
    return verb not in (*LINES, "open", "close", *_OF_NO_FILE)


def check_sweep(base: Path, told: Path) -> dict[str, Any]:
    """What returned of a sweep's points is there; gives each point's status."""
    said = acknowledged(Path(f"{told}.0"))
    runs = {k: base / "s" / "runs" / f"log_s_k_{k}" for k in GRID["k"]}
    metadata = {k: read_json(run / "metadata.json") or {} for k, run in runs.items()}
    statuses = {k: meta.get("status") for k, meta in metadata.items()}
    for answer in said:
        verb, k = answer["verb"], answer["version"]
        if verb == "info":
            lost = metadata[k].get("log_lines_lost", 0)  # by an error; a death loses none
            assert lost or f"line {k}" in {m.message for m in LogReader(runs[k]).messages()}, k
        elif verb == "json":
            assert LogReader(runs[k]).load_json("metrics") == {"m": k}
        elif verb in ("mark_failed", "mark_complete", "close"):
            assert statuses[k] == ("failed" if k == FAILS else "complete"), (k, statuses)
    closed = {answer["version"] for answer in said if answer["verb"] == "close"}
    exp = Experiment("s", base)
    table = exp.index_file.read_bytes() if exp.index_file.exists() else b""
    if not table.startswith(b"#"):  # it died while it wrote the table anew
        assert closed <= {row["k"] for row in exp.rows()}
    return statuses


def check_sweep_goes_on(base: Path, statuses: Mapping[Any, Any]) -> None:
    """The next sweep of the same grid does what is left, and that alone; then all have a row."""
    _make_old(base)
    exp = Experiment("s", base)
    for again, kept in ((("lost",), ("complete", "failed")), (("lost", "failed"), ("complete",))):
        left = [k for k, status in statuses.items() if status not in kept]
        done = []
        for log in exp.sweep(GRID, retry=again):
            done.append(log.params["k"])
            with log:
                log.json("metrics", {"m": 10 * log.params["k"]})
        assert sorted(done) == left, (again, done, left)
        statuses = {k: "complete" if k in left else status for k, status in statuses.items()}
        _make_old(base)
    assert list(exp.sweep(GRID, retry=("lost", "failed"))) == []
    assert exp.rebuild_index() == len(GRID["k"])
    rows = {row["k"]: (row["m"], row["run_status"]) for row in exp.rows()}
    assert all(rows[k] in ((k, "complete"), (10 * k, "complete")) for k in GRID["k"]), rows
    assert rows[FAILS] == (10 * FAILS, "complete")


def _make_old(base: Path) -> None:
    """Have all files of so long ago that whoever wrote them must be gone."""
    for path in base.rglob("*"):
        os.utime(path, (time.time() - 7200,) * 2)


def check_table(base: Path, told: Path, *, lossy: bool = False) -> None:
    """The table has the rows that were acknowledged, and can be made anew.

    `lossy`: metrics, or the row, may have been refused.
    """
    exp = Experiment("s", base)
    status = (read_json(run_in(base) / "metadata.json") or {}).get("status")
    if "close" in newest(acknowledged(Path(f"{told}.0"))) and not lossy:
        assert [row["m"] for row in exp.rows()] == [2]
    expected = [("s_k_1", status)] if status in ("complete", "failed") else []
    assert exp.rebuild_index() == len(expected)
    rows = exp.rows()
    assert [(row["run_id"], row["run_status"]) for row in rows] == expected
    assert lossy or status != "complete" or [row["m"] for row in rows] == [2]


def check_goes_on(base: Path, told: Path, size: int = 1) -> None:
    """The next attempt goes on in the run, and keeps what the first one said."""
    run = run_in(base)
    before = lines(run, 0, size) if (run / "metadata.json").exists() else set()
    with Logbook("s_k_1", run.parent, resume=True) as log:
        for call in verbs(log, 3).values():
            call()
    assert set(versions(run, 0, 1).values()) == {3}
    assert before | {"line 3", "end of 3"} <= lines(run, 0, 1)
    reader = LogReader(run)
    assert reader.meta["status"] == "complete"
    assert reader.load_array("b:u").tolist() == [3] * CELLS
    exp = Experiment("s", base)
    assert exp.rebuild_index() == 1
    assert [(row["run_id"], row["m"]) for row in exp.rows()] == [("s_k_1", 3)]
