"""A job that takes more memory than it asked for, where cgroups of version 1 can limit it.

The cluster of the other tests does without, since its nodes would share their cgroups with those of
any other such cluster on this machine. This one has nodes of names of its own.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import CONFIG, JOBS, Cluster, NoSlurmError, give_up, missing

from notata.outcomes import survey
from notata.reconciling import reconcile

MEMORY = Path("/sys/fs/cgroup/memory")


class LimitingCluster(Cluster):
    """A cluster whose jobs are killed when they take more memory than they asked for."""

    steady = (f"m{os.getpid()}a",)
    fragile = (f"m{os.getpid()}b",)
    config = CONFIG.replace("TaskPlugin=task/none", "TaskPlugin=task/cgroup").replace(
        "SelectTypeParameters=CR_CPU", "SelectTypeParameters=CR_CPU_Memory\nDefMemPerCPU=400"
    )
    more = {  # noqa: RUF012
        "cgroup.conf": "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n"
        "CgroupAutomount=no\nConstrainRAMSpace=yes\n"
    }

    def stop(self) -> None:
        super().stop()
        for node in self.nodes:
            for folder, _, _ in os.walk(MEMORY / f"slurm_{node}", topdown=False):
                os.rmdir(folder)


@pytest.fixture
def limiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Such a cluster, as this process's own."""
    if not (MEMORY / "cgroup.procs").exists() or not os.access(MEMORY, os.W_OK):
        pytest.skip("no memory cgroups of version 1 that one may write to")
    if missing() is not None:
        give_up(f"no Slurm: {missing()}")
    cluster = LimitingCluster(Path(tempfile.mkdtemp(prefix="notata-slurm-", dir="/tmp")))
    try:
        cluster.start()
    except NoSlurmError as error:
        give_up(f"Slurm can't limit memory here: {error}")
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment()[name])
    yield cluster
    cluster.stop()


def test_a_run_whose_job_was_out_of_memory_says_so(limiting: Cluster, tmp_path: Path) -> None:
    program = f"exec python {JOBS}/greedy.py {tmp_path}"
    job = limiting.submit("--mem=150", f"--output={tmp_path}/out", script=program)
    limiting.wait(job)
    run = tmp_path / "greedy/runs/log_greedy_mb_400"
    (outcome,) = survey(tmp_path / "greedy").outcomes
    assert json.loads((run / "metadata.json").read_text())["status"] == "initialized"
    assert outcome.state == "failed"
    reason = rf"OUT_OF_MEMORY \(Slurm {job}, {limiting.steady[0]}\)"
    assert re.fullmatch(reason, str(outcome.reason)), (tmp_path / "out").read_text()
    assert [o.run_id for o in reconcile(tmp_path / "greedy").written] == ["greedy_mb_400"]
    meta = json.loads((run / "metadata.json").read_text())
    assert (meta["status"], meta["failure_reason"]) == ("failed", outcome.reason)
