"""Ranks of a job that share the work of a merge, under MPICH and Open MPI."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import write_as

from notata import Logbook
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
