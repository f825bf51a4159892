"""`notata doctor` on several ranks, and on ranks that take themselves for several nodes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.mpi

BETWEEN = [
    "fresh files between nodes",
    "clocks between nodes",
    "locks between nodes",
    "appends between nodes",
    "exclusive create between nodes",
]
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
# Each rank on a node of its own, or two ranks a node, by host name; $n is the node's number.
ON_NODES = 'n=$(( ${PMI_RANK:-$OMPI_COMM_WORLD_RANK} %% %d )); hostname node$n; %s exec "$@"'


def nodes(count: int, setup: str = "") -> Callable[[list[str]], list[str]]:
    """Start each rank under the host name of one of so many nodes."""
    if subprocess.run(["unshare", "-u", "-m", "true"], check=False).returncode != 0:
        pytest.skip("needs the right to make namespaces")
    script = ON_NODES % (count, setup)
    return lambda command: ["unshare", "-u", "-m", "sh", "-ec", script, "sh", *command]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "examined").mkdir()
    return tmp_path / "examined"


def rows_of(done: Any, folder: Path, status: int) -> dict[str, dict[str, str]]:
    """The rows of the one document that was printed, if the job ended as it should."""
    assert (done.status == 0) == (status == 0), done.output
    assert done.output.count('"checks"') == 1, done.output
    assert os.listdir(folder) == []
    text = done.output[done.output.index("{\n") : done.output.rindex("\n}") + 2]
    return {row["name"]: row for row in json.loads(text)["checks"]}


def test_ranks_of_one_node(launch, folder):
    rows = rows_of(launch(2, "doctor", "--json", folder), folder, 0)
    flavour = launch.flavour
    assert f"by {flavour.rank_variable} ({flavour.launcher})" in rows["ranks"]["finding"]
    assert "rank 0 of 2" in rows["ranks"]["finding"]
    assert rows["MPI"]["finding"].startswith(flavour.library)
    assert rows["MPI"]["finding"].endswith(" agrees: rank 0 of 2")
    assert "all 2 ranks that were asked are on" in rows["nodes"]["finding"]
    assert not set(BETWEEN) & set(rows)


@pytest.mark.parametrize(("ranks", "count"), [(2, 2), (3, 3), (3, 2)])
def test_ranks_of_several_nodes(launch, folder, ranks, count):
    done = launch(ranks, "doctor", "--json", folder, wrapper=nodes(count))
    rows = rows_of(done, folder, 0)
    names = ", ".join(f"node{number}" for number in range(count))
    assert rows["nodes"]["finding"] == f"{count} nodes share it: {names}"
    assert [rows[name]["verdict"] for name in BETWEEN] == ["ok"] * 5
    turns = 60 // count * count
    assert rows["locks between nodes"]["finding"].startswith(f"{turns} turns of {count} processes")
    assert f"all {2 * turns} lines" in rows["appends between nodes"]["finding"]


def mounted(count: int, mounts: list[Path], folder: Path) -> Callable[[list[str]], list[str]]:
    """Give each node a mount of its own at the same path."""
    places = " ".join(map(str, mounts))
    bind = f"m=$(echo {places} | cut -d' ' -f$((n + 1))); mount --bind $m {folder};"
    return nodes(count, bind)


@pytest.mark.parametrize(("kind", "held"), [("local", False), ("shared", True)])
def test_two_mounts_of_one_file_system(launch, folder, fuse_mount, kind, held):
    wrapper = mounted(2, [fuse_mount(kind), fuse_mount(kind)], folder)
    done = launch(2, "doctor", "--json", folder, wrapper=wrapper, check=False)
    rows = rows_of(done, folder, 0 if held else 1)
    # Its type can't tell whether a FUSE server has locks; having tried them can.
    assert "within one mount only" in rows["file system"]["finding"]
    assert "within one mount only" in rows["nodes"]["finding"]
    assert rows["file system"]["verdict"] == ("warn" if held else "bad")
    assert rows["locks on this node"]["verdict"] == "ok"
    row = rows["locks between nodes"]
    assert row["verdict"] == ("ok" if held else "bad"), row
    if not held:
        words = row["finding"].split()
        assert int(words[words.index("in") + 1].rstrip(",")) > 0  # by exclusive create
        assert int(words[words.index("journal") - 2]) > 0
        assert "rebuild_index()" in row["remedy"]
    assert rows["exclusive create between nodes"]["verdict"] == "ok"


def test_a_folder_that_is_not_shared(launch, folder, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    wrapper = mounted(2, [tmp_path / "a", tmp_path / "b"], folder)
    done = launch(2, "doctor", "--json", folder, wrapper=wrapper, check=False, NOTATA_GRACE="2")
    rows = rows_of(done, folder, 1)
    assert rows["nodes"]["verdict"] == "bad"
    assert "of 2 ranks, 1 left no file here within 2 s" in rows["nodes"]["finding"]
    assert "that all nodes share" in rows["nodes"]["remedy"]
    assert os.listdir(tmp_path / "a") == os.listdir(tmp_path / "b") == []


def test_a_node_whose_clock_is_ahead(mpich, folder):
    if not os.path.exists(FAKETIME):
        pytest.skip("needs Debian's faketime")
    setup = f'[ $n = 0 ] || export LD_PRELOAD={FAKETIME} FAKETIME="+90s";'
    done = mpich(2, "doctor", "--json", folder, wrapper=nodes(2, setup), check=False)
    rows = rows_of(done, folder, 1)
    assert rows["clock"]["verdict"] == "ok"  # rank 0's own
    row = rows["clocks between nodes"]
    assert row["verdict"] == "bad"
    assert "behind that of node1" in row["finding"]
    assert rows["locks between nodes"]["verdict"] == "ok"


def test_open_mpi_under_mpichs_mpiexec(mpich, openmpi, folder):
    done = mpich(
        2, "doctor", "--json", folder, python=openmpi.flavour.python, check=False, NOTATA_GRACE="2"
    )
    rows = rows_of(done, folder, 1)
    assert rows["MPI"]["verdict"] == "bad"
    assert "started 2 processes" in rows["MPI"]["finding"]
    assert "mpiexec that belongs to Open MPI" in rows["MPI"]["remedy"]


def test_mpich_under_open_mpis_mpiexec(mpich, openmpi, folder):
    done = openmpi(2, "doctor", "--json", folder, python=mpich.flavour.python, check=False)
    rows = rows_of(done, folder, 1)
    assert rows["MPI"]["verdict"] == "bad"
    assert "MPI doesn't start here" in rows["MPI"]["finding"]
    assert rows["nodes"]["verdict"] == "ok"  # they still find each other by files


def test_a_job_that_is_ended_leaves_nothing(mpich, folder, tmp_path):
    done = mpich(
        2,
        "doctor",
        "--json",
        folder,
        wrapper=lambda command: ["timeout", "-s", "TERM", "2.5", *nodes(2)(command)],
        check=False,
    )
    assert done.status != 0
    assert os.listdir(folder) == []
