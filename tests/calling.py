"""Calling the program `notata` from tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result
from simulated import write_as

from notata import Logbook
from notata.cli import main

ROOT = Path(__file__).parents[1]


def notata(*args: object, width: int = 80) -> Result:
    """Call the program in this process; an error that it doesn't handle is raised."""
    words = [str(arg) for arg in args]
    return CliRunner().invoke(main, words, env={"COLUMNS": f"{width}"}, catch_exceptions=False)


def program(*args: object, **more: object) -> subprocess.CompletedProcess[str]:
    """Call the program in a process of its own."""
    settings = {"capture_output": True, "text": True, "check": False, "timeout": 100} | more
    settings["env"] = {**os.environ, "PYTHONPATH": str(ROOT)} | dict(settings.get("env", {}))  # type: ignore[call-overload]
    return subprocess.run([sys.executable, "-m", "notata", *map(str, args)], **settings)  # type: ignore[call-overload,no-any-return]


def run_of(
    size: int,
    base: Path,
    work: Callable[[Logbook], object],
    run_id: str = "heat",
    **options: object,
) -> Path:
    """A run of several simulated ranks, closed."""
    return write_as(size, base, work, run_id, **options)


# What a terminal or Rich would obey, if it were printed as it is.
HOSTILE = (
    "[bold red]x[/] \x1b[31m\x07\x1b]0;title\x07 \u202e\u2028 :boom: <script>alert(1)</script> '\""
)
OBEYED = ("\x1b", "\x07", "\u202e", "\u2028", "\r")


def assert_harmless(printed: str) -> None:
    """Nothing in what was printed makes a terminal do anything."""
    for character in OBEYED:
        assert character not in printed, repr(character)
