"""`notata doctor` as people start it on a cluster: by srun, with one rank on each of two nodes."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from cluster import Cluster
from test_slurm_scripts import MPIS, variables

# What is tried between nodes is tried by files alone, so that it needs no MPI that fits.
BETWEEN = [
    "nodes",
    "fresh files between nodes",
    "clocks between nodes",
    "locks between nodes",
    "appends between nodes",
    "exclusive create between nodes",
]


class Told(NamedTuple):
    """What `notata doctor` said, and the exit status of srun."""

    rows: dict[str, dict[str, Any]]
    status: int
    errors: str


@pytest.fixture(scope="module")
def told(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Told]:
    """By MPI, and the plugin that srun has for it: a job for each MPI, both at once."""
    base = tmp_path_factory.mktemp("doctor")
    jobs, files = [], {}
    for name, mpi in MPIS.items():
        script = ""
        for plugin in (mpi.plugin, "none"):
            folder = base / f"{name}-{plugin}"
            files[name, plugin] = folder
            (folder / "examined").mkdir(parents=True)
            doctor = f"python -m notata doctor --json {folder}/examined"
            script += f"srun -N2 -n2 --mpi={plugin} {doctor} > {folder}/out 2> {folder}/err\n"
            script += f"echo $? > {folder}/status\n"
        options = ("-N2", "-n2", "--time=5", f"--output={base}/{name}.out")
        jobs.append(cluster.submit(*options, script=script, **variables(mpi)))
    cluster.wait(*jobs)
    found = {}
    for key, folder in files.items():
        assert list((folder / "examined").iterdir()) == []
        errors = (folder / "err").read_text()
        assert (folder / "out").read_text().startswith("{"), errors
        rows = {row["name"]: row for row in json.loads((folder / "out").read_text())["checks"]}
        found[key] = Told(rows, int((folder / "status").read_text()), errors)
    return found


@pytest.mark.parametrize("name", MPIS)
def test_srun_with_the_right_mpi(told: dict[tuple[str, str], Told], name: str) -> None:
    rows, status, errors = told[name, MPIS[name].plugin]
    assert status == 0, errors
    assert [check for check in BETWEEN if rows[check]["verdict"] != "ok"] == []
    assert rows["nodes"]["finding"].startswith("2 nodes share it: n")
    assert "turns of 2 processes" in rows["locks between nodes"]["finding"]
    assert rows["ranks"]["finding"].startswith("rank 0 of 2 on n")
    assert rows["MPI"]["verdict"] == "ok"
    assert rows["MPI"]["finding"].endswith(" agrees: rank 0 of 2")


@pytest.mark.parametrize("name", MPIS)
def test_srun_that_starts_programs_of_one_rank_each(
    told: dict[tuple[str, str], Told], name: str
) -> None:
    rows, status, errors = told[name, "none"]
    assert status == 1, errors
    assert rows["MPI"]["verdict"] == "bad"
    assert rows["MPI"]["finding"].startswith("Slurm (srun) started 2 processes ")
    assert "would run 2 times, each alone" in rows["MPI"]["finding"]
    assert rows["MPI"]["remedy"].startswith(f"Start it with `srun --mpi={MPIS[name].plugin}`")
    assert [check for check in BETWEEN if rows[check]["verdict"] != "ok"] == []
