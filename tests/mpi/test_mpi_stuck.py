"""`notata stuck` on real ranks: those that wait in a reduction, and the one that is elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def test_ranks_that_wait_stand_together_though_none_of_them_can_run_python(
    launch: Any, tmp_path: Path
) -> None:
    done = launch(4, "stuck", "before_the_first_line", tmp_path, check=False)
    assert done.status != 0
    assert done.told[2]["groups"] == [[2], [0, 1, 3]], done.output
    elsewhere, waiting = done.told[2]["places"]
    assert "elsewhere" in elsewhere
    assert "reduces" in waiting
    command = [sys.executable, "-m", "notata", "stuck", tmp_path / "log_run"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 1, told.stderr
    assert "4 of 4 ranks gave no sign of life" in told.stdout
    assert "most recent call first" not in done.output  # they are in the run, not on the terminal
