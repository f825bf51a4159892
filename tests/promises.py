"""What notata promises of the runs that `allverbs.py` writes, held against what is on disk."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from allverbs import CELLS, Figure, verbs

from notata import Experiment, Logbook, LogReader, exits, layout
from notata.stored import read_json

RUN = "log_s_k_1"
LINES = {
    "info": "line {}",
    "warning": "hot {}",
    "note": "noted {}",
    "error": "bad {}",
    "logger": "told {}",
    "last": "end of {}",
}
# Verbs of rank 0 alone.
OF_ROOT = ("params", "meta", "root_array", "root_json")
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
        for verb, key, told in (("meta", "note", reader.meta), ("params", "p", reader.params)):
            if key in told:
                found[verb] = told[key]
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
        expected = {v: n for v, n in got.items() if v in FILES or v in ("meta", "params")}
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


def check_after_power_loss(base: Path, told: Path, durability: str, size: int = 1) -> None:
    """What is promised of a run whose power was cut."""
    run = run_in(base)
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
                check_closed(base)
            expected = [a for a in said if a.get("verb") in LINES]
        there = lines(run, rank, size) if expected else set()
        for answer in expected:
            assert LINES[answer["verb"]].format(answer["version"]) in there, (rank, answer)


def check_closed(base: Path) -> None:
    """A run that was closed says so, and has its row."""
    reader = LogReader(run_in(base))
    assert reader.meta["status"] == "complete"
    assert reader.meta["note"] == 2
    assert reader.params == {"k": 1, "p": 2}
    assert [(row["p"], row["m"]) for row in Experiment("s", base).rows()] == [(2, 2)]


def _is_file(verb: str) -> bool:
    return verb not in (*LINES, "path", "watch", "tick", "debug", "open", "close")


def check_table(base: Path, told: Path) -> None:
    """The table has the rows that were acknowledged, and can be made anew."""
    exp = Experiment("s", base)
    ended = (read_json(run_in(base) / "metadata.json") or {}).get("status") == "complete"
    if "close" in newest(acknowledged(Path(f"{told}.0"))):
        assert [row["m"] for row in exp.rows()] == [2]
    assert exp.rebuild_index() == ended
    assert [(row["run_id"], row["m"]) for row in exp.rows()] == ([("s_k_1", 2)] if ended else [])


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
