"""Going on in a run: by hand, in a job that was requeued, while the older attempt still runs."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import ROOT, open_as, program, tree

from notata import Experiment, Logbook, LogReader, freshness, merge, vigil
from notata.attempts import Job, current_job
from notata.errors import DamagedError, NotARunError, OutdatedError, RunExistsError
from notata.messages import stamp_seconds
from notata.mounts import Mount
from notata.tails import Follower

KEYS = {"start_time", "end_time", "status", "failure_reason", "host", "job"}
UNTOLD = "did not say how it ended; attempt 2 went on"


def metadata(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metadata.json").read_text()))


def texts(run: Path, rank: int | None = None) -> list[str]:
    ranks = None if rank is None else [rank]
    return [message.message for message in LogReader(run).messages(ranks=ranks)]


def killed(code: str, cwd: Path) -> None:
    """Run a program that ends by SIGKILL."""
    whole = f"{textwrap.dedent(code)}\nimport os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = program(whole, cwd)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture
def in_job(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put this process into a Slurm job, as the variables of a batch script say."""

    def enter(job: str | None, restarts: int = 0) -> None:
        for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
            monkeypatch.delenv(name, raising=False)
        if job is not None:
            monkeypatch.setenv("SLURM_JOB_ID", job)
        if restarts:
            monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))

    enter(None)
    return enter


# ----- by hand -----


def test_a_run_that_was_killed_is_gone_on_with(base: Path) -> None:
    killed(
        f"""
        import numpy as np
        from notata import Logbook
        log = Logbook("a", {str(base)!r}, params={{"dt": 0.1, "n": 3}})
        log.meta(operator="ada")
        log.info("step 1")
        log.array("T_1", np.arange(3.0))
        log.array("T_2", np.zeros(3))
        """,
        base.parent,
    )
    first = metadata(base / "log_a")
    with Logbook("a", base, params={"n": 3, "tol": 1e-6}, resume=True) as log:
        assert (log.status, metadata(log.path)["status"]) == ("initialized", "initialized")
        assert dict(log.params) == {"dt": 0.1, "n": 3, "tol": 1e-6}
        log.info("step 2")
        log.array("T_2", np.arange(2.0))
    run = LogReader(log.path)
    assert run.params == {"dt": 0.1, "n": 3, "tol": 1e-6}
    assert run.meta["start_time"] == first["start_time"]
    assert (run.meta["status"], run.meta["operator"]) == ("complete", "ada")
    old, new = run.meta["attempts"]
    assert old.keys() == new.keys() == KEYS
    assert (old["status"], old["failure_reason"]) == ("failed", UNTOLD)
    assert old["start_time"] <= old["end_time"] <= new["start_time"]
    assert old["host"] == new["host"] == os.uname().nodename
    assert old["job"] is new["job"] is None
    assert old["start_time"] == first["start_time"] <= new["start_time"] <= new["end_time"]
    assert (new["status"], new["end_time"]) == ("complete", run.meta["end_time"])
    assert [t for t in texts(log.path) if not t.startswith("Saved")] == [
        "Logbook initialized",
        "step 1",
        "Logbook resumed: attempt 2",
        "step 2",
        "Marked complete",
    ]
    assert list(run.load_array("T_1")) == [0, 1, 2]
    assert list(run.load_array("T_2")) == [0, 1]


def test_a_failure_stays_with_its_attempt(base: Path) -> None:
    with pytest.raises(ValueError, match="NaN"), Logbook("a", base):
        raise ValueError("NaN in cell 7")
    log = Logbook("a", base, resume=True)
    assert not {"failure_reason", "end_time", "runtime_sec"} & metadata(log.path).keys()
    with pytest.raises(KeyError), log:
        raise KeyError("rho")
    with Logbook("a", base, resume=True) as log:
        pass
    meta = metadata(log.path)
    assert "failure_reason" not in meta
    said = [(entry["status"], entry["failure_reason"]) for entry in meta["attempts"]]
    assert said == [("failed", "NaN in cell 7"), ("failed", "KeyError: 'rho'"), ("complete", None)]
    assert all(entry["end_time"] for entry in meta["attempts"])


def test_an_attempt_that_cannot_go_on_has_failed_and_gives_no_sign_of_life(base: Path) -> None:
    with open_as(0, 2, base) as log:
        log.array("x", np.zeros(1))
    (log.rank_dir / "manifest.jsonl").write_text('{"file": 1}\n\n')
    tasks = set(vigil._tasks)
    with pytest.raises(DamagedError, match="line 1"):
        open_as(0, 2, base, launch="launch-2", resume=True)
    assert set(vigil._tasks) == tasks
    meta = metadata(base / "log_run")
    assert meta["status"] == "failed"
    assert re.match("could not be gone on with: .*manifest.jsonl, line 1", meta["failure_reason"])
    assert [entry["status"] for entry in meta["attempts"]] == ["complete", "failed"]


def test_a_requeued_job_says_when_it_last_lived_and_what_it_received(
    base: Path, in_job: Any
) -> None:
    in_job("77")
    log = Logbook("a", base)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    while len(metadata(log.path).get("signals", [])) < 3:  # another thread writes them down
        time.sleep(0.01)
    log.info("step 1")
    sign = time.time() - 100
    for name in ("metadata.json", "log.txt"):
        os.utime(log.path / name, (sign, sign))
    in_job("77", 1)
    with Logbook("a", base):
        pass
    first, _ = metadata(log.path)["attempts"]
    assert first["failure_reason"] == f"received SIGUSR1, SIGUSR2 and {UNTOLD}"
    assert stamp_seconds(first["end_time"]) == int(sign)
    with Logbook("a", base, resume=True):  # what is said of it stays
        pass
    assert metadata(log.path)["attempts"][0] == first


def test_signals_of_earlier_attempts_stay_in_the_metadata(base: Path) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        with Logbook("a", base, resume=True):
            os.kill(os.getpid(), number)
    with Logbook("a", base, resume=True):
        pass
    told = [note["signal"] for note in metadata(base / "log_a")["signals"]]
    assert told == ["SIGUSR1", "SIGUSR2"]


def test_without_an_earlier_run_a_new_one_begins(base: Path) -> None:
    with Logbook("a", base, resume=True) as log:
        log.info("here")
    assert tree(log.path) == ["log.txt", "metadata.json"]
    assert "attempts" not in metadata(log.path)


def test_overwrite_and_resume_are_refused_together(base: Path) -> None:
    Logbook("a", base).mark_complete()
    before = (base / "log_a" / "metadata.json").read_bytes()
    with pytest.raises(ValueError, match="overwrite=True and resume=True contradict each other"):
        Logbook("a", base, overwrite=True, resume=True)
    assert (base / "log_a" / "metadata.json").read_bytes() == before


def test_an_overwritten_run_has_no_attempts(base: Path) -> None:
    for _ in range(2):
        Logbook("a", base, resume=True).mark_complete()
    assert (base / "log_a" / ".attempt-2").is_file()
    Logbook("a", base, overwrite=True).mark_complete()
    assert tree(base / "log_a") == ["log.txt", "metadata.json"]
    assert "attempts" not in metadata(base / "log_a")


def test_files_that_are_no_run_are_not_gone_on_with(base: Path) -> None:
    (base / "log_a").mkdir(parents=True)
    (base / "log_a" / "thesis.tex").touch()
    with pytest.raises(NotARunError, match="won't be gone on with"):
        Logbook("a", base, resume=True)
    assert tree(base / "log_a") == ["thesis.tex"]


def test_parameters_that_changed_are_named(base: Path) -> None:
    Logbook("a", base, params={"dt": 0.1, "n": 3}).params(ext="json", tol=1.0)
    log = Logbook("a", base, params={"dt": 0.2}, resume=True)
    assert LogReader(log.path).params == {"dt": 0.2, "n": 3, "tol": 1.0}
    assert not (log.path / "params.yaml").exists()
    (warning,) = LogReader(log.path).messages(level="WARNING")
    assert warning.message == "parameters differ from those of the attempt before: dt"


def test_what_notata_keeps_is_not_overwritten(base: Path) -> None:
    with pytest.raises(ValueError, match="attempts: notata keeps"):
        Logbook("a", base).meta(attempts=3)


def test_an_older_notatas_own_field_of_that_name_gives_way(base: Path) -> None:
    log = Logbook("a", base)
    meta = metadata(log.path)
    (log.path / "metadata.json").write_text(json.dumps(meta | {"attempts": 7}))
    Logbook("a", base, resume=True)
    assert len(metadata(log.path)["attempts"]) == 2


# ----- killed while it is opened -----


@pytest.mark.parametrize(
    "stage",
    [
        "notata.folders.claim_dir",
        "notata.files.create",
        "notata.files.replace_bytes",
        "notata.logwriter.LogWriter.write",
    ],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_it_opens_a_run_can_be_gone_on_with(base: Path, stage: str, when: str) -> None:
    Logbook("a", base, params={"n": 1}).info("step 1")
    module, _, name = stage.rpartition(".")
    killed(
        f"""
        import os, signal
        import notata.files, notata.logwriter
        whole = {module}.{name}
        def dying(*args, **kwargs):
            if {when!r} == "after":
                whole(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
        {module}.{name} = dying
        from notata import Logbook
        Logbook("a", {str(base)!r}, params={{"n": 2}}, resume=True)
        """,
        base.parent,
    )
    with Logbook("a", base, resume=True) as log:
        log.info("step 2")
    meta = metadata(log.path)
    assert meta["status"] == "complete"
    assert len(meta["attempts"]) == log._session.attempt.number
    assert all(entry["start_time"] for entry in meta["attempts"])
    assert LogReader(log.path).params["n"] in (1, 2)
    assert {"step 1", "step 2"} <= set(texts(log.path))


def test_a_claim_that_was_cut_off_counts(base: Path) -> None:
    Logbook("a", base)
    (base / "log_a" / ".attempt-2").write_bytes(b'{"start_t')
    log = Logbook("a", base, resume=True)
    told = metadata(log.path)["attempts"]
    assert [entry["host"] for entry in told] == [told[0]["host"], None, told[0]["host"]]
    assert (log.path / ".attempt-3").is_file()


def test_a_run_without_metadata_is_gone_on_with(base: Path) -> None:
    (base / "log_a").mkdir(parents=True)
    with Logbook("a", base, resume=True) as log:
        pass
    old, new = metadata(log.path)["attempts"]
    assert (old["status"], old["end_time"], old["failure_reason"]) == ("failed", None, UNTOLD)
    assert new["status"] == "complete"


def test_an_attempt_of_a_number_is_begun_once(base: Path) -> None:
    """Who saw the first attempt end takes no later one for it."""
    Logbook("a", base).mark_failed("NaN")
    Logbook("a", base, resume=2).mark_failed("NaN again")
    with pytest.raises(RunExistsError, match=r"\.attempt-2 exists: another process goes on"):
        Logbook("a", base, resume=2)
    assert len(metadata(Logbook("a", base, resume=True).path)["attempts"]) == 3


# ----- requeued -----


def test_the_job_of_this_process() -> None:
    assert current_job({}) == Job(None, 0)
    assert current_job({"PBS_JOBID": "7.host"}) == Job("7.host", 0)
    assert current_job({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}) == Job("7", 2)
    assert current_job({"JOB_ID": "7", "SGE_TASK_ID": "3", "RESTARTED": "1"}) == Job("7", 1, 3)
    assert current_job({"LSB_JOBID": "7", "LSB_JOBINDEX": "3"}) == Job("7", 0, 3)


def test_a_requeued_job_goes_on_in_its_run(base: Path, in_job: Any) -> None:
    in_job("77")
    Logbook("a", base, params={"n": 1}).info("step 1")
    in_job("77", 1)
    with Logbook("a", base, params={"n": 1}) as log:
        log.info("step 2")
    meta = metadata(log.path)
    assert [entry["job"] for entry in meta["attempts"]] == ["77", "77"]
    assert [entry["status"] for entry in meta["attempts"]] == ["failed", "complete"]
    assert meta["scheduler"]["restart_count"] == 1
    in_job("77", 2)
    assert len(metadata(Logbook("a", base).path)["attempts"]) == 3
    in_job(None)
    assert "scheduler" not in metadata(Logbook("a", base, resume=True).path)


def test_a_requeued_job_goes_on_where_the_run_would_be_overwritten(base: Path, in_job: Any) -> None:
    in_job("77")
    Logbook("a", base, overwrite=True).info("step 1")
    in_job("77", 1)
    log = Logbook("a", base, overwrite=True)
    assert "step 1" in texts(log.path)
    in_job("77", 2)
    log = Logbook("a", base, overwrite=True, resume=False)
    assert "step 1" not in texts(log.path)


def test_within_one_attempt_a_run_id_is_still_taken(base: Path, in_job: Any) -> None:
    in_job("77")
    Logbook("a", base)
    in_job("77", 1)
    Logbook("a", base)
    with pytest.raises(RunExistsError, match="resume=True"):
        Logbook("a", base)


@pytest.mark.parametrize("job", [None, "78", "77"])
def test_another_job_does_not_go_on_by_itself(base: Path, in_job: Any, job: str | None) -> None:
    in_job("77")
    Logbook("a", base)
    in_job(job, 0 if job == "77" else 1)
    with pytest.raises(RunExistsError):
        Logbook("a", base)
    assert "attempts" not in metadata(base / "log_a")


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_task_that_is_started_again_goes_on_in_its_own_run_alone(
    base: Path, monkeypatch: pytest.MonkeyPatch, in_job: Any, attempts: int
) -> None:
    """All tasks of an array have the array's id on SGE and LSF."""
    monkeypatch.setenv("JOB_ID", "77")
    monkeypatch.setenv("SGE_TASK_ID", "1")
    monkeypatch.setenv("RESTARTED", "0")
    for attempt in range(1, attempts + 1):
        Logbook("a", base, resume=attempt > 1)
    monkeypatch.setenv("RESTARTED", "1")
    monkeypatch.setenv("SGE_TASK_ID", "2")
    with pytest.raises(RunExistsError, match="resume=True"):
        Logbook("a", base)
    monkeypatch.setenv("SGE_TASK_ID", "1")
    log = Logbook("a", base)
    told = json.loads((log.path / f".attempt-{attempts + 1}").read_text())
    assert (told["job"], told["restarts"], told["task"]) == ("77", 1, 1)


def test_a_job_that_was_killed_while_it_opened_goes_on(base: Path, in_job: Any) -> None:
    in_job("77", 1)
    (base / "log_a").mkdir(parents=True)
    then = time.time() - 90
    os.utime(base / "log_a", (then, then))
    with Logbook("a", base) as log:
        pass
    assert log.status == "complete"


def test_a_job_that_was_started_again_takes_no_run_that_another_is_opening(
    base: Path, in_job: Any
) -> None:
    in_job("77", 1)
    exp = Experiment("sweep", base)
    (exp.runs_dir / "log_sweep_n_1").mkdir()
    with pytest.raises(RunExistsError, match="another process opens the run just now"):
        exp.add(n=1)
    assert exp.add(n=1, skip_existing=True) is None
    assert os.listdir(exp.runs_dir) == ["log_sweep_n_1"]
    assert os.listdir(exp.runs_dir / "log_sweep_n_1") == []


def test_a_job_that_took_a_run_over_goes_on_in_it(base: Path, in_job: Any) -> None:
    Logbook("a", base)
    in_job("78")
    claim = {"start_time": "2026-11-25T12:00:00", "host": "n1", "pid": 1, "job": "78"}
    (base / "log_a" / ".attempt-2").write_text(json.dumps(claim))  # killed right after that
    in_job("78", 1)
    told = metadata(Logbook("a", base).path)["attempts"]
    assert [entry["job"] for entry in told] == [None, "78", "78"]


def test_a_requeued_sweep_skips_what_is_complete_and_goes_on_with_the_rest(
    base: Path, in_job: Any
) -> None:
    def sweep() -> list[str]:
        exp, done = Experiment("sweep", base), []
        for n in (1, 2, 3):
            log = exp.add(n=n, skip_existing=True)
            if log is None:
                continue
            done.append(log.run_id)
            if n == 2 and not os.environ.get("SLURM_RESTART_COUNT"):
                break
            with log:
                log.json("metrics", {"square": n * n})
        return done

    in_job("77")
    assert sweep() == ["sweep_n_1", "sweep_n_2"]
    in_job("77", 1)
    assert sweep() == ["sweep_n_2", "sweep_n_3"]
    rows = {
        row["run_id"]: row for row in Experiment("sweep", base).to_dataframe().to_dict("records")
    }
    assert [rows[f"sweep_n_{n}"]["square"] for n in (1, 2, 3)] == [1, 4, 9]


# ----- several ranks without a communicator -----


def stepping(log: Logbook, step: int) -> None:
    log.info(f"step {step} on rank {log.rank}")
    log.array(f"T_{step}", np.full(2, 10 * step + log.rank))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_all_ranks_go_on_in_their_folders(base: Path, order: tuple[int, ...]) -> None:
    for rank in range(3):
        log = open_as(rank, 3, base)
        stepping(log, 1)
        if rank != 2:
            log.array("last", np.full(1, rank))  # rank 2 was killed before
    for rank in order:
        with open_as(rank, 3, base, launch="launch-2", resume=True) as log:
            assert log._session.attempt.outdated is False
            stepping(log, 2)
            log.array("last", np.full(1, 100 + rank))
    run = LogReader(base / "log_run")
    assert len(run.meta["attempts"]) == 2
    assert list(run.load_array("T_1")) == [10, 10, 11, 11, 12, 12]
    assert list(run.load_array("T_2")) == [20, 20, 21, 21, 22, 22]
    assert list(run.load_array("last")) == [100, 101, 102]
    for rank in (1, 2):
        assert run.ranks[rank].record["status"] == "complete"
        assert run.ranks[rank].record["pieces"] == 3
        assert {f"step {step} on rank {rank}" for step in (1, 2)} <= set(texts(run.path, rank))
    merge(run.path)
    assert list(np.load(run.path / "data" / "last.npy")) == [100, 101, 102]
    assert sum("step 1 on rank" in text for text in texts(run.path)) == 3


def test_a_rank_that_is_silent_in_the_second_attempt_is_not_taken_for_failed(base: Path) -> None:
    for rank in range(2):
        log = open_as(rank, 2, base)
        stepping(log, 1)
        with pytest.raises(ValueError, match="NaN"), log:
            raise ValueError("NaN")
    for rank in range(2):
        with open_as(rank, 2, base, launch="launch-2", resume=True) as log:
            pass
    run = LogReader(base / "log_run")
    assert run.ranks[1].record["status"] == "complete"
    assert run.ranks[1].record["pieces"] == 1
    merge(run.path)
    assert list(run.load_array("T_1")) == [10, 10, 11, 11]


@pytest.mark.parametrize(("before", "now"), [(2, 3), (3, 2), (1, 2), (2, 1)])
@pytest.mark.parametrize("rank", [0, 1])
def test_another_number_of_ranks_is_refused(base: Path, before: int, now: int, rank: int) -> None:
    if rank >= now:
        return
    for each in range(before):
        stepping(open_as(each, before, base), 1)
    kept = tree(base)
    with pytest.raises(RunExistsError, match=rf"has {before} as its .* has {now}: go on with"):
        open_as(rank, now, base, launch="launch-2", resume=True)
    assert tree(base) == kept


def test_a_new_run_may_be_begun_by_any_rank_with_resume(base: Path) -> None:
    for rank in (1, 0, 2):
        with open_as(rank, 3, base, resume=True) as log:
            stepping(log, 1)
    run = LogReader(base / "log_run")
    assert "attempts" not in run.meta
    assert list(run.load_array("T_1")) == [10, 10, 11, 11, 12, 12]


def test_ranks_of_a_requeued_job_go_on_though_the_step_has_its_old_name(
    base: Path, in_job: Any
) -> None:
    for restarts in (0, 1):
        in_job("77", restarts)
        for rank in (1, 0):
            with open_as(rank, 2, base, launch="77.0") as log:
                stepping(log, restarts)
    run = LogReader(base / "log_run")
    assert len(run.meta["attempts"]) == 2
    assert list(run.load_array("T_0")) == [0, 0, 1, 1]
    assert list(run.load_array("T_1")) == [10, 10, 11, 11]


# ----- the older attempt -----


OLDER = """
import sys
import numpy as np
from notata import Logbook

log = Logbook("a", sys.argv[1], params={"n": 1}, callback=lambda log: print("called", flush=True))
with log:
    log.info("older: step 1")
    log.array("T", np.zeros(3))
    print("open", flush=True)
    sys.stdin.readline()
    log.meta(note="older")
    log.params(m=2)
    log.info("older: after")
    for verb in (
        lambda: log.array("T", np.ones(3)),
        lambda: log.json("metrics", {}),
        lambda: log["artifacts/x.txt"],
    ):
        try:
            verb()
        except Exception as error:
            print(type(error).__name__, flush=True)
print("closed", log.status, flush=True)
"""


@contextmanager
def older(base: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", OLDER, str(base)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def test_the_older_attempt_stops_writing(base: Path) -> None:
    with older(base) as process:
        log = Logbook("a", base, resume=True)
        log.array("T", np.arange(3.0))
        log.info("newer: step 2")
        kept = {name: (log.path / name).read_bytes() for name in tree(log.path)}
        out, err = process.communicate("go\n", timeout=60)
        assert out.splitlines() == ["OutdatedError"] * 3 + ["closed complete"]
        assert process.returncode == 0
        assert {name: (log.path / name).read_bytes() for name in tree(log.path)} == kept
        (said,) = err.splitlines()
        assert said == (
            f"notata: attempt 2 goes on in {log.path} (process {os.getpid()} on "
            f"{os.uname().nodename}); this process, rank 0 of attempt 1, writes there no more"
        )
        log.mark_complete()
    assert metadata(log.path)["status"] == "complete"


def test_a_newer_attempt_is_named_though_its_file_was_there_before_what_it_says(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Logbook("a", base)
    claim = old.path / ".attempt-2"
    claim.touch()  # as GlusterFS shows it for a moment
    record = {"pid": 17, "host": "n3", "job": "204"}
    writer = threading.Timer(0.3, lambda: claim.write_text(json.dumps(record)))
    writer.start()
    with pytest.raises(OutdatedError, match=r"process 17 on n3, job 204"):
        old.array("T", np.arange(3.0))
    writer.join()
    assert "process 17 on n3, job 204" in capsys.readouterr().err


def test_an_older_attempt_that_only_logs_notices_within_ten_seconds(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_800_000_000.0]
    monkeypatch.setattr("notata.logwriter.time.time", lambda: clock[0])
    old = Logbook("a", base)
    new = Logbook("a", base, resume=True)
    new.info("newer")
    for seconds in (1, 8.9, 0.2, 20):
        clock[0] += seconds
        old.info(f"older after {clock[0] - 1_800_000_000:.1f} s")
    assert [text for text in texts(new.path) if "older" in text] == [
        "older after 1.0 s",
        "older after 9.9 s",
    ]
    with pytest.raises(OutdatedError):
        old.text("x", "x")
    new.mark_complete()
    old.mark_complete()


def test_a_row_of_the_older_attempt_does_not_come_into_the_table(base: Path) -> None:
    exp = Experiment("sweep", base)
    old = exp.add(n=1)
    assert old is not None
    new = Logbook(old.run_id, exp.runs_dir, resume=True)
    old.mark_failed("lost node")
    assert not exp.index_file.exists()
    assert metadata(new.path)["status"] == "initialized"


def test_ranks_of_the_older_attempt_leave_the_newers_manifest_alone(base: Path) -> None:
    old = [open_as(rank, 2, base) for rank in range(2)]
    for log in old:
        stepping(log, 1)
    new = [open_as(rank, 2, base, launch="launch-2", resume=True) for rank in (0, 1)]
    # An older process that had passed its last look at the disk appends to the file it has open.
    old[1]._session.folder.manifest.add([])
    folder = old[1]._session.folder
    manifest = base / "log_run" / "ranks" / "rank_00001" / "manifest.jsonl"
    assert os.fstat(folder.manifest._descriptor).st_ino != manifest.stat().st_ino
    kept = manifest.read_bytes()
    for log in old:
        with pytest.raises(OutdatedError, match="attempt 2 goes on"):
            log.array("T_1", np.zeros(2))
    assert manifest.read_bytes() == kept
    for log in old:
        log.mark_failed("lost node")
    for log in new:
        stepping(log, 2)
        log.mark_complete()
    run = LogReader(base / "log_run")
    assert run.meta["status"] == run.ranks[1].record["status"] == "complete"
    assert list(run.load_array("T_1")) == [10, 10, 11, 11]
    assert merge(run.path).nothing_to_do is False


def test_a_log_line_is_written_where_nobody_can_tell_whose_run_it_is(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Logbook("a", base, resume=True) as log:
        later = time.time() + 20
        with monkeypatch.context() as away:

            def no_answer(path: str, **more: Any) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)

            away.setattr(freshness, "status", no_answer)
            away.setattr(time, "time", lambda: later)
            log.info("step 1")
            with pytest.raises(OSError, match="Input/output error"):
                log.json("metrics", {})
        log.info("step 2")
    assert texts(log.path) == ["Logbook initialized", "step 1", "step 2", "Marked complete"]


# ----- where other nodes may have the log open -----


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all files seem to lie on a server; `make test-nfs` has two nodes on real ones."""
    mount = Mount("/", "nfs4", {"vers": "4.2"}, "server:/")
    monkeypatch.setattr("notata.mounts.mount_of", lambda path: mount)


@pytest.mark.usefixtures("shared")
def test_on_a_server_the_older_attempts_lines_are_written_over_no_other(base: Path) -> None:
    old = Logbook("a", base)
    old.info("before")
    Logbook("a", base, resume=True).info("newer")
    old.info("older")
    assert texts(base / "log_a") == [
        "Logbook initialized",
        "before",
        "Logbook resumed: attempt 2",
        "newer",
    ]
    assert tree(base / "log_a") == [".attempt-2", "log.txt", "metadata.json"]


@pytest.mark.usefixtures("shared")
def test_on_a_server_each_rank_appends_to_a_log_of_its_attempts_own(base: Path) -> None:
    old = [open_as(rank, 3, base) for rank in range(3)]
    for log in old[:2]:  # the last is silent
        log.info("before")
    follower = Follower(str(base / "log_run"))
    followed = [block.raw for block in follower.new()]
    new = [open_as(rank, 3, base, launch="launch-2", resume=True) for rank in (0, 1, 2)]
    for log in old[:2]:
        log.info("older")
    for log in new:
        log.info("newer")
    for rank, said in enumerate((["before", "newer"], ["before", "newer"], ["newer"])):
        assert [t for t in texts(base / "log_run", rank) if "Logbook" not in t] == said
    followed += [block.raw for block in follower.new()]
    assert len(followed) == len(set(followed)) == len(texts(base / "log_run")) == 7


@pytest.mark.usefixtures("shared")
def test_a_log_that_can_not_be_copied_is_appended_to(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Logbook("a", base).mark_complete()
    replace = os.replace

    def refuse(source: str, target: str) -> None:
        if target.endswith("log.txt"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    Logbook("a", base, resume=True).mark_complete()
    assert texts(base / "log_a") == [
        "Logbook initialized",
        "Marked complete",
        "Logbook resumed: attempt 2",
        "Marked complete",
    ]
    assert tree(base / "log_a") == [".attempt-2", "log.txt", "metadata.json"]


@pytest.mark.parametrize("attempts", [2, 4])
def test_an_older_attempt_knows_that_it_is_one_after_a_pruning(base: Path, attempts: int) -> None:
    """Its process was stopped, say, since before the second attempt began."""
    old = [open_as(rank, 2, base) for rank in range(2)]
    for log in old:
        stepping(log, 1)
    run = old[0].path
    for number in range(2, attempts + 1):
        resumed = {"launch": f"launch-{number}", "resume": True}
        for log in [open_as(rank, 2, base, **resumed) for rank in range(2)]:
            stepping(log, number)
            log.mark_complete()
    assert merge(run, prune=True).pruned
    assert [name for name in os.listdir(run) if "attempt" in name] == [f".attempt-{attempts}"]
    before = tree(run), (run / "metadata.json").read_bytes()
    for log in old:
        with pytest.raises(OutdatedError, match="attempt 2 goes on"):
            log.array("late", [1])
        log.mark_failed("lost node")
    assert (tree(run), (run / "metadata.json").read_bytes()) == before
    with pytest.raises(RunExistsError, match="was merged and pruned"):
        open_as(0, 2, base, launch="another", resume=True)
    assert merge(run).nothing_to_do


# ----- what a killed overwrite leaves -----


def test_what_is_left_of_a_run_that_was_being_replaced_can_be_replaced(base: Path) -> None:
    with Logbook("a", base, overwrite=True) as log:
        log.info("here")
    for name in ("log.txt", "metadata.json"):
        (log.path / name).unlink()
    for name in (".attempt-2", ".merge.lock", ".notata-00.tmp"):
        (log.path / name).touch()
    Logbook("a", base, overwrite=True).mark_complete()
    assert LogReader(log.path).meta["status"] == "complete"


def test_a_run_is_known_until_the_last_file_of_it_is_gone(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Logbook("a", base, params={"n": 1}) as log:
        log["other/x.dat"].write_text("x")
        log.array("T", [1])
    rename, left = os.rename, []

    def renamed(source: str, target: str) -> None:
        rename(source, target)
        left.append({name for name in os.listdir(log.path) if not name.startswith(".")})

    monkeypatch.setattr(os, "rename", renamed)
    Logbook("a", base, overwrite=True)
    assert left[0] == {"data", "log.txt", "other", "params.yaml"}
    assert all("log.txt" in names for names in left[:-1])
    assert left[-1] == set()


def test_of_many_processes_at_once_each_attempt_has_one(base: Path) -> None:
    Logbook("a", base)
    gate = base / "gate"
    code = f"""
    import os, sys, time
    from notata import Logbook
    from notata.errors import RunExistsError
    print("ready", flush=True)
    while not os.path.exists({str(gate)!r}):
        pass
    try:
        print(Logbook("a", {str(base)!r}, resume=True)._session.attempt.number)
    except RunExistsError as error:
        assert "just now" in str(error), error
        print("taken")
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    gate.touch()
    told = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    numbers = [int(number) for number in told if number != "taken"]
    assert sorted(numbers) == list(range(2, 2 + len(numbers)))
