"""The floors of the code, what an import loads, and how long a module may be."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "notata").rglob("*.py"))
LONGEST = 350

# What only the function that needs it may load. A program that logs starts on thousands of ranks,
# and each file that is opened there costs a shared file system.
HEAVY = {"xxhash", "click", "filelock", "matplotlib", "mpi4py", "numpy", "pandas", "rich", "yaml"}

# Parts of the standard library, and of notata, that a program doesn't need until it reads, breaks,
# or is stuck.
LATE = {
    *("ast", "bz2", "ctypes", "csv", "datetime", "hashlib", "lzma", "multiprocessing", "random"),
    *("shutil", "socket", "subprocess", "tempfile", "traceback", "zipfile", "zlib"),
    *("notata.assembly", "notata.gather", "notata.rankfiles", "notata.reader", "notata.stacks"),
}


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the notata package that lies in a folder."""
    call = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", call, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def loaded_by(statement: str) -> set[str]:
    """Modules that a statement loads in a fresh interpreter."""
    code = (
        "import sys; before = set(sys.modules)\n"
        f"{statement}\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return set(done.stdout.split())


def test_rooms_import_from_lower_floors_only() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_from_a_higher_floor_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "notata", tmp_path / "notata")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "notata" / "errors.py").open("a") as module:
        module.write("\n\ndef upwards() -> None:\n    import notata.layout\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "notata.errors is not allowed to import notata.layout" in done.stdout


def test_a_module_without_a_floor_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "notata", tmp_path / "notata")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "notata" / "attic.py").touch()
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "notata.attic" in done.stdout


@pytest.mark.parametrize(
    "statement",
    [
        "import notata",
        "from notata import Logbook",
        "from notata import Experiment, LogReader, ExperimentReader",
    ],
)
def test_import_loads_the_standard_library_alone(statement: str) -> None:
    loaded = {name.partition(".")[0] for name in loaded_by(statement)}
    assert "notata" in loaded
    assert not loaded & HEAVY
    assert loaded - {"notata"} <= sys.stdlib_module_names


def test_a_logbook_loads_nothing_that_only_readers_and_accidents_need() -> None:
    assert not loaded_by("from notata import Logbook") & LATE


def test_the_package_alone_loads_next_to_nothing() -> None:
    """Not even `typing`, which takes longer than all the rest."""
    assert loaded_by("import notata") <= {"__future__", "notata", "notata.version"}


def test_what_an_import_loads_is_seen() -> None:
    assert "yaml" in loaded_by("import yaml")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_short(module: Path) -> None:
    lines = len(module.read_text(encoding="utf-8").splitlines())
    assert lines < LONGEST, f"{module.name} has {lines} lines; split it by what its parts answer"


def test_the_picture_shows_the_rooms_that_there_are() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "rooms.py"))
    picture = drawn["PICTURE"].read_text(encoding="utf-8")
    assert picture == drawn["svg"](), "run: python docs/rooms.py"
    there = {path.stem for path in (ROOT / "notata").glob("*.py")} - {"__init__"}
    there |= {path.parent.name for path in (ROOT / "notata").glob("*/__init__.py")}
    assert {room for floor in drawn["floors"]() for room in floor} == there
    told = {name for name, _ in (*drawn["WRITTEN"], *drawn["MERGED"]) if "." not in name}
    assert told <= there
    assert set(drawn["GROUPS"]) <= there
    assert all(f">{room}</text>" in picture for room in there)
    boxes = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', picture)
    left = [float(x) + float(width) for x, width in boxes if float(x) < drawn["RIGHT"]]
    assert len(left) == len(there)
    assert max(left) < drawn["RIGHT"]  # no floor reaches into the path


def test_the_table_of_rooms_names_those_that_there_are() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    first = "\n".join(re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE))
    floors = runpy.run_path(str(ROOT / "docs" / "rooms.py"))["floors"]()
    rooms = {room for floor in floors for room in floor}
    assert set(re.findall(r"`(\w+)`", first)) == rooms - {"__main__"}
