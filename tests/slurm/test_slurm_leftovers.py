"""What a task of a sweep leaves that ends between two points, on a real Slurm."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from cluster import JOBS, Cluster

POINTS, TASKS, ENDS = 12, 4, 2  # as programs/parting.py has them


def test_what_a_task_leaves_between_two_points_is_told_and_submitted_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    def submit(tasks: str) -> str:
        return cluster.submit(
            f"--array={tasks}",
            f"--output={tmp_path}/%A_%a.out",
            script=f"exec python {JOBS}/parting.py {tmp_path} static",
        )

    def told(*words: str) -> subprocess.CompletedProcess[str]:
        command = ("notata", *words, str(tmp_path / "sweep"))
        return subprocess.run(
            command, env=cluster.environment(), capture_output=True, text=True, check=False
        )

    def states() -> dict[str, int]:
        printed = told("status", "--json").stdout  # nothing before the first task has begun
        return dict(json.loads(printed)["states"]) if printed else {}

    first = submit(f"0-{TASKS - 1}")
    left = POINTS // TASKS - 1
    between = {"complete": POINTS - left, "waiting": left}
    assert cluster.wait_until(lambda: states() == between, 120), states()
    # It is at work, once the accounting knows of it: nothing is to be submitted again.
    assert cluster.wait_until(lambda: told("failed", "--array").stdout == "", 60)
    assert told("status").returncode == 0

    (tmp_path / "go").touch()
    cluster.wait(first)
    done = told("status", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    reason = "no run: FAILED, exit status 3"
    assert (done.returncode, found["source"]) == (1, "sacct")
    assert Counter(group["reason"] for group in found["reasons"]) == Counter([None, reason])
    assert found["states"] == {"complete": POINTS - left, "failed": left}
    assert found["tasks_without_run"] == {str(ENDS): f"{reason} (Slurm {first}_{ENDS})"}
    assert told("failed", "--array").stdout == f"{ENDS}\n"

    cluster.wait(submit(str(ENDS)))
    assert "".join(file.read_text() for file in tmp_path.glob("*.out")) == ""
    assert states() == {"complete": POINTS}
    assert (told("status").returncode, told("failed", "--array").stdout) == (0, "")
