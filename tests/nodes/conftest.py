"""The machines of two nodes, started once for all tests of this folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import LINUX, NFS, Gluster, Machine

# They are started on the nodes; collecting them for their doctests would run them here.
collect_ignore_glob = ["programs/*"]

# Set by `make test-nfs`: where these tests are asked for, they aren't skipped.
_NEEDED = "NOTATA_NEED_NODES" in os.environ

# Each is played by a machine of its own, at the same time as the others. The trials of the table
# take the most time, so that two machines share them.
PLAYED = {
    "nfs": (
        NFS,
        ["parallel", "ranks", "overwrite", "resumed", "full", "away", "race=20", "table=5"],
    ),
    "nfs_besides": (
        NFS,
        [
            *("nolock", "doctor", "doctor_nolock", "holder"),
            *("together=2", "disturbed=2", "table=5"),
        ],
    ),
    "gluster": (
        Gluster,
        [
            *("parallel", "ranks", "overwrite", "resumed", "doctor"),
            *("holder", "race=20", "together=3", "disturbed=3", "table=10"),
        ],
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip them where nobody asked for minutes of work; else let them wait for their machines."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(1100))
            item.add_marker(pytest.mark.xdist_group("nodes"))  # which they share
            if not _NEEDED:
                item.add_marker(pytest.mark.skip(reason="two nodes take minutes: make test-nfs"))


@pytest.fixture(scope="session")
def machines() -> Iterator[dict[str, Machine]]:
    """All machines, started at once."""
    missing = [name for name in ("glusterfsd", "glusterfs", "mkfs.ext4") if not shutil.which(name)]
    missing += [] if LINUX.exists() else [str(LINUX)]
    if missing:
        pytest.fail(f"there is no {', no '.join(missing)}: run make test-nfs, which brings them")
    playing: dict[str, Machine] = {}
    try:
        for name, (kind, steps) in PLAYED.items():
            playing[name] = kind(steps)
            playing[name].start()
        yield playing
    finally:
        for machine in playing.values():
            machine.stop()


@pytest.fixture(scope="session")
def nfs(machines: dict[str, Machine]) -> Machine:
    """Two clients of the kernel's NFS server."""
    return machines["nfs"]


@pytest.fixture(scope="session")
def nfs_besides(machines: dict[str, Machine]) -> Machine:
    """Two more, where what asks for other mounts is played."""
    return machines["nfs_besides"]


@pytest.fixture(scope="session")
def gluster(machines: dict[str, Machine]) -> Machine:
    """Two clients of a GlusterFS server."""
    return machines["gluster"]
