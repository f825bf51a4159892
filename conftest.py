"""What every test gets: no launcher; and for the examples in the docstrings, runs to work on."""

from __future__ import annotations

import os

import pytest

from notata.topology import LAUNCHERS


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process one that no launcher started, also where the tests run inside a job."""
    names = {name for name in os.environ if name.startswith("NOTATA_")}
    for launcher in LAUNCHERS:
        names.update((launcher.rank, *launcher.size, *launcher.launch, launcher.within))
    for name in names - {""}:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def where_examples_run(
    no_launcher: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give each doctest a folder of its own with a run and an experiment, and an open run."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    monkeypatch.chdir(request.getfixturevalue("tmp_path"))
    request.getfixturevalue("doctest_namespace").update(demo())


def demo() -> dict[str, object]:
    """Write a run and an experiment below the working directory, and open a run."""
    import numpy as np

    from notata import Experiment, Logbook, LogReader

    with Logbook("demo", params={"omega": 2.0}) as run:
        run.array("T", np.arange(12.0).reshape(4, 3))
        run.warning("too hot")
    sweep = Experiment("sweep")
    for omega in (1.0, 2.0):
        with sweep.add(omega=omega) as run:
            run.json("metrics", {"energy": omega**2})
    return {"log": Logbook("open"), "exp": sweep, "Logbook": Logbook, "LogReader": LogReader}
