"""Tables at every width: whole in pipes and files, and on terminals narrower bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from calling import notata, program, run_of

from notata import Experiment, Logbook

LONG = "relaxation_of_a_lattice_with_a_long_name"


@pytest.fixture
def sweep(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("COLUMNS", raising=False)
    exp = Experiment(LONG, base)
    for strength in (0.25, 0.5):
        log = exp.add(coupling_strength=strength, epsilon=1e-12, n_cells=64, scheme="leapfrog")
        assert log is not None
        log.mark_complete() if strength > 0.3 else log.mark_failed("diverged")
    with Logbook("short", base):
        pass
    return base / LONG


def test_a_pipe_gets_a_line_a_run(sweep: Path) -> None:
    lines = program("ls", sweep, env={"PATH": "", "COLUMNS": ""}).stdout.splitlines()
    assert len(lines) == 4
    assert [line.split()[0] for line in lines[2:]] == sorted(
        path.name for path in (sweep / "runs").iterdir()
    )
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", [34, 40, 60, 80])
def test_names_and_states_are_there_at_any_width(sweep: Path, width: int) -> None:
    for folder, words in ((sweep, ("failed", "complete")), (sweep.parent, ("complete",))):
        printed = notata("ls", folder, width=width).stdout
        head, rule, *rows = printed.splitlines()
        assert len(rule) <= width
        assert all(len(row) <= width for row in rows)
        assert head.split()[0] == "name"
        assert {"status", "ranks"} < set(head.split())
        start = head.index("status")
        states = [row[start:].split()[0] for row in rows if row[start:].strip()]
        assert set(words) <= {word.rstrip(",") for word in states} | {*printed.split()}
        named = "".join(row[:start].split("  ")[0].strip() for row in rows)
        assert LONG in named


def test_columns_go_the_least_important_first(sweep: Path) -> None:
    def heads(width: int) -> list[str]:
        return notata("ls", sweep.parent, width=width).stdout.splitlines()[0].split()

    usual = ["name", "kind", "status", "ranks", "duration", "age"]
    assert heads(100) == usual
    assert heads(40) == ["name", "status", "ranks"]
    for width in range(34, 100):
        gone = [name for name in usual if name not in heads(width)]
        assert gone in ([], ["age"], ["duration", "age"], ["kind", "duration", "age"]), width


def test_with_parameters_a_run_is_a_line(sweep: Path) -> None:
    columns = "coupling_strength,epsilon,n_cells,status"
    for width in (60, 80):
        lines = notata("ls", sweep, "--columns", columns, width=width).stdout.splitlines()
        rule = next(line for line in lines if line.startswith("─"))
        assert len(rule) <= width
        rows = lines[lines.index(rule) + 1 :]
        assert [row.split()[1:] for row in rows] == [
            ["0.25", "1e-12", "64", "failed"],
            ["0.5", "1e-12", "64", "complete"],
        ]
        assert all("…" in row.split()[0] for row in rows)
        assert rows[0].startswith("log_re")
    wide = notata("ls", sweep, "--columns", columns, width=200).stdout
    assert all((run.name in wide) for run in (sweep / "runs").iterdir())


def test_a_plan_keeps_names_and_sizes(base: Path) -> None:
    run = run_of(2, base, lambda log: log.array("T", [1.0] * 4, join="concat"))
    printed = notata("merge", "--dry-run", run, width=34).stdout.splitlines()
    head = next(line for line in printed if line.startswith("name"))
    assert head.split() == ["name", "shape", "size", "plan"]
    assert [line.split() for line in printed if line.startswith("T ")] == [
        ["T", "8", "64", "B", "to", "join"]
    ]
