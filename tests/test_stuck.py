"""The command `notata stuck`: which ranks stand together, and which elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from simulated import open_as, write_as

from notata.cli import main
from notata.stacks import read, survey

HEAD = (
    "[2026-11-25T22:00:0{rank}] rank {rank} on node{rank}, process 7: no sign of life for 600.4 s; "
    "main thread 0x00007f0000000001\n"
)
HELPER = (
    "Thread 0x00007f0000000002 (most recent call first):\n"
    '  File "/usr/lib/python3.11/threading.py", line 324 in wait\n\n'
)
MAIN = "Thread 0x00007f0000000001 (most recent call first):\n"
WAITS = (
    '  File "/home/ada/heat.py", line 81 in reduce\n  File "/home/ada/heat.py", line 90 in step\n'
)
ELSEWHERE = '  File "/home/ada/mesh.py", line 12 in refine\n'
CLOSES = (
    '  File "/opt/notata/agreement.py", line 181 in _wait\n'
    '  File "/opt/notata/session.py", line 147 in _close\n'
    '  File "/home/ada/heat.py", line 99 in main\n'
)


def stuck(*args: object) -> Result:
    words = ["stuck", *map(str, args)]
    return CliRunner().invoke(main, words, env={"COLUMNS": "100"}, catch_exceptions=False)


@pytest.fixture
def run(base: Path) -> Path:
    """A run of six ranks: 0 and 2 wait, 1 is elsewhere, 3 went on, 4 failed, 5 wrote nothing."""
    logs = [open_as(rank, 6, base) for rank in range(6)]
    for rank, stack in {0: WAITS, 1: ELSEWHERE, 2: WAITS, 3: WAITS}.items():
        logs[rank].array("x", [rank])
        told = HEAD.format(rank=rank) + HELPER + MAIN + stack
        if rank == 2:  # an older one, at another place, which it left
            told = HEAD.format(rank=2) + MAIN + ELSEWHERE + "[2026-11-25T22:01:00] went on\n" + told
        if rank == 3:
            told += "[2026-11-25T22:02:00] went on\n"
        (logs[rank].rank_dir / "stacks.txt").write_text(told)
    logs[4].array("x", [4])
    logs[4].mark_failed("NaN in cell 7")
    return logs[0].path


def test_the_many_that_wait_and_the_one_that_is_elsewhere(run: Path) -> None:
    result = stuck(run)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == f"{run}: 3 of 6 ranks gave no sign of life"
    assert lines[3].split() == ["1", "10", "min", "00", "s", "refine", "(mesh.py:12)"]
    assert lines[4].split()[0] == "0,2"
    assert "reduce (heat.py:81) < step (heat.py:90)" in lines[4]
    assert lines[5:] == [
        "rank 4 ended: failed: NaN in cell 7",
        "rank 3 went on after a while",
        "rank 5 wrote no stacks: at work, dead, or not watched (log.watch or NOTATA_WATCH)",
    ]


def test_json_has_all_of_it(run: Path) -> None:
    result = stuck("--json", run)
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert [group["ranks"] for group in told["groups"]] == [[1], [0, 2]]
    assert told["groups"][1] == {
        "ranks": [0, 2],
        "place": "reduce (heat.py:81)",
        "silent_sec": 600.4,
        "since": "2026-11-25T22:00:00",
        "hosts": ["node0", "node2"],
        "frames": [
            {"file": "/home/ada/heat.py", "line": 81, "function": "reduce"},
            {"file": "/home/ada/heat.py", "line": 90, "function": "step"},
        ],
    }
    assert (told["went_on"], told["no_stacks"]) == ([3], [5])
    assert told["ended"] == {"4": "failed: NaN in cell 7"}


def test_a_rank_that_waits_at_the_end_of_the_run_is_said_to(run: Path) -> None:
    (run / "ranks/rank_00000/stacks.txt").write_text(HEAD.format(rank=0) + MAIN + CLOSES)
    groups = survey(os.fspath(run), 6).groups
    assert [[stand.rank for stand in group] for group in groups] == [[0], [1], [2]]
    place = "main (heat.py:99), waiting for the other ranks to close the run"
    assert groups[0][0].place == place


def test_stacks_of_ranks_that_could_not_run_python_are_read_too(run: Path) -> None:
    """`faulthandler` wrote them by itself; rank 5 has no folder, as it wrote nothing else."""
    aside = run / "ranks/.notata-stacks"
    aside.mkdir()
    for rank in (0, 3, 5):
        told = "Timeout (0:10:00)!\n" + HELPER + MAIN + ELSEWHERE
        (aside / f"{rank:05d}.txt").write_text(told)
    (aside / "00004.txt").touch()
    (run / "ranks/rank_00000/stacks.txt").unlink()
    found = survey(os.fspath(run), 6)
    assert [[stand.rank for stand in group] for group in found.groups] == [[2], [0, 1, 3, 5]]
    assert [stand.silent for stand in found.groups[1]] == [600, 600.4, 600, 600]
    assert found.silent == []
    with (aside / "00003.txt").open("a") as file:
        file.write("[2026-11-25T22:20:00] went on\n")
    found = survey(os.fspath(run), 6)
    assert [[stand.rank for stand in group] for group in found.groups] == [[2], [0, 1, 5]]
    assert found.went_on == [3]


def test_a_rank_that_went_on_once_may_be_stuck_now(run: Path) -> None:
    """In a call of C, and later in one that lets Python write."""
    aside = run / "ranks/.notata-stacks"
    aside.mkdir()
    told = "Timeout (0:10:00)!\n" + MAIN + WAITS + "[2026-11-25T22:20:00] went on\n"
    (aside / "00001.txt").write_text(told)
    assert [group[0].rank for group in survey(os.fspath(run), 6).groups] == [1, 0]


def test_stacks_of_an_earlier_attempt_tell_nothing_of_this_one(run: Path) -> None:
    """By the time in them; or of their file, where Python could not write them."""
    aside = run / "ranks/.notata-stacks"
    aside.mkdir()
    for rank in (3, 4):
        (aside / f"{rank:05d}.txt").write_text("Timeout (0:10:00)!\n" + MAIN + WAITS)
    os.utime(aside / "00003.txt", (1e9, 1e9))
    os.utime(aside / "00004.txt", (4e9, 4e9))
    before = survey(os.fspath(run), 6)
    assert [[stand.rank for stand in group] for group in before.groups] == [[1], [0, 2, 3, 4]]
    path = run / "metadata.json"
    meta = json.loads(path.read_text())
    attempts = [{"start_time": "2026-11-25T00:00:00"}, {"start_time": "2026-11-25T23:00:00"}]
    path.write_text(json.dumps(meta | {"attempts": attempts}))
    found = survey(os.fspath(run), 6)
    assert [[stand.rank for stand in group] for group in found.groups] == [[4]]
    assert found.silent == [0, 1, 2, 3, 5]


@pytest.mark.parametrize("told", ["", "torn", HEAD.format(rank=0)[:60], HEAD.format(rank=0)])
def test_stacks_that_are_cut_off_are_no_error(run: Path, told: str) -> None:
    (run / "ranks/rank_00000/stacks.txt").write_text(told)
    result = stuck(run)
    assert result.exit_code == 1
    assert "refine (mesh.py:12)" in result.stdout


def test_a_run_that_is_well(base: Path) -> None:
    log = open_as(0, 1, base)
    result = stuck(log.path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"{log.path}: no rank is known to be stuck"


def test_no_run(base: Path) -> None:
    result = stuck(base / "log_none")
    assert result.exit_code == 2
    assert "no such run" in result.stderr


def test_stacks_of_a_run_that_was_replaced_are_not_the_new_ones(base: Path) -> None:
    run = write_as(2, base, lambda log: log.info("there"))
    aside = run / "ranks" / ".notata-stacks"
    aside.mkdir()
    (aside / "00001.txt").write_bytes(b'Timeout (0:00:02)!\n  File "a.py", line 1 in old\n')
    assert set(read(str(run), 2)) == {1}
    write_as(2, base, lambda log: log.info("there"), overwrite=True, launch="launch-2")
    assert read(str(run), 2) == {}


@pytest.mark.parametrize("size", [1, 3])
def test_a_run_that_has_ended_waits_for_nobody(base: Path, size: int) -> None:
    path = write_as(size, base, lambda log: None)
    result = stuck(path)
    assert (result.exit_code, result.stdout) == (
        0,
        f"{path}: no rank is known to be stuck; the run has ended: complete\n",
    )
