"""Ranks without a communicator that are all stuck: one of them reads where the others stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from simulated import ROOT, open_as

from notata import LogReader, merge
from notata.stacks import survey

STUCK = """
import os, sys, time
from notata import Logbook, watchdog
watchdog._COLLECTING = 1.0
opened = []
def hook(event, given):
    if event == "open" and isinstance(given[0], str):
        name = given[0].partition("/log_x/ranks/")[2]
        if name.startswith(("rank_", ".notata-stacks/")) and f"{log.rank:05d}" not in name:
            opened.append(name)
def exit(status):
    print(*opened)
    sys.stdout.flush()
    end(status)
end, os._exit = os._exit, exit
def hangs():
    time.sleep(3600)
how = {name: True for name in ("resume", "overwrite") if name in sys.argv}
log = Logbook("x", sys.argv[1], **how)
if "dead" in sys.argv:  # the one that had the claim, and did nothing more
    os.makedirs(log.path / "ranks", exist_ok=True)
    (log.path / "ranks" / ".notata-stuck-1").touch()
log.info("at work")
log.text("notes", "kept")
sys.addaudithook(hook)
log.watch(1.0, abort=True)
hangs()
"""


def start(rank: int, base: Path, *more: str) -> subprocess.Popen[str]:
    told = {"NOTATA_RANK": f"{rank}", "NOTATA_SIZE": "3", "NOTATA_LAUNCH": "launch-1"}
    return subprocess.Popen(
        [sys.executable, "-c", STUCK, os.fspath(base), *more],
        env={**os.environ, **told, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(base: Path, *more: str) -> tuple[list[list[str]], dict[str, Any]]:
    """Which files of others each rank opened until it ended itself, and the metadata then."""
    processes = [start(rank, base, *more) for rank in range(3)]
    try:
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [1] * len(processes), said
    return [out.split() for out, _ in said], LogReader(base / "log_x").meta


def test_each_ends_and_one_has_read_what_the_others_wrote(base: Path) -> None:
    opened, meta = ended(base)
    (files,) = filter(None, opened)
    assert {name for name in files if name.endswith("stacks.txt")}
    assert max(map(files.count, files)) <= 10
    assert meta["status"] == "failed"
    assert meta["failure_reason"].startswith("no sign of life for ")
    assert " in hangs (" in meta["failure_reason"]
    places = [stand.place for group in survey(str(base / "log_x"), 3).groups for stand in group]
    assert len(places) == 3
    assert all(place.startswith("hangs (") for place in places)


def test_each_says_so_in_its_record_without_reading_its_files(base: Path) -> None:
    ended(base)
    for rank in (1, 2):
        folder = base / f"log_x/ranks/rank_{rank:05d}"
        assert (folder / "artifacts/notes.txt").read_text() == "kept"
        record = json.loads((folder / "rank.json").read_text())
        assert (record["status"], record["pieces"], record["log_lines_lost"]) == ("failed", 0, 0)
        assert " in hangs (" in record["failure_reason"]
        assert record.keys().isdisjoint({"files", "json_files", "log_bytes"})


def test_where_the_one_that_reads_is_dead_each_tells_its_own_place(base: Path) -> None:
    opened, meta = ended(base, "dead")
    assert opened == [[], [], []]
    assert meta["status"] == "failed"
    assert "rank 0 in hangs (" in meta["failure_reason"]


def test_another_attempt_has_one_that_reads_of_its_own(base: Path) -> None:
    ended(base)
    opened, meta = ended(base, "resume")
    assert len(list(filter(None, opened))) == 1
    assert meta["status"] == "failed"


def test_a_run_that_is_begun_anew_has_one_of_its_own_too(base: Path) -> None:
    ranks = base / "log_x/ranks"
    for launch in ("older", "newer"):
        with open_as(0, 3, base, "x", launch=launch, overwrite=True) as log:
            log.root.info("at work")
        assert list(ranks.glob(".notata-*")) == []
        ranks.mkdir(exist_ok=True)
        for attempt in (1, 2):
            (ranks / f".notata-stuck-{attempt}").touch()
    opened, meta = ended(base, "overwrite")
    assert len(list(filter(None, opened))) == 1
    assert meta["status"] == "failed"


def test_the_claim_goes_with_the_ranks_folders(base: Path) -> None:
    ended(base)
    run = base / "log_x"
    assert (run / "ranks" / ".notata-stuck-1").exists()
    merge(run, prune=True)
    assert not (run / "ranks").exists()
