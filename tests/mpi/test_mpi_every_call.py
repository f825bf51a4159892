"""Two ranks that use every verb, one of them killed at each system call that touches its files.

And the same where the power goes then, which takes the other rank as well; and where the call is
refused, of which both ranks have to hear if it concerns both.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from allverbs import CELLS, verbs
from calls import (
    CHANGES,
    REFUSABLE,
    Point,
    errors_of,
    fail_at,
    kill_at,
    need_strace,
    points_in,
    refused,
    strace,
)
from power import AT_ONCE, powered
from promises import (
    acknowledged,
    check,
    check_after_power_loss,
    check_table,
    lines,
    litter,
    newest,
    run_in,
)
from simulated import open_as

import notata
from notata import LogReader, disk
from notata.stored import read_json

VICTIM = Path(__file__).parents[1] / "allverbs.py"
STRIDE = 3 * int(os.environ.get("NOTATA_SWEEP", "16"))
STRIDE = 1 if STRIDE == 3 else STRIDE
SIZE = 2
TRIES = 3  # MPI itself makes some calls as often as it happens, which shifts the count


def job(
    mpich: Any,
    base: Path,
    told: Path,
    rank: int,
    options: list[str],
    durability: str = "close",
    *more: str,
    kind: str = "first",
) -> int:
    """Run the program on two ranks, one of them under strace; gives the job's status."""
    base.mkdir(parents=True)
    for before in range(SIZE) if kind != "first" else ():
        with open_as(before, SIZE, run_in(base).parent, "s_k_1", launch="launch-0") as log:
            for call in verbs(log, 0).values():
                call()

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
        *(kind, base, told, durability, "mpi", *more),
        wrapper=wrapped,
        check=False,
        seconds=60,
        NOTATA_HEARTBEAT="0",
        NOTATA_GRACE="5",
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
@pytest.mark.parametrize("kind", ["first", "resumed", "overwrite"])
@pytest.mark.parametrize("rank", range(SIZE))
def test_a_rank_that_dies_at_any_call_loses_nothing(
    tmp_path: Path, mpich: Any, rank: int, kind: str
) -> None:
    need_strace()
    log = tmp_path / "calls"
    whole = tmp_path / "undisturbed"
    base, told = whole / "base", whole / "told"
    assert job(mpich, base, told, rank, strace(CHANGES, to=log), kind=kind) == 0
    check(base, told, SIZE)
    points = points_in(log, base)
    assert len(points) > (100 if rank == 0 else 60)
    stride = STRIDE if STRIDE == 1 or kind == "first" else 2 * STRIDE
    chosen = points[rank * stride // 2 :: stride]
    print(f"{kind}, rank {rank} of {SIZE}: {len(points)} points, of which {len(chosen)} are tried")

    def kill(point: Point) -> tuple[Path, int]:
        folder = tmp_path / f"{point.call}-{point.number}"
        options = [*strace([point.call]), *kill_at(point)]
        for _ in range(TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            status = job(mpich, folder / "base", folder / "told", rank, options, kind=kind)
            # A call of MPI's own may have shifted the count, so that it was killed in MPI's end.
            if status != 0 and "close" not in newest(acknowledged(told_by(folder, rank))):
                return folder, status
        return folder, 0

    wrong, missed = [], []
    with ThreadPoolExecutor(2) as pool:
        for point, (folder, status) in zip(chosen, pool.map(kill, chosen), strict=True):
            base, told = folder / "base", folder / "told"
            try:
                if status == 0:
                    missed.append(point)
                    continue
                check(base, told, SIZE, oldest=1 if kind == "first" else 0)
                if kind == "first":
                    check_table(base, told)
                goes_on(base)
                shutil.rmtree(folder)
            except Exception as error:
                wrong.append(f"{point}\n   {type(error).__name__}: {error}")
    assert len(missed) <= max(1, len(chosen) // 50), missed
    assert not wrong, f"{len(wrong)} of {len(chosen)}\n" + "\n".join(wrong)


def told_by(folder: Path, rank: int) -> Path:
    return Path(f"{folder / 'told'}.{rank}")


def check_errors(base: Path, told: Path, rank: int, kind: str, call: str = "") -> None:
    """What a rank was refused is explained to it; the other one hears of what concerns both."""
    said = [acknowledged(Path(f"{told}.{n}")) for n in range(SIZE)]
    mine, others = ([a for a in said[n] if "errno" in a] for n in (rank, 1 - rank))
    assert len(mine) <= 2, mine
    for answer in mine:
        assert f"; {disk._ADVICE[answer['errno']]}" in answer["error"], answer
        assert str(base) in answer["error"], answer
    causes = {answer["verb"]: answer for answer in mine if answer["verb"] in ("open", "close")}
    for answer in others:
        assert answer["verb"] in causes, answer
        assert answer["errno"] == causes[answer["verb"]]["errno"], answer
        assert f"rank {rank}" in answer["error"], answer
    if "open" in newest(said[1 - rank]):
        meta = LogReader(run_in(base)).meta
        if "open" in causes:  # refused when all had opened the run, which this rank never closed
            assert meta["status"] == "failed", meta
        elif "close" in causes and meta["status"] == "failed":  # else it was when all had ended it
            assert causes["close"]["error"] in meta["failure_reason"], meta
        else:
            assert meta["status"] == "complete", meta
        assert said[1 - rank][-1]["status"] == meta["status"]
        check(base, told, SIZE, oldest=0, lossy=True, ended=meta["status"])
        if kind == "first":
            check_table(base, told, lossy=True)
    if call not in ("unlink", "rmdir"):
        # What an old run left when it could not be taken away is a folder, out of sight.
        assert [path for path in litter(base) if path.is_file()] == []
        assert kind == "overwrite" or litter(base) == []
    goes_on(base)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ["first", "resumed", "overwrite"])
@pytest.mark.parametrize("rank", range(SIZE))
def test_a_rank_is_told_of_an_error_at_any_call_and_so_is_the_other(
    tmp_path: Path, mpich: Any, rank: int, kind: str
) -> None:
    need_strace()
    log, whole, how = tmp_path / "calls", tmp_path / "undisturbed", ("node", "tolerant")
    base, told = whole / "base", whole / "told"
    assert job(mpich, base, told, rank, strace(REFUSABLE, to=log), *how, kind=kind) == 0
    check_errors(base, told, rank, kind)
    points = points_in(log, base, reads=True)
    assert len(points) > (200 if rank == 0 else 100)
    tried = [(point, error) for point in points for error in errors_of(point)]
    stride = STRIDE if STRIDE == 1 else (2 if kind == "first" else 4) * STRIDE
    chosen = tried[rank * stride // 2 :: stride]
    print(f"{kind}, rank {rank} of {SIZE}: {len(tried)} errors, of which {len(chosen)} are tried")

    def refuse(which: tuple[Point, str]) -> tuple[Path, int | str]:
        point, error = which
        folder = tmp_path / f"{point.call}-{point.number}-{error}"
        status: int | str = 0
        options = strace([point.call], *fail_at(point, error), to=f"{folder}.calls")
        for _ in range(TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            base, told = folder / "base", folder / "told"
            try:
                status = job(mpich, base, told, rank, options, *how, kind=kind)
            except pytest.fail.Exception as hang:  # maybe of MPI, if a call of its own was refused
                status = str(hang)
            if refused(Path(f"{folder}.calls"), base):
                break
        return folder, status

    wrong, missed = [], []
    with ThreadPoolExecutor(2) as pool:
        for (point, error), (folder, status) in zip(chosen, pool.map(refuse, chosen), strict=True):
            base, told = folder / "base", folder / "told"
            try:
                if not refused(Path(f"{folder}.calls"), base):
                    missed.append(point)
                    continue
                assert status == 0, status
                check_errors(base, told, rank, kind, point.call)
                shutil.rmtree(folder)
            except Exception as why:
                wrong.append(f"{error} at {point}\n   {type(why).__name__}: {why}")
    assert not wrong, f"{len(wrong)} of {len(chosen)}\n" + "\n".join(wrong)
    assert len(missed) <= max(1, len(chosen) // 10), missed


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
            options = [*strace([point.call]), *kill_at(point)]
            for again in range(TRIES):
                name = f"{point.call}-{point.number}-{again}"
                base, told = power.path / name, tmp_path / f"told-{name}"
                power.settle()
                if status := job(mpich, base, told, rank, options, durability):
                    break
                shutil.rmtree(base)
            if status == 0:
                missed.append(point)
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
