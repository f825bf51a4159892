"""Completion by the shell, and what loading the program costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from calling import program

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
