"""The README does what it says: its code blocks and commands, one after another, in one folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = ROOT / ".venv" / "bin"

SETTING = """
import numpy as np
from notata import Logbook
block, mine, seconds, s, x = np.zeros((12, 22)), np.arange(3), 0.5, np.ones(4), np.ones(2)
i0 = j0 = 0
NX, NY = 10, 20
log = Logbook("pieces")
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def run(*command: str, cwd: Path) -> str:
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '/usr/bin:/bin')}"
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.mpi
def test_the_readme_from_its_first_script_to_its_last_command(tmp_path: Path) -> None:
    heat, pieces, reading, many = blocks("python")
    (tmp_path / "heat.py").write_text(heat)
    run(sys.executable, "heat.py", cwd=tmp_path)
    alone = np.load(tmp_path / "outputs/log_heat/data/T.npy")
    tree = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert tree == {
        "heat.py",
        "outputs/log_heat/log.txt",
        "outputs/log_heat/metadata.json",
        "outputs/log_heat/params.yaml",
        "outputs/log_heat/data/T.npy",
        "outputs/log_heat/artifacts/metrics.json",
    }
    (tmp_path / "outputs").rename(tmp_path / "alone")

    run("mpirun", "-n", "4", sys.executable, "heat.py", cwd=tmp_path)
    commands = [shlex.split(line, comments=True) for line in blocks("sh")[-1].splitlines()]
    called = {" ".join(call[1:]): call for call in commands}
    assert all(call[0] == "notata" for call in commands)
    printed = {
        told: run(*call, cwd=tmp_path)
        for told, call in called.items()
        if "outputs/sweep" not in told and told != "doctor"
    }
    assert "log_heat" in printed["ls"]
    assert "heat  complete" in printed["show outputs/log_heat"]
    assert "[3] " in printed["log outputs/log_heat -f"]
    np.testing.assert_array_equal(np.load(tmp_path / "outputs/log_heat/data/T.npy"), alone)
    assert "nothing to do" in run(*called["merge outputs/log_heat"], cwd=tmp_path)

    run(sys.executable, "-c", reading, cwd=tmp_path)
    run(sys.executable, "-c", many, cwd=tmp_path)
    assert len((tmp_path / "outputs/sweep/index.csv").read_text().splitlines()) == 7
    for told, call in called.items():
        if "outputs/sweep" in told:
            printed[told] = run(*call, cwd=tmp_path)
    assert "complete" in printed["status outputs/sweep"]
    assert "6 complete" in printed["follow outputs/sweep"]
    chosen = next(text for told, text in printed.items() if "--where" in told)
    assert "1e-06" in chosen
    assert chosen.count("complete") == 2
    assert (tmp_path / "sweep_error_over_dt.png").stat().st_size > 10_000
    run(sys.executable, "-c", SETTING + pieces, cwd=tmp_path)


def test_the_verbs_at_the_top_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    verbs = re.findall(r"^make (\w+)", blocks("sh")[0], re.MULTILINE)
    assert verbs == ["demo", "test"]
    assert all(f"\n{verb}: " in makefile for verb in verbs)


def test_links_inside_the_repository_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert len(links) >= 3
    assert all((ROOT / link).exists() for link in links)
