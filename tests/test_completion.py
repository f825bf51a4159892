"""Completion by the shell, and what loading the program costs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from calling import ROOT, program

from notata.cli import main

COMMANDS = main.list_commands(click.Context(main))


def completed(words: str, shell: str = "bash") -> list[str]:
    """What the tab key offers behind these words."""
    env = {
        "_NOTATA_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = program(env=env)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [line.partition(",")[2] for line in lines] if shell == "bash" else lines


def test_commands_are_completed() -> None:
    assert sorted(completed("notata ")) == COMMANDS
    assert completed("notata sho") == ["show"]


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_completed(command: str) -> None:
    found = completed(f"notata {command} --")
    assert {"--json", "--help"} <= set(found)


def test_values_are_completed(base: Path) -> None:
    assert completed("notata export x --to ") == ["hdf5", "zarr", "netcdf"]
    assert completed("notata export x --to z") == ["zarr"]


def test_paths_are_left_to_the_shell() -> None:
    done = program(
        env={
            "_NOTATA_COMPLETE": "bash_complete",
            "COMP_WORDS": "notata show outputs/l",
            "COMP_CWORD": "2",
        }
    )
    assert done.stdout == "file,outputs/l\n"


def test_the_line_that_the_page_tells_for_bash(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\$ (eval .*)$", page, re.MULTILINE)
    there = tmp_path / "notata"  # the program of this tree, wherever another is installed
    there.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m notata "$@"\n')
    there.chmod(0o755)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    bash = ["bash", "--norc", "-c", f"{line}\ncomplete -p notata"]
    done = subprocess.run(bash, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"complete .*-F _notata_completion notata\n", done.stdout)


def test_what_zsh_is_given() -> None:
    done = program(env={"_NOTATA_COMPLETE": "zsh_source"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("#compdef notata\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_loads_no_other_and_nothing_heavy(command: str) -> None:
    code = (
        "import sys; from notata.cli import main\n"
        f"main([{command!r}, '--help'], standalone_mode=False)\n"
        "heavy = {'rich', 'numpy', 'yaml', 'matplotlib', 'h5py', 'zarr', 'xarray', 'filelock'}\n"
        "print(*sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "\n"
