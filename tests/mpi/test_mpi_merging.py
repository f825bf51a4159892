"""Ranks of a job that share the work of a merge, under MPICH and Open MPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import ROOT, forget_logs, merged, write_as

import notata
from notata import Logbook
from notata.merging import joining, logs
from notata.merging.joining import join
from notata.merging.plan import make_plan

Launch = Callable[..., Any]
pytestmark = pytest.mark.mpi


def work(log: Logbook) -> None:
    columns = np.arange(3_000_000.0).reshape(1500, 2000)[:, log.rank * 500 :][:, :500]
    log.array("large", columns, start=(0, log.rank * 500), shape=(1500, 2000))
    log.arrays("b", k=columns[:10], m=[log.rank])
    for number in range(5):
        log.array(f"small/{number}", [log.rank + number])
    for number in range(300):
        log.info(f"step {number}\nof rank {log.rank}")


def alone(run: Path) -> dict[str, str]:
    outputs = make_plan(os.fspath(run)).outputs
    pairs = [(out, os.fspath(run / f"alone-{n}.tmp")) for n, out in enumerate(outputs)]
    made = join(os.fspath(run), pairs, None, lambda count: None)
    for _, path in pairs:
        os.unlink(path)
    return {file: one.checksum for file, one in made.items()}


def test_ranks_make_the_same_bytes(launch: Launch, base: Path) -> None:
    run = write_as(4, base, work)
    done = launch(3, "joining", run)
    assert {rank: told["leads"] for rank, told in done.told.items()} == {
        0: True,
        1: False,
        2: False,
    }
    assert {told["size"] for told in done.told.values()} == {3}
    assert done.told[0]["made"] == alone(run)
    assert not list(run.rglob("*.tmp"))


def test_an_error_on_another_rank_comes_back_as_it_is(launch: Launch, base: Path) -> None:
    run = write_as(4, base, work)
    done = launch(3, "joining", run, "damage")
    assert "rank 1's piece of 'large' is damaged" in done.told[0]["error"]
    assert not list(run.rglob("*.tmp"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose array and log are each large enough to be divided."""

    def write(log: Logbook) -> None:
        row, column = divmod(log.rank, 2)
        block = np.arange(2_400_000.0).reshape(1600, 1500) + log.rank
        place = (1600 * row, 1500 * column)
        data = block if log.rank else np.asfortranarray(block)
        log.array("T", data, start=place, shape=(3200, 3000))
        log.json("metrics", {"solve": 1.0 + log.rank})

    run = write_as(4, tmp_path_factory.mktemp("large"), write)
    for rank in range(4):
        path = run / (f"ranks/rank_{rank:05d}/log.txt" if rank else "log.txt")
        with path.open("w") as log:
            for second in range(230_000):
                clock = f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
                stamp = f"2026-11-{23 + second // 86_400}T{clock}.{7 * rank + second % 3:06d}"
                text = f"step={second} residual=0.123456 flux=0.1234567890123456789"
                log.write(f"[{stamp}] INFO [rank {rank}] {text}\n")
    forget_logs(run)
    sizes = {out.file: out.bytes for out in make_plan(os.fspath(run)).outputs}
    assert min(sizes["data/T.npy"], sizes["log.txt"]) >= joining._LARGE
    assert logs._beginnings(os.fspath(run), logs.spans_of(os.fspath(run)))  # of further ranges
    return run


@pytest.fixture(scope="module")
def expected(large: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    copy = tmp_path_factory.mktemp("one") / large.name
    shutil.copytree(large, copy)
    notata.merge(copy)
    made = merged(copy)
    assert {"data/T.npy", "log.txt", "artifacts/metrics.ranks.csv"} <= made.keys()
    return made


def test_the_command_makes_the_same_bytes_on_any_number_of_ranks(
    launch: Launch, tmp_path: Path, large: Path, expected: dict[str, Any]
) -> None:
    run = tmp_path / large.name
    shutil.copytree(large, run)
    done = launch(
        3,
        "joining",
        wrapper=lambda command: [command[0], "-m", "notata", "merge", os.fspath(run)],
        PYTHONPATH=os.fspath(ROOT),
    )
    assert done.output.count("joined 4 of 4") == 1, done.output  # rank 0 alone says so
    assert merged(run) == expected


@pytest.mark.parametrize("jobs", [2, 4])
def test_processes_of_one_machine_make_the_same_bytes(
    jobs: int, tmp_path: Path, large: Path, expected: dict[str, Any]
) -> None:
    run = tmp_path / large.name
    shutil.copytree(large, run)
    command = [sys.executable, "-m", "notata", "merge", "--jobs", str(jobs), os.fspath(run)]
    environment = os.environ | {"PYTHONPATH": os.fspath(ROOT)}
    subprocess.run(command, env=environment, check=True, timeout=100)
    assert merged(run) == expected


def test_a_byte_that_flipped_is_told_by_ranks_and_left_out_where_holes_may_be(
    launch: Launch, tmp_path: Path, large: Path
) -> None:
    runs = [tmp_path / name / large.name for name in ("many", "one")]
    for run in runs:
        shutil.copytree(large, run)
        for rank, at in ((1, -7), (2, 5_000_000)):
            path = run / f"ranks/rank_{rank:05d}/data/T.npy"
            content = bytearray(path.read_bytes())
            content[at] ^= 16
            path.write_bytes(content)

    def merge(*options: str) -> Any:
        return launch(
            3,
            "joining",
            wrapper=lambda command: [
                command[0],
                *("-m", "notata", "merge", *options, os.fspath(runs[0])),
            ],
            check=False,
            PYTHONPATH=os.fspath(ROOT),
        )

    done = merge()
    assert done.status == 2
    for rank in (1, 2):
        assert done.output.count(f"rank {rank}'s piece of 'T' is damaged: ") == 1, done.output
    assert not (runs[0] / "data").exists()
    assert not (runs[0] / "merge.json").exists()
    done = merge("--allow-missing")
    assert done.status == 0
    assert done.output.count("joined 4 of 4, with 2 holes") == 1, done.output
    notata.merge(runs[1], allow_missing=True)
    assert merged(runs[0]) == merged(runs[1])
    holes = np.isnan(np.load(runs[0] / "data/T.npy", mmap_mode="r"))
    assert holes[:1600, 1500:].all()
    assert holes[1600:, :1500].all()
    assert holes.sum() == 2 * 1600 * 1500
