"""Sweeps by slurm/sweep.py on a real Slurm: tasks that die, what is submitted again, requeues."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from cluster import JOBS, Cluster

from notata import Experiment, LogReader

ROOT = Path(__file__).parents[2]
MODES = ("static", "claim")
POINTS = [(omega, gamma) for omega in (1.0, 2.0, 4.0) for gamma in (0.1, 0.2, 0.4, 0.8)]


class Home:
    """A folder with a copy of slurm/, from which a sweep is submitted, round by round."""

    def __init__(self, cluster: Cluster, folder: Path, mode: str) -> None:
        shutil.copytree(ROOT / "slurm", folder / "slurm")
        self.cluster, self.folder = cluster, folder
        self.program = f"slurm/array.sbatch {JOBS}/faulty.py {mode}"
        self.round = 0

    def shell(self, command: str, *status: int) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.cluster.environment(ROUND=str(self.round)),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode in (status or (0,)), done.stderr
        return done.stdout.strip()

    def tasks(self) -> list[str]:
        """What is to be submitted again, a line an array."""
        return self.shell("notata failed sweep --array").splitlines()

    def complete(self) -> int:
        """How many points are complete, as `notata status` and the runs say."""
        told = json.loads(self.shell("notata status sweep --json", 0, 1))
        runs = (self.folder / "outputs/sweep/runs").glob("*/metadata.json")
        states = [json.loads(run.read_text())["status"] for run in runs]
        assert sum(told["states"].values()) == len(POINTS)
        assert told["states"].get("complete", 0) == states.count("complete")
        return states.count("complete")

    def output(self) -> str:
        files = sorted(self.folder.glob("*.out"))
        return "".join(f"{file.name}: {file.read_text()}" for file in files if file.stat().st_size)


def test_tasks_that_die_between_points_are_submitted_again_until_all_is_complete(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Nothing is reconciled, and nobody waits for silence."""
    static, claim = (Home(cluster, tmp_path / mode, mode) for mode in MODES)
    cluster.wait(*(home.shell(f"sbatch --parsable {home.program}") for home in (static, claim)))
    # Static: of its two points a task left one, or lost it, or it failed. Claim: each task had one
    # of twelve, and left the rest; one of these was lost, and one failed.
    assert (static.complete(), claim.complete()) == (8, 4), static.output() + claim.output()
    assert (static.tasks(), claim.tasks()) == (["1-3,5"], ["0-5"])

    static.round = claim.round = 1
    with cluster.limited(2):
        assert static.tasks() == ["1-2", "3,5"]
        jobs = static.shell(
            "notata failed sweep --array | while read tasks; do "
            f"sbatch --parsable --array=$tasks {static.program}; done"
        ).splitlines()
    assert len(jobs) == 2
    again = "sbatch --parsable --array=$(notata failed sweep --array)"
    cluster.wait(*jobs, claim.shell(f"{again} {claim.program}"))
    assert (static.complete(), claim.complete()) == (11, 12), static.output() + claim.output()
    assert (static.tasks(), claim.tasks()) == (["1"], [])

    static.round = 2
    cluster.wait(static.shell(f"{again} {static.program}"))
    assert static.complete() == 12, static.output()
    assert static.tasks() == []
    for home in (static, claim):
        assert home.output() == ""  # no task ended with an error
        rows = Experiment("sweep", home.folder / "outputs").rows()
        found = sorted((row["omega"], row["gamma"], row["run_status"]) for row in rows)
        assert found == [(*point, "complete") for point in POINTS]
    # Each point was done by its own task, whichever array that was of.
    assert {
        (point.params["omega"], point.params["gamma"]): point.meta["scheduler"]["array_task_id"]
        for point in map(LogReader, static.folder.glob("outputs/sweep/runs/*"))
    } == {point: place % 6 for place, point in enumerate(POINTS)}


def test_a_sweep_that_is_requeued_goes_on_where_it_was_stopped(
    cluster: Cluster, tmp_path: Path
) -> None:
    """One is taken from its node; the other is warned, and asks for another attempt itself."""

    def begun(mode: str) -> list[str]:
        file = tmp_path / f"{mode}.begun"
        return file.read_text().splitlines() if file.exists() else []

    output, program = f"--output={tmp_path}/%x.out", str(JOBS / "stopped.py")
    script = f"exec python {program} {tmp_path} static"
    taken = cluster.submit("--array=0", "--requeue", output, script=script)
    requeue = str(ROOT / "slurm/requeue.sbatch")
    warned = cluster.submit(output, "--signal=B:USR1@5", requeue, program, str(tmp_path), "claim")
    both = [f"0 {k}" for k in range(3)]
    assert cluster.wait_until(lambda: [begun(mode) for mode in MODES] == [both, both], 60)
    cluster.call("scontrol", "requeue", f"{taken}_0")
    cluster.call("scancel", "--batch", "--signal=USR1", warned)
    cluster.wait(taken, warned)
    for mode in MODES:
        assert begun(mode) == [*both, "1 2", "1 3", "1 4"]
        rows = Experiment(mode, tmp_path).rows()
        found = sorted((row["k"], row["run_status"], row["failure_reason"]) for row in rows)
        assert found == [(0, "failed", "diverged"), *((k, "complete", None) for k in range(1, 5))]
        metas = [LogReader(tmp_path / mode / f"runs/log_{mode}_k_{k}").meta for k in range(5)]
        attempts = [[each["status"] for each in meta.get("attempts", [])] for meta in metas]
        assert attempts == [[], [], ["failed", "complete"], [], []]
