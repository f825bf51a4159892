"""Jobs that end in every way there is, and what is known of their runs afterwards."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cluster import JOBS, Cluster

from notata import slurm
from notata.jobs import JobId
from notata.outcomes import survey
from notata.reconciling import reconcile

# What is to be said of each run; {job} is its job's id.
REASONS = {
    "exit": r"FAILED, exit status 1 \(Slurm {job}, n\d\)",
    "sigkill": r"FAILED, exit status 9 or 137, which is SIGKILL \(Slurm {job}, n\d\)",
    "silent": r"ended without a word, though its job COMPLETED \(Slurm {job}, n\d\)",
    "cancelled": r"CANCELLED by 0 \(Slurm {job}, n\d\)",
    "limit": r"TIMEOUT \(Slurm {job}, n\d\)",
    "preempted": r"PREEMPTED \(Slurm {job}, n5\)",
    "node": r"NODE_FAIL \(Slurm {job}, n5\)",
    "raises": "diverged at step 7",
}


class Fates(NamedTuple):
    """The experiment whose runs met their fates, and their jobs."""

    folder: Path
    jobs: dict[str, str]

    def run(self, fate: str) -> Path:
        return self.folder / "runs" / f"log_fates_fate_{fate}"

    def metadata(self, fate: str) -> dict[str, Any]:
        return dict(json.loads((self.run(fate) / "metadata.json").read_text()))


@pytest.fixture(scope="module")
def fates(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fates]:
    """Jobs that have met their fates, one that is still running and one that waits."""
    base = tmp_path_factory.mktemp("fates")
    found = Fates(base / "fates", {})

    def submit(fate: str, *options: str) -> None:
        script = f"python {JOBS}/fate.py {base} {fate}"
        output = f"--output={base}/{fate}.out"
        found.jobs[fate] = cluster.submit(*options, output, script=script)

    def wait_for(fate: str) -> None:
        assert cluster.wait_until((found.run(fate) / "artifacts/metrics.json").exists, 120), fate

    submit("limit", "--time=1")
    submit("preempted", "--partition=fragile", "--exclusive", "--no-requeue")
    submit("requeued", "--requeue")
    submit("cancelled")
    submit("running")
    for fate in ("exit", "sigkill", "silent", "raises", "well"):
        submit(fate)
    wait_for("preempted")
    usurper = cluster.submit(
        "--partition=urgent", "--exclusive", "--output=/dev/null", script="sleep 1"
    )
    wait_for("cancelled")
    cluster.call("scancel", found.jobs["cancelled"])
    wait_for("requeued")
    cluster.call("scontrol", "requeue", found.jobs["requeued"])
    cluster.wait(usurper, found.jobs["preempted"])
    submit("node", "--partition=fragile", "--no-requeue")
    wait_for("node")
    cluster.kill_node("n5")
    cluster.wait(*(job for fate, job in found.jobs.items() if fate != "running"))
    yield found
    cluster.call("scancel", found.jobs["running"])


@pytest.fixture
def in_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster as this process's own."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment()[name])
    return cluster


def notata(cluster: Cluster, *words: object, status: int = 0) -> str:
    done = subprocess.run(
        ["notata", *map(str, words)],
        env=cluster.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_status_tells_each_fate_before_anything_is_written(
    fates: Fates, in_cluster: Cluster
) -> None:
    before = {fate: fates.metadata(fate) for fate in fates.jobs}
    found = {
        outcome.run_id.removeprefix("fates_fate_"): outcome
        for outcome in survey(fates.folder).outcomes
    }
    states = {fate: outcome.state for fate, outcome in found.items()}
    assert states == dict.fromkeys(REASONS, "failed") | {
        "well": "complete",
        "requeued": "complete",
        "running": "running",
    }
    for fate, pattern in REASONS.items():
        assert re.fullmatch(pattern.format(job=fates.jobs[fate]), str(found[fate].reason))
    assert {fate: fates.metadata(fate) for fate in fates.jobs} == before
    text = notata(in_cluster, "status", fates.folder, status=1)
    assert "Known from the runs, and from sacct for those that didn't say." in text
    assert "7 runs never got to say so: `notata reconcile" in text


@pytest.mark.parametrize(
    ("programs", "exit_reason"),
    [
        (("squeue", "scontrol"), "FAILED"),
        (("scontrol",), "FAILED, exit status 1"),
    ],
)
def test_a_site_without_accounting_still_gets_an_answer(
    programs: tuple[str, ...],
    exit_reason: str,
    fates: Fates,
    in_cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in programs:
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = survey(fates.folder)
    assert found.answer.source == programs[0]
    assert found.answer.refusals[0] == "sacct: No such file or directory"
    outcomes = {outcome.run_id.removeprefix("fates_fate_"): outcome for outcome in found.outcomes}
    assert outcomes["running"].state == "running"
    assert outcomes["node"].state == "failed"
    assert str(outcomes["exit"].reason).startswith(f"{exit_reason} (Slurm {fates.jobs['exit']}, n")
    assert str(outcomes["limit"].reason).startswith("TIMEOUT (Slurm")


def test_a_machine_without_slurm_goes_by_signs_of_life(
    fates: Fates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {o.run_id.removeprefix("fates_fate_"): o for o in survey(fates.folder).outcomes}
    assert (found["exit"].state, found["well"].state) == ("running", "complete")
    monkeypatch.setenv("NOTATA_LOST_AFTER", "0.01")
    found = {o.run_id.removeprefix("fates_fate_"): o for o in survey(fates.folder).outcomes}
    assert (found["exit"].state, found["well"].state) == ("lost", "complete")
    assert reconcile(fates.folder).written == []


def test_reconcile_writes_what_slurm_knows_and_nothing_else(
    fates: Fates, in_cluster: Cluster
) -> None:
    untouched = {
        fate: (fates.run(fate) / "metadata.json").read_bytes()
        for fate in ("well", "raises", "requeued", "running")
    }
    told = json.loads(notata(in_cluster, "reconcile", "--json", fates.folder))
    assert len(told["marked"]) == 7
    assert (told["source"], told["skipped"], told["lost"]) == ("sacct", [], [])
    for fate, pattern in REASONS.items():
        meta = fates.metadata(fate)
        assert meta["status"] == "failed"
        assert re.fullmatch(pattern.format(job=fates.jobs[fate]), meta["failure_reason"])
        assert meta["runtime_sec"] >= 0
        assert meta["end_time"] >= meta["start_time"]
    for fate, data in untouched.items():
        assert (fates.run(fate) / "metadata.json").read_bytes() == data
    with (fates.folder / "index.csv").open(newline="") as file:
        rows = {row["fate"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {*REASONS, "well", "requeued"}
    for fate, row in rows.items():
        meta = fates.metadata(fate)
        assert row["run_status"] == meta["status"]
        assert row["failure_reason"] == (meta.get("failure_reason") or "")
        assert row["length"] == str(len(fate))
    # Once more, and nothing happens.
    before = {path: path.stat().st_mtime_ns for path in fates.folder.rglob("*.*")}
    told = json.loads(notata(in_cluster, "reconcile", "--json", fates.folder))
    assert (told["marked"], told["rows"]) == ([], None)
    after = {path: path.stat().st_mtime_ns for path in fates.folder.rglob("*.*")}
    beating = {fates.run("running") / "metadata.json", fates.folder / ".reconcile.lock"}
    assert {k: v for k, v in after.items() if k not in beating} == {
        k: v for k, v in before.items() if k not in beating
    }
    status = notata(in_cluster, "status", fates.folder, status=1)
    assert "never got to say so" not in status


def test_a_requeued_job_goes_on_in_its_run(fates: Fates) -> None:
    meta = fates.metadata("requeued")
    assert meta["status"] == "complete"
    assert meta["scheduler"]["restart_count"] == 1
    assert [attempt["status"] for attempt in meta["attempts"]] == ["failed", "complete"]
    assert {attempt["job"] for attempt in meta["attempts"]} == {fates.jobs["requeued"]}
    log = (fates.run("requeued") / "log.txt").read_text()
    assert log.index("restart 0") < log.index("restart 1")
    assert os.path.exists(fates.run("requeued") / ".attempt-2")


def test_whether_jobs_are_gone_is_known(fates: Fates, in_cluster: Cluster) -> None:
    jobs = fates.jobs
    names = [jobs["exit"], jobs["running"], jobs["requeued"], "999999"]
    asked = [JobId(name, "notata", os.getuid()) for name in names]
    # The accounting may hear of a later attempt's end after it has told of its beginning.
    in_cluster.wait_until(lambda: bool(slurm.ends(asked)[asked[2]].over), 60)
    told = [(end.over, end.settled) for end in slurm.ends(asked).values()]
    assert told == [(True, True), (False, False), (True, True), (None, False)]


@pytest.mark.parametrize("programs", [("squeue", "scontrol"), ("scontrol",)])
def test_a_queue_proves_that_jobs_of_its_own_cluster_are_gone(
    programs: tuple[str, ...],
    fates: Fates,
    in_cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in programs:
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path))
    running = fates.jobs["running"]
    asked = [
        JobId(name, cluster, os.getuid())
        for name in (running, "999999")
        for cluster in ("notata", "elsewhere", "")
    ]
    # Without a cluster's name a job is looked for, too, but its absence proves nothing.
    told = [end.over for end in slurm.ends(asked).values()]
    assert told == [False, None, False, True, None, None]


def test_provenance_names_the_job(fates: Fates, cluster: Cluster) -> None:
    meta = fates.metadata("well")
    assert meta["scheduler"] == {
        "name": "slurm",
        "job_id": fates.jobs["well"],
        "nodes": meta["host"],
        "partition": "main",
        "account": "root",
        "submit_dir": os.getcwd(),
        "cluster": "notata",
    }
    assert meta["host"] in cluster.steady
    assert meta["provenance"]["command"][-1] == "well"
