"""Job arrays whose tasks share one experiment."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import yaml
from cluster import JOBS, Cluster

from notata.reader import ExperimentReader

TASKS = 200


def test_an_array_of_200_tasks_shares_an_experiment(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit(
        f"--array=1-{TASKS}%16",
        "--nodes=1",
        f"--output={tmp_path}/%a.out",
        script=f"exec python {JOBS}/sweep.py {tmp_path}",
    )
    cluster.wait(job)
    outputs = "".join(file.read_text() for file in tmp_path.glob("*.out"))
    assert outputs == ""
    with (tmp_path / "sweep" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["task"]) for row in rows) == list(range(1, TASKS + 1))
    assert len({row["run_id"] for row in rows}) == TASKS
    runs = {run.run_id: run for run in ExperimentReader(tmp_path / "sweep")}
    assert len(runs) == TASKS
    nodes = set()
    for row in rows:
        assert None not in row
        path = Path(runs[row["run_id"]].path)
        params = yaml.safe_load((path / "params.yaml").read_text())
        metrics = json.loads((path / "artifacts" / "metrics.json").read_text())
        meta = json.loads((path / "metadata.json").read_text())
        task = params["task"]
        assert (row["task"], row["name"]) == (str(task), params["name"])
        assert params["name"] == f'task "{task}", of\nmany'
        assert {k: v for k, v in row.items() if k == "square" or k.startswith("odd_")} == {
            **dict.fromkeys(("odd_0", "odd_1", "odd_2"), ""),
            **{name: str(value) for name, value in metrics.items()},
        }
        assert metrics["square"] == task**2
        assert (row["status"], row["run_status"]) == ("complete", "complete")
        assert (row["start_time"], meta["status"]) == (meta["start_time"], "complete")
        nodes.update((path / "log.txt").read_text().split("on ")[1].split()[:1])
    assert nodes == set(cluster.steady)
