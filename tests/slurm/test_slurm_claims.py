"""Sweeps by claims on a real Slurm: what was killed is done again; arrays that a site limits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cluster import ARRAY_TASKS, JOBS, Cluster

from notata import Experiment, slurm
from notata.jobs import JobId
from notata.outcomes import again, survey

POINTS, TASKS, KILLED, FAILS = 6, 4, 2, 4  # as programs/claimed.py has them


@pytest.fixture
def in_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster as this process's own."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment()[name])
    return cluster


def meta_of(base: Path, k: int) -> dict[str, Any]:
    return dict(json.loads((base / f"sweep/runs/log_sweep_k_{k}/metadata.json").read_text()))


def test_a_claimed_point_whose_task_was_killed_is_done_by_the_resubmission(
    in_cluster: Cluster, tmp_path: Path
) -> None:
    def submit(tasks: str) -> str:
        job = in_cluster.submit(
            f"--array={tasks}",
            f"--output={tmp_path}/%A_%a.out",
            script=f"exec python {JOBS}/claimed.py {tmp_path} {TASKS - 1}",
        )
        in_cluster.wait(job)
        return job

    first = submit(f"1-{TASKS}")
    found = survey(tmp_path / "sweep")
    states = {int(o.run_id.rpartition("_")[2]): o for o in found.outcomes}
    assert {k: o.state for k, o in states.items()} == dict.fromkeys(range(POINTS), "complete") | {
        KILLED: "failed",
        FAILS: "failed",
    }
    where = rf"FAILED, .*SIGKILL \(Slurm {first}_{states[KILLED].task}, n\d\)"
    assert re.fullmatch(where, str(states[KILLED].reason))
    assert meta_of(tmp_path, KILLED)["status"] == "initialized"  # nobody wrote it down
    tasks = again(found).tasks
    assert len(tasks) == 2
    assert states[KILLED].task in tasks
    done = {k: meta_of(tmp_path, k) for k in range(POINTS) if k not in (KILLED, FAILS)}

    second = submit(",".join(map(str, tasks)))
    assert "".join(file.read_text() for file in tmp_path.glob(f"{second}_*.out")) == ""
    for k in (KILLED, FAILS):
        meta = meta_of(tmp_path, k)
        assert meta["status"] == "complete"
        assert len(meta["attempts"]) == 2
        assert meta["scheduler"]["array_job_id"] == second
    assert {k: meta_of(tmp_path, k) for k in done} == done  # the others were left alone
    rows = Experiment("sweep", tmp_path).rows()
    found_rows = sorted((row["k"], row["run_status"], row["square"]) for row in rows)
    assert found_rows == [(k, "complete", k**2) for k in range(POINTS)]
    assert again(survey(tmp_path / "sweep")).tasks == []


def test_what_a_job_writes_as_its_last_is_not_taken_from_it(
    in_cluster: Cluster, tmp_path: Path
) -> None:
    """Accounting calls it over at once; its process has KillWait, five seconds here, to end."""
    script = f"exec python {JOBS}/stubborn.py {tmp_path}"
    name = in_cluster.submit("--output=/dev/null", script=script)
    assert in_cluster.wait_until(lambda: (tmp_path / "begun").exists(), 60)
    log, job = tmp_path / "sweep/runs/log_sweep_k_0/log.txt", JobId(name, "notata", os.getuid())
    in_cluster.call("scancel", name)
    seen = []
    while not (seen and seen[-1][1].settled) and len(seen) < 600:
        accounted = slurm.ask([name]).jobs[name].newest.over
        seen.append((accounted, slurm.ends([job])[job]))
    written = log.read_text()
    assert any(accounted and not end.over for accounted, end in seen)
    assert seen[-1][1].settled
    time.sleep(0.5)
    assert log.read_text() == written


def test_what_is_left_is_split_as_the_site_asks_and_each_part_is_taken(
    in_cluster: Cluster, tmp_path: Path
) -> None:
    """The site allows task ids to 1,000, and 200 tasks in an array."""
    for number, log in enumerate(Experiment("sweep", tmp_path).sweep({"k": range(1005)})):
        log.mark_complete()
        if number == 2:
            break

    def called(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=in_cluster.environment(), capture_output=True, text=True, check=False
        )

    done = called("notata", "failed", "--array", str(tmp_path / "sweep"))
    specs = ["3-202", "203-402", "403-602", "603-802", "803-1000"]
    assert (done.returncode, done.stdout.split()) == (1, specs), done.stderr
    assert "tasks 1001-1004 are left out: MaxArraySize is 1001 here" in done.stderr
    assert ARRAY_TASKS == 200

    hold = ("sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap=true")
    refused = called(*hold, "--array=3-203")
    assert "Invalid job array specification" in refused.stderr
    for spec in specs:
        taken = called(*hold, f"--array={spec}")
        assert taken.returncode == 0, taken.stderr
        assert called("scancel", taken.stdout.strip()).returncode == 0
