"""A time limit on a real Slurm, by each way of starting Python in a batch script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from cluster import JOBS, Cluster
from test_slurm_scripts import MPIS, variables

from notata import LogReader
from notata.outcomes import survey
from notata.reconciling import reconcile

PROGRAM = f"{JOBS}/limited.py"


class Way(NamedTuple):
    """How a batch script starts Python; `{}` is the program and its arguments."""

    script: str
    mpi: str | None = None
    # Whether it has time to note the signal. A batch script that is no `exec` ends at once, and
    # Slurm then kills what it had started; whether that is before the note is chance.
    notes: bool = True

    @property
    def size(self) -> int:
        return 1 if self.mpi is None else 2


WAYS = {
    "exec": Way("exec python {}"),
    "child": Way("python {}\ntrue", notes=False),
    "wrapper": Way("bash {folder}/wrapper.sh {}\ntrue", notes=False),
    "trap": Way("trap : TERM\npython {} & wait; wait"),
    "srun": Way("srun python {}\ntrue"),
    "exec_srun": Way("exec srun python {}"),
    "mpiexec_mpich": Way("exec mpiexec -n 2 python {} mpi", "mpich"),
    # Open MPI's ranks on other nodes are killed with their daemon.
    "mpiexec_openmpi": Way("exec mpiexec -n 2 python {} mpi", "openmpi", notes=False),
    "srun_mpich": Way("srun --mpi=pmi2 python {} mpi\ntrue", "mpich"),
    "srun_openmpi": Way("srun --mpi=pmix python {} mpi\ntrue", "openmpi"),
}


@pytest.fixture(scope="module")
def limited(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, Path]]:
    """Jobs that have met their limits, all at once: the shortest limit is a minute."""
    base = tmp_path_factory.mktemp("limits")
    (base / "wrapper.sh").write_text('#!/bin/bash\npython "$@"\ntrue\n')
    jobs = {}
    for name, way in WAYS.items():
        script = way.script.replace("{folder}", str(base)).format(f"{PROGRAM} {base} {name}")
        nodes = ["--nodes=2", "--ntasks-per-node=1"] if way.mpi else []
        more = variables(MPIS[way.mpi]) if way.mpi else {}
        output = f"--output={base}/{name}.out"
        jobs[name] = cluster.submit("--time=1", output, *nodes, script=script, **more)
    for name in WAYS:
        assert cluster.wait_until((base / f"{name}.0").exists, 60), (
            base / f"{name}.out"
        ).read_text()
    cluster.wait(*jobs.values(), seconds=300)
    return {name: (job, base / f"log_{name}") for name, job in jobs.items()}


@pytest.mark.parametrize("name", WAYS)
def test_a_time_limit_is_noted_and_nothing_is_lost(
    limited: dict[str, tuple[str, Path]],
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    for variable in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(variable, cluster.environment()[variable])
    (job, path), way = limited[name], WAYS[name]
    run = LogReader(path)
    assert run.size == way.size
    for rank in range(way.size):
        steps = [int(line) for line in (path.parent / f"{name}.{rank}").read_text().split()]
        assert len(steps) > 50
        said = [m.message for m in run.ranks[rank].messages() if m.message.startswith("step")]
        assert said[: len(steps)] == [f"step {step}" for step in steps]
        assert len(said) <= len(steps) + 1
        assert run.ranks[rank].load_json("last")["step"] - steps[-1] in (0, 1)
        record = run.ranks[rank].record if rank else run.meta
        noted = [(note["signal"], note["ends"]) for note in record.get("signals", [])]
        assert noted == [("SIGTERM", True)] or (noted == [] and not way.notes), record
    assert run.meta["status"] == "initialized"  # of a job's end, Slurm knows more
    (outcome,) = survey(path).outcomes
    assert outcome.state == "failed"
    assert re.fullmatch(rf"TIMEOUT \(Slurm {job}, n[\d,\[\]-]+\)", str(outcome.reason))
    reconcile(path)
    assert LogReader(path).meta["status"] == "failed"
    assert LogReader(path).meta["failure_reason"] == outcome.reason
