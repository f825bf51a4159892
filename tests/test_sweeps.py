"""The points of a sweep, who does them, and what is done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notata import Experiment, LogReader, claims, reconciling, scheduler, sweeping
from notata.errors import SettingError, UnsupportedValueError
from notata.jobs import Answer, End, JobId, Record
from notata.outcomes import survey
from notata.sweeps import Tasks, in_turn, points_of, share, tasks_of
from notata.topology import ALONE

SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN")
SLURM += ("SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT")
OTHERS = ("PBS_JOBID", "PBS_ARRAY_INDEX", "LSB_JOBID", "LSB_JOBINDEX", "FLUX_JOB_ID", "FLUX_JOB_CC")


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SLURM, *OTHERS, "SLURM_RESTART_COUNT", "JOB_ID", "SGE_TASK_ID", "NOTATA_ARRAY"):
        monkeypatch.delenv(name, raising=False)


def slurm(monkeypatch: pytest.MonkeyPatch, task: int, array: Iterable[int], job: int = 77) -> None:
    numbers = list(array)
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    told = (job + task, job, task, min(numbers), max(numbers), step, len(numbers))
    for name, value in zip(SLURM, told, strict=True):
        monkeypatch.setenv(name, str(value))


def ids(exp: Experiment, grid: Any, **how: Any) -> list[int]:
    done = []
    for log in exp.sweep(grid, **how):
        with log:
            log.json("metrics", {"m": log.params["k"]})
        done.append(log.params["k"])
    return done


GRID = {"k": range(10)}


# ----- points -----


def test_points_of_lists_are_their_product() -> None:
    assert points_of({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert points_of({}) == [{}]
    assert points_of({"a": []}) == []
    assert points_of(iter([{"a": 1}, {"b": 2}])) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("grid", [{"a": 1}, [1, 2], ["ab"]])
def test_what_is_no_grid(grid: Any) -> None:
    with pytest.raises(TypeError, match="grid"):
        points_of(grid)


# ----- division -----


@given(st.integers(0, 200), st.integers(0, 50), st.integers(1, 9), st.integers(1, 40))
def test_tasks_share_all_points(number: int, first: int, step: int, size: int) -> None:
    tasks = Tasks(first, first + step * (size - 1), step)
    shares = [share(number, tasks, first + step * place) for place in range(size)]
    assert sorted(point for each in shares for point in each) == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(0, 50), st.integers(0, 1000))
def test_each_task_looks_at_all_points(number: int, task: int) -> None:
    assert sorted(in_turn(number, {"array_task_id": task})) == list(range(number))


@pytest.mark.parametrize(
    ("job", "environ", "place"),
    [
        ({"array": {"min": 1, "max": 9, "step": 2, "count": 5}, "array_task_id": 5}, {}, (2, 5)),
        ({"name": "lsf", "array": {"max": 20, "step": 1}, "array_task_id": 3}, {}, (2, 20)),
        ({"name": "sge", "array": {"min": 4, "max": 8, "step": 2}, "array_task_id": 8}, {}, (2, 3)),
        ({"name": "pbs", "array_task_id": 7}, {"NOTATA_ARRAY": "5-9"}, (2, 5)),
        ({"name": "flux", "array_task_id": 2}, {"NOTATA_ARRAY": "0-8:2"}, (1, 5)),
        ({"name": "pbs", "array_task_id": 7}, {"NOTATA_ARRAY": "7"}, (0, 1)),
    ],
)
def test_the_place_of_a_task(
    job: Mapping[str, Any], environ: dict[str, str], place: tuple[int, int]
) -> None:
    tasks = tasks_of(job, None, environ)
    assert tasks is not None
    assert (tasks.place(job["array_task_id"]), tasks.size) == place


@pytest.mark.parametrize(
    ("name", "task", "place"),
    [
        ("waves[5-10]", 5, (0, 6)),
        ("waves[5-10]%2", 10, (5, 6)),
        ("waves[2-10:4]", 6, (1, 3)),
        ("waves[10]", 10, (0, 1)),
        ("waves[7]", 7, (6, 10)),  # its own number, since there are others behind it
        ("waves", 5, (4, 10)),
        ("waves[all]", 5, (4, 10)),
    ],
)
def test_an_lsf_array_begins_where_its_name_says(
    name: str, task: int, place: tuple[int, int]
) -> None:
    told = {"LSB_JOBID": "9", "LSB_JOBINDEX": str(task), "LSB_JOBNAME": name}
    told |= {"LSB_JOBINDEX_END": "10", "LSB_JOBINDEX_STEP": "1"}
    tasks = tasks_of(scheduler.job(told), None, {})
    assert tasks is not None
    assert (tasks.place(task), tasks.size) == place


def test_an_lsf_array_that_is_no_range_is_part_of_one_before() -> None:
    told = {"LSB_JOBID": "9", "LSB_JOBINDEX": "7", "LSB_JOBNAME": "waves[3,7-9]"}
    with pytest.raises(SettingError, match="submit the whole array once, set NOTATA_ARRAY"):
        tasks_of(scheduler.job(told), None, {})
    tasks = tasks_of(scheduler.job(told), Tasks(1, 10), {})
    assert tasks == Tasks(1, 10)


@pytest.mark.parametrize(
    ("job", "environ"),
    [
        ({"name": "pbs", "array_task_id": 7}, {}),
        ({"name": "lsf", "array_task_id": 7}, {}),
        ({"name": "pbs", "array_task_id": 7}, {"NOTATA_ARRAY": "1-5"}),
        ({"name": "pbs", "array_task_id": 7}, {"NOTATA_ARRAY": "all"}),
        ({"name": "pbs", "array_task_id": 7}, {"NOTATA_ARRAY": "9-1"}),
        ({"array": {"min": 3, "max": 21, "step": 1, "count": 5}, "array_task_id": 7}, {}),
    ],
)
def test_a_task_that_can_not_know_its_share(job: Any, environ: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="NOTATA_ARRAY"):
        tasks_of(job, None, environ)


@pytest.mark.parametrize("array", [range(3), range(5, 8), range(1, 30, 9)])
def test_static_divides_over_the_tasks_of_an_array(
    base: Path, monkeypatch: pytest.MonkeyPatch, array: range
) -> None:
    done = []
    for task in array:
        slurm(monkeypatch, task, array)
        done.append(ids(Experiment("s", base), GRID, mode="static"))
    assert done == [list(range(place, 10, len(array))) for place in range(len(array))]
    rows = Experiment("s", base).rows()
    assert sorted(row["m"] for row in rows) == list(range(10))
    assert {row["run_status"] for row in rows} == {"complete"}


def test_a_list_of_tasks_is_part_of_the_array_before(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp = Experiment("s", base)
    slurm(monkeypatch, 2, range(5))
    assert ids(exp, GRID, mode="static") == [2, 7]
    slurm(monkeypatch, 3, [1, 3, 4], job=99)
    assert ids(exp, GRID, mode="static") == [3, 8]
    slurm(monkeypatch, 9, [1, 3, 9], job=99)
    with pytest.raises(SettingError, match="task 9 is part of no array"):
        exp.sweep(GRID, mode="static")
    assert json.loads((exp.exp_dir / "sweep.json").read_text()) == {
        "points": [{"k": k} for k in range(10)],
        "mode": "static",
        "array": {"min": 0, "max": 4, "step": 1},
    }


@pytest.mark.parametrize("again", [[2, 3], [3], [0, 2, 4], [1, 4], [0, 1, 2, 3]])
def test_a_part_of_the_array_before_leaves_the_points_as_they_were_divided(
    base: Path, monkeypatch: pytest.MonkeyPatch, again: list[int]
) -> None:
    """Several parts may run at once, in any order: `notata failed --array` may give several."""
    exp = Experiment("s", base)
    slurm(monkeypatch, 0, range(5))
    assert ids(exp, GRID, mode="static") == [0, 5]
    kept = (exp.exp_dir / "sweep.json").read_text()
    for task in again:
        slurm(monkeypatch, task, again, job=99)
        assert ids(exp, GRID, mode="static") == ([task, task + 5] if task else [])
    for task in (1, 4):
        slurm(monkeypatch, task, [1, 4], job=111)
        assert ids(exp, GRID, mode="static") == ([] if task in again else [task, task + 5])
    assert (exp.exp_dir / "sweep.json").read_text() == kept


@pytest.mark.parametrize("array", [range(6), range(5, 10), range(1, 6), range(0, 9, 4)])
def test_an_array_with_other_tasks_divides_anew(
    base: Path, monkeypatch: pytest.MonkeyPatch, array: range
) -> None:
    slurm(monkeypatch, 0, range(5))
    exp = Experiment("s", base)
    exp.sweep(GRID, mode="static")
    done = []
    for task in array:
        slurm(monkeypatch, task, array, job=99)
        done.append(ids(exp, GRID, mode="static"))
    assert done == [list(range(place, 10, len(array))) for place in range(len(array))]


def test_a_part_of_the_array_before_is_a_whole_one_where_the_script_says_so(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp = Experiment("s", base)
    slurm(monkeypatch, 0, range(5))
    exp.sweep(GRID, mode="static")
    monkeypatch.setenv("NOTATA_ARRAY", "0-1")
    slurm(monkeypatch, 1, range(2), job=99)
    assert ids(exp, GRID, mode="static") == [1, 3, 5, 7, 9]


def test_another_grid_is_divided_anew(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exp = Experiment("s", base)
    slurm(monkeypatch, 0, range(5))
    exp.sweep(GRID, mode="static")
    slurm(monkeypatch, 1, range(2), job=99)
    assert ids(exp, {"k": range(4)}, mode="static") == [1, 3]


def test_a_process_on_its_own_leaves_the_tasks_theirs(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp = Experiment("s", base)
    slurm(monkeypatch, 0, range(5))
    exp.sweep(GRID, mode="static")
    for name in SLURM:
        monkeypatch.delenv(name)
    with next(exp.sweep(GRID, mode="static")) as log:
        assert log.params["k"] == 0
    slurm(monkeypatch, 3, [1, 3, 4], job=99)
    assert ids(exp, GRID, mode="static") == [3, 8]


def test_static_outside_of_an_array_does_all(base: Path) -> None:
    assert ids(Experiment("s", base), GRID, mode="static") == list(range(10))


# ----- claiming -----


def test_claim_takes_what_nobody_began(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exp = Experiment("s", base)
    running = exp.add(k=4)
    assert ids(exp, GRID) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert ids(exp, GRID) == []
    assert running is not None
    running.mark_complete()
    slurm(monkeypatch, 7, range(10))
    assert ids(exp, {"k": range(20, 30)}) == [27, 28, 29, *range(20, 27)]


def test_a_task_that_breaks_out_leaves_the_rest(base: Path) -> None:
    exp = Experiment("s", base)
    for log in exp.sweep(GRID):
        with log:
            if log.params["k"] == 2:
                break
    assert len(exp.rows()) == 3
    logs = exp.sweep(GRID)
    with pytest.raises(RuntimeError, match="diverged"), next(logs):
        raise RuntimeError("diverged")
    logs.close()
    assert ids(exp, GRID) == [4, 5, 6, 7, 8, 9]
    assert Counter(row["run_status"] for row in exp.rows()) == {"complete": 9, "failed": 1}


@pytest.mark.parametrize("mode", ["static", "claim"])
def test_what_is_there_is_not_read_where_nothing_is_done_again(
    base: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Ten thousand tasks would else read ten thousand runs each."""
    exp = Experiment("s", base)
    ids(exp, {"k": range(20)})
    looked, opened, real, look = [], [], os.open, os.stat
    monkeypatch.setattr(
        os, "open", lambda path, *how: (opened.append(str(path)), real(path, *how))[1]
    )
    monkeypatch.setattr(
        os, "stat", lambda path, **how: (looked.append(str(path)), look(path, **how))[1]
    )
    logs = exp.sweep({"k": range(22)}, mode)
    assert not [path for path in (*looked, *opened) if "log_s_k" in path]
    fail(Experiment("s", base), k=20)  # another task begins it, and this one has not seen that
    looked.clear(), opened.clear()
    with next(logs) as log:
        assert log.params["k"] == 21
    assert next(logs, None) is None
    there = [path for path in (*looked, *opened) if "log_s_k" in path and "k_21" not in path]
    assert there == [str(exp.runs_dir.absolute() / "log_s_k_20")]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"mode": "dynamic"}, "mode='dynamic'"),
        ({"retry": ("running",)}, r"retry=\['running'\]"),
        ({"retry": "complete"}, r"retry=\['complete'\]"),
    ],
)
def test_what_sweep_does_not_know_is_said_at_once(base: Path, how: Any, why: str) -> None:
    exp = Experiment("s", base)
    with pytest.raises(ValueError, match=why):
        exp.sweep(GRID, **how)
    with pytest.raises(UnsupportedValueError, match="parameter 'k'"):
        exp.sweep({"k": [1j]})
    assert not (exp.exp_dir / "sweep.json").exists()


def test_ranks_without_a_communicator(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTATA_RANK", "1")
    monkeypatch.setenv("NOTATA_SIZE", "2")
    exp = Experiment("s", base)
    with pytest.raises(ValueError, match="comm=None"):
        exp.sweep(GRID)
    assert ids(exp, GRID, comm=None) == list(range(10))


# ----- doing again -----


def fail(exp: Experiment, **params: Any) -> None:
    log = exp.add(**params)
    assert log is not None
    log.mark_failed("diverged")


def test_failed_points_are_done_again_when_asked(base: Path) -> None:
    exp = Experiment("s", base)
    for k in (1, 3):
        fail(exp, k=k)
    assert ids(exp, {"k": range(5)}) == [0, 2, 4]
    assert ids(exp, {"k": range(5)}, retry=("lost",)) == []
    time.sleep(0.02)  # a file system's clock has steps of some milliseconds
    assert ids(exp, {"k": range(5)}, retry=("failed",)) == [1, 3]
    assert {row["run_status"] for row in exp.rows()} == {"complete"}
    assert len(exp.index_file.read_text().splitlines()) == 6  # a row a run, and the header
    attempts = LogReader(exp.runs_dir / "log_s_k_3").meta["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["failed", "complete"]


@pytest.mark.parametrize("mode", ["static", "claim"])
def test_points_that_always_fail_keep_no_task_from_the_others(
    base: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Each task would begin with one of them, and end there."""
    exp = Experiment("s", base)
    for array in (70, 80, 90):
        time.sleep(0.02)
        for task in range(4):
            slurm(monkeypatch, task, range(4), job=array)
            with suppress(RuntimeError):
                for log in exp.sweep({"k": range(16)}, mode, retry=("failed", "lost")):
                    with log:
                        if log.params["k"] < 4:
                            raise RuntimeError("diverged")
    assert Counter(row["run_status"] for row in exp.rows()) == {"complete": 12, "failed": 4}
    for k in range(4):
        assert len(LogReader(exp.runs_dir / f"log_s_k_{k}").meta["attempts"]) == 3


def test_what_failed_comes_after_what_nobody_began_and_before_what_is_lost(base: Path) -> None:
    exp = Experiment("s", base)
    abandoned(base, 0, 11.0)
    fail(exp, k=1)
    time.sleep(0.02)
    assert ids(exp, {"k": range(4)}, retry=("failed", "lost")) == [2, 3, 1, 0]


def test_points_that_another_number_of_ranks_began_are_left_with_a_word(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = Experiment("s", base)
    for k in (1, 2):
        fail(exp, k=k)
        file = exp.runs_dir / f"log_s_k_{k}" / "metadata.json"
        meta = json.loads(file.read_text()) | {"parallel": {"size": 4, "hosts": {"n1": "0-3"}}}
        file.write_text(json.dumps(meta))
    time.sleep(0.02)
    assert ids(exp, {"k": range(4)}, retry="failed") == [0, 3]
    (said,) = capsys.readouterr().err.splitlines()
    run = exp.runs_dir.absolute() / "log_s_k_1"
    assert said.startswith(
        "notata: a point of the sweep is left, and so is any other like it: run folder "
        f"{run} has 4 as its number of ranks, and this attempt has 1: go on with 4"
    )


@pytest.mark.parametrize("retry", ["failed", "lost", ("failed", "lost")])
def test_points_that_are_half_made_are_left_with_a_word(
    base: Path, capsys: pytest.CaptureFixture[str], retry: str | tuple[str, ...]
) -> None:
    exp, done = Experiment("s", base), []
    grid = {"k": [1, 2, 3, 0]}
    runs = [exp.runs_dir / f"log_s_k_{k}" for k in (1, 2, 3)]
    for run in runs:
        run.mkdir(parents=True)
        os.utime(run, (time.time() - 30,) * 2)
    for log in exp.sweep(grid, retry=retry):
        with log:
            done.append(log.params["k"])
            runs[1].rmdir()
            (runs[2] / "metadata.json").write_text("{}")  # its task was at it
    assert done == [0]
    (said,) = capsys.readouterr().err.splitlines()
    told = f"{runs[0].absolute()} has no metadata.json. "
    assert said.startswith(f"notata: a point of the sweep is left: {told}")
    assert "done again once it is 600 s old" in said
    runs[0].rmdir()
    assert ids(exp, grid, retry=retry) == [1, 2]
    assert capsys.readouterr().err == ""


def test_of_many_half_made_points_the_first_is_named(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = Experiment("s", base)
    runs = [exp.runs_dir / f"log_s_k_{k}" for k in (1, 2, 3)]
    for run in runs:
        run.mkdir(parents=True)
    assert ids(exp, {"k": range(1, 4)}, retry="failed") == []
    assert capsys.readouterr().err == ""  # another task may open them just now
    for run in runs:
        os.utime(run, (time.time() - 30,) * 2)
    assert ids(exp, {"k": range(4)}, retry="failed") == [0]
    (said,) = capsys.readouterr().err.splitlines()
    assert "log_s_k_1 has no" in said
    assert "left, and 2 more like it: " in said
    assert ids(exp, {"k": range(4)}) == []
    assert capsys.readouterr().err == ""


SGE, LSF = ("JOB_ID", "SGE_TASK_ID"), ("LSB_JOBID", "LSB_JOBINDEX")


@pytest.mark.parametrize("variables", [SGE, LSF, SLURM], ids=["sge", "lsf", "slurm"])
def test_what_fails_again_is_not_done_a_third_time(
    base: Path, monkeypatch: pytest.MonkeyPatch, variables: tuple[str, ...]
) -> None:
    """Each later task of the array would do it once more."""
    exp = Experiment("s", base)
    fail(exp, k=1)
    for array in (70, 80):
        time.sleep(0.02)
        for task in range(1, 4):
            if variables == SLURM:
                slurm(monkeypatch, task, range(1, 4), job=array)
            else:
                for name, value in zip(variables, (array, task), strict=True):
                    monkeypatch.setenv(name, str(value))
            for log in exp.sweep({"k": [1]}, retry=("failed",)):
                log.mark_failed("diverged again")
            time.sleep(0.02)
    attempts = LogReader(exp.runs_dir / "log_s_k_1").meta["attempts"]
    assert [attempt["failure_reason"] for attempt in attempts] == ["diverged"] + 2 * [
        "diverged again"
    ]


def abandoned(base: Path, k: int, minutes: float, **environ: str) -> None:
    """Begin a run in a process that is killed, so many minutes ago."""
    code = (
        "import os, sys; from notata import Experiment; "
        f"Experiment('s', sys.argv[1]).add(k={k}); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(base)]
    subprocess.run(command, check=False, env={**os.environ, **environ})
    then = time.time() - 60 * minutes
    for name in ("metadata.json", "log.txt"):
        os.utime(base / "s" / "runs" / f"log_s_k_{k}" / name, (then, then))


def test_a_silent_run_is_lost_only_after_the_bound(base: Path) -> None:
    for k, minutes in ((0, 0.0), (1, 9.0), (2, 11.0)):
        abandoned(base, k, minutes)
    exp = Experiment("s", base)
    assert ids(exp, {"k": range(3)}) == []
    assert ids(exp, {"k": range(3)}, retry=("lost", "failed")) == [2]
    meta = LogReader(exp.runs_dir / "log_s_k_2").meta
    assert (meta["status"], len(meta["attempts"])) == ("complete", 2)


class Slurm:
    """Says what became of jobs, and is asked by sweeps that look for lost points."""

    def __init__(self, base: Path, ends: Mapping[str, End]) -> None:
        self.exp = Experiment("s", base)
        self.told, self.asked = ends, []
        self.meanwhile: Callable[[], object] = lambda: None  # what happens when it is first asked

    def ends(self, jobs: Iterable[JobId]) -> dict[JobId, End]:
        self.asked.append([job.name for job in jobs])
        if len(self.asked) == 1:
            self.meanwhile()
        return {JobId(name, "c", os.getuid()): self.told[name] for name in self.asked[-1]}

    def lost(self, count: int, mode: str = "claim") -> list[int]:
        """The points that a sweep takes for lost, of so many."""
        folders = [str(self.exp.runs_dir / f"log_s_k_{k}") for k in range(count)]
        points = [sweeping.Point(f"s_k_{k}", {"k": k}, run) for k, run in enumerate(folders)]
        home = str(self.exp.exp_dir)
        sweep = sweeping.Sweep(home, points, ALONE, mode, ("lost",), self.ends)
        return [k for k, resume in sweep.opened(lambda p, r: (p.params["k"], r)) if resume]


def test_the_scheduler_is_asked_once_and_believed(base: Path) -> None:
    """The jobs are made up here: what Slurm really says is tested on a real one."""
    for k, (job, minutes) in enumerate((("11", 3), ("12", 99), ("13", 3), ("14", 99), ("15", 3))):
        abandoned(base, k, float(minutes), SLURM_JOB_ID=job, SLURM_CLUSTER_NAME="c")
    ends = {"11": End(True), "12": End(False), "13": End(None), "14": End(None)}
    told = Slurm(base, ends | {"15": End(True, time.time() - 170)})
    # 12 runs, whatever its silence; nobody knows 13 and 14, and 13 may only be slow.
    assert told.lost(5) == [0, 3, 4]
    assert told.asked == [["11", "12", "13", "14", "15"]]


@pytest.mark.parametrize(
    ("minutes", "end", "lost"),
    [
        (0.0, End(True, 0.0, settled=True), True),
        (1.0, End(True, -58.0, settled=True), True),
        (1.0, End(True, 0.0), False),  # its processes may write their last
        (1.0, End(True), False),
        (3.0, End(True, -170.0), True),
        # The end of an earlier start of the job, or its processes outlive it.
        (1.0, End(True, -90.0, settled=True), False),
        (9.0, End(True, -999.0), False),
        (3.0, End(True, -999.0, settled=True), True),
        (11.0, End(True, -999.0), True),
    ],
)
def test_a_run_is_lost_once_its_job_has_ended(
    base: Path, minutes: float, end: End, lost: bool
) -> None:
    abandoned(base, 0, minutes, SLURM_JOB_ID="11", SLURM_CLUSTER_NAME="c")
    if end.time is not None:
        end = end._replace(time=time.time() + end.time)
    assert Slurm(base, {"11": end}).lost(1) == ([0] if lost else [])


@pytest.mark.parametrize(
    "variables", [SGE, LSF, SLURM[1:3], ()], ids=["sge", "lsf", "slurm", "alone"]
)
def test_a_point_that_kills_its_process_keeps_no_task_from_the_others(
    base: Path, variables: tuple[str, ...]
) -> None:
    """Each later task would begin with it, and end there."""
    code = """
        import os, sys
        from notata import Experiment
        for log in Experiment("s", sys.argv[1]).sweep({"k": range(8)}, retry=("failed", "lost")):
            with log:
                print(log.params["k"], flush=True)
                if log.params["k"] == 4:
                    os.kill(os.getpid(), 9)
    """
    bounds = {"NOTATA_HEARTBEAT": "0.01", "NOTATA_LOST_AFTER": "0.03", "PATH": ""}
    found = []
    for array, task in ((70, 2), (70, 3), (70, 4), (80, 2), (80, 3)):
        job = dict(zip(variables, (str(array), str(task)), strict=False))
        if variables == SLURM[1:3]:
            job["SLURM_JOB_ID"] = str(array + task)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(base)],
            env={**os.environ, **bounds, **job},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        found.append([int(word) for word in done.stdout.split()])
        time.sleep(0.1)
    if variables:  # once in each array
        assert found == [[2, 3, 4], [5, 6, 7, 0, 1, 4], [], [4], []]
    else:
        assert found == [[0, 1, 2, 3, 4], [5, 6, 7, 4], [4], [4], [4]]


def reconciled(base: Path, monkeypatch: pytest.MonkeyPatch, *tasks: str) -> list[str]:
    """Let `notata reconcile` hear that the nodes of these tasks were lost."""
    answer = Answer("sacct")
    for name in tasks:
        record = Record("NODE_FAIL", start=time.time() - 9, end=time.time(), cluster="c")
        answer.add(name, name, "", record)
    told = lambda folder: survey(folder, lambda ids: answer.finish())  # noqa: E731
    monkeypatch.setattr(reconciling, "survey", told)
    done = reconciling.reconcile(base / "s")
    return sorted(outcome.run_id for outcome in done.written)


@pytest.mark.parametrize("retry", [("failed", "lost"), ("lost",)])
def test_what_is_reconciled_meanwhile_is_done_again_nevertheless(
    base: Path, monkeypatch: pytest.MonkeyPatch, retry: tuple[str, ...]
) -> None:
    """As from cron: the first array lost two points, this one a third, and fails at one."""
    exp, grid = Experiment("s", base), {"k": range(5)}
    for k, (array, task) in enumerate(((70, 1), (70, 2), (80, 1))):
        abandoned(base, k, 11.0, **task_of(array, task))
    slurm(monkeypatch, 0, range(4), job=80)
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    logs = exp.sweep(grid, retry=retry)
    with suppress(RuntimeError), next(logs) as log:
        assert log.params["k"] == 3
        assert reconciled(base, monkeypatch, "70_1", "70_2", "80_1") == ["s_k_0", "s_k_1", "s_k_2"]
        raise RuntimeError("diverged")
    done = []
    for log in logs:
        with log:
            done.append(log.params["k"])
    assert done == [4, 0, 1, 2]
    metas = [LogReader(exp.runs_dir / f"log_s_k_{k}").meta for k in range(5)]
    assert [len(meta.get("attempts", [None])) for meta in metas] == [2, 2, 2, 1, 1]
    assert not any("reconciled" in meta for meta in metas)
    assert ids(exp, grid, retry=retry) == []


def test_what_is_lost_twice_in_an_array_is_left_whoever_notes_it(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp = Experiment("s", base)
    abandoned(base, 0, 11.0, **task_of(80, 1))
    assert reconciled(base, monkeypatch, "80_1") == ["s_k_0"]
    slurm(monkeypatch, 2, range(4), job=80)
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    log = next(exp.sweep({"k": [0]}, retry="lost"))
    log._session.beat.stop()  # its process is gone
    then = time.time() - 660
    for name in ("metadata.json", "log.txt"):
        os.utime(exp.runs_dir / "log_s_k_0" / name, (then, then))
    assert reconciled(base, monkeypatch, "80_2") == ["s_k_0"]
    assert ids(exp, {"k": [0]}, retry=("failed", "lost")) == []
    slurm(monkeypatch, 2, range(4), job=90)
    assert ids(exp, {"k": [0]}, retry="failed") == [0]


def task_of(array: int, task: int) -> dict[str, str]:
    told = {"SLURM_JOB_ID": f"{array + task}", "SLURM_ARRAY_JOB_ID": f"{array}"}
    return told | {"SLURM_ARRAY_TASK_ID": f"{task}", "SLURM_CLUSTER_NAME": "c"}


def over() -> dict[str, End]:
    """Jobs that ended after any sign of life, told at the time of the question."""
    return dict.fromkeys(("63", "64", "71", "72", "73"), End(True, time.time() + 999, settled=True))


def test_tasks_do_not_ask_for_one_another_before_they_are_silent(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand of them would else ask for runs that are open as it should be."""
    for k, (array, task, minutes) in enumerate(((70, 1, 1), (60, 3, 1), (70, 2, 3), (70, 3, 1))):
        abandoned(base, k, float(minutes), **task_of(array, task))
    slurm(monkeypatch, 0, range(4), job=70)
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    told = Slurm(base, over())
    assert told.lost(1) == []
    assert told.asked == []
    assert told.lost(4) == [1, 2]
    assert told.asked == [["63"], ["71", "72", "73"]]


def test_without_signs_of_life_tasks_do_not_ask_for_one_another_either(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k, minutes in enumerate((1, 3)):
        abandoned(base, k, float(minutes), **task_of(70, k + 1))
    slurm(monkeypatch, 0, range(4), job=70)
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    monkeypatch.setenv("NOTATA_HEARTBEAT", "0")
    told = Slurm(base, over())
    assert told.lost(1) == []
    assert told.asked == []
    assert told.lost(2) == [1]
    assert told.asked == [["71", "72"]]


def test_a_task_asks_for_its_share_alone(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a thousand tasks would each ask for the points of all."""
    for k, job in enumerate(((60, 3), (60, 4), (70, 1), (70, 2))):
        abandoned(base, k, 1.0, **task_of(*job))
    slurm(monkeypatch, 1, range(2), job=90)
    told = Slurm(base, over())
    assert told.lost(4, "static") == [1, 3]
    assert told.asked == [["64", "72"]]
    assert told.lost(4) == [1, 2, 3, 0]
    assert told.asked[1:] == [["63", "64", "71", "72"]]


def test_of_what_has_begun_since_it_is_not_asked_again(base: Path) -> None:
    """It lives, as a rule; and each that begins would be asked for by all others."""
    abandoned(base, 0, 1.0, **task_of(60, 3))
    told = Slurm(base, over())

    def meanwhile() -> None:
        abandoned(base, 1, 1.0, **task_of(60, 3))
        abandoned(base, 2, 1.0, **task_of(60, 4))
        abandoned(base, 3, 3.0, **task_of(70, 1))

    told.meanwhile = meanwhile
    assert told.lost(4) == [0, 1, 3]
    assert told.asked == [["63"], ["64", "71"]]


def test_a_requeued_task_goes_on_where_it_was(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exp = Experiment("s", base)
    abandoned(base, 1, 0.0, SLURM_JOB_ID="11")
    abandoned(base, 2, 0.0, SLURM_JOB_ID="12")
    monkeypatch.setenv("SLURM_JOB_ID", "11")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert ids(exp, {"k": range(4)}) == [0, 1, 3]
    assert len(LogReader(exp.runs_dir / "log_s_k_1").meta["attempts"]) == 2


def test_a_requeued_task_leaves_a_point_that_another_begins_after_it_looked(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "11")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    exp, look = Experiment("s", base), claims.Claims.look

    def looked(self: claims.Claims, run: str) -> claims.Seen:
        found = look(self, run)
        if run.endswith("k_1"):  # another task makes its folder
            os.mkdir(run)
            os.utime(run, (time.time() - 90,) * 2)
        return found

    monkeypatch.setattr(claims.Claims, "look", looked)
    assert ids(exp, {"k": range(3)}) == [0, 2]


@pytest.mark.parametrize("mode", ["static", "claim"])
def test_a_requeued_task_does_not_do_again_what_failed_by_itself(
    base: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    exp = Experiment("s", base)
    slurm(monkeypatch, 0, range(1))
    ends = ["diverged", "warned before", "warned", "reconciled"]
    for log, end in zip(exp.sweep(GRID, mode=mode), ends, strict=False):
        if end == "reconciled":
            told = {"source": "sacct", "time": time.strftime("%Y-%m-%dT%H:%M:%S")}
            log._session.metadata.update({"reconciled": told})
        if end == "warned before":  # in an earlier attempt
            noted = [{"signal": "SIGUSR1", "time": "2026-01-01T00:00:00"}]
            log._session.metadata.update({"signals": noted})
        if end == "warned":
            os.kill(os.getpid(), signal.SIGUSR1)
            while not log.should_stop:
                time.sleep(0.01)
        log.mark_failed(end)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert ids(exp, GRID, mode=mode) == list(range(2, 10))
    told = [(row["k"], row["failure_reason"]) for row in exp.rows() if row["failure_reason"]]
    assert sorted(told) == [(0, "diverged"), (1, "warned before")]


def test_a_task_that_is_started_again_leaves_its_neighbours_theirs(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tasks of an array have the array's id on SGE."""
    exp = Experiment("s", base)
    abandoned(base, 1, 0.0, JOB_ID="11", SGE_TASK_ID="1", RESTARTED="0")
    abandoned(base, 2, 0.0, JOB_ID="11", SGE_TASK_ID="2", RESTARTED="0")
    monkeypatch.setenv("JOB_ID", "11")
    monkeypatch.setenv("SGE_TASK_ID", "2")
    monkeypatch.setenv("RESTARTED", "1")
    assert ids(exp, {"k": range(4)}) == [2, 3, 0]
    assert "attempts" not in LogReader(exp.runs_dir / "log_s_k_1").meta


def test_a_requeued_task_does_what_others_left(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exp = Experiment("s", base)
    fail(exp, k=0)
    abandoned(base, 1, 11.0)
    (exp.runs_dir / "log_s_k_2").mkdir()  # some task is about to open it
    monkeypatch.setenv("SLURM_JOB_ID", "11")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    time.sleep(0.02)
    assert ids(exp, {"k": range(4)}, retry=("failed", "lost")) == [3, 0, 1]
    then = time.time() - 90  # nobody takes so long for that, so that it was this very task
    os.utime(exp.runs_dir / "log_s_k_2", (then, then))
    assert ids(exp, {"k": range(4)}) == [2]


@pytest.mark.parametrize("state", ["failed", "lost"])
def test_a_point_that_another_task_goes_on_in_just_now_is_its_own(base: Path, state: str) -> None:
    """It has claimed its attempt, and not said so in the metadata yet."""
    exp = Experiment("s", base)
    if state == "failed":
        fail(exp, k=0)
    else:
        abandoned(base, 0, 11.0)
    claim = exp.runs_dir / "log_s_k_0" / ".attempt-2"
    claim.write_text(json.dumps({"start_time": "2026-11-25T12:00:00", "job": "78"}))
    time.sleep(0.02)
    assert ids(exp, {"k": range(3)}, retry=state) == [1, 2]
    then = time.time() - 660  # it was killed before it could
    os.utime(claim, (then, then))
    assert ids(exp, {"k": range(3)}, retry=state) == [0]
    attempts = LogReader(exp.runs_dir / "log_s_k_0").meta["attempts"]
    assert [(attempt["status"], attempt["job"]) for attempt in attempts][1:] == [
        ("failed", "78"),
        ("complete", None),
    ]


# ----- many at once -----


def race(base: Path, code: str, tasks: int) -> list[list[Any]]:
    """Run a program in several processes that begin at the same time; gives what each printed."""
    start = textwrap.dedent("""
        import json, sys, time
        from pathlib import Path
        from notata import Experiment
        task, base = int(sys.argv[1]), sys.argv[2]
        exp = Experiment("s", base)
        Path(base, f"ready_{task}").touch()
        while not Path(base, "go").exists():
            pass
    """)
    command = [sys.executable, "-c", start + textwrap.dedent(code)]
    started = [
        subprocess.Popen([*command, str(task), str(base)], stdout=subprocess.PIPE, text=True)
        for task in range(tasks)
    ]
    while len(list(base.glob("ready_*"))) < tasks:
        assert all(process.poll() is None for process in started)
        time.sleep(0.01)
    (base / "go").touch()
    told = [process.communicate(timeout=100)[0] for process in started]
    assert [process.returncode for process in started] == [0] * tasks
    return [json.loads(text) for text in told]


def test_of_many_that_add_the_same_one_gets_it(base: Path) -> None:
    base.mkdir()
    code = """
        got = []
        for k in range(40):
            log = None
            if task % 2:
                log = exp.add(skip_existing=True, k=k)
                got.append(None if log is None else "got")
            else:
                try:
                    log = exp.add(k=k)
                    got.append("got")
                except FileExistsError:
                    got.append("exists")
            if log is not None:
                log.mark_complete()
        print(json.dumps(got))
    """
    told = race(base, code, 8)
    for k in range(40):
        assert Counter(got[k] for got in told)["got"] == 1
    assert {said for task in range(0, 8, 2) for said in told[task]} <= {"got", "exists"}
    assert {said for task in range(1, 8, 2) for said in told[task]} <= {"got", None}
    assert sorted(row["k"] for row in Experiment("s", base).rows()) == list(range(40))


@pytest.mark.parametrize("retry", [False, True])
def test_of_many_that_claim_each_point_is_done_once(base: Path, retry: bool) -> None:
    base.mkdir()
    if retry:
        for k in range(0, 60, 3):
            fail(Experiment("s", base), k=k)
        time.sleep(0.02)
    code = f"""
        done = []
        for log in exp.sweep({{"k": range(60)}}, retry={("failed",) if retry else ()!r}):
            with log:
                log.json("metrics", {{"m": log.params["k"]}})
            done.append(log.params["k"])
        print(json.dumps(done))
    """
    told = race(base, code, 6)
    assert sorted(k for done in told for k in done) == list(range(60))
    rows = Experiment("s", base).rows()
    assert sorted(row["m"] for row in rows) == list(range(60))
    for k in range(60):
        meta = LogReader(base / "s" / "runs" / f"log_s_k_{k}").meta
        assert len(meta.get("attempts", [None])) == (2 if retry and k % 3 == 0 else 1)


def test_a_task_that_opens_a_point_slowly_holds_up_no_other(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.mkdir()
    for k in range(3):
        fail(Experiment("s", base), k=k)
    time.sleep(0.02)
    monkeypatch.setenv("NOTATA_LOCK_TIMEOUT", "1")
    code = """
        opens, done = exp._open, []
        def slow(*point):
            if task == 0:
                Path(base, "opens").touch()
                while not Path(base, "done").exists():
                    time.sleep(0.01)
            return opens(*point)
        exp._open = slow
        while task == 1 and not Path(base, "opens").exists():
            time.sleep(0.01)
        try:
            for log in exp.sweep({"k": range(3)}, retry="failed"):
                with log:
                    done.append(log.params["k"])
        finally:
            Path(base, "done").touch()
        print(json.dumps(done))
    """
    assert race(base, code, 2) == [[], [0, 1, 2]]
    for k in range(3):
        assert len(LogReader(base / "s" / "runs" / f"log_s_k_{k}").meta["attempts"]) == 2
