"""What became of runs: from their metadata, a scheduler's answer, and signs of life."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from notata import Experiment, files, outcomes, reconciling, slurm
from notata.cli import main
from notata.errors import NotARunError, RunNotFoundError
from notata.jobs import Answer, Record
from notata.outcomes import again, survey
from notata.reconciling import reconcile


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))


def task_facts(task: int, *, job: int = 4711, low: int = 1, high: int = 9) -> dict[str, Any]:
    array = {"min": low, "max": high, "step": 1, "count": high - low + 1}
    told = {"name": "slurm", "job_id": str(job + task), "array_job_id": str(job)}
    return told | {"array_task_id": task, "array": array, "cluster": "c"}


class Sweep:
    """An experiment whose runs are written by hand, and what the scheduler is to say."""

    def __init__(self, base: Path) -> None:
        self.now = float(int(time.time()))  # as metadata have it, to the second
        self.began = self.now - 3000
        self.folder = base / "sweep"
        (self.folder / "runs").mkdir(parents=True)
        self.answer = Answer("sacct")
        self.asked: list[set[str]] = []

    def run(
        self, name: str, status: str = "initialized", sign: float | None = None, **more: Any
    ) -> Path:
        sign = self.began + 1 if sign is None else sign
        folder = self.folder / "runs" / f"log_{name}"
        folder.mkdir()
        meta = {"run_id": name, "status": status, "start_time": stamp(self.began)} | more
        (folder / "metadata.json").write_text(json.dumps(meta))
        (folder / "log.txt").write_text("")
        (folder / "params.yaml").write_text(f"name: {name}\n")
        for file in ("metadata.json", "log.txt"):
            os.utime(folder / file, (sign, sign))
        return folder

    def says(self, name: str, *states: str | Record, step: str = "") -> None:
        for place, state in enumerate(states):
            record = Record(state, "", "", "n2") if isinstance(state, str) else state
            if record.start is None and record.state != "PENDING":
                end = self.began + 100 + place if record.over else None
                record = record._replace(start=self.began + place, end=end)
            self.answer.add(name, name, step, record)

    def ask(self, ids: Iterable[str]) -> Answer:
        self.asked.append(set(ids))
        return self.answer.finish()

    def states(self) -> dict[str, tuple[str, str | None]]:
        return {o.run_id: (o.state, o.reason) for o in survey(self.folder, self.ask).outcomes}


@pytest.fixture
def sweep(base: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """An experiment without runs, whose scheduler is asked by the commands too."""
    made = Sweep(base)
    original = survey
    told = lambda folder, ask=made.ask: original(folder, ask)  # noqa: E731
    monkeypatch.setattr(outcomes, "survey", told)
    monkeypatch.setattr(reconciling, "survey", told)
    monkeypatch.setattr(slurm, "array_limit", lambda: (1001, 1001))
    return made


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_runs_that_ended_are_believed(sweep: Sweep) -> None:
    sweep.run("a", "complete", scheduler=task_facts(1, high=2))
    sweep.run("b", "failed", failure_reason="diverged", scheduler=task_facts(2, high=2))
    sweep.says("4711_2", "TIMEOUT")
    assert sweep.states() == {"a": ("complete", None), "b": ("failed", "diverged")}
    assert sweep.asked == [{"4711"}]  # of which a task may have left some


def test_the_scheduler_is_asked_once_for_all(sweep: Sweep) -> None:
    for task in range(1, 10):
        sweep.run(f"t{task}", scheduler=task_facts(task))
    sweep.run("alone", scheduler={"name": "slurm", "job_id": "77"})
    sweep.run("laptop")
    sweep.run("pbs", scheduler={"name": "pbs", "job_id": "5.server"})
    survey(sweep.folder, sweep.ask)
    assert sweep.asked == [{"4711", "77"}]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["OUT_OF_MEMORY"], ("failed", "OUT_OF_MEMORY (Slurm 4711_3, n2)")),
        (["TIMEOUT"], ("failed", "TIMEOUT (Slurm 4711_3, n2)")),
        (["NODE_FAIL"], ("failed", "NODE_FAIL (Slurm 4711_3, n2)")),
        (["PREEMPTED"], ("failed", "PREEMPTED (Slurm 4711_3, n2)")),
        (["CANCELLED"], ("failed", "CANCELLED (Slurm 4711_3, n2)")),
        (["SUSPENDED"], ("running", None)),
        (["NODE_FAIL", "PENDING"], ("waiting", "PENDING again (Slurm 4711_3)")),
        (
            ["REQUEUED", "COMPLETED"],
            ("failed", "REQUEUED, and not gone on with (Slurm 4711_3, n2)"),
        ),
        # The second run of the job left the run alone; how the first one ended is what counts.
        (["PREEMPTED", "COMPLETED"], ("failed", "PREEMPTED (Slurm 4711_3, n2)")),
        (
            ["COMPLETED"],
            ("failed", "ended without a word, though its job COMPLETED (Slurm 4711_3, n2)"),
        ),
    ],
)
def test_a_run_that_said_nothing_has_the_state_of_its_job(
    sweep: Sweep, states: list[str], expected: tuple[str, str | None]
) -> None:
    sweep.run("t3", scheduler=task_facts(3))
    sweep.says("4711_3", *states)
    assert sweep.states() == {"t3": expected}


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING"])
def test_a_silent_run_of_a_job_that_goes_on_is_told_with_both(sweep: Sweep, state: str) -> None:
    """The process died while its script goes on, or Slurm's record is of a runaway."""
    sweep.run("t2", scheduler=task_facts(2), sign=sweep.now)
    sweep.run("t3", scheduler=task_facts(3), sign=sweep.now - 3 * 86_400)
    sweep.run("t4", scheduler=task_facts(4))
    sweep.says("4711_2", state)
    sweep.says("4711_3", Record(state, start=sweep.now - 4 * 86_400))
    sweep.says("4711_4", "NODE_FAIL", Record(state, start=sweep.now))  # just begun anew
    silent = f"no sign of life for 3 d, though its job is {state}"
    assert sweep.states() == {
        "t2": ("running", None),
        "t3": ("running", silent),
        "t4": ("running", None),
    }
    assert reconcile(sweep.folder).written == []


def test_a_state_that_is_in_no_list_ends_nothing(sweep: Sweep) -> None:
    """As REVOKED, of a job that another cluster of the federation runs, or one of newer Slurms."""
    sweep.run("t1", scheduler=task_facts(1, high=3), sign=sweep.now)
    sweep.run("t2", scheduler=task_facts(2, high=3))
    for task in (1, 2, 3):
        record = Record("REVOKED", start=sweep.began, end=sweep.now)
        sweep.says(f"4711_{task}", record)
    assert [state for state, _ in sweep.states().values()] == ["running", "lost"]
    (left,) = survey(sweep.folder, sweep.ask).left
    assert (left.task, left.state) == (3, "waiting")  # while its array is at work
    assert reconcile(sweep.folder).written == []


def test_a_run_that_a_requeued_job_did_not_go_on_with_is_written_down(sweep: Sweep) -> None:
    folder = sweep.run("t3", scheduler=task_facts(3), sign=sweep.now - 3 * 86_400)
    sweep.says("4711_3", "REQUEUED", "COMPLETED")
    assert len(reconcile(sweep.folder).written) == 1
    meta = json.loads((folder / "metadata.json").read_text())
    assert (meta["status"], meta["failure_reason"]) == (
        "failed",
        "REQUEUED, and not gone on with (Slurm 4711_3, n2)",
    )


def test_a_step_that_ended_before_its_job_tells_more(sweep: Sweep) -> None:
    sweep.run("step", scheduler={"name": "slurm", "job_id": "5", "step_id": "0"})
    facts = {"name": "slurm", "job_id": "5", "step_id": "1"}
    sweep.run("next", sign=sweep.now, scheduler=facts)
    sweep.run("batch", scheduler={"name": "slurm", "job_id": "6"})
    sweep.says("5", "RUNNING")
    sweep.says("5", Record("FAILED", "", "1:0", "n2", sweep.began, sweep.began + 9), step="0")
    sweep.says("5", Record("RUNNING", "", "", "n2", sweep.began + 9), step="1")
    sweep.says("6", Record("FAILED", "", "1:0", "n2", sweep.began, sweep.began + 9))
    sweep.says(
        "6", Record("OUT_OF_MEMORY", "", "0:125", "n2", sweep.began, sweep.began + 9), step="batch"
    )
    assert sweep.states() == {
        "step": ("failed", "FAILED, exit status 1 (Slurm 5, n2)"),
        "next": ("running", None),
        "batch": ("failed", "OUT_OF_MEMORY (Slurm 6, n2)"),
    }


def test_a_process_that_outlives_its_job_still_runs(sweep: Sweep) -> None:
    # As after the death of its slurmd: the job is over for Slurm, and the process goes on.
    sweep.run("t3", scheduler=task_facts(3), sign=sweep.now)
    sweep.says("4711_3", "NODE_FAIL")
    assert sweep.states()["t3"] == ("running", "NODE_FAIL, but it still gives signs of life")
    assert reconcile(sweep.folder).written == []


def test_signs_of_life_tell_where_the_scheduler_does_not_know(sweep: Sweep) -> None:
    sweep.run("alive", sign=sweep.now)
    sweep.run("silent")
    sweep.run("unknown", scheduler=task_facts(3))
    states = sweep.states()
    assert states["alive"] == ("running", None)
    assert states["silent"][0] == states["unknown"][0] == "lost"
    assert str(states["silent"][1]) in [f"no sign of life for {age} min" for age in range(49, 60)]


@pytest.mark.parametrize("source", ["squeue", "scontrol"])
def test_a_silent_run_whose_job_is_not_in_the_queue_has_failed(sweep: Sweep, source: str) -> None:
    sweep.answer.source, sweep.answer.queue = source, "c"
    sweep.run("alive", sign=sweep.now, scheduler=task_facts(1))
    sweep.run("silent", scheduler=task_facts(2))
    states = sweep.states()
    assert states["alive"] == ("running", None)
    assert states["silent"][0] == "failed"
    assert str(states["silent"][1]).endswith("and its job is gone (Slurm 4711_2)")


def test_a_silent_run_of_another_cluster_or_user_is_not_taken_for_failed(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this queue doesn't list may run on elsewhere, or be hidden from us."""
    sweep.answer.source, sweep.answer.queue = "squeue", "c"
    sweep.run("elsewhere", scheduler=task_facts(1) | {"cluster": "d"})
    sweep.run("anywhere", scheduler={k: v for k, v in task_facts(2).items() if k != "cluster"})
    sweep.run("mine", scheduler=task_facts(3))
    sweep.run("theirs", scheduler=task_facts(4))
    sweep.run("known", scheduler=task_facts(5))
    sweep.says("4711_5", Record("TIMEOUT", "", "", "n2", cluster="c"))
    sweep.says("4711_1", Record("TIMEOUT", "", "", "n2", cluster="c"))  # not the same job
    theirs = {str(sweep.folder / "runs" / f"log_{name}") for name in ("theirs", "known")}
    monkeypatch.setattr(
        files, "owner", lambda path: 4001 if os.path.dirname(path) in theirs else 1000
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    states = {name: state for name, (state, _) in sweep.states().items()}
    assert states == {
        "elsewhere": "lost",
        "anywhere": "lost",
        "mine": "failed",
        "theirs": "lost",
        "known": "failed",
    }
    assert sorted(o.run_id for o in reconcile(sweep.folder).written) == ["known", "mine"]


def test_an_older_job_of_the_same_id_says_nothing(sweep: Sweep) -> None:
    sweep.run("t3", scheduler=task_facts(3), sign=sweep.now)
    old = Record("TIMEOUT", "", "", "n2", sweep.began - 9000, sweep.began - 8000)
    sweep.says("4711_3", old)
    assert sweep.states() == {"t3": ("running", None)}


@pytest.mark.parametrize("told", [True, False])
def test_a_run_of_another_time_zone_has_its_reason(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """A compute node may be an hour or more ahead of the login node that asks."""
    ahead = {"start_time": stamp(sweep.began + 7200)}
    epoch = {"start_epoch": sweep.began + 0.25} if told else {}
    folder = sweep.run("t3", scheduler=task_facts(3), **ahead, **epoch)
    os.utime(folder / "params.yaml", (sweep.began + 2, sweep.began + 2))
    sweep.says("4711_3", "OUT_OF_MEMORY")
    assert sweep.states() == {"t3": ("failed", "OUT_OF_MEMORY (Slurm 4711_3, n2)")}
    reconcile(sweep.folder)
    meta = json.loads((folder / "metadata.json").read_text())
    assert meta["runtime_sec"] == (99.75 if told else 0.0)


def test_an_older_job_of_the_same_id_says_nothing_to_a_run_that_tells_its_time(
    sweep: Sweep,
) -> None:
    folder = sweep.run("t3", scheduler=task_facts(3), sign=sweep.now, start_epoch=sweep.began)
    os.utime(folder / "params.yaml", (1.0, 1.0))  # copied from elsewhere
    old = Record("TIMEOUT", "", "", "n2", sweep.began - 9000, sweep.began - 8000)
    sweep.says("4711_3", old)
    assert sweep.states() == {"t3": ("running", None)}


def test_what_a_program_calls_scheduler_itself_disturbs_nothing(sweep: Sweep) -> None:
    sweep.run("a", "complete", scheduler="cosine")
    sweep.run("b", scheduler={"kind": "cosine"}, sign=sweep.now)
    assert sweep.states() == {"a": ("complete", None), "b": ("running", None)}


def test_damaged_metadata_are_a_state(sweep: Sweep) -> None:
    (sweep.run("a") / "metadata.json").write_text("{")
    assert sweep.states() == {"a": ("damaged", "its metadata are damaged")}


def test_a_folder_without_metadata_is_damaged_once_a_task_would_have_opened_it(
    sweep: Sweep,
) -> None:
    folder = sweep.folder / "runs" / "log_a"
    folder.mkdir()
    assert sweep.states() == {"a": ("running", "being opened, or half-made: without metadata.json")}
    assert command("status", sweep.folder).exit_code == 0
    assert command("failed", "--array", sweep.folder).exit_code == 0
    os.utime(folder, (sweep.now - 100, sweep.now - 100))
    assert sweep.states() == {"a": ("damaged", "half-made: without metadata.json")}
    assert command("status", sweep.folder).exit_code == 1
    (folder / "metadata.json").write_text("{")
    os.utime(folder)
    assert sweep.states()["a"][0] == "damaged"


def test_a_run_that_is_opened_while_the_scheduler_is_asked_is_at_work(sweep: Sweep) -> None:
    folder = sweep.folder / "runs" / "log_a"
    folder.mkdir()

    def ask(ids: Iterable[str]) -> Answer:
        (folder / "metadata.json").write_text('{"status": "initialized"}')
        return sweep.ask(ids)

    (found,) = survey(sweep.folder, ask).outcomes
    assert (found.state, found.recorded) == ("running", "initialized")


# ----- reconcile -----


def test_reconcile_writes_status_reason_and_row(sweep: Sweep) -> None:
    folder = sweep.run("t3", scheduler=task_facts(3))
    sweep.says("4711_3", "OUT_OF_MEMORY")
    done = reconcile(sweep.folder)
    assert ([outcome.run_id for outcome in done.written], done.rows) == (["t3"], 1)
    meta = json.loads((folder / "metadata.json").read_text())
    assert (meta["status"], meta["failure_reason"]) == (
        "failed",
        "OUT_OF_MEMORY (Slurm 4711_3, n2)",
    )
    assert (meta["end_time"], round(meta["runtime_sec"])) == (stamp(sweep.began + 100), 100)
    assert meta["reconciled"]["source"] == "sacct"
    with (sweep.folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run_id"], row["run_status"], row["name"]) for row in rows] == [
        ("t3", "failed", "t3")
    ]
    again = reconcile(sweep.folder)
    assert (again.written, again.rows) == ([], None)


def test_the_newest_attempt_gets_the_reason_too(sweep: Sweep) -> None:
    attempts = [{"status": "initialized", "job": "1"}, {"status": "initialized", "job": "4714"}]
    folder = sweep.run("t3", scheduler=task_facts(3), attempts=attempts)
    (folder / ".attempt-2").write_text("{}")
    sweep.says("4711_3", "TIMEOUT")
    assert len(reconcile(sweep.folder).written) == 1
    meta = json.loads((folder / "metadata.json").read_text())
    assert [attempt["status"] for attempt in meta["attempts"]] == ["initialized", "failed"]


def test_rows_that_a_crash_left_out_are_added(sweep: Sweep) -> None:
    sweep.run("a", "failed", failure_reason="TIMEOUT (Slurm 1, n1)")
    done = reconcile(sweep.folder)
    assert (done.written, done.rows) == ([], 1)
    assert reconcile(sweep.folder).rows is None


def table(sweep: Sweep) -> dict[str, tuple[str, str]]:
    with (sweep.folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["run_id"] for row in rows})
    return {row["run_id"]: (row["run_status"], row["failure_reason"]) for row in rows}


def rewritten(folder: Path, **fields: Any) -> None:
    meta = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(meta | fields))


def test_rows_of_earlier_attempts_are_made_anew(sweep: Sweep) -> None:
    """As where the retry found the table's lock held all the time it waited."""
    a = sweep.run("a", "failed", failure_reason="diverged")
    sweep.run("b", "failed", failure_reason={"step": [1, 2]})  # a program's own
    sweep.run("c", "complete")
    reconcile(sweep.folder)
    assert table(sweep)["a"] == ("failed", "diverged")
    rewritten(a, failure_reason="no space left")
    assert reconcile(sweep.folder).rows == 3
    assert table(sweep)["a"] == ("failed", "no space left")
    rewritten(a, status="complete", failure_reason=None)
    assert reconcile(sweep.folder).rows == 3
    assert table(sweep) == {
        "a": ("complete", ""),
        "b": ("failed", '{"step": [1, 2]}'),
        "c": ("complete", ""),
    }
    assert reconcile(sweep.folder).rows is None


def test_a_run_reconciled_by_itself_has_its_row(sweep: Sweep) -> None:
    sweep.run("a", "failed", failure_reason="diverged")
    reconcile(sweep.folder)
    folder = sweep.run("t3", scheduler=task_facts(3))
    sweep.says("4711_3", "TIMEOUT")
    assert len(reconcile(folder).written) == 1
    told = {"a": ("failed", "diverged"), "t3": ("failed", "TIMEOUT (Slurm 4711_3, n2)")}
    assert table(sweep) == told
    assert not (sweep.folder / "runs" / ".reconcile.lock").exists()  # one lock for both
    rewritten(folder, status="complete", failure_reason=None)
    reconcile(folder)
    assert table(sweep) == told | {"t3": ("complete", "")}
    assert reconcile(sweep.folder).rows is None


def ends_by_itself(folder: Path, meta: Mapping[str, Any]) -> None:
    (folder / "metadata.json").write_text(json.dumps({**meta, "status": "complete"}))


def gives_a_sign(folder: Path, meta: Mapping[str, Any]) -> None:
    os.utime(folder / "metadata.json")


def logs(folder: Path, meta: Mapping[str, Any]) -> None:
    (folder / "log.txt").write_text("[2026-11-25T22:00:00] INFO still here\n")


def is_taken_up(folder: Path, meta: Mapping[str, Any]) -> None:
    (folder / ".attempt-2").write_text("{}")


def is_deleted(folder: Path, meta: Mapping[str, Any]) -> None:
    (folder / "metadata.json").unlink()


@pytest.mark.parametrize("change", [ends_by_itself, gives_a_sign, logs, is_taken_up, is_deleted])
@pytest.mark.parametrize("when", ["after the question", "while it is written"])
def test_a_run_that_moves_on_meanwhile_is_left_alone(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, change: Any, when: str
) -> None:
    folder = sweep.run("t3", scheduler=task_facts(3))
    sweep.says("4711_3", "TIMEOUT")
    meta = json.loads((folder / "metadata.json").read_text())
    where, name = (
        (reconciling, "locked")
        if when == "after the question"
        else (reconciling.writers, "json_bytes")
    )
    original = getattr(where, name)

    def then_changes(*args: Any, **options: Any) -> Any:
        change(folder, meta)
        return original(*args, **options)

    monkeypatch.setattr(where, name, then_changes)
    done = reconcile(sweep.folder)
    monkeypatch.undo()
    assert ([o.run_id for o in done.skipped], done.written) == (["t3"], [])
    if change is not is_deleted:
        left = json.loads((folder / "metadata.json").read_text())
        assert left["status"] == ("complete" if change is ends_by_itself else "initialized")
    assert not [name for name in os.listdir(folder) if name.startswith(".notata-")]


def test_one_run_can_be_reconciled_by_itself(sweep: Sweep) -> None:
    folder = sweep.run("t3", scheduler=task_facts(3))
    sweep.run("t4", scheduler=task_facts(4))
    sweep.says("4711_3", "TIMEOUT")
    sweep.says("4711_4", "TIMEOUT")
    assert [outcome.run_id for outcome in reconcile(folder).written] == ["t3"]
    assert not (sweep.folder / "index.csv").exists()


# A sacct that has its answer at hand, and gives it once everybody has asked.
LATE_SACCT = """#!/bin/sh
touch {folder}/asked.$$
while set -- {folder}/asked.*; [ $# -lt {number} ]; do sleep 0.02; done
cat {folder}/answer
"""


def test_reconciliations_at_once_write_each_run_once(sweep: Sweep, tmp_path: Path) -> None:
    """As from cron on several machines: all know the same before the first writes."""
    number, runs, lines = 4, 60, []
    ended = [f"{stamp(sweep.began + seconds)}|" for seconds in (1, 100)]
    for task in range(1, runs + 1):
        attempts = [{"status": "initialized", "job": "1"}, {"status": "initialized", "job": "9"}]
        facts = task_facts(task, high=runs)
        folder = sweep.run(f"t{task}", scheduler=facts, attempts=attempts)
        (folder / ".attempt-2").write_text("{}")
        lines.append(f"4711_{task}|{4711 + task}|TIMEOUT|0:0|n2|{''.join(ended)}c\n")
    sweep.run("ok", "complete")
    (tmp_path / "answer").write_text("".join(lines))
    (tmp_path / "sacct").write_text(LATE_SACCT.format(folder=tmp_path, number=number))
    (tmp_path / "sacct").chmod(0o755)
    command = [sys.executable, "-m", "notata", "reconcile", "--json", str(sweep.folder)]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    at_once = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(number)
    ]
    told = [json.loads(process.communicate(timeout=100)[0]) for process in at_once]
    assert [process.returncode for process in at_once] == [0] * number
    marked = [outcome["run_id"] for each in told for outcome in each["marked"]]
    skipped = [outcome["run_id"] for each in told for outcome in each["skipped"]]
    names = [f"t{task}" for task in range(1, runs + 1)]
    assert sorted(marked) == sorted(names)
    # A slow one may find that a run has ended by now, and has nothing to skip.
    assert not Counter(skipped) - Counter(names * (number - 1))
    for task in range(1, runs + 1):
        folder = sweep.folder / "runs" / f"log_t{task}"
        meta = json.loads((folder / "metadata.json").read_text())
        assert meta["failure_reason"] == f"TIMEOUT (Slurm 4711_{task}, n2)"
        told_of = [(attempt["status"], attempt["job"]) for attempt in meta["attempts"]]
        assert told_of == [("initialized", "1"), ("failed", "9")]
        assert sorted(os.listdir(folder)) == [
            *(".attempt-2", "log.txt", "metadata.json", "params.yaml"),
        ]
    with (sweep.folder / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["run_id"] for row in rows) == sorted([*names, "ok"])
    assert {row["run_status"] for row in rows if row["run_id"] != "ok"} == {"failed"}


def test_a_run_that_ends_while_the_scheduler_is_asked_has_ended(sweep: Sweep) -> None:
    folder = sweep.run("a", scheduler=task_facts(1))
    sweep.says("4711_1", "TIMEOUT")

    def ask(ids: Iterable[str]) -> Answer:
        meta = json.loads((folder / "metadata.json").read_text())
        ended = {"status": "failed", "failure_reason": "TIMEOUT (Slurm 4711_1, n2)"}
        (folder / "metadata.json").write_text(json.dumps(meta | ended))
        return sweep.ask(ids)

    (found,) = survey(sweep.folder, ask).outcomes
    assert (found.state, found.reason) == ("failed", "TIMEOUT (Slurm 4711_1, n2)")


# ----- what to submit again -----


def tasks(sweep: Sweep) -> list[int]:
    return again(survey(sweep.folder, sweep.ask)).tasks


def test_tasks_that_failed_or_never_began_are_submitted_again(sweep: Sweep) -> None:
    for task, status in {1: "complete", 2: "failed", 3: "initialized", 4: "initialized"}.items():
        sweep.run(f"t{task}", status, scheduler=task_facts(task))
    sweep.says("4711_3", "TIMEOUT")
    sweep.says("4711_4", "RUNNING")
    sweep.says("4711_[5-6]", Record("CANCELLED", "0"))
    sweep.says("4711_7", "COMPLETED")  # found nothing to do
    sweep.says("4711_[8-9%2]", "PENDING")
    assert tasks(sweep) == [2, 3, 5, 6]
    done = command("failed", "--array", sweep.folder)
    assert (done.exit_code, done.stdout) == (0, "2-3,5-6\n")


def test_tasks_that_ended_between_two_of_their_runs_are_submitted_again(sweep: Sweep) -> None:
    """Nobody but Slurm knows that a task of `exp.add` had more runs to do."""
    for task in range(1, 6):
        for number in range(2):
            status = "failed" if (task, number) == (4, 1) else "complete"
            sweep.run(f"t{task}_{number}", status, scheduler=task_facts(task, high=5))
    states = ["COMPLETED", "TIMEOUT", "RUNNING", "NODE_FAIL", "OUT_OF_MEMORY"]
    for task, state in enumerate(states, start=1):
        sweep.says(f"4711_{task}", state)
    found = json.loads(command("status", "--json", sweep.folder).stdout)
    assert found["states"] == {"complete": 9, "failed": 3}
    assert found["tasks_without_run"] == {}
    done = command("status", sweep.folder)
    assert done.exit_code == 1
    assert "2 tasks ended before all was done, it may be: 2,5" in done.stdout
    listed = json.loads(command("failed", "--json", sweep.folder).stdout)
    assert [one["reason"] for one in listed["never_begun"]] == [
        f"its task may have left some: {states[task - 1]} (Slurm 4711_{task})" for task in (2, 5)
    ]
    assert command("failed", "--array", sweep.folder).stdout == "2,4-5\n"
    assert sweep.asked == [{"4711"}] * 4


def test_tasks_whose_job_did_them_in_another_array_left_nothing(sweep: Sweep) -> None:
    sweep.run("t1", "complete", scheduler=task_facts(1, high=2))
    sweep.run("t2", "complete", scheduler=task_facts(2, high=2))
    sweep.run("t2_more", "complete", scheduler=task_facts(2, job=5000, low=2, high=2))
    sweep.says("4711_1", "COMPLETED")
    sweep.says("4711_2", "TIMEOUT")
    sweep.says("5000_2", Record("COMPLETED", start=sweep.began + 500, end=sweep.began + 600))
    assert command("status", sweep.folder).exit_code == 0
    assert tasks(sweep) == []


@pytest.mark.parametrize(
    ("source", "why"),
    [(None, "no run, and no scheduler to ask"), ("sacct", "no run, and its job is unknown")],
)
def test_tasks_of_which_nobody_knows_have_not_failed(
    sweep: Sweep, source: str | None, why: str
) -> None:
    """They may be pending. To be submitted again all the same, if somebody asks."""
    sweep.answer.source = source
    for task in (1, 2):
        sweep.run(f"t{task}", "complete", scheduler=task_facts(task, high=6))
    done = command("status", sweep.folder)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert f"unknown 4 {why}" in lines
    assert lines[-1] == "4 tasks have no run, and may still wait in the queue: 3-6"
    assert done.exit_code == 0
    assert "no run failed or is lost" in command("failed", sweep.folder).stdout
    done = command("failed", "--array", sweep.folder)
    assert (done.exit_code, done.stdout) == (0, "3-6\n")
    assert done.stderr == (
        "notata: tasks 3-6 may still wait in the queue or run: no scheduler tells\n"
    )


def test_tasks_of_which_nobody_knows_wait_while_their_array_is_at_work(sweep: Sweep) -> None:
    sweep.answer.source = None
    sweep.run("t1", "complete", scheduler=task_facts(1, high=6))
    sweep.run("t2", scheduler=task_facts(2, high=6), sign=sweep.now)
    sweep.run("old", "complete", scheduler=task_facts(8, job=900, low=7, high=9))
    found = json.loads(command("status", "--json", sweep.folder).stdout)
    # Nothing shows that the array 900, of the tasks 7 to 9, is at work.
    assert found["states"] == {"complete": 2, "running": 1, "waiting": 4, "unknown": 2}
    done = command("failed", "--array", sweep.folder)
    assert done.stdout == "7,9\n"
    assert "tasks 7,9 may still wait" in done.stderr


@pytest.mark.parametrize(
    "facts",
    [
        {"name": "sge", "job_id": "7", "array": {"min": 1, "max": 4, "step": 1}},
        {"name": "lsf", "job_id": "7", "array": {"min": 1, "max": 4, "step": 1, "count": 4}},
        {"name": "lsf", "job_id": "7", "array": {"max": 4, "step": 1}},  # its name lists no tasks
    ],
)
def test_tasks_of_other_schedulers_that_never_began_are_found(
    sweep: Sweep, facts: dict[str, Any]
) -> None:
    for task in (1, 2, 4):
        sweep.run(f"t{task}", "complete", scheduler=facts | {"array_task_id": task})
    sweep.says("7_3", "TIMEOUT")  # Slurm's job of that number is another
    found = json.loads(command("status", "--json", sweep.folder).stdout)
    assert found["states"] == {"complete": 3, "unknown": 1}
    assert found["tasks_without_run"] == {"3": "no run, and no scheduler to ask"}
    assert tasks(sweep) == [3]
    assert sweep.asked[-1] == set()


def test_tasks_that_no_range_tells_are_not_made_up(sweep: Sweep) -> None:
    for task in (1, 4):
        facts = {"name": "pbs", "job_id": f"7[{task}].server", "array_task_id": task}
        sweep.run(f"t{task}", "complete", scheduler=facts)
    found = json.loads(command("status", "--json", sweep.folder).stdout)
    assert (found["states"], found["tasks_without_run"]) == ({"complete": 2}, {})


def test_one_run_says_nothing_of_other_tasks(sweep: Sweep) -> None:
    folder = sweep.run("t1", "complete", scheduler=task_facts(1, high=3))
    sweep.run("t2", "complete", scheduler=task_facts(2, high=3))
    sweep.says("4711_2", "TIMEOUT")
    done = command("status", "--json", folder)
    assert (done.exit_code, json.loads(done.stdout)["states"]) == (0, {"complete": 1})
    assert sweep.asked == [set()]


def test_a_task_that_was_done_by_a_later_array_is_done(sweep: Sweep) -> None:
    sweep.run("t1", "complete", scheduler=task_facts(1, high=2))
    sweep.run("t2", "complete", scheduler=task_facts(2, job=5000, low=2, high=2))
    assert tasks(sweep) == []
    done = command("failed", "--array", sweep.folder)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "nothing to submit again" in done.stderr


def submitted_again(task: int) -> dict[str, Any]:
    """What a run says of its job in the array 5000=3,7."""
    return task_facts(task, job=5000) | {"array": {"min": 3, "max": 7, "step": 1, "count": 2}}


@pytest.mark.parametrize(("state", "again"), [("PENDING", ""), ("CANCELLED", "3\n")])
def test_a_task_that_failed_and_waits_again_is_not_submitted_once_more(
    sweep: Sweep, state: str, again: str
) -> None:
    sweep.run("t3", "failed", scheduler=task_facts(3, high=3, low=3))
    sweep.run("t7", scheduler=submitted_again(7), sign=sweep.now)
    sweep.says("5000_7", "RUNNING")
    sweep.says("5000_3", state)
    done = command("failed", "--array", sweep.folder)
    assert (done.exit_code, done.stdout) == (0, again)


def test_a_task_whose_run_has_failed_has_ended_if_nobody_knows_of_it(sweep: Sweep) -> None:
    sweep.answer.source = None
    sweep.run("t1", "failed", scheduler=task_facts(1, high=3))
    sweep.run("t2", "complete", scheduler=task_facts(2, high=3))
    assert again(survey(sweep.folder, sweep.ask))[1:] == ([1, 3], [], [3])


def test_tasks_of_a_newer_array_that_never_began_are_not_taken_for_an_older_one_s(
    sweep: Sweep,
) -> None:
    for task in range(1, 5):
        sweep.run(f"a{task}", "complete", scheduler=task_facts(task, high=4))
    sweep.run("b1", "complete", scheduler=task_facts(1, job=5000, high=4))
    sweep.says("4711_[1-4]", "COMPLETED")
    sweep.says("5000_1", "COMPLETED")
    failed = Record("FAILED", exit_code="1:0", start=sweep.now - 90, end=sweep.now - 80)
    sweep.says("5000_2", failed)
    sweep.says("5000_[3-4]", "PENDING")
    done = command("status", "--json", sweep.folder)
    found = json.loads(done.stdout)
    assert (done.exit_code, found["states"]) == (1, {"complete": 5, "failed": 1, "waiting": 2})
    assert found["tasks_without_run"] == {"2": "no run: FAILED, exit status 1 (Slurm 5000_2)"}
    assert command("failed", "--array", sweep.folder).stdout == "2\n"
    assert sweep.asked[0] == {"4711", "5000"}


def test_a_task_of_a_newer_list_that_never_began_is_not_an_older_array_s(sweep: Sweep) -> None:
    for task in range(1, 8):
        sweep.run(f"a{task}", "complete", scheduler=task_facts(task, high=7))
    sweep.run("b7", "complete", scheduler=submitted_again(7))
    sweep.says("5000_7", "COMPLETED")
    sweep.says("5000_3", Record("CANCELLED", "0"))
    assert tasks(sweep) == [3]


def test_ids_of_another_cluster_don_t_tell_which_array_is_newer(sweep: Sweep) -> None:
    """Array 900 of cluster d did what was left of 4711; or the other way round."""
    sweep.run("t1", "complete", scheduler=task_facts(1, high=2))
    sweep.run("t2", "complete", scheduler=task_facts(2, job=900, low=2, high=2) | {"cluster": "d"})
    sweep.says("4711_2", "TIMEOUT")
    assert tasks(sweep) == []


def test_an_array_that_is_no_range_is_named_by_the_scheduler(sweep: Sweep) -> None:
    facts = task_facts(3)
    facts["array"] = {"min": 3, "max": 21, "step": 1, "count": 5}
    sweep.run("t3", "complete", scheduler=facts)
    sweep.says("4711_3", "COMPLETED")
    sweep.says("4711_[7-9,21]", Record("CANCELLED", "0"))
    assert tasks(sweep) == [7, 8, 9, 21]


def test_an_array_that_nobody_can_name_is_said(sweep: Sweep) -> None:
    facts = task_facts(3)
    facts["array"] = {"min": 3, "max": 21, "step": 1, "count": 5}
    sweep.run("t3", "failed", scheduler=facts)
    done = command("failed", "--array", sweep.folder)
    assert (done.exit_code, done.stdout) == (1, "3\n")
    assert "array 4711 is no plain range" in done.stderr


def test_runs_outside_of_arrays_are_named(sweep: Sweep) -> None:
    sweep.run("alone", "failed")
    done = command("failed", "--array", sweep.folder)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "alone did not run in an array: submit them by themselves" in done.stderr


def test_the_specification_is_split_where_the_site_asks(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task in (1, 2, 3, 5, 8):
        sweep.run(f"t{task}", "failed", scheduler=task_facts(task, low=1, high=3))
    monkeypatch.setattr(slurm, "array_limit", lambda: (8, 3))
    done = command("failed", "--array", sweep.folder)
    assert done.stdout == "1-3\n5\n"
    assert done.exit_code == 1
    assert "tasks 8 are left out: MaxArraySize is 8 here" in done.stderr


GRID_OF_5 = {"omega": [1.0, 2.0, 3.0, 4.0, 5.0]}
GRID = {"omega": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}


def in_task(monkeypatch: pytest.MonkeyPatch, task: int, low: int, high: int) -> None:
    told = {"JOB_ID": 4711 + task, "ARRAY_JOB_ID": 4711, "ARRAY_TASK_ID": task}
    told |= {"ARRAY_TASK_MIN": low, "ARRAY_TASK_MAX": high, "ARRAY_TASK_STEP": 1}
    told |= {"ARRAY_TASK_COUNT": high - low + 1}
    for name, value in told.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


@pytest.mark.parametrize(
    ("mode", "done_by", "expected"),
    [
        ("static", [11], [10, 12]),  # three tasks, two points each
        ("static", [10, 11, 12], []),
        ("claim", [], []),
    ],
)
def test_points_of_a_grid_are_counted_begun_or_not(
    base: Path, monkeypatch: pytest.MonkeyPatch, mode: str, done_by: list[int], expected: list[int]
) -> None:
    experiment = Experiment("waves", base)
    for task in done_by:
        in_task(monkeypatch, task, 10, 12)
        for log in experiment.sweep(GRID, mode=mode):
            with log:
                pass
    if mode == "claim":
        in_task(monkeypatch, 11, 10, 12)
        for number, log in enumerate(experiment.sweep(GRID, mode=mode)):
            if number == 2:
                log.mark_failed("no more")
                break
            log.mark_complete()
        expected = [11]  # the only task that is known to exist
    found = survey(base / "waves", lambda ids: Answer("sacct"))
    assert again(found).tasks == expected
    assert len(found.left) == (3 if mode == "claim" else 2 * (3 - len(done_by)))


def done_in(
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    tasks: Mapping[int, int],
    mode: str,
    grid: dict[str, list[float]] | None = None,
) -> None:
    """Do so many points of a grid in tasks of the array from 10 to 15."""
    for task, most in tasks.items():
        in_task(monkeypatch, task, 10, 15)
        logs = Experiment("waves", base).sweep(grid or GRID, mode=mode)
        for number, log in enumerate(logs):
            log.mark_complete()
            if number + 1 == most:
                break


def done_alone(base: Path, most: int) -> None:
    """Do so many points of the grid that are left, in no array."""
    for number, log in enumerate(Experiment("waves", base).sweep(GRID)):
        log.mark_complete()
        if number + 1 == most:
            break


def told(*lines: tuple[str, Record]) -> Any:
    """What the commands are to see, with this answer of the scheduler."""
    original, answer = survey, answer_of(*lines)
    return lambda folder, ask=None: original(folder, lambda ids: answer)


def answer_of(*lines: tuple[str, Record]) -> Answer:
    answer = Answer("sacct")
    for name, record in lines:
        answer.add(name, name, "", record)
    return answer.finish()


CANCELLED, PENDING = Record("CANCELLED", "1000"), Record("PENDING")


def test_tasks_of_a_grid_that_never_began_wait_or_have_a_reason(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the array 10-15: one is done, one found nothing to do, two are cancelled, two wait."""
    done_in(base, monkeypatch, {10: 9}, mode="static")
    ends = [("4711_11", Record("COMPLETED")), ("4711_[12-13]", CANCELLED)]
    waits = [("4711_[14-15%2]", PENDING)]
    monkeypatch.setattr(outcomes, "survey", told(*ends, *waits))
    monkeypatch.setattr(slurm, "array_limit", lambda: None)
    shown = json.loads(command("status", "--json", base / "waves").stdout)
    # The points of the task that found nothing to do may still be done by hand: they wait.
    assert shown["states"] == {"complete": 1, "failed": 2, "waiting": 3}
    reason = {"state": "failed", "reason": "no run: CANCELLED by 1000", "runs": 2}
    assert reason in shown["reasons"]
    why = {str(task): f"no run: CANCELLED by 1000 (Slurm 4711_{task})" for task in (12, 13)}
    assert shown["tasks_without_run"] == why
    assert command("status", base / "waves").exit_code == 1
    again = command("failed", "--array", base / "waves")
    assert (again.exit_code, again.stdout) == (0, "11-13\n")
    listed = " ".join(command("failed", base / "waves").stdout.split())
    assert "no run: CANCELLED by 1000 (Slurm 4711_12)" in listed


def test_a_task_that_never_began_is_of_no_concern_once_its_points_are_done(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done_in(base, monkeypatch, dict.fromkeys(range(10, 15), 9), mode="static", grid=GRID_OF_5)
    monkeypatch.setattr(outcomes, "survey", told(("4711_15", CANCELLED)))
    done = command("status", "--json", base / "waves")
    assert (done.exit_code, json.loads(done.stdout)["states"]) == (0, {"complete": 5})


@pytest.mark.parametrize("others_wait", [True, False])
def test_a_claimed_grid_waits_as_long_as_a_task_may_do_it(
    base: Path, monkeypatch: pytest.MonkeyPatch, others_wait: bool
) -> None:
    """Two tasks did a point each and ended; two are cancelled, and two wait or are cancelled."""
    done_in(base, monkeypatch, {10: 1, 11: 1}, mode="claim")
    rest = ("4711_[14-15]", PENDING if others_wait else CANCELLED)
    ends = [("4711_10", Record("COMPLETED")), ("4711_11", Record("TIMEOUT"))]
    monkeypatch.setattr(outcomes, "survey", told(*ends, ("4711_[12-13]", CANCELLED), rest))
    monkeypatch.setattr(slurm, "array_limit", lambda: None)
    done = command("status", "--json", base / "waves")
    expected = {"complete": 2, "waiting": 4} if others_wait else {"complete": 2, "failed": 4}
    assert json.loads(done.stdout)["states"] == expected
    assert done.exit_code == (0 if others_wait else 1)
    # Those that did not end well come first: a task for each point that is left.
    again = command("failed", "--array", base / "waves").stdout
    assert again == ("10-13\n" if others_wait else "11-14\n")


def test_of_tasks_that_nobody_knows_points_still_wait(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No proof that they won't begin; to be submitted again all the same, if somebody asks."""
    done_in(base, monkeypatch, dict.fromkeys(range(10, 14), 9), mode="static")
    for answer in (Answer("sacct"), Answer(None)):
        found = survey(base / "waves", lambda ids, answer=answer: answer)
        assert [(one.task, one.state, one.over) for one in found.left] == [
            (14, "waiting", False),
            (15, "waiting", False),
        ]
        assert found.pending == 2
        assert again(found)[1:] == ([14, 15], [], [14, 15])


def after(task: int, record: Record, mode: str = "static") -> list[tuple[str, Record]]:
    """What sacct says where one task of the array 10-15 ended so, and the others COMPLETED."""
    others = {number: Record("COMPLETED") for number in range(10, 16)}
    return [(f"4711_{number}", end) for number, end in (others | {task: record}).items()]


GRID_OF_12 = {"omega": [float(k) for k in range(12)]}
BUSY = [Record("RUNNING"), Record("PENDING"), Record("COMPLETING")]
DIED = Record("FAILED", exit_code="3:0")


def one_point_left(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two points for each of six tasks, of which task 12 has done its first alone."""
    most = dict.fromkeys(range(10, 16), 9) | {12: 1}
    done_in(base, monkeypatch, most, mode="static", grid=GRID_OF_12)
    monkeypatch.setattr(slurm, "array_limit", lambda: None)


def test_what_a_task_left_that_died_between_two_points_has_failed(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_point_left(base, monkeypatch)
    monkeypatch.setattr(outcomes, "survey", told(*after(12, DIED)))
    done = command("status", base / "waves")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert done.exit_code == 1
    assert "failed 1 no run: FAILED, exit status 3" in lines
    assert "Known from the runs, and from sacct for those that never began." in lines
    assert lines[-1].startswith("1 point is left that no task will do; `notata failed ")
    done = command("failed", base / "waves")
    why = "no run: FAILED, exit status 3 (Slurm 4711_12)"
    assert f"- 12 omega=8.0 {why}" in [" ".join(x.split()) for x in done.stdout.splitlines()]
    done = command("failed", "--array", "--json", base / "waves")
    found = json.loads(done.stdout)
    assert (found["array"], found["tasks_without_run"]) == (["12"], {"12": why})
    left = {"params": {"omega": 8.0}, "task": 12, "state": "failed", "reason": why}
    assert found["never_begun"] == [left]
    assert done.stderr == ""


def test_what_a_task_left_that_completed_is_said(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_point_left(base, monkeypatch)
    monkeypatch.setattr(outcomes, "survey", told(*after(12, Record("COMPLETED"))))
    done = command("status", "--json", base / "waves")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["states"]) == (1, {"complete": 11, "waiting": 1})
    why = "not begun, though its task COMPLETED"
    assert {"state": "waiting", "reason": why, "runs": 1} in found["reasons"]
    listed = " ".join(command("failed", base / "waves").stdout.split())
    assert f"- 12 omega=8.0 {why} (Slurm 4711_12)" in listed
    assert command("failed", "--array", base / "waves").stdout == "12\n"


@pytest.mark.parametrize("record", BUSY, ids=lambda record: record.state)
def test_a_task_between_two_points_is_at_work(
    base: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    one_point_left(base, monkeypatch)
    monkeypatch.setattr(outcomes, "survey", told(*after(12, record)))
    done = command("status", "--json", base / "waves")
    assert json.loads(done.stdout)["states"] == {"complete": 11, "waiting": 1}
    assert done.exit_code == 0
    done = command("failed", "--array", base / "waves")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "nothing to submit again" in done.stderr


def test_a_task_between_two_points_that_it_does_again_is_at_work(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every point has a run, and task 11 is yet to come to the one of it that failed."""
    for task in range(10, 16):
        in_task(monkeypatch, task, 10, 15)
        for log in Experiment("waves", base).sweep(GRID, mode="static"):
            log.mark_failed("diverged") if task == 11 else log.mark_complete()
    monkeypatch.setattr(slurm, "array_limit", lambda: None)
    for record, spec in ((Record("RUNNING"), ""), (Record("FAILED"), "11\n")):
        with monkeypatch.context() as patched:
            patched.setattr(outcomes, "survey", told(*after(11, record)))
            assert command("failed", "--array", base / "waves").stdout == spec


def test_what_a_killed_task_left_stays_failed_once_its_run_says_so(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Task 12 is killed in its second point of three: the third is not waiting, either."""
    grid, ended = {"k": range(18)}, time.time() - 2000
    most = dict.fromkeys(range(10, 16), 9) | {12: 1}
    done_in(base, monkeypatch, most, mode="static", grid=grid)
    folder = base / "waves" / "runs" / "log_waves_k_8"
    in_task(monkeypatch, 12, 10, 15)
    for log in Experiment("waves", base).sweep(grid, mode="static"):
        meta = json.loads((folder / "metadata.json").read_text())
        log.mark_complete()
        break
    meta |= {"start_time": stamp(ended - 100), "start_epoch": ended - 100}
    (folder / "metadata.json").write_text(json.dumps(meta | {"status": "initialized"}))
    for name in ("metadata.json", "log.txt"):
        os.utime(folder / name, (ended - 50, ended - 50))
    survey_of = told(*after(12, Record("TIMEOUT", start=ended - 200, end=ended)))
    for where in (outcomes, reconciling):
        monkeypatch.setattr(where, "survey", survey_of)
    for _ in range(2):
        found = json.loads(command("status", "--json", base / "waves").stdout)
        assert found["states"] == {"complete": 16, "failed": 2}
        assert {"state": "failed", "reason": "no run: TIMEOUT", "runs": 1} in found["reasons"]
        command("reconcile", base / "waves")
    assert json.loads((folder / "metadata.json").read_text())["status"] == "failed"


TIMEOUT, COMPLETED = Record("TIMEOUT"), Record("COMPLETED")
NOBODY = "no run, and no task is left: "


@pytest.mark.parametrize(
    ("ends", "state", "reason", "spec"),
    [
        ([TIMEOUT] * 4, "failed", f"{NOBODY}4 TIMEOUT", "10-11"),
        (
            [COMPLETED, TIMEOUT, DIED, TIMEOUT],
            "failed",
            f"{NOBODY}2 TIMEOUT; 1 COMPLETED; 1 FAILED, exit status 3",
            "11-12",
        ),
        ([COMPLETED] * 4, "waiting", "not begun, though all tasks COMPLETED", "10-11"),
        ([TIMEOUT, TIMEOUT, TIMEOUT, Record("RUNNING")], "waiting", "not begun", "10-11"),
        ([Record("RUNNING")] * 4, "waiting", "not begun", ""),
        ([TIMEOUT] * 3, "waiting", "not begun", "10-11"),  # nobody knows of the fourth
    ],
)
def test_points_that_any_task_may_do_are_left_once_all_have_ended(
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: list[Record],
    state: str,
    reason: str,
    spec: str,
) -> None:
    for task in range(10, 14):
        in_task(monkeypatch, task, 10, 13)
        for log in Experiment("waves", base).sweep(GRID, mode="claim"):
            log.mark_complete()
            break
    lines = [(f"4711_{10 + place}", end) for place, end in enumerate(ends)]
    monkeypatch.setattr(outcomes, "survey", told(*lines))
    monkeypatch.setattr(slurm, "array_limit", lambda: None)
    done = command("status", "--json", base / "waves")
    found = json.loads(done.stdout)
    assert {"state": state, "reason": reason, "runs": 2} in found["reasons"]
    assert found["states"] == {"complete": 4, state: 2}
    assert done.exit_code == (0 if reason == "not begun" else 1)
    assert command("failed", "--array", base / "waves").stdout.strip() == spec


@pytest.mark.parametrize("mode", ["static", "claim"])
def test_points_wait_while_a_run_is_under_way_whatever_slurm_says(
    base: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """The node's slurmd has died, and the task goes on; or somebody does points by hand."""
    most = dict.fromkeys((10, 11, 13, 14, 15), 1)
    done_in(base, monkeypatch, most, mode=mode, grid=GRID_OF_12)
    in_task(monkeypatch, 12, 10, 15)
    if mode == "claim":
        monkeypatch.delenv("SLURM_JOB_ID")
    log = next(Experiment("waves", base).sweep(GRID_OF_12, mode=mode))
    over = Record("NODE_FAIL", start=time.time() - 50, end=time.time() - 20)
    found = survey(base / "waves", lambda ids: answer_of(*after(12, over)))
    mine = [one for one in found.left if one.task in (12, None)]
    assert len(mine) == (1 if mode == "static" else 6)
    assert {(one.state, one.over) for one in mine} == {("waiting", False)}
    log.mark_complete()


def test_of_several_jobs_of_a_task_the_newest_counts(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Array 4711 was killed; of the one that was submitted then, another task has begun."""
    one_point_left(base, monkeypatch)
    run = next((base / "waves" / "runs").glob("log_waves_omega_3*")) / "metadata.json"
    meta = json.loads(run.read_text())
    meta["scheduler"] |= {"array_job_id": "9", "array": {"min": 10, "max": 15, "step": 1}}
    run.write_text(json.dumps(meta))
    older = ("4711_12", Record("TIMEOUT", start=100.0, end=200.0))
    for newer, states in (
        (Record("PENDING"), {"complete": 11, "waiting": 1}),
        (Record("OUT_OF_MEMORY", start=300.0, end=400.0), {"complete": 11, "failed": 1}),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(outcomes, "survey", told(older, ("9_12", newer)))
            found = json.loads(command("status", "--json", base / "waves").stdout)
        assert found["states"] == states
    assert found["tasks_without_run"] == {"12": "no run: OUT_OF_MEMORY (Slurm 9_12)"}


def test_tasks_that_no_array_is_known_to_have_are_doubtful_too(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PBS tells no range: of the tasks 1-4 two have done a point of their two, and two wait."""
    monkeypatch.setenv("NOTATA_ARRAY", "1-4")
    for task in (1, 2):
        monkeypatch.setenv("PBS_JOBID", f"500[{task}].server")
        monkeypatch.setenv("PBS_ARRAY_INDEX", str(task))
        for log in Experiment("waves", base).sweep({"k": range(8)}, mode="static"):
            log.mark_complete()
            break
    done = command("failed", "--array", base / "waves")
    assert (done.exit_code, done.stdout) == (0, "1-4\n")
    told = "notata: tasks 1-4 may still wait in the queue or run: no scheduler tells\n"
    assert done.stderr == told


@pytest.mark.parametrize("mode", ["static", "claim"])
@pytest.mark.parametrize(
    ("newer", "state"),
    [
        ({"array_job_id": "5000", "cluster": "d"}, "waiting"),
        ({"array_job_id": "5000", "cluster": "c"}, "waiting"),  # a colleague's, kept from us
        ({"name": "sge", "job_id": "12", "array_job_id": None}, "waiting"),
        ({"array_job_id": "900", "cluster": "c"}, "failed"),  # an older one, which Slurm forgot
    ],
)
def test_a_newer_array_that_nobody_knows_counts_more_than_one_that_ended(
    base: Path, monkeypatch: pytest.MonkeyPatch, mode: str, newer: dict[str, Any], state: str
) -> None:
    """Each array, 4711 and another of the same tasks, has one run; of 4711 all tasks ended."""
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    done_in(base, monkeypatch, {10: 1, 11: 1}, mode=mode)
    run = next((base / "waves" / "runs").iterdir()) / "metadata.json"
    meta = json.loads(run.read_text())
    meta["scheduler"] |= newer
    run.write_text(json.dumps(meta))
    ended = Record("TIMEOUT", start=100.0, end=200.0, cluster="c")
    lines = [(f"4711_{task}", ended) for task in range(10, 16)]
    found = survey(base / "waves", lambda ids: answer_of(*lines))
    assert [(one.state, one.over) for one in found.left] == [(state, state == "failed")] * 4
    left = [12, 13, 14, 15] if mode == "static" else [10, 11]  # which are known to have begun
    if (mode, state) == ("claim", "failed"):
        left = [10, 11, 12, 13]
    assert again(found)[1:] == (left, [], left if state == "waiting" else [])


def test_an_unknown_array_elsewhere_counts_whatever_ended_here(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the arrays 900 on d, 950 and 4711 on c the last one alone is known."""
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "c")
    done_in(base, monkeypatch, {10: 1, 11: 1, 12: 1}, mode="static")
    older = {1: {"array_job_id": "900", "cluster": "d"}, 2: {"array_job_id": "950"}}
    for omega, facts in older.items():
        run = next((base / "waves" / "runs").glob(f"log_waves_omega_{omega}*")) / "metadata.json"
        meta = json.loads(run.read_text())
        meta["scheduler"] |= facts
        run.write_text(json.dumps(meta))
    ended = Record("TIMEOUT", start=100.0, end=200.0, cluster="c")
    lines = [(f"4711_{task}", ended) for task in range(10, 16)]
    found = survey(base / "waves", lambda ids: answer_of(*lines))
    assert {(one.task, one.state) for one in found.left} == {(k, "waiting") for k in (13, 14, 15)}


@pytest.mark.parametrize(("mode", "expected"), [("static", [10, 12]), ("claim", [10])])
def test_a_task_that_still_runs_is_not_submitted_again(
    base: Path, monkeypatch: pytest.MonkeyPatch, mode: str, expected: list[int]
) -> None:
    """It has failed at one point, is at work on the next, and will do others."""
    experiment, logs = Experiment("waves", base), []
    for task in (10, 11):
        in_task(monkeypatch, task, 10, 12)
        for log in experiment.sweep(GRID, mode=mode):
            logs.append(log)
            if task == 11 and len(logs) > 2:
                break
            log.mark_failed("diverged")
            if task == 10:
                break
    found = survey(base / "waves", lambda ids: Answer("sacct"))
    assert sorted(outcome.state for outcome in found.outcomes) == ["failed", "failed", "running"]
    assert again(found).tasks == expected
    logs[-1].mark_complete()


@pytest.mark.parametrize(
    ("record", "state", "reason", "spec", "said"),
    [
        (TIMEOUT, "failed", "no run: TIMEOUT", "2-5", ""),
        (COMPLETED, "waiting", "not begun, though its job COMPLETED", "2-5", ""),
        (Record("RUNNING"), "waiting", "not begun", "", "nothing to submit again while job 500 is"),
        (PENDING, "waiting", "not begun", "", "nothing to submit again while job 500 is PENDING"),
        (None, "waiting", "not begun", "2-5", "notata: tasks 2-5 may still wait in the queue"),
    ],
)
def test_points_of_a_job_of_no_array_have_its_state(
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
    record: Record | None,
    state: str,
    reason: str,
    spec: str,
    said: str,
) -> None:
    """Two of six points are done; then the job dies between two of them, or goes on."""
    monkeypatch.setenv("SLURM_JOB_ID", "500")
    done_alone(base, 2)
    original, asked = survey, []

    def ask(ids: Iterable[str]) -> Answer:
        asked.append(set(ids))
        return answer_of(*([] if record is None else [("500", record)]))

    monkeypatch.setattr(outcomes, "survey", lambda folder: original(folder, ask))
    monkeypatch.setattr(slurm, "array_limit", lambda: None)
    done = command("status", "--json", base / "waves")
    found = json.loads(done.stdout)
    assert found["states"] == {"complete": 2, state: 4}
    assert {"state": state, "reason": reason, "runs": 4} in found["reasons"]
    assert done.exit_code == (0 if reason == "not begun" else 1)
    done = command("failed", "--array", base / "waves")
    assert (done.exit_code, done.stdout.strip()) == (0, spec)
    assert said in done.stderr if said else done.stderr == ""
    assert asked == [{"500"}] * 2


def test_of_several_jobs_of_no_array_one_that_goes_on_counts(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in (500, 501, 502):
        monkeypatch.setenv("SLURM_JOB_ID", str(job))
        done_alone(base, 1)
    for records, state in (
        ((TIMEOUT, PENDING, TIMEOUT), "waiting"),
        ((TIMEOUT, TIMEOUT, None), "waiting"),
        ((None, TIMEOUT, TIMEOUT), "failed"),  # an old one, which Slurm has forgotten
    ):
        lines = [(f"50{k}", record) for k, record in enumerate(records) if record is not None]
        found = survey(base / "waves", lambda ids, lines=lines: answer_of(*lines))
        assert [one.state for one in found.left] == [state] * 3


def test_a_job_of_no_array_is_not_asked_for_once_all_points_are_done(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "500")
    done_alone(base, 9)
    asked: list[set[str]] = []
    survey(base / "waves", lambda ids: asked.append(set(ids)) or Answer())
    assert asked == [set()]


@pytest.mark.parametrize("link", [False, True])
def test_the_points_of_an_experiment_that_was_moved_are_found(base: Path, link: bool) -> None:
    done = Experiment("deep/waves", base)
    for number, log in enumerate(done.sweep({"k": [1, 2, 3, 4], "omega": [0.1]})):
        with log:
            if number == 2:
                break
    folder = base / "mine"
    if link:
        folder.symlink_to(done.exp_dir.absolute())
    else:
        done.exp_dir.rename(folder)
    found = survey(folder)
    assert [outcome.state for outcome in found.outcomes] == ["complete"] * 3
    assert found.grid is not None
    assert [found.grid.points[one.point or 0]["k"] for one in found.left] == [4]


def test_points_with_keys_that_json_makes_text_of_are_found(base: Path) -> None:
    experiment = Experiment("nested", base)
    values = [{1: 2}, {"1": 2}, {"a": [{None: 1.5}]}, {"a": {2: 3}}]
    for number, log in enumerate(experiment.sweep({"nest": values, "x": [1]})):
        with log:
            if number == 2:
                break
    found = survey(experiment.exp_dir)
    assert [one.point for one in found.left] == [3]
    assert found.grid is not None
    assert len({*found.grid.runs}) == 4


def test_a_grid_without_an_array_is_a_task_a_point(base: Path) -> None:
    experiment = Experiment("a/waves", base)
    for number, log in enumerate(experiment.sweep(GRID, mode="claim")):
        log.mark_complete() if number != 1 else log.mark_failed("no")
        if number == 3:
            break
    found = survey(base / "a/waves", lambda ids: Answer("sacct"))
    assert again(found).tasks == [1, 4, 5]


# ----- commands -----


def test_failed_runs_that_are_no_points_of_the_last_sweep_are_named(base: Path) -> None:
    experiment = Experiment("waves", base)
    for k in (1, 2):
        for log in experiment.sweep({"k": [k]}):
            log.mark_failed("no")
    done = command("failed", "--array", experiment.exp_dir)
    assert (done.exit_code, done.stdout) == (1, "0\n")
    assert "waves_k_1 had no point in the last sweep: submit them by themselves" in done.stderr
    told = json.loads(command("failed", "--array", "--json", experiment.exp_dir).stdout)
    assert [run["run_id"] for run in told["runs"]] == ["waves_k_1", "waves_k_2"]


def test_status_groups_states_and_reasons(sweep: Sweep) -> None:
    sweep.run("ok", "complete")
    for number in range(3):
        reason = f"diverged at step {number}"
        sweep.run(f"bad{number}", "failed", failure_reason=reason, scheduler=task_facts(number + 1))
    sweep.run("killed", scheduler=task_facts(4))
    sweep.says("4711_4", "OUT_OF_MEMORY")
    sweep.says("4711_[5-9]", "PENDING")
    sweep.run("alive", sign=sweep.now)
    done = command("status", sweep.folder)
    assert done.exit_code == 1
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == f"{sweep.folder}: 6 runs"
    assert "complete 1" in lines
    assert "failed 3 diverged at step #" in lines
    assert "failed 1 OUT_OF_MEMORY" in lines
    assert "running 1" in lines
    assert "waiting 5 not begun" in lines
    assert "Known from the runs, and from sacct for those that didn't say." in lines
    assert "killed failed 4711_4 OUT_OF_MEMORY" in lines
    assert lines[-1].startswith("1 run never got to say so: `notata reconcile")


NONE = "sacct: No such file or directory"
NOT_SAID = "for those that didn't say"


@pytest.mark.parametrize(
    ("source", "refusals", "job", "sentence"),
    [
        ("squeue", [NONE], True, f", and from squeue {NOT_SAID} ({NONE})."),
        ("scontrol", ["sacct: off", "squeue: down"], True,
         f", and from scontrol {NOT_SAID} (sacct: off; squeue: down)."),
        (None, [NONE], True, f" and their signs of life; no scheduler answered ({NONE})."),
        (None, [], False, ", and signs of life of 1 open run."),
    ],
)  # fmt: skip
def test_status_says_where_its_knowledge_comes_from(
    sweep: Sweep, source: str | None, refusals: list[str], job: bool, sentence: str
) -> None:
    sweep.answer = Answer(source, refusals)
    sweep.run("open", **({"scheduler": task_facts(1)} if job else {}), sign=sweep.now)
    if source is not None:
        sweep.says("4711_1", "RUNNING")
    told = " ".join(command("status", sweep.folder).stdout.split())
    assert f"Known from the runs{sentence}" in told


def test_status_says_so_where_nobody_had_to_be_asked(sweep: Sweep) -> None:
    sweep.answer = Answer(None)
    sweep.run("ok", "complete")
    assert "Known from the runs themselves." in command("status", sweep.folder).stdout


def test_status_has_no_column_of_jobs_where_there_are_none(base: Path) -> None:
    experiment = Experiment("alone", base)
    experiment.add(k=1).mark_failed("diverged")
    lines = [line.split() for line in command("status", experiment.exp_dir).stdout.splitlines()]
    assert ["run", "state", "why"] in lines
    assert ["alone_k_1", "failed", "diverged"] in lines


def test_status_as_json(sweep: Sweep) -> None:
    sweep.run("ok", "complete", scheduler=task_facts(1, high=3))
    sweep.run("killed", scheduler=task_facts(2, high=3))
    sweep.says("4711_2", "TIMEOUT")
    sweep.says("4711_3", Record("CANCELLED", "0"))
    done = command("status", "--json", sweep.folder)
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["states"] == {"complete": 1, "failed": 2}
    assert told["attention"] == [
        {
            "run_id": "killed",
            "path": str(sweep.folder / "runs" / "log_killed"),
            "state": "failed",
            "reason": "TIMEOUT (Slurm 4711_2, n2)",
            "job": "4711_2",
            "task": 2,
        }
    ]
    assert told["tasks_without_run"] == {"3": "no run: CANCELLED by 0 (Slurm 4711_3)"}
    assert (told["source"], told["unsaid"], told["runs"]) == ("sacct", 1, 2)


def test_failed_lists_parameters_and_reasons(sweep: Sweep) -> None:
    sweep.run("bad", "failed", failure_reason="diverged", scheduler=task_facts(2, high=2))
    sweep.run("ok", "complete", scheduler=task_facts(1, high=2))
    done = command("failed", sweep.folder)
    assert done.exit_code == 0
    assert "bad 2 name=bad diverged" in [" ".join(x.split()) for x in done.stdout.splitlines()]
    told = json.loads(command("failed", "--json", "--array", sweep.folder).stdout)
    assert (told["tasks"], told["array"]) == ([2], ["2"])
    assert told["runs"][0]["params"] == {"name": "bad"}


def test_a_name_below_outputs_is_found(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep.run("ok", "complete")
    home = sweep.folder.parent / "home"
    home.mkdir()
    (home / "outputs").symlink_to(sweep.folder.parent)
    monkeypatch.chdir(home)
    for name in ("status", "failed", "reconcile"):
        assert command(name, "sweep").exit_code == 0


@pytest.mark.parametrize("name", ["status", "failed", "reconcile"])
def test_commands_refuse_what_is_no_experiment(base: Path, name: str) -> None:
    base.mkdir()
    done = command(name, base)
    assert done.exit_code == 2
    assert "is no experiment: it has no folder runs/" in done.stderr
    assert command(name, base / "nowhere").exit_code == 2
    with pytest.raises(NotARunError):
        survey(base)
    with pytest.raises(RunNotFoundError):
        survey(base / "nowhere")


@pytest.mark.parametrize("name", ["status", "failed", "reconcile"])
def test_help_has_an_example(name: str) -> None:
    done = command(name, "--help")
    assert done.exit_code == 0
    assert f"notata {name}" in done.stdout.partition("Example:")[2]
