"""What Slurm prints, as a real Slurm 22.05 printed it, and what is understood of it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest

from notata import slurm
from notata.jobs import Answer, End, Job, JobId, Record, job_name
from notata.ranges import task_specs, tasks_of

RECORDED = Path(__file__).parent / "recorded"
IDS = [str(number) for number in range(1, 13)]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the only place where programs are looked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def provide(folder: Path, name: str, answer: str | Path, status: int = 0) -> None:
    """Put a program there that prints an answer, and keeps its arguments."""
    text = folder / f"{name}.answer"
    text.write_text(answer.read_text() if isinstance(answer, Path) else answer)
    where = 1 if status == 0 else 2
    program = folder / name
    program.write_text(
        f'#!/bin/sh\necho "$*" >> {folder}/{name}.asked\n/bin/cat {text} >&{where}\nexit {status}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def gone(jobs: Iterable[JobId]) -> dict[JobId, bool | None]:
    return {job: end.over for job, end in slurm.ends(jobs).items()}


def gone_by_name(*names: str) -> dict[str, bool | None]:
    return {job.name: over for job, over in gone(map(JobId, names)).items()}


def states(answer: Answer) -> dict[str, list[str]]:
    return {name: [record.state for record in job.records] for name, job in answer.jobs.items()}


EXPECTED = {
    "1": ["COMPLETED"],
    "2": ["FAILED"],
    "3": ["FAILED"],
    "4": ["FAILED"],
    "5": ["FAILED"],
    "6": ["TIMEOUT"],
    "7_1": ["CANCELLED"],
    "7_2": ["RUNNING"],
    "7_3": ["RUNNING"],
    "7_4": ["PENDING"],
    "8": ["FAILED"],
    "9": ["FAILED"],
    "10_3": ["PENDING"],
    "10_7": ["PENDING"],
    "10_8": ["PENDING"],
    "10_9": ["PENDING"],
    "11": ["RUNNING"],
    "12": ["COMPLETED"],
    # Tasks of an array have a plain id of their own once they have begun.
    "13": ["CANCELLED"],
    "14": ["RUNNING"],
    "15": ["RUNNING"],
}


@pytest.mark.parametrize("source", ["sacct", "squeue", "scontrol"])
def test_each_program_tells_the_same_states(source: str, programs: Path) -> None:
    provide(programs, source, RECORDED / f"{source}.txt")
    answer = slurm.ask(IDS)
    assert answer.source == source
    assert states(answer) == EXPECTED
    assert answer.jobs["11"].newest.nodes == "n[2-3]"
    assert answer.jobs["13"].name == "7_1"
    asked = (programs / f"{source}.asked").read_text().splitlines()
    assert len([line for line in asked if line != "show config"]) == 1


def test_sacct_tells_how_jobs_ended(programs: Path) -> None:
    provide(programs, "sacct", RECORDED / "sacct.txt")
    jobs = slurm.ask(IDS).jobs
    assert {name: jobs[name].newest.why for name in ("2", "3", "4", "5", "6", "7_1")} == {
        "2": "FAILED, exit status 1",
        "3": "FAILED, exit status 72",  # of 200 sacct keeps seven bits
        "4": "FAILED, signal SIGKILL",
        "5": "FAILED, exit status 9 or 137, which is SIGKILL",
        "6": "TIMEOUT",
        "7_1": "CANCELLED by 0",
    }
    assert {name: record.state for name, record in jobs["11"].steps.items()} == {
        "batch": "RUNNING",
        "0": "FAILED",
        "1": "RUNNING",
    }


def test_scontrol_keeps_the_whole_exit_status(programs: Path) -> None:
    provide(programs, "scontrol", RECORDED / "scontrol.txt")
    assert slurm.ask(IDS).jobs["3"].newest.why == "FAILED, exit status 200"


def test_refusals_are_kept_and_the_next_program_is_asked(programs: Path) -> None:
    provide(programs, "sacct", "Slurm accounting storage is disabled\n", status=1)
    provide(programs, "scontrol", RECORDED / "scontrol.txt")
    answer = slurm.ask(IDS)
    assert answer.source == "scontrol"
    assert answer.refusals == [
        "sacct: Slurm accounting storage is disabled",
        "squeue: No such file or directory",
    ]


def test_without_slurm_there_is_no_answer(programs: Path) -> None:
    answer = slurm.ask(["1"])
    assert (answer.source, answer.jobs, len(answer.refusals)) == (None, {}, 3)
    assert gone_by_name("1") == {"1": None}
    assert slurm.array_limit() is None


def test_nothing_is_asked_for_no_jobs(programs: Path) -> None:
    provide(programs, "sacct", "")
    assert slurm.ask([]).source is None
    assert not (programs / "sacct.asked").exists()


def test_garbage_is_a_refusal(programs: Path) -> None:
    provide(programs, "sacct", "what|is|this\n")
    answer = slurm.ask(["1"])
    assert answer.source is None
    assert answer.refusals[0].startswith("sacct: ")


def test_jobs_are_gone_when_they_are_over(programs: Path) -> None:
    provide(programs, "sacct", RECORDED / "sacct.txt")
    assert gone_by_name("1", "6", "7_1", "13", "7_2", "7_4", "99") == {
        "1": True,
        "6": True,
        "7_1": True,
        "13": True,
        "7_2": False,
        "7_4": False,
        "99": None,  # sacct may not know it yet
    }


@pytest.mark.parametrize("source", ["squeue", "scontrol"])
def test_a_job_that_its_own_clusters_queue_does_not_list_is_gone(
    source: str, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "squeue":
        provide(programs, "squeue", "slurm_load_jobs error: Invalid job id specified\n", status=1)
    provide(programs, "scontrol", "ClusterName             = c\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    mine, hidden, unknown = JobId("99", "c", 1000), JobId("99", "c", 1001), JobId("99", "c")
    elsewhere, anywhere = JobId("99", "d", 1000), JobId("99", "", 1000)
    asked = [mine, hidden, unknown, elsewhere, anywhere]
    assert gone(asked) == {mine: True} | dict.fromkeys(asked[1:])
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # from whom no job is hidden
    assert gone(asked) == dict.fromkeys(asked[:3], True) | dict.fromkeys(asked[3:])


def test_only_what_a_queue_was_asked_about_is_gone_from_it(programs: Path) -> None:
    provide(programs, "squeue", "")
    provide(programs, "scontrol", "ClusterName = c\n")
    answer = slurm.ask(["99", "7_1"])
    names = ("99", "99_3", "7_1", "7_2", "98", "9")
    told = {name: answer.lacks(JobId(name, "c", os.getuid())) for name in names}
    assert told == dict.fromkeys(names[:3], True) | dict.fromkeys(names[3:], False)


def test_a_queue_of_a_cluster_without_a_name_proves_nothing(programs: Path) -> None:
    provide(programs, "squeue", "")
    asked = [JobId("99", "c", os.getuid()), JobId("99", "", os.getuid())]
    assert gone(asked) == dict.fromkeys(asked)


def test_a_job_of_the_same_number_in_this_queue_says_nothing_of_another_clusters(
    programs: Path,
) -> None:
    provide(programs, "squeue", RECORDED / "squeue.txt")
    provide(programs, "scontrol", "ClusterName = c\n")
    ours, theirs = JobId("1", "c", os.getuid()), JobId("1", "d", os.getuid())
    assert gone([ours, theirs]) == {ours: True, theirs: None}
    assert slurm.ask(["1"]).find({"job_id": "1", "cluster": "d"}) is None


TIMED_OUT = "{0}|{0}|{1}|0:0|n2|2026-11-25T10:00:00|2026-11-25T10:05:00|c\n"
QUEUED = "{0}|{0}|{1}|n2|2026-11-25T10:00:00|2026-11-25T10:05:00\n"


def test_a_job_whose_processes_write_their_last_has_not_ended(programs: Path) -> None:
    """A time limit is in the accounting as soon as its processes are told; then KillWait passes."""
    jobs = ("1", "COMPLETING"), ("2", "TIMEOUT"), ("3", "PENDING"), ("4", None), ("5", "NODE_FAIL")
    states = [(job, "NODE_FAIL" if job == "5" else "TIMEOUT") for job, _ in jobs]
    provide(programs, "sacct", "".join(TIMED_OUT.format(*each) for each in states))
    mine = {job: JobId(job, "c", os.getuid()) for job, _ in jobs}
    ended = slurm.ask(["1"]).jobs["1"].newest.end
    # Without a queue they are over, and nobody knows of their processes.
    assert slurm.ends(mine.values()) == dict.fromkeys(mine.values(), End(True, ended))
    provide(programs, "sacct", TIMED_OUT.format("1", "FAILED"))  # but this one ended by itself
    assert slurm.ends([mine["1"]]) == {mine["1"]: End(True, ended, settled=True)}
    provide(programs, "sacct", "".join(TIMED_OUT.format(*each) for each in states))
    provide(programs, "squeue", "".join(QUEUED.format(*each) for each in jobs if each[1]))
    provide(programs, "scontrol", "ClusterName = c\n")
    told = slurm.ends([*mine.values(), JobId("2", "d", os.getuid()), JobId("2")])
    assert told.pop(JobId("2")) == End(True, ended)
    assert told.pop(JobId("2", "d", os.getuid())) == End(None)
    assert {job.name: (end.over, end.settled) for job, end in told.items()} == {
        "1": (False, False),
        "2": (True, True),
        "3": (False, False),  # it was started again, of which accounting has yet to hear
        "4": (True, True),
        "5": (True, False),  # of its processes nobody has heard
    }


def test_without_accounting_the_queue_says_what_has_ended(programs: Path) -> None:
    provide(programs, "squeue", QUEUED.format("1", "COMPLETING") + QUEUED.format("2", "FAILED"))
    provide(programs, "scontrol", "ClusterName = c\n")
    jobs = [JobId("1", "c"), JobId("2", "c"), JobId("2")]
    told = slurm.ends(jobs)
    assert [(told[job].over, told[job].settled) for job in jobs] == [
        (False, False),
        (True, True),
        (True, False),  # of whichever cluster it is
    ]


def test_ten_thousand_ids_fit_into_commands(programs: Path) -> None:
    provide(programs, "sacct", "")
    ids = [str(12345678 + number) for number in range(25_000)]
    assert slurm.ask(ids).source == "sacct"
    asked = (programs / "sacct.asked").read_text().splitlines()
    assert len(asked) == 3
    assert sorted(re.findall(r"\d{8}", " ".join(asked))) == ids


def test_the_users_own_formats_change_nothing(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs / "sacct").write_text("#!/bin/sh\nexport -p > $0.environ\n")
    (programs / "sacct").chmod(0o755)
    monkeypatch.setenv("SACCT_FORMAT", "JobID")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    slurm.ask(["1"])
    told = (programs / "sacct.environ").read_text()
    assert "SACCT_FORMAT" not in told
    assert "SLURM_TIME_FORMAT='standard'" in told
    assert "SLURM_BITSTR_LEN='0'" in told


# After `scontrol requeue 1_1`. The task that was split off last has the array's own number.
REQUEUED_TASKS = """\
1_1|2|PENDING||2026-11-26T15:57:07|NONE
1_2|1|RUNNING|n1|2026-11-26T15:56:57|2027-11-26T15:56:57
"""
REQUEUED_BOTH = REQUEUED_TASKS.replace("RUNNING|n1", "PENDING|").replace(
    "2027-11-26T15:56:57", "NONE"
)


def test_a_requeued_task_that_waits_is_not_gone_by_its_plain_number(programs: Path) -> None:
    provide(programs, "scontrol", "ClusterName = c\n")
    jobs = [JobId(name, "c", os.getuid()) for name in ("1_1", "2", "1_2", "1")]
    for told in (REQUEUED_TASKS, REQUEUED_BOTH):
        provide(programs, "squeue", told)
        assert gone(jobs) == dict.fromkeys(jobs, False)
    elsewhere = JobId("2", "d", os.getuid())
    assert gone([elsewhere]) == {elsewhere: None}


# Not recorded: memory limits need cgroups, which not every machine has.
OUT_OF_MEMORY = """\
4711_3|4714|OUT_OF_MEMORY|0:125|n2|2026-11-25T10:00:00|2026-11-25T10:05:00|c
4711_3.batch|4714.batch|OUT_OF_MEMORY|0:125|n2|2026-11-25T10:00:00|2026-11-25T10:05:00|c
"""
REQUEUED = """\
5|5|NODE_FAIL|0:0|n5|2026-11-25T10:00:00|2026-11-25T10:05:00|c
5.batch|5.batch|CANCELLED|0:9|n5|2026-11-25T10:00:00|2026-11-25T10:05:00|c
5|5|PENDING|0:0|None assigned|Unknown|Unknown|c
"""


def test_a_requeued_job_has_a_record_for_each_run(programs: Path) -> None:
    provide(programs, "sacct", REQUEUED)
    answer = slurm.ask(["5"])
    assert states(answer) == {"5": ["NODE_FAIL", "PENDING"]}
    assert answer.jobs["5"].newest.over is False
    assert gone_by_name("5") == {"5": False}


def test_a_state_that_is_in_no_list_says_nothing_of_an_end(programs: Path) -> None:
    line = "{}|{}|{}|0:0|n5|2026-11-25T10:00:00|2026-11-25T10:05:00|c\n"
    told = ["REVOKED", "TELEPORTED", "FAILED", "REQUEUE_FED"]
    provide(programs, "sacct", "".join(line.format(k, k, word) for k, word in enumerate(told)))
    assert gone_by_name("0", "1", "2", "3") == {"0": None, "1": None, "2": True, "3": False}


def test_a_job_of_another_cluster_is_not_ours(programs: Path) -> None:
    provide(programs, "sacct", OUT_OF_MEMORY)
    answer = slurm.ask(["4711"])
    ours = {"name": "slurm", "job_id": "4714", "array_job_id": "4711", "array_task_id": 3}
    found = answer.find(ours | {"cluster": "c"})
    assert found is not None
    assert (found.name, found.newest.why) == ("4711_3", "OUT_OF_MEMORY")
    assert answer.find(ours) is found
    assert answer.find({"job_id": "4714"}) is found
    assert answer.find(ours | {"cluster": "d"}) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1:0", ", exit status 1"),
        ("0:0", ", exit status 128"),
        ("0:15", ", signal SIGTERM"),
        ("0:99", ", signal 99"),
        ("11:0", ", exit status 11 or 139, which is SIGSEGV"),
        ("72:0", ", exit status 72"),
        ("", ""),
    ],
)
def test_exit_codes_are_put_into_words(code: str, words: str) -> None:
    assert Record("FAILED", exit_code=code).why == f"FAILED{words}"


@pytest.mark.parametrize(
    ("spec", "tasks"),
    [
        ("3,7-9,21", [3, 7, 8, 9, 21]),
        ("0-9:3%4", [0, 3, 6, 9]),
        ("[1-3%2]", [1, 2, 3]),
        ("5", [5]),
    ],
)
def test_array_specifications_are_read(spec: str, tasks: list[int]) -> None:
    assert tasks_of(spec) == tasks


@pytest.mark.parametrize("spec", ["", "a", "1-", "1,,2", "-3"])
def test_other_texts_are_no_array_specifications(spec: str) -> None:
    with pytest.raises(ValueError, match="is no array specification"):
        tasks_of(spec)


def test_array_specifications_are_split() -> None:
    assert task_specs([21, 9, 3, 7, 8, 8]) == ["3,7-9,21"]
    assert task_specs(range(2500), most=1000) == ["0-999", "1000-1999", "2000-2499"]
    assert task_specs([]) == []


def test_the_sites_limits_are_read(programs: Path) -> None:
    provide(programs, "scontrol", "MaxArraySize            = 1001\n")
    assert slurm.array_limit() == (1001, 1001)
    provide(
        programs,
        "scontrol",
        "MaxArraySize = 5001\nSchedulerParameters = x=1,max_array_tasks=1000\n",
    )
    assert slurm.array_limit() == (5001, 1000)


def test_names_of_jobs() -> None:
    assert job_name({"job_id": "12"}) == "12"
    assert job_name({"job_id": "12", "array_job_id": "11", "array_task_id": 0}) == "11_0"
    assert Job("11_0").name == "11_0"


def test_a_job_that_was_requeued_before_its_start_was_noted() -> None:
    """As a real Slurm 22.05 told it: the first run has an end alone."""
    answer = Answer("sacct")
    answer.add("203", "203", "", Record("REQUEUED", end=100.0))
    answer.add("203", "203", "", Record("COMPLETED", start=110.0, end=110.0))
    answer.add("204", "204", "", Record("REQUEUED", start=90.0, end=100.0))
    answer.add("204", "204", "", Record("PENDING"))
    jobs = answer.finish().jobs
    assert (jobs["203"].newest.state, jobs["203"].newest.over) == ("COMPLETED", True)
    assert (jobs["204"].newest.state, jobs["204"].newest.over) == ("PENDING", False)
