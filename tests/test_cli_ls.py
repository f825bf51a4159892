"""`notata ls` with conditions, order and columns; and the expressions by themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from calling import HOSTILE, assert_harmless, notata, run_of
from hypothesis import given
from hypothesis import strategies as st

from notata import Experiment, Logbook
from notata.errors import QueryError
from notata.expressions import Expression

VALUES: dict[str, Any] = {
    "omega": 2.5,
    "n": 3,
    "scheme": "rk4",
    "flag": True,
    "levels": [1, 2],
    "grid.nx": 64,
    "learning rate": 0.1,
    "nan": float("nan"),
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("omega > 1 and n == 3", True),
        ("omega>1 and scheme=='rk4'", True),
        ("not omega > 1 or n < 3", False),
        ("1 < omega <= 2.5", True),
        ("1 < omega < 2", False),
        ("scheme in ('rk4', 'euler')", True),
        ("scheme not in ['rk4']", False),
        ("'k' in scheme", True),
        ("2 in levels", True),
        ("2 in n", False),
        ("flag", True),
        ("flag == 1 or flag in (1, 2) or n - 2 == (n > 2)", False),
        ("flag == True and flag in [True] and flag != 1 and flag not in [1]", True),
        ("n == 3.0 and 3.0 in [n]", True),
        ("abs(-n) + max(1, omega) * 2 - 1 / 4", 7.75),
        ("n // 2 + n % 2", 2),
        ("round(omega / 3, 2)", 0.83),
        ("len(levels)", 2),
        ("grid.nx == 64", True),
        ('run["learning rate"] < 1', True),
        ("missing > 1", False),
        ("missing < 1", False),
        ("missing != 1", False),
        ("missing not in (1, 2)", False),
        ("omega != None", True),
        ("round(omega, -100000000) == 0", True),
        ("missing == None", True),
        ("missing is not None", False),
        ("scheme > 1", False),
        ("scheme * 1000000000", None),
        ("n / 0", None),
        ("n % 0 == 1", False),
        ("nan > 0 or nan <= 0", False),
        ("nan != nan", True),
        ("abs(scheme)", None),
        ("1e308 * 10 > 1", True),
        ("  omega\n", 2.5),
    ],
)
def test_expressions(text: str, value: Any) -> None:
    assert Expression(text)(VALUES.get) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "omega >",
        "omega = 1",
        "__import__('os').system('true')",
        "().__class__.__bases__",
        "omega.__class__()",
        "[x for x in levels]",
        "lambda: 1",
        "f'{omega}'",
        "omega if flag else n",
        "9 ** 9 ** 9",
        "1 << 99999999",
        "~n",
        "n @ n",
        "b'x'",
        "...",
        "levels[0]",
        "run[n]",
        "open('x')",
        "max(*levels)",
        "max(levels, key=abs)",
        "(n := 3)",
        "{1: 2}",
        "import os",
        "n; n",
        "(" * 5000,
        "-" * 9000 + "1",
        "1+" * 6000 + "1",
        "a\0b",
        "9" * 9000,
    ],
)
def test_what_no_expression_is(text: str) -> None:
    with pytest.raises(QueryError):
        Expression(text)


def test_names_of_an_expression() -> None:
    assert Expression("a.b > 1 and c in [d, 'e'] and run['f g'] and max(h)").names == {
        *("a.b", "c", "d", "f g", "h"),
    }


@given(st.text(alphabet="abn()[]{}.,'\"<>=!+-*/%&|^~:; 019\\\n", max_size=40))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        made = Expression(text)
    except QueryError:
        return
    made({"a": 1, "b": "x", "n": [1]}.get)


# ----- ls -----


@pytest.fixture
def sweep(base: Path) -> Path:
    exp = Experiment("sweep", base)
    for omega, scheme in ((0.5, "rk4"), (1.5, "rk4"), (2.5, "euler")):
        log = exp.add(omega=omega, scheme=scheme)
        assert log is not None
        if omega != 1.5:
            log.json("metrics", {"energy": omega**2, "status": "fine", "omega": -omega})
        log.mark_failed("diverged") if omega > 2 else log.mark_complete()
    return base / "sweep"


def names(*args: object) -> list[str]:
    result = notata("ls", *args, "--json")
    assert result.exit_code == 0, result.stderr
    return [run["run_id"].removeprefix("sweep_omega_") for run in json.loads(result.stdout)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("omega > 1", ["1.5_scheme_rk4", "2.5_scheme_euler"]),
        ('omega>1 and run_status=="failed"', ["2.5_scheme_euler"]),
        ("status == 'complete' and scheme == 'rk4'", ["0.5_scheme_rk4", "1.5_scheme_rk4"]),
        ("energy < 1", ["0.5_scheme_rk4"]),
        ("energy is None", ["1.5_scheme_rk4"]),
        ("metrics.status == 'fine'", ["0.5_scheme_rk4", "2.5_scheme_euler"]),
        ("metrics.omega == -params.omega", ["0.5_scheme_rk4", "2.5_scheme_euler"]),
        ("failure_reason == 'diverged'", ["2.5_scheme_euler"]),
        ("runtime_sec >= 0 and age_sec < 1000 and ranks == 1 and kind == 'run'", None),
        ("'euler' in run_id", ["2.5_scheme_euler"]),
        ("omega > 100", []),
    ],
)
def test_where(sweep: Path, where: str, expected: list[str] | None) -> None:
    every = ["0.5_scheme_rk4", "1.5_scheme_rk4", "2.5_scheme_euler"]
    assert names(sweep, "--where", where) == (every if expected is None else expected)


def test_true_is_no_number(base: Path) -> None:
    exp = Experiment("mixed", base)
    for x in (1, True, 1.0 + 1e-9, 0, False):
        exp.add(x=x).mark_complete()
    for where, expected in (
        ("x == 1", ["mixed_x_1"]),
        ("x == True", ["mixed_x_True"]),
        ("x in (0, 2)", ["mixed_x_0"]),
        ("x is False", ["mixed_x_False"]),
    ):
        assert names(base / "mixed", "--where", where) == expected
    assert len(names(base / "mixed", "--where", "x != 1")) == 4


def test_sort(sweep: Path) -> None:
    assert names(sweep, "--sort", "-omega")[0] == "2.5_scheme_euler"
    assert [n[:3] for n in names(sweep, "--sort", "energy")] == ["0.5", "2.5", "1.5"]
    assert [n[:3] for n in names(sweep, "--sort", "-energy")] == ["2.5", "0.5", "1.5"]
    assert [n[:3] for n in names(sweep, "--sort", "-scheme,-omega")] == ["1.5", "0.5", "2.5"]


def test_the_longest_and_the_shortest_first(sweep: Path) -> None:
    for run in (sweep / "runs").iterdir():
        file = run / "metadata.json"
        meta = json.loads(file.read_text())
        # As text, 200 would come before 9.
        meta["runtime_sec"] = {"0.5": 30, "1.5": 9, "2.5": 200}[run.name.split("_")[3]]
        file.write_text(json.dumps(meta))
    assert [n[:3] for n in names(sweep, "--sort", "-runtime_sec")] == ["2.5", "0.5", "1.5"]
    assert [n[:3] for n in names(sweep, "--sort", "runtime_sec")] == ["1.5", "0.5", "2.5"]


def cells(printed: str) -> list[list[str]]:
    return [line.split() for line in printed.splitlines() if "─" not in line]


def test_columns(sweep: Path) -> None:
    result = notata("ls", sweep, "--columns", "omega,energy,failure_reason")
    assert cells(result.stdout) == [
        ["name", "omega", "energy", "failure_reason"],
        ["log_sweep_omega_0.5_scheme_rk4", "0.5", "0.25", "-"],
        ["log_sweep_omega_1.5_scheme_rk4", "1.5", "-", "-"],
        ["log_sweep_omega_2.5_scheme_euler", "2.5", "6.25", "diverged"],
    ]


def test_what_is_asked_for_is_shown(sweep: Path) -> None:
    header, row = cells(
        notata("ls", sweep, "--where", "energy>1", "--sort", "omega", width=140).stdout
    )
    assert header == ["name", "status", "ranks", "duration", "age", "energy", "omega"]
    assert row[1] == "failed"
    assert row[-2:] == ["6.25", "2.5"]


@pytest.mark.parametrize("option", ["--where", "--sort", "--columns"])
def test_a_value_that_no_run_has(sweep: Path, option: str) -> None:
    result = notata("ls", sweep, option, "omeg")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "notata: error: no run has a value 'omeg'; did you mean 'omega'?"
    )
    assert result.stderr.rstrip().endswith("failure_reason, omega, scheme, energy")
    assert not result.stdout


def test_a_condition_that_is_none(sweep: Path) -> None:
    result = notata("ls", sweep, "--where", "omega >")
    assert result.exit_code == 2
    assert "'omega >' is no expression" in result.stderr


def test_none_of_them(sweep: Path) -> None:
    result = notata("ls", sweep, "--where", "omega > 100")
    assert (result.exit_code, result.stdout) == (0, "none of 3\n")


def test_runs_and_experiments_of_a_folder(sweep: Path) -> None:
    run_of(3, sweep.parent, lambda log: None, params={"omega": 7})
    found = json.loads(notata("ls", sweep.parent, "--json").stdout)
    assert [(f["name"], f["kind"], f["ranks"]) for f in found] == [
        ("log_heat", "run", 3),
        ("sweep", "experiment", 1),
    ]
    assert found[1]["statuses"] == {"complete": 2, "failed": 1}
    assert names(sweep.parent, "--where", "omega == 7") == ["heat"]


def test_damaged_runs_have_no_values(sweep: Path) -> None:
    (sweep / "runs" / "log_sweep_omega_0.5_scheme_rk4" / "metadata.json").write_text("{")
    (sweep / "runs" / "log_sweep_omega_1.5_scheme_rk4" / "params.yaml").write_text("[")
    result = notata("ls", sweep, "--where", "status == 'damaged' or omega is None", "--json")
    assert result.exit_code == 1
    assert [run["status"] for run in json.loads(result.stdout)] == ["damaged", "complete"]
    assert len(result.stderr.splitlines()) == 2  # both are named


@pytest.mark.parametrize("width", [80, 140])
def test_hostile_values_are_only_printed(base: Path, width: int) -> None:
    with Logbook("x", base, params={HOSTILE: HOSTILE, "[b]n[/b]": "[red]y"}):
        pass
    quoted = json.dumps(HOSTILE)
    for asked in (["--columns", "[b]n[/b]"], ["--where", f"run[{quoted}] != None"]):
        result = notata("ls", base, *asked, width=width)
        assert result.exit_code == 0, result.stderr
        assert_harmless(result.stdout)
        assert max(map(len, result.stdout.splitlines())) <= width
    assert "[red]y" in notata("ls", base, "--columns", "[b]n[/b]").stdout


SIGN, LETTER = "\u00b5", "\u03bc"  # micro, and mu, which Python's parser takes it for


@pytest.mark.parametrize("typed", [SIGN, LETTER])
@pytest.mark.parametrize("kept", [SIGN, LETTER])
def test_names_that_the_parser_changes(base: Path, kept: str, typed: str) -> None:
    for value in (1, 2):
        with Logbook(f"r{value}", base, params={kept: value, "in": {kept: value}}):
            pass
    asked = (f"{typed} > 1", f"params.{typed} > 1", f'run["{typed}"] > 1', f"params . {typed} > 1")
    for where in asked:
        result = notata("ls", base, "--where", where)
        assert result.exit_code == 0, result.output
        assert "log_r2" in result.stdout
        assert "log_r1" not in result.stdout
    result = notata("ls", base, "--columns", typed, "--sort", f"-{typed}")
    assert [line.split()[-1] for line in result.stdout.splitlines()[2:]] == ["2", "1"]


def test_of_names_that_look_alike_the_typed_one_counts(base: Path) -> None:
    with Logbook("r", base, params={SIGN: 1, LETTER: 2}):
        pass
    for typed, value in ((SIGN, 1), (LETTER, 2)):
        assert "log_r" in notata("ls", base, "--where", f"{typed} == {value}").stdout
        assert notata("ls", base, "--where", f"{typed} != {value}").stdout == "none of 1\n"
    assert Expression("\ufb01t > 1").names == {"\ufb01t"}  # not the three letters of "fit"


def test_damaged_parameters_are_named(sweep: Path) -> None:
    run = next(iter(sorted((sweep / "runs").iterdir())))
    (run / "params.yaml").write_text("a: [")
    for options in ((), ("--json",), ("--where", "status == 'complete'")):
        result = notata("ls", sweep, *options)
        assert result.exit_code == 1
        assert f"{run / 'params.yaml'} is damaged" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert notata("ls", sweep.parent).exit_code == 1


def test_an_experiment_that_is_shut_leaves_the_others(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Experiment("shut", sweep.parent)
    shut, listdir = os.fspath(sweep.parent / "shut" / "runs"), os.listdir

    def refusing(path: Any = ".") -> list[str]:  # root would be let in
        if os.fspath(path) == shut:
            raise PermissionError(13, "Permission denied", shut)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refusing)
    result = notata("ls", sweep.parent)
    assert result.exit_code == 1
    assert result.stderr == f"notata: error: {shut}: Permission denied\n"
    told = [line.split()[:4] for line in result.stdout.splitlines()[2:]]
    assert told == [
        ["shut", "experiment", "1", "damaged"],
        ["sweep", "experiment", "2", "complete,"],
    ]


@pytest.mark.parametrize("text", ["omega = 1", "a=1 and b == 2"])
def test_an_assignment_is_told_the_comparison(text: str) -> None:
    with pytest.raises(QueryError, match="values are compared by ==, not ="):
        Expression(text)


def test_headings_are_names_too(sweep: Path) -> None:
    usual = notata("ls", sweep, width=140).stdout.splitlines()
    chosen = notata("ls", sweep, "--columns", "age,duration", "--sort", "-duration", width=140)
    assert chosen.exit_code == 0, chosen.stderr
    rows = chosen.stdout.splitlines()
    assert rows[0].split() == ["name", "age", "duration"]
    units = {"s", "min", "h", "d"}
    assert all(units & set(row.split()) for row in rows[2:])
    assert len(usual) == len(rows)
    assert len(names(sweep, "--where", "age < 1000 and duration >= 0")) == 3
    Experiment("old", sweep.parent).add(age=7).mark_complete()
    assert names(sweep.parent / "old", "--where", "age == 7") == ["old_age_7"]
