"""One rank of several breaks: the job ends, the run says what happened, nothing written is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import notata
from notata import LogReader, silence
from notata.errors import MergeError

pytestmark = pytest.mark.mpi

GRACE = 2.0
SLACK = 5.0  # for the end of the job, behind the grace period
SIZES = (2, 3, 5)
PLACES = ("collective", "outside")

# How a rank breaks, and the reason that the run has then. A process that dies at once can't write
# one. Open MPI then asks the others to end, and rank 0 says that of itself; MPICH just kills them.
REASONS = {
    "raises": "rank {who}: NaN in cell 7",
    "exits": "rank {who}: sys.exit(3)",
    "dies": None,
    "killed": None,
    "segfaults": None,
    "terminated": "rank {who}: ended by SIGTERM",
    "hangs": "no sign of life for",
}


class Case(NamedTuple):
    size: int
    who: int
    where: str


EVERY = [Case(size, who, where) for size in SIZES for who in range(size) for where in PLACES]


def some_of(how: str) -> list[Case]:
    """One case in a collective and one outside, so that all sizes and ranks have their turn."""
    first = 7 * list(REASONS).index(how)
    inside, outside = EVERY[0::2], EVERY[1::2]
    return [inside[first % len(inside)], outside[(first + 4) % len(outside)]]


@pytest.mark.parametrize("how", REASONS)
def test_a_rank_that_breaks(launch_in, tmp_path, how):
    check_all(launch_in, tmp_path, how, some_of(how))


@pytest.mark.matrix
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", REASONS)
def test_every_rank_of_every_size_breaks(launch_in, tmp_path, how):
    check_all(launch_in, tmp_path, how, EVERY, bounded=True)


def check_all(
    launch_in: Callable[[Path], Callable],
    tmp_path: Path,
    how: str,
    cases: list[Case],
    *,
    bounded: bool = False,
) -> None:
    """Run the cases, two at a time, as most of their time is spent waiting."""
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda case: outcome(launch_in, tmp_path, how, case), cases))
    faults = [
        f"{case}: {fault}"
        for case, (folder, done, ended) in zip(cases, outcomes, strict=True)
        for fault in faults_of(how, case, folder, done, ended, bounded)
    ]
    assert not faults, "\n".join(faults)


def outcome(launch_in, tmp_path, how, case):
    folder = tmp_path / "-".join(map(str, case))
    folder.mkdir()
    done = launch_in(folder)(
        case.size,
        "breaking",
        how,
        case.where,
        case.who,
        folder,
        check=False,
        NOTATA_GRACE=f"{GRACE:g}",
    )
    return folder, done, time.time()


def faults_of(how, case, folder, done, ended, bounded):
    """What is not as it should be, as sentences."""
    if done.status == 0:
        yield "the job ended well"
    if case.who not in done.told:
        yield f"never came to the point: {done.output}"
        return
    took = ended - done.told[case.who]["broke_at"]
    if bounded and took > GRACE + SLACK:
        yield f"ended {took:.1f} s after the rank broke"
    run = LogReader(folder / "log_run")
    yield from faults_of_metadata(how, case, run)
    yield from faults_of_record(how, case, run)
    yield from faults_of_files(how, case, run)
    yield from faults_of_merge(how, case, run)


def faults_of_metadata(how, case, run):
    status, reason = run.meta["status"], run.meta.get("failure_reason")
    expected = REASONS[how]
    if expected is None:
        # Rank 0 says so, unless it was the one or is slow; the one that was killed says nothing.
        asked = {f"rank {n}: ended by SIGTERM" for n in range(case.size) if n != case.who}
        told = {"initialized": {None}, "failed": asked}.get(status, set())
        if reason not in told:
            yield f"status {status}, reason {reason}"
        silent = silence.fell_silent(run.path, run.meta)  # MPICH asks nobody, and nothing is known
        if silent is not None and not silent.startswith(f"rank {case.who} said nothing when"):
            yield f"another rank is named: {silent}"
        if silent is None and status == "failed" and case.size == 2:
            yield "the rank that was killed is not named"
        return
    if status != "failed" or not str(reason).startswith(expected.format(who=case.who)):
        yield f"status {status}, reason {reason}"
    if how == "hangs" and f"rank {case.who} in hangs (breaking.py:" not in str(reason):
        yield f"the rank that hangs is not named: {reason}"


def faults_of_record(how, case, run):
    record = run.ranks[case.who].record
    if how in ("raises", "exits"):
        if (record["status"], "in main" in record["traceback"]) != ("failed", True):
            yield f"its record says {record}"
        if {"host", "rank", "failed_at"} - record.keys():
            yield f"its record has only {sorted(record)}"
        if not any("Traceback" in m.message for m in run.ranks[case.who].messages("ERROR")):
            yield "no traceback in its log"
    elif how == "hangs":
        if "in hangs" not in (run.path / f"ranks/rank_{case.who:05d}/stacks.txt").read_text():
            yield "no stacks"
    elif how == "terminated":
        if not str(record.get("failure_reason")).startswith("ended by SIGTERM"):
            yield f"its record says {record}"
    elif record["status"] != "initialized":
        yield f"its record says {record['status']}"


def faults_of_files(how, case, run):
    for rank in range(case.size):
        if list(run.ranks[rank].load_array("x")) != [rank] * 4:
            yield f"rank {rank}'s x"
        if run.ranks[rank].load_json("config/own") != {"rank": rank}:
            yield f"rank {rank}'s artifact"
        if "all is well" not in [m.message for m in run.ranks[rank].messages()]:
            yield f"rank {rank}'s log"
    # Whoever says that rank 0 was killed may be killed over it by the launcher.
    if list(run.path.rglob(".notata-*")) and not (case.who == 0 and REASONS[how] is None):
        yield "leftovers"


def faults_of_merge(how, case, run):
    try:
        notata.merge(run.path)
    except MergeError as error:
        told = "; ".join(error.problems)
        if f"rank {case.who} " not in told and "has not ended" not in told:
            yield f"the merge does not say what is missing: {told}"
    else:
        yield "a merge without --unfinished went through, though rows are missing"
    notata.merge(run.path, unfinished=True)
    others = [rank for rank in range(case.size) if rank != case.who]
    x = np.load(run.path / "data" / "x.npy")
    y = np.load(run.path / "data" / "y.npy")
    if list(x) != [rank for rank in range(case.size) for _ in range(4)]:
        yield f"merged x is {x}"
    if list(y) != [rank for rank in others for _ in range(2)]:
        yield f"merged y is {y}"
    if sum(m.message == "all is well" for m in run.messages()) != case.size:
        yield "messages are missing from the merged log"
