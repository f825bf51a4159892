"""The command `notata follow`, and how far a sweep has got."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from calling import HOSTILE, ROOT, assert_harmless, notata

from notata import Experiment
from notata.jobs import Answer, Record
from notata.pacing import Now, Pace


def sweep(base: Path, ends: str = "cccf", **more: object) -> Experiment:
    """An experiment whose runs end as the letters say; `r` is open right now."""
    exp = Experiment("sweep", base)
    for k, end in enumerate(ends):
        log = exp.add(k=k, **more)
        assert log is not None
        log.info(f"at work on {k}")
        if end == "c":
            log.mark_complete()
        elif end == "f":
            log.mark_failed("diverged")
    return exp


def test_a_sweep_that_is_over(base: Path) -> None:
    sweep(base)
    result = notata("follow", base / "sweep")
    assert result.exit_code == 1
    assert re.fullmatch(r"\d\d:\d\d:\d\d 3 complete, 1 failed\n", result.stdout)


def test_all_is_well(base: Path) -> None:
    sweep(base, "cc")
    assert notata("follow", base / "sweep").exit_code == 0
    Experiment("empty", base)
    result = notata("follow", base / "empty")
    assert (result.exit_code, result.stdout[9:]) == (1, "no runs\n")  # nothing has begun


def test_no_such_experiment(base: Path) -> None:
    for path in (base, base / "nowhere"):
        result = notata("follow", path)
        assert (result.exit_code, result.stdout) == (2, "")
        assert len(result.stderr.splitlines()) == 1


PROGRAM = """
import sys
from notata import Experiment
for log in Experiment("sweep", sys.argv[1]).sweep({"k": [0, 1, 2]}):
    with log:
        log.info("at work on [b]" + str(log.params["k"]))
        print("begun", flush=True)
        sys.stdin.readline()
"""


def begin(base: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, base],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        text=True,
    )


def step(run: subprocess.Popen[str]) -> None:
    assert run.stdin is not None
    run.stdin.write("\n")
    run.stdin.flush()


def test_a_sweep_that_runs_line_by_line(base: Path) -> None:
    run = begin(base)
    assert run.stdout is not None
    assert run.stdout.readline() == "begun\n"
    following = subprocess.Popen(
        [sys.executable, "-m", "notata", "follow", base / "sweep", "--every", "0.1", "--json"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert following.stdout is not None
    first = json.loads(following.stdout.readline())
    assert (first["states"], first["ended"], first["left"]) == ({"running": 1, "waiting": 2}, 0, 3)
    assert first["seconds_to_go"] is None
    for _ in range(3):
        step(run)
    assert run.wait(60) == 0
    rest = [json.loads(line) for line in following.stdout]
    assert following.wait(60) == 0
    assert rest[-1]["states"] == {"complete": 3}
    assert (rest[-1]["ended"], rest[-1]["left"]) == (3, 0)
    following.stdout.close()
    run.stdout.close()
    run.stdin.close() if run.stdin else None


def test_a_table_on_a_terminal(base: Path) -> None:
    sweep(base, "ccfr")
    ours, theirs = pty.openpty()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    following = subprocess.Popen(
        [sys.executable, "-m", "notata", "follow", base / "sweep", "--every", "0.1"],
        stdout=theirs,
        env=env,
    )
    os.close(theirs)
    printed = b""
    while b"at work on 3" not in printed:
        printed += os.read(ours, 65536)
    os.utime(base / "sweep" / "runs" / "log_sweep_k_3" / "metadata.json", (0, 0))
    os.utime(base / "sweep" / "runs" / "log_sweep_k_3" / "log.txt", (0, 0))
    with suppress(OSError):  # Linux says EIO where all of it is read
        while block := os.read(ours, 65536):
            printed += block
    os.close(ours)
    assert following.wait(60) == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())
    assert "3 of 4 ended" in text
    assert "all ended" in text
    assert "need attention" in text
    last = text.rpartition("all ended")[2]
    assert re.search(r"complete +2", last)
    assert re.search(r"lost +1", last)
    assert re.search(r"sweep_k_2 +failed +diverged", last)
    assert all(len(line.rstrip("\r")) <= 80 for line in last.splitlines())


# ----- rate and time to go -----


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def test_rate_and_time_to_go(base: Path) -> None:
    exp = sweep(base, "cc")
    logs = [exp.add(k=k) for k in (10, 11, 12, 13)]
    clock = Clock()
    pace = Pace(base / "sweep", clock=clock)
    assert pace.look().left == 4
    for log in logs[:3]:
        assert log is not None
        log.mark_complete()
        clock.now += 100
        now = pace.look()
    assert (now.ended, now.left) == (5, 1)
    # Two ended just before, and three within the 300 seconds after them.
    assert now.rate == pytest.approx(4 / 300, rel=0.05)
    assert now.to_go == pytest.approx(75, rel=0.05)
    assert [outcome.run_id for outcome in now.running] == ["sweep_k_13"]
    assert logs[3] is not None
    logs[3].mark_complete()
    assert pace.look().to_go is None


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (4 / 300, "2 of 3 ended; 48 runs/h, 1 min to go"),
        (2.5, "2 of 3 ended; 2.5 runs/s, 0 s to go"),
        (None, "2 of 3 ended"),
    ],
)
def test_the_table_shows_rate_and_time_to_go(
    base: Path, monkeypatch: pytest.MonkeyPatch, rate: float | None, told: str
) -> None:
    log = sweep(base, "cc").add(k=2)
    assert log is not None
    looks = []

    def look(pace: Pace) -> Now:
        """As it would be after a while; then the last run ends."""
        found = looked(pace)._replace(rate=rate)
        looks.append(found.left)
        log.mark_complete()
        return found

    looked = Pace.look
    monkeypatch.setattr(Pace, "look", look)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    result = notata("follow", base / "sweep", "--every", "0.1")
    assert (result.exit_code, looks) == (0, [1, 0])
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", result.stdout).splitlines()
    shown = dict.fromkeys(line.strip() for line in lines if " ended" in line)  # the last one twice
    assert list(shown) == [told, "all ended"]


def test_an_earlier_submission_has_no_part_in_the_rate(base: Path) -> None:
    exp = sweep(base, "cccc")
    clock = Clock()
    clock.now += 6 * 86_400
    logs = [exp.add(k=k) for k in (10, 11, 12, 13)]
    pace = Pace(base / "sweep", clock=clock)
    pace.look()
    for log in logs[:3]:
        assert log is not None
        log.mark_complete()
        clock.now += 100
        now = pace.look()
    assert now.to_go == pytest.approx(100, rel=0.05)


def test_the_scheduler_is_asked_once_a_minute(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    exp = Experiment("sweep", base)
    asked: list[set[str]] = []

    def ask(ids: Iterable[str]) -> Answer:
        asked.append(set(ids))
        return Answer("sacct")

    clock = Clock()
    pace = Pace(base / "sweep", clock=clock, ask=ask)
    pace.look()
    assert asked == [set()]  # which asks nobody
    logs = []
    for job in range(77, 97):  # a run a job, each of which begins after another
        monkeypatch.setenv("SLURM_JOB_ID", str(job))
        logs.append(exp.add(k=job))
        assert pace.look().states == {"running": len(logs)}
        clock.now += 2.9
    assert asked[1:] == [{"77"}]
    clock.now += 2.1
    pace.look()
    assert asked[2:] == [set(map(str, range(77, 97)))]
    for log in logs:
        assert log is not None
        log.mark_complete()


def test_an_older_answer_does_not_prove_that_a_newer_array_is_gone(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue was listed before the array 88 was there: its other tasks still wait."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    array = {"SLURM_ARRAY_TASK_MIN": 0, "SLURM_ARRAY_TASK_MAX": 1, "SLURM_ARRAY_TASK_COUNT": 2}
    exp, clock = Experiment("sweep", base), Clock()
    pace = Pace(exp.exp_dir, clock=clock, ask=lambda ids: Answer("squeue", (), "c", ids))
    for job in (77, 88):
        here = {"SLURM_JOB_ID": job, "SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": 0}
        in_array(monkeypatch, SLURM_CLUSTER_NAME="c", **here, **array)
        log = exp.add(k=job)
        assert log is not None
        log.mark_complete()
        now = pace.look()
        assert now.states == (
            {"complete": 1, "failed": 1} if job == 77 else {"complete": 2, "unknown": 1}
        )
    clock.now += 60
    assert pace.look().states == {"complete": 2, "failed": 1}


def test_a_run_that_is_just_being_made_is_not_damaged(base: Path) -> None:
    sweep(base, "c")
    folder = base / "sweep" / "runs" / "log_sweep_k_7"
    folder.mkdir()
    pace = Pace(base / "sweep")
    for _ in range(2):
        assert pace.look().states == {"complete": 1, "running": 1}
    os.utime(folder, (0, 0))
    assert pace.look().states == {"complete": 1, "damaged": 1}


def test_hostile_names_and_messages(base: Path) -> None:
    exp = sweep(base, "cr")
    (exp.runs_dir / "log_sweep_k_1").rename(exp.runs_dir / "log_[red]x\x1b[31m")
    with (exp.runs_dir / "log_[red]x\x1b[31m" / "log.txt").open("a") as file:
        file.write(f"[2100-01-01T00:00:00] INFO {HOSTILE}\n")
    from rich.console import Console

    from notata.cli.follow import _table

    console = Console(width=140, file=open(os.devnull, "w"), record=True)  # noqa: SIM115
    console.print(_table(Pace(base / "sweep").look()))
    printed = console.export_text()
    assert_harmless(printed)
    assert "[red]x\\x1b[31m" in printed
    assert "[bold red]x[/] \\x1b[31m" in printed
    console.file.close()


def half_done(base: Path) -> Path:
    """A sweep of which one of three points is done, and nobody goes on."""
    for log in Experiment("sweep", base).sweep({"k": [0, 1, 2]}):
        with log:
            pass
        break
    return base / "sweep"


def test_points_that_nobody_works_on_are_named(base: Path) -> None:
    folder = half_done(base)
    for patience in ("0", "0.3"):
        result = notata("follow", folder, "--patience", patience, "--every", "0.1")
        assert result.exit_code == 1
        assert re.fullmatch(r"\d\d:\d\d:\d\d 1 complete, 2 waiting\n", result.stdout)
        assert result.stderr.startswith("notata: 2 points are left, and nobody has worked on them")
        assert f"notata failed {folder} --array" in result.stderr


def test_points_are_waited_for_while_somebody_works_or_waits(base: Path) -> None:
    folder = half_done(base)
    assert Pace(folder).look().idle
    run = Experiment("sweep", base).add(k=1)
    now = Pace(folder).look()
    assert (now.left, now.idle) == (2, False)  # it is at work on one, and may take the other
    assert run is not None
    run.mark_complete()
    now = Pace(folder).look()
    assert (now.left, now.idle) == (1, True)


def in_array(monkeypatch: pytest.MonkeyPatch, **told: object) -> None:
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(("state", "idle"), [("RUNNING", False), ("COMPLETED", True)])
def test_a_task_between_two_points_is_at_work(
    base: Path, monkeypatch: pytest.MonkeyPatch, state: str, idle: bool
) -> None:
    job = {"SLURM_JOB_ID": 77, "SLURM_ARRAY_JOB_ID": 77, "SLURM_ARRAY_TASK_ID": 0}
    array = {"SLURM_ARRAY_TASK_MIN": 0, "SLURM_ARRAY_TASK_MAX": 0, "SLURM_ARRAY_TASK_COUNT": 1}
    in_array(monkeypatch, **job, **array)
    folder, answer = half_done(base), Answer("sacct")
    answer.add("77_0", "77", "", Record(state))
    now = Pace(folder, ask=lambda ids: answer.finish()).look()
    assert (now.states, now.left, now.idle) == ({"complete": 1, "waiting": 2}, 2, idle)


@pytest.mark.parametrize(
    ("state", "found", "left", "idle"),
    [
        ("RUNNING", {"complete": 1, "waiting": 2}, 2, False),
        ("TIMEOUT", {"complete": 1, "failed": 2}, 0, False),
    ],
)
def test_a_job_of_no_array_between_two_points_is_at_work(
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    found: dict[str, int],
    left: int,
    idle: bool,
) -> None:
    in_array(monkeypatch, SLURM_JOB_ID=77)
    folder, answer = half_done(base), Answer("sacct")
    answer.add("77", "77", "", Record(state))
    now = Pace(folder, ask=lambda ids: answer.finish()).look()
    assert (now.states, now.left, now.idle) == (found, left, idle)


def test_tasks_of_which_nobody_knows_are_waited_for(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"JOB_ID": 7, "SGE_TASK_ID": 2, "SGE_TASK_FIRST": 1, "SGE_TASK_LAST": 4}
    in_array(monkeypatch, **job)
    sweep(base, "c")
    now = Pace(base / "sweep").look()
    assert (now.states, now.left, now.idle) == ({"complete": 1, "unknown": 3}, 3, True)
    result = notata("follow", base / "sweep", "--patience", "0")
    assert result.exit_code == 1
    assert result.stderr.startswith("notata: 3 tasks are left, and nobody has worked on them")


def test_all_done_is_not_idle(base: Path) -> None:
    sweep(base, "cc")
    assert not Pace(base / "sweep").look().idle
