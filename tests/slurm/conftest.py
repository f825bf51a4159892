"""One Slurm for all tests of this folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, NoSlurmError, give_up, missing

# They are started by jobs; collecting them for their doctests would run them here.
collect_ignore_glob = ["programs/*"]


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow for jobs that wait for Slurm's own delays, on a machine that is busy besides."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(400))
            item.add_marker(pytest.mark.xdist_group("slurm"))  # which they share


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster whose jobs find this Python, and notata, first."""
    why = missing()
    if why is None:
        cluster = Cluster(Path(tempfile.mkdtemp(prefix="notata-slurm-", dir="/tmp")))
        try:
            cluster.start()
        except NoSlurmError as error:
            why = str(error)
    if why is not None:
        give_up(f"no Slurm: {why}")
    yield cluster
    cluster.stop()
