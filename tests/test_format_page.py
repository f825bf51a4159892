"""The page on the format names every field that is written, and none that is not."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import open_as, write_as

from notata import (
    Experiment,
    Logbook,
    asleft,
    index,
    merge,
    outcomes,
    provenance,
    reconciling,
    topology,
)
from notata.jobs import Answer, Record
from notata.logwriter import LogWriter

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "format.md"


def section(heading: str) -> str:
    """What stands below a heading."""
    return PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def words(text: str) -> set[str]:
    """The names that stand between backticks."""
    return set(re.findall(r"`(\w+)`", text))


def rows(heading: str) -> dict[str, set[str]]:
    """The keys of the table behind some words, each with the names that its line tells of."""
    told: dict[str, set[str]] = {}
    text = PAGE.read_text(encoding="utf-8").partition(f"\n{heading}")[2]
    table = text.partition("\n| key |")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        _, keys, values, _ = re.split(r" ?\| ?", line, maxsplit=3)
        told |= dict.fromkeys(words(keys), words(values))
    return told


def read(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def noted(path: Path) -> None:
    """A warning comes, and is noted by a thread of its own."""
    os.kill(os.getpid(), signal.SIGUSR1)
    until = time.monotonic() + 60
    while '"signals"' not in path.read_text() and time.monotonic() < until:
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def lost_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the disk had refused a line of every log."""
    monkeypatch.setattr(LogWriter, "lost", property(lambda log: 1))


@pytest.fixture
def runs(base: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Runs of one rank, to which everything has happened that their metadata tell of."""
    monkeypatch.setattr(index, "lock_doubt", lambda mount: "NFS mounted with nolock")
    monkeypatch.setenv("LOADEDMODULES", "gcc/13")
    job = {"JOB_ID": "1", "RESTART_COUNT": "0", "ARRAY_JOB_ID": "1", "ARRAY_TASK_ID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    exp = Experiment("sweep", base, env=["LOADEDMODULES"])
    for k in range(2):  # the first one is killed
        log = exp.add(k=k)
        assert log is not None
        noted(log.path / "metadata.json")
        log.mark_failed("diverged") if k else None
    with Logbook("sweep_k_1", exp.runs_dir, resume=True):
        pass
    killed = Answer("sacct")
    killed.add("1_0", "1_0", "", Record("TIMEOUT", "", "", "n2", time.time(), time.time()))
    survey = outcomes.survey
    monkeypatch.setattr(reconciling, "survey", lambda run: survey(run, lambda ids: killed.finish()))
    reconciling.reconcile(exp.exp_dir)
    return sorted(exp.runs_dir.iterdir())


def test_metadata(runs: list[Path]) -> None:
    told, written = rows("## `metadata.json`"), [read(run / "metadata.json") for run in runs]
    assert {key for meta in written for key in meta} | {"parallel"} == told.keys()
    for meta in written:
        for key in ("attempts", "scheduler", "provenance", "signals", "lock", "reconciled"):
            found = meta.get(key, {})
            for entry in found if isinstance(found, list) else [found]:
                assert entry.keys() <= told[key], key
    claim = read(runs[1] / ".attempt-2")
    assert claim.keys() <= words(section("Files that are no data"))


def ranks(base: Path) -> Path:
    """A run of three ranks, of which one breaks, after a warning."""

    def work(log: Logbook) -> None:
        log.array("T", np.ones((2, 3)), start=(2 * log.rank, 0), shape=(8, 3))
        log.json("m", {"rank": log.rank})
        if log.rank == 1:
            noted(log.rank_dir / "rank.json")
            raise ValueError("NaN")

    with suppress(ValueError):
        # Before rank 0, whose parameters it can't see.
        write_as(3, base, work, order=[1], params={"kappa": 1})
    return write_as(3, base, work, order=[0, 2], params={"kappa": 1})


def test_records_of_ranks(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asleft, "_MOST_FILES", 1)  # of each rank there are more
    run = ranks(base)
    told = rows("## `ranks/rank_00003/`")
    written = [read(path) for path in sorted(run.glob("ranks/*/rank.json"))]
    assert {key for record in written for key in record} == told.keys()
    assert read(run / "ranks" / "failed.json").keys() <= told.keys() | {"opening", "at"}
    parallel = read(run / "metadata.json")["parallel"]
    place = topology.Topology(0, 2, "mpi4py", notes=("MPI says 2 ranks, Slurm 4",))
    both = parallel.keys() | provenance.parallel_facts(place, {0: "n1"}).keys()
    text = section("`metadata.json`").partition("`parallel` has")[2]
    assert both <= words(text)


def test_manifests_and_the_record_of_a_merge(base: Path) -> None:
    run = ranks(base)
    for line in (run / "ranks/rank_00001/manifest.jsonl").read_text().splitlines():
        assert json.loads(line).keys() == rows("`manifest.jsonl` has").keys()
    with open_as(1, 2, base / "again") as log:
        for number in range(2):
            log.array("T", [number])
    path = log.path / "ranks/rank_00001/manifest.jsonl"
    for line in path.read_text().splitlines():
        odd = json.loads(line).keys() - rows("`manifest.jsonl` has").keys()
        assert odd <= {"begun"} <= words(section("`ranks/rank_00003/`"))
    merge(run, unfinished=True, allow_missing=True)
    told, record = words(section("`merge.json`")), read(run / "merge.json")
    assert record["holes"]
    for found in (
        record,
        *record["holes"],
        *record["inputs"].values(),
        *record["outputs"].values(),
    ):
        assert found.keys() <= told
    assert {made["kind"] for made in record["outputs"].values()} <= told


def test_the_grid_of_a_sweep(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = {"ARRAY_JOB_ID": 1, "ARRAY_TASK_ID": 0, "ARRAY_TASK_MIN": 0, "ARRAY_TASK_MAX": 1}
    for name, value in {"JOB_ID": 1, **array}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    exp = Experiment("sweep", base)
    for log in exp.sweep({"k": [1, 2]}, mode="static"):
        with log:
            pass
    kept = read(exp.exp_dir / "sweep.json")
    assert kept.keys() | kept["array"].keys() <= words(section("An experiment"))
