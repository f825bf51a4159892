"""Two ranks that use every verb, one of them killed at each system call that touches its files.

And the same where the power goes then, which takes the other rank as well.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from allverbs import CELLS, verbs
from calls import CHANGES, Point, kill_at, need_strace, points_in, strace
from power import AT_ONCE, powered
from promises import acknowledged, check, check_after_power_loss, lines, newest, run_in
from simulated import open_as

import notata
from notata import LogReader
from notata.stored import read_json

VICTIM = Path(__file__).parents[1] / "allverbs.py"
STRIDE = 3 * int(os.environ.get("NOTATA_SWEEP", "16"))
STRIDE = 1 if STRIDE == 3 else STRIDE
SIZE = 2


def job(
    mpich: Any,
    base: Path,
    told: Path,
    rank: int,
    options: list[str],
    durability: str = "close",
) -> int:
    """Run the program on two ranks, one of them under strace; gives the job's status."""
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
        *("first", base, told, durability, "mpi"),
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
    metadata = read_json(run / "metadata.json")  # none where the power went before it was synced
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
    base, told = whole / "base", whole / "told"
    assert job(mpich, base, told, rank, strace(CHANGES, to=log)) == 0
    check(base, told, SIZE)
    points = points_in(log, base)
    assert len(points) > (100 if rank == 0 else 60)
    chosen = points[rank * STRIDE // 2 :: STRIDE]
    print(f"rank {rank} of {SIZE}: {len(points)} points, of which {len(chosen)} are tried")

    def kill(point: Point) -> tuple[Path, int]:
        folder = tmp_path / f"{point.call}-{point.number}"
        options = [*strace([point.call]), *kill_at(point)]
        return folder, job(mpich, folder / "base", folder / "told", rank, options)

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


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("durability", ["process", "close", "node"])
@pytest.mark.parametrize("rank", range(SIZE))
def test_what_was_promised_to_two_ranks_outlives_the_power(
    tmp_path: Path, mpich: Any, rank: int, durability: str
) -> None:
    need_strace()
    with powered(tmp_path, "ext4") as power:
        log, whole = tmp_path / "calls", power.path / "undisturbed"
        options = strace(CHANGES, to=log)
        assert job(mpich, whole, tmp_path / "told", rank, options, durability) == 0
        points = points_in(log, whole)
        assert len(points) > (100 if rank == 0 else 60)
        stride = 1 if STRIDE == 1 else 2 * STRIDE
        chosen = points[rank * stride // 2 :: stride]
        print(f"rank {rank}, {durability}: {len(points)} points, {len(chosen)} are tried")
        wrong, missed = [], []
        for point in chosen:
            name = f"{point.call}-{point.number}"
            base, told = power.path / name, tmp_path / f"told-{name}"
            power.settle()
            options = [*strace([point.call]), *kill_at(point)]
            if job(mpich, base, told, rank, options, durability) == 0:
                missed.append(point)  # MPI itself makes some calls as often as it happens
                continue
            power.cut(AT_ONCE)
            try:
                check_after_power_loss(base, told, durability, SIZE)
                goes_on(base)
                shutil.rmtree(base)
            except Exception as error:
                wrong.append(f"{point}\n   {type(error).__name__}: {error}")
        assert len(missed) <= max(1, len(chosen) // 50), missed
        assert not wrong, f"{len(wrong)} of {len(chosen)}\n" + "\n".join(wrong)
