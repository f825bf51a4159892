"""Runs that can be read but hold what no run is written with: every command still answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from calling import notata
from click.testing import Result

from notata import Experiment, Logbook, LogReader
from notata.errors import DamagedError
from notata.stored import read_params


def strict(result: Result) -> Any:
    """The JSON that was printed, if any reader takes it; Python alone reads NaN."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(result.stdout, parse_constant=refuse)


def run_with(base: Path, params: str, name: str = "x") -> Path:
    with Logbook(name, base, params={"a": 1}) as log:
        log.array("T", [1])
    (log.path / "params.yaml").write_text(params)
    return log.path


REFUSED = {
    "itself": "a: &a [*a]",
    "itself_in_a_dict": "&top\na: {b: *top}",
    "long": f"a: 0x{'f' * 5000}",
    "long_within": f"a: [1, {{b: 0x{'f' * 5000}}}]",
    "long_key": f"a: {{0x{'f' * 5000}: 1}}",
    "deep": f"a: {'[' * 3000}{']' * 3000}",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_printed_is_damage(base: Path, text: str) -> None:
    run = run_with(base, text)
    with pytest.raises(DamagedError, match=r"params.yaml is damaged: "):
        read_params(run)
    result = notata("show", run, "--json")
    assert result.exit_code == 1
    assert strict(result)["params"] == {}
    assert "params.yaml is damaged" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_reason_that_is_no_text_is_told_as_text(base: Path) -> None:
    exp = Experiment("e", base)
    for n, reason in enumerate([{"code": 3}, ["a", "b"], 5, {"code": 3}]):
        with exp.add(n=n) as log:
            log.meta(status="failed", failure_reason=reason)
    folder = base / "e"
    told = strict(notata("status", folder, "--json"))
    assert (told["runs"], told["states"]) == (4, {"failed": 4})
    # Numbers are left out of what is counted together.
    assert sorted((g["reason"], g["runs"]) for g in told["reasons"]) == [
        ("5", 1),
        ("['a', 'b']", 1),
        ("{'code': 3}", 2),
    ]
    assert {run["reason"] for run in told["attention"]} == {"5", "['a', 'b']", "{'code': 3}"}
    for command in ("status", "failed", "ls", "show", "index"):
        run = folder / "runs/log_e_n_0" if command == "show" else folder
        result = notata(command, run)
        assert result.exit_code in (0, 1), result.output
        if command in ("status", "failed", "show"):
            assert "{'code': 3}" in result.stdout


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("2024-01-01: 1", {"2024-01-01": 1}),
        ("1: {2: 3, null: x}", {"1": {2: 3, None: "x"}}),
        ("a: [{2.5: {? [1, 2] : 3}}]", None),
        ("? !!binary aGk=\n: 1", {"b'hi'": 1}),
        ("a: &a [1]\nb: [*a, *a]", {"a": [1], "b": [[1], [1]]}),
        ("a: !!omap [x: 1]", {"a": [("x", 1)]}),
    ],
)
def test_names_are_text(base: Path, text: str, params: dict[str, Any] | None) -> None:
    run = run_with(base, text)
    if params is None:
        with pytest.raises(DamagedError):
            read_params(run)
        return
    assert LogReader(run).params == params
    told = {name: _texts(value) for name, value in params.items()}
    shown = notata("show", run, "--json")
    assert (shown.exit_code, strict(shown)["params"]) == (0, told)
    assert strict(notata("ls", run, "--json"))[0]["params"] == told
    assert notata("show", run).exit_code == notata("diff", run, run).exit_code == 0


def _texts(value: Any) -> Any:
    """As JSON has it: lists, and keys that are text."""
    if isinstance(value, list | tuple):
        return [_texts(one) for one in value]
    return (
        {str(key): _texts(one) for key, one in value.items()} if isinstance(value, dict) else value
    )


def test_a_date_as_value_is_text(base: Path) -> None:
    run = run_with(base, "a: 2024-01-01")
    assert strict(notata("show", run, "--json"))["params"] == {"a": "2024-01-01"}
    assert notata("diff", run, run, "--json").exit_code == 0


def test_one_bad_run_hides_no_other(base: Path) -> None:
    exp = Experiment("sweep", base)
    texts = [*REFUSED.values(), "2024-01-01: 1"]
    for k in range(len(texts) + 1):
        log = exp.add(k=k)
        assert log is not None
        with log:
            log.json("metrics", {"m": float("nan") if k % 2 else k})
        if k < len(texts):
            (log.path / "params.yaml").write_text(texts[k])
    result = notata("ls", base / "sweep", "--json")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == len(REFUSED)
    found = strict(result)
    assert len(found) == len(texts) + 1
    assert sorted(map(str, (line["params"] for line in found))) == sorted(
        map(str, [*({} for _ in REFUSED), {"2024-01-01": 1}, {"k": len(texts)}])
    )
    assert sum(line["metrics"]["m"] is None for line in found) == len(found) // 2
    assert notata("ls", base / "sweep").exit_code == 1
    for command in ("status", "failed"):
        assert notata(command, base / "sweep").exit_code == 0
    index = notata("index", base / "sweep")
    assert (index.exit_code, len(index.stderr.splitlines())) == (1, len(REFUSED))


@pytest.mark.parametrize("runtime", ["NaN", "Infinity", "-Infinity", "1e300", "1" + "0" * 400])
def test_a_runtime_without_end(base: Path, runtime: str) -> None:
    run = run_with(base, "a: 1\n")
    file = run / "metadata.json"
    meta = json.loads(file.read_text()) | {"runtime_sec": "RUNTIME"}
    file.write_text(json.dumps(meta).replace('"RUNTIME"', runtime))
    result = notata("diff", run, run)
    assert (result.exit_code, result.stdout.count(": complete, ?\n")) == (0, 2)
    assert notata("show", run).exit_code == notata("ls", base).exit_code == 0
    told = strict(notata("show", run, "--json"))
    assert told["meta"]["runtime_sec"] == told["runtime"]
    assert strict(notata("diff", run, run, "--json"))["left"]["runtime_sec"] == told["runtime"]
    assert strict(notata("ls", base, "--json"))[0]["runtime_sec"] is None


def test_numbers_that_json_does_not_have_are_null(base: Path) -> None:
    runs = []
    for name, rate in (("a", float("nan")), ("b", -float("inf"))):
        with Logbook(name, base, params={"rate": rate, "grid": [1.5, {"dx": rate}]}) as log:
            log.json("metrics", {"worst": rate})
            log.array("T", [rate, 1.0])
        runs.append(log.path)
    params = {"rate": None, "grid": [1.5, {"dx": None}]}
    for run in runs:
        told = strict(notata("show", run, "--json"))
        assert (told["params"], told["metrics"]) == (params, {"worst": None})
    for line in strict(notata("ls", base, "--json")):
        assert (line["params"], line["metrics"]) == (params, {"worst": None})
    told = strict(notata("diff", *runs, "--json"))
    assert told["metrics"] == {"worst": {"left": None, "right": None}}
    assert told["arrays"][0]["values"] == [None, None]
    exp = Experiment("sweep", base)
    with pytest.raises(RuntimeError), exp.add(rate=float("nan")):  # type: ignore[union-attr]
        raise RuntimeError
    failed = strict(notata("failed", base / "sweep", "--json"))
    assert [run["params"] for run in failed["runs"]] == [{"rate": None}]


def test_brackets_without_end_are_cut(base: Path) -> None:
    with Logbook("x", base) as log:
        log.json("metrics", {"m": 1})
    (log.path / "artifacts" / "metrics.json").write_text(f'{{"m": {"[" * 900}{"]" * 900}}}')
    for command in ("show", "ls"):
        result = notata(command, log.path, "--json")
        assert result.exit_code == 0
        assert "…" in json.dumps(strict(result), ensure_ascii=False)
