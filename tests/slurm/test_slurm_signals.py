"""Signals and requeues on a real Slurm, by the ways of starting Python that batch scripts use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cluster import JOBS, Cluster
from simulated import ROOT
from test_slurm_scripts import MPIS, variables

from notata import LogReader, merge

PROGRAM = f"{JOBS}/warned.py"


def start(
    cluster: Cluster, base: Path, run_id: str, script: str, *options: str, **more: str
) -> tuple[str, Path]:
    run = base / f"log_{run_id}"
    output = f"--output={base}/{run_id}.out"
    job = cluster.submit("--time=5", output, *options, script=script, **more)
    assert cluster.wait_until((run / "artifacts/ready.json").exists, 120), run_id
    return job, run


@pytest.mark.parametrize(
    ("way", "options"),
    [
        ("exec python", ("--batch", "--signal=USR1")),
        ("srun python", ("--signal=USR1",)),
        ("exec srun python", ("--signal=USR1",)),
        ("trap : USR1; python", ("--signal=USR1",)),
    ],
)
def test_a_warning_reaches_the_program(
    cluster: Cluster, tmp_path: Path, way: str, options: tuple[str, ...]
) -> None:
    run_id = "warned"
    # Slurm 22.05 does not tell its jobs when they end: the line that the page has for that.
    page = (ROOT / "docs" / "howto" / "survive-limits.md").read_text()
    (limit,) = re.findall("export NOTATA_END_TIME=.*", page)
    script = f"{limit}\n{way} {PROGRAM} {tmp_path} {run_id}"
    if way.startswith("trap"):
        script += " & wait; wait"
    job, run = start(cluster, tmp_path, run_id, script)
    batch = ["--batch"] if way == "exec python" else ["--full"] if "trap" in way else []
    cluster.call("scancel", *batch, options[-1], job)
    cluster.wait(job)
    reader = LogReader(run)
    assert reader.meta["status"] == "complete"
    (told,) = reader.meta["signals"]
    assert (told["signal"], told["ends"]) == ("SIGUSR1", False)
    assert 0 < told["time_left"] <= 300
    assert 0 < reader.load_json("ready") <= 300
    assert "left its loop" in [message.message for message in reader.messages()]


@pytest.mark.parametrize("mpi", MPIS)
def test_a_warning_reaches_each_rank_under_mpiexec(
    cluster: Cluster, tmp_path: Path, mpi: str
) -> None:
    script = f"exec mpiexec -n 2 python {PROGRAM} {tmp_path} warned mpi"
    job, run = start(cluster, tmp_path, "warned", script, "--ntasks=2", **variables(MPIS[mpi]))
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    cluster.wait(job)
    reader = LogReader(run)
    assert reader.meta["status"] == "complete"
    for rank in reader.ranks:
        told = rank.record if rank.rank else reader.meta
        assert [(one["signal"], one["ends"]) for one in told["signals"]] == [("SIGUSR1", False)]
        assert "left its loop" in [message.message for message in rank.messages()]


@pytest.mark.parametrize("way", ["exec python", "srun python"])
def test_a_job_that_is_cancelled_notes_the_signal(
    cluster: Cluster, tmp_path: Path, way: str
) -> None:
    job, run = start(cluster, tmp_path, "ended", f"{way} {PROGRAM} {tmp_path} ended")
    cluster.call("scancel", job)
    cluster.wait(job)
    meta = LogReader(run).meta
    assert meta["status"] == "initialized"  # `notata reconcile` knows more
    assert [(told["signal"], told["ends"]) for told in meta["signals"]] == [("SIGTERM", True)]


def test_a_requeued_job_goes_on_in_its_run(cluster: Cluster, tmp_path: Path) -> None:
    script = f"exec python {PROGRAM} {tmp_path} again"
    job, run = start(cluster, tmp_path, "again", script, "--requeue")
    cluster.call("scontrol", "requeue", job)
    assert cluster.wait_until(lambda: LogReader(run).meta["status"] == "complete", 180)
    cluster.wait(job)
    reader = LogReader(run)
    assert [entry["job"] for entry in reader.meta["attempts"]] == [job, job]
    assert [entry["status"] for entry in reader.meta["attempts"]] == ["failed", "complete"]
    told = reader.meta["attempts"][0]["failure_reason"]
    assert told == "received SIGTERM and did not say how it ended; attempt 2 went on"
    said = [message.message for message in reader.messages()]
    assert said.index("restart 0") < said.index("Logbook resumed: attempt 2")
    assert said.index("Logbook resumed: attempt 2") < said.index("restart 1")


STEPS = 8


@pytest.fixture(scope="module")
def requeued(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, Path]]:
    """By MPI: a job of four ranks on two nodes that was started again half way, and its run."""
    found = {}
    for name, mpi in MPIS.items():
        base = tmp_path_factory.mktemp(f"requeued-{name}")
        srun = f"srun --kill-on-bad-exit=1 --mpi={mpi.plugin}"
        options = ("-N2", "-n4", "--ntasks-per-node=2", "--requeue", "--time=5")
        job = cluster.submit(
            *(*options, "--open-mode=append", f"--output={base}/job.out"),
            script=f"{srun} python {JOBS}/stepping.py {base} {STEPS}",
            **variables(mpi),
        )
        found[name] = job, base / "log_stepping"
    for job, run in found.values():
        marks = [run.parent / f"half-way.{rank}" for rank in range(4)]
        came = cluster.wait_until(lambda marks=marks: all(mark.exists() for mark in marks), 120)
        assert came, (run.parent / "job.out").read_text()
        cluster.call("scontrol", "requeue", job)
    for _, run in found.values():
        ended = cluster.wait_until(lambda run=run: LogReader(run).meta["status"] == "complete", 180)
        assert ended, (run.parent / "job.out").read_text()
    cluster.wait(*(job for job, _ in found.values()))
    return found


@pytest.mark.parametrize("mpi", MPIS)
def test_ranks_of_a_requeued_job_go_on_in_its_run(
    requeued: dict[str, tuple[str, Path]], mpi: str
) -> None:
    job, run = requeued[mpi]
    reader = LogReader(run)
    first, second = reader.meta["attempts"]
    assert first["job"] == second["job"] == job
    assert first["status"] != "complete"
    assert second["status"] == "complete"
    assert reader.meta["scheduler"]["restart_count"] == 1
    assert (reader.meta["parallel"]["size"], len(reader.meta["parallel"]["hosts"])) == (4, 2)
    for rank in reader.ranks:
        said = [message.message for message in rank.messages()]
        begun = [text for text in said if text.startswith("restart ")]
        assert begun == ["restart 0 from step 0", "restart 1 from step 5"]
        assert sum(text.startswith("Saved array T_") for text in said) == STEPS
    resumed = [message.message for message in reader.messages() if "resumed" in message.message]
    assert resumed == ["Logbook resumed: attempt 2"]
    for _ in ("as pieces", "merged"):
        for step in range(1, STEPS + 1):
            saved = LogReader(run).load_array(f"T_{step}")
            assert list(saved) == [10 * step + rank for rank in range(4) for _ in range(2)]
        merge(run)
