"""Two ranks that use every verb, one of them killed at each system call that touches its files."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from allverbs import CELLS, verbs
from calls import CHANGES, Point, kill_at, need_strace, points_in, strace
from promises import acknowledged, check, lines, newest, run_in
from simulated import open_as

import notata
from notata import LogReader

VICTIM = Path(__file__).parents[1] / "allverbs.py"
STRIDE = 3 * int(os.environ.get("NOTATA_SWEEP", "16"))
STRIDE = 1 if STRIDE == 3 else STRIDE
SIZE = 2


def job(mpich: Any, folder: Path, rank: int, options: list[str]) -> int:
    """Run the program on two ranks, one of them under strace; gives the job's status."""
    base, told = folder / "base", folder / "told"
    base.mkdir(parents=True)

    def wrapped(command: list[str]) -> list[str]:
        under = [
            "sh",
            "-c",
            f'[ "$PMI_RANK" = {rank} ] || exec "${{@:{len(options) + 1}}}"; exec "$@"',
        ]
        return ["bash", *under[1:], "sh", *options, *command]

    done = mpich(
        SIZE,
        VICTIM,
        *("first", base, told, "close", "mpi"),
        wrapper=wrapped,
        check=False,
        seconds=60,
        NOTATA_HEARTBEAT="0",
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONPATH=os.fspath(Path(notata.__file__).parents[1]),
    )
    return done.status


def goes_on(base: Path) -> None:
    """Both ranks go on in the run, and it merges to what they wrote then."""
    run = run_in(base)
    metadata = (run / "metadata.json").exists()
    before = [lines(run, rank, SIZE) if metadata else set() for rank in range(SIZE)]
    for rank in range(SIZE):
        log = open_as(rank, SIZE, run.parent, "s_k_1", launch="launch-2", resume=True)
        with log:
            for call in verbs(log, 3).values():
                call()
    for rank in range(SIZE):
        assert before[rank] | {"line 3", "end of 3"} <= lines(run, rank, SIZE), rank
    notata.merge(run)
    reader = LogReader(run)
    assert reader.load_array("a/T").tolist() == [3.0] * CELLS * SIZE
    assert reader.load_array("energy").tolist() == [3] * CELLS


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("rank", range(SIZE))
def test_a_rank_that_dies_at_any_call_loses_nothing(tmp_path: Path, mpich: Any, rank: int) -> None:
    need_strace()
    log = tmp_path / "calls"
    whole = tmp_path / "undisturbed"
    assert job(mpich, whole, rank, strace(CHANGES, to=log)) == 0
    check(whole / "base", whole / "told", SIZE)
    points = points_in(log, whole / "base")
    assert len(points) > (100 if rank == 0 else 60)
    chosen = points[rank * STRIDE // 2 :: STRIDE]
    print(f"rank {rank} of {SIZE}: {len(points)} points, of which {len(chosen)} are tried")

    def kill(point: Point) -> tuple[Path, int]:
        folder = tmp_path / f"{point.call}-{point.number}"
        return folder, job(mpich, folder, rank, [*strace([point.call]), *kill_at(point)])

    wrong, missed = [], []
    with ThreadPoolExecutor(2) as pool:
        for point, (folder, status) in zip(chosen, pool.map(kill, chosen), strict=True):
            base, told = folder / "base", folder / "told"
            try:
                if status == 0:  # MPI itself makes some calls as often as it happens
                    missed.append(point)
                    continue
                assert "close" not in newest(acknowledged(Path(f"{told}.{rank}")))
                check(base, told, SIZE)
                goes_on(base)
                shutil.rmtree(folder)
            except Exception as error:
                wrong.append(f"{point}\n   {type(error).__name__}: {error}")
    assert len(missed) <= max(1, len(chosen) // 50), missed
    assert not wrong, f"{len(wrong)} of {len(chosen)}\n" + "\n".join(wrong)
