"""Fills a disk, and tells what each verb said of it: full.py BASE."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from notata import Experiment, Logbook, LogReader
from notata.logwriter import LogWriter

BASE = Path(sys.argv[1])


def attempt(action):
    """What an action raised: its number, and the file it names."""
    try:
        action()
    except OSError as error:
        return {"errno": error.errno, "file": str(error.filename)}
    return None


def fill():
    """Leave no room at all, not even for a byte."""
    for size in (1 << 16, 1 << 12, 1 << 9, 1):
        count = 0
        while True:
            try:
                with open(BASE / f"filler-{size}-{count}", "xb") as file:
                    file.write(b"x" * size)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                break
            count += 1


def wait_for_room():
    """Wait until a megabyte is free: ext4 hands out again what was freed after its next commit."""
    limit = time.monotonic() + 60
    while os.statvfs(BASE).f_bavail * os.statvfs(BASE).f_frsize < 1 << 20 or attempt(try_room):
        if time.monotonic() > limit:
            raise TimeoutError("what was deleted is not free after 60 s")
        time.sleep(0.5)


def try_room():
    room = BASE / "filler-room"
    try:
        with open(room, "wb") as file:
            file.write(b"x" * (1 << 20))
            file.flush()
            os.fsync(file.fileno())
    finally:
        room.unlink()


def unfill():
    for filler in BASE.glob("filler-*"):
        filler.unlink()
    wait_for_room()


def last_words():
    """How many lines a log counts as lost whose one line finds no room when the log is closed."""
    log = LogWriter(str(BASE / "last.txt"))
    log.write(20, "x" * 100_000)
    assert log.lost == 0
    log.close()
    return log.lost


def left_in(run):
    """The files of a run, once NFS has let go of one that was deleted while it was written."""
    limit = time.monotonic() + 30
    while True:
        names = sorted(path.name for path in run.rglob("*") if path.is_file())
        if time.monotonic() > limit or not any(name.startswith(".nfs") for name in names):
            return names
        time.sleep(0.5)


def main():
    log = Logbook("full", base_dir=BASE, params={"kappa": 1.0})
    log.array("T", np.arange(10.0))
    told = {"array": attempt(lambda: log.array("T", np.zeros(750_000)))}
    told["bytes"] = attempt(lambda: log.bytes("big.bin", b"x" * 6_000_000))
    told["after"] = LogReader(log.path).load_array("T").tolist()
    told["left"] = left_in(log.path)

    wait_for_room()
    sweep = Experiment("sweep", base_dir=BASE)
    runs = [sweep.add(i=i) for i in range(2)]
    runs[0].mark_complete()
    fill()
    lines = LogWriter(str(BASE / "lines.txt"))
    told["log"] = attempt(lambda: [lines.write(20, "x" * 10_000) for _ in range(3)])
    lines.close()
    told["lost"] = lines.lost
    told["lost_at_close"] = last_words()
    told["close"] = attempt(log.mark_complete)
    told["ended"] = attempt(runs[1].mark_complete)
    told["status"] = [LogReader(run.path).meta["status"] for run in (log, *runs)]
    unfill()
    told["again"] = attempt(log.mark_complete)
    told["afterwards"] = LogReader(log.path).meta["status"]
    told["retried"] = attempt(runs[1].mark_complete)
    told["rebuilt"] = sweep.rebuild_index()
    print(json.dumps(told))


main()
