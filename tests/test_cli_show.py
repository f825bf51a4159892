"""The command `notata show`."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from calling import HOSTILE, assert_harmless, notata, program, run_of
from simulated import open_as

from notata import Logbook, LogReader, merge, overview, tails
from notata.errors import ArrayNotFoundError


def work(log: Logbook) -> None:
    log.array(
        "T", np.full((2, 3), float(log.rank)), start=(2 * log.rank, 0), shape=(2 * log.size, 3)
    )
    log.arrays("b", u=np.arange(log.rank + 1), v=np.ones(2, np.float32))
    log.array("step", log.rank)
    log.root.json("metrics", {"energy": 0.5})
    log.root.text("notes", "x")
    log.warning(f"hot on {log.rank}")


@pytest.fixture
def heat(base: Path) -> Path:
    return run_of(3, base, work, params={"kappa": 0.1, "grid": {"nx": 3}})


def test_all_that_a_run_is(heat: Path) -> None:
    result = notata("show", heat)
    assert (result.exit_code, result.stderr) == (0, "")
    printed = result.stdout
    assert "heat  complete" in printed.splitlines()[0]
    for told in (
        "kappa 0.1",
        'grid {"nx": 3}',
        "energy 0.5",
        "metrics.json",
        "notes.txt",
        "hot on 2",
    ):
        assert told in printed
    assert "3 on 1 host: " in printed
    rows = [line.strip("│ ").removeprefix("arrays").split() for line in printed.splitlines()]
    assert ["T", "6", "×", "3", "float64", "144", "B", "3", "pieces"] in rows
    assert ["b:u", "6", "int64", "48", "B", "3", "pieces"] in rows
    assert ["b:v", "6", "float32", "24", "B", "3", "pieces"] in rows
    assert ["step", "3", "int64", "24", "B", "3", "pieces"] in rows


@pytest.mark.parametrize("prune", [False, True])
def test_the_same_once_it_is_merged(heat: Path, prune: bool) -> None:
    before = {f.name: (f.shape, f.dtype) for f in overview.of(heat).arrays}
    merge(heat, prune=prune)
    after = overview.of(heat)
    assert {f.name: (f.shape, f.dtype) for f in after.arrays} == before
    assert {f.pieces for f in after.arrays} == {0}
    assert after.size == 3
    assert not after.damage
    assert after.messages[-1].message == "hot on 2"  # each rank ran after the other


def test_shapes_are_those_that_load(heat: Path) -> None:
    reader = LogReader(heat)
    found = {f.name: f for f in overview.of(heat).arrays}
    assert sorted(found) == reader.arrays
    for name in reader.arrays:
        array = reader.load_array(name)
        facts = found[name]
        assert (facts.shape, facts.dtype, facts.nbytes) == (
            array.shape,
            str(array.dtype),
            array.nbytes,
        )


def test_json(heat: Path) -> None:
    told = json.loads(notata("show", "--json", heat).stdout)
    assert told["status"] == "complete"
    assert told["params"] == {"kappa": 0.1, "grid": {"nx": 3}}
    assert told["size"] == 3
    assert list(told["hosts"].values()) == ["0-2"]
    assert next((a["name"], a["shape"]) for a in told["arrays"]) == ("T", [6, 3])
    assert told["messages"][-1]["message"] == "hot on 2"
    assert told["damage"] == []


@pytest.mark.parametrize("prune", [False, True])
def test_files_of_other_ranks_are_told_too(base: Path, prune: bool) -> None:
    def draw(log: Logbook) -> None:
        log.array("T", [log.rank])
        log.json("times", {"solve": log.rank})
        if log.rank != 1:
            log.text(f"mesh/of_{log.rank}", "x")
        log.plotdir.mkdir()
        (log.plotdir / "map.png").write_bytes(b"x")

    run = run_of(4, base, draw)
    if prune:
        merge(run, prune=True)
    told = json.loads(notata("show", "--json", run).stdout)
    assert told["artifacts"] == ["mesh/of_0.txt", "times.json"]
    assert told["rank_artifacts"] == {
        "mesh/of_2.txt": "2",
        "mesh/of_3.txt": "3",
        "times.json": "1-3",
    }
    assert (told["plots"], told["rank_plots"]) == (["map.png"], {"map.png": "1-3"})
    printed = notata("show", run).stdout
    assert "times.json [1-3]" in printed
    assert "mesh/of_2.txt [2]" in printed
    assert "plots       map.png  map.png [1-3]" in printed


def test_ranks_by_host(base: Path) -> None:
    run = run_of(6, base, lambda log: log.array("T", [log.rank]))
    file = run / "metadata.json"
    meta = json.loads(file.read_text())
    meta["parallel"]["hosts"] = {"node1": "0-2,5", "node2": "3-4"}
    file.write_text(json.dumps(meta))
    lines = [line.strip("│ ") for line in notata("show", run).stdout.splitlines()]
    at = lines.index("ranks       6 on 2 hosts")
    assert lines[at + 1 : at + 3] == ["node1  0-2,5  (4 ranks)", "node2  3-4"]


def test_a_run_that_failed_needs_attention(base: Path) -> None:
    with pytest.raises(FloatingPointError), Logbook("broken", base):
        raise FloatingPointError("NaN in T")
    result = notata("show", base / "log_broken")
    assert result.exit_code == 1
    assert "broken  failed" in result.stdout
    assert "NaN in T" in result.stdout


def test_a_run_that_is_open_right_now(base: Path) -> None:
    log = open_as(0, 2, base)
    log.info("at work")
    result = notata("show", log.path)
    assert result.exit_code == 0
    assert "run  running" in result.stdout
    assert "runs for " in result.stdout
    assert "at work" in result.stdout
    log.mark_complete()


def test_when_a_closed_run_began_and_how_long_it_took(base: Path) -> None:
    with Logbook("x", base):
        pass
    file = base / "log_x" / "metadata.json"
    told = {"start_time": "2026-11-23T03:00:00", "start_epoch": time.time() - 9000}
    file.write_text(json.dumps(json.loads(file.read_text()) | told | {"runtime_sec": 75.0}))
    lines = [line.strip("│ ") for line in notata("show", base / "log_x").stdout.splitlines()]
    assert lines[2] == "began 2026-11-23 03:00:00, 2 h ago, took 1 min 15 s"


def test_the_same_message_of_many_ranks_is_one(base: Path) -> None:
    logs = [open_as(rank, 20, base) for rank in range(20)]
    for log in logs[:6]:
        log.info("ready")
    for log in logs[::2]:
        log.info("steady")
    printed = notata("show", logs[0].path).stdout
    assert "INFO [0-5]      ready" in printed
    assert "INFO [10 ranks] steady" in printed
    for log in reversed(logs):
        log.mark_complete()


def test_attempts(base: Path) -> None:
    with Logbook("again", base):
        pass
    with Logbook("again", base, resume=True):
        pass
    lines = notata("show", base / "log_again").stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("│ attempts "))
    assert "complete" in lines[at]
    assert lines[at + 1].strip("│ ").startswith("2  ")


@pytest.mark.parametrize("height", [24, 40])
@pytest.mark.parametrize("width", [80, 140])
def test_it_fits_one_screen(base: Path, height: int, width: int) -> None:
    with Logbook("big", base, params={f"parameter_{k}": "x" * 30 for k in range(60)}) as log:
        for k in range(30):
            log.array(f"states/step_{k:05d}_{'long' * 20}", np.zeros(k))
            log.text(f"note_{k}_{'y' * 50}", "x")
            log.info("z" * 300)
    screen = {"FORCE_COLOR": "1", "LINES": str(height), "NO_COLOR": "1"}
    os.environ.update(screen)
    try:
        lines = notata("show", base / "log_big", width=width).stdout.splitlines()
    finally:
        for name in screen:
            del os.environ[name]
    assert len(lines) < height
    assert "more lines" in "".join(lines)
    plain = notata("show", base / "log_big", width=width).stdout.splitlines()
    assert {len(line) for line in plain} == {width}


def test_512_ranks(base: Path) -> None:
    run = run_of(512, base, lambda log: log.array("T", [log.rank]) if log.rank % 2 else None)
    result = notata("show", run)
    assert result.exit_code == 0
    assert "256 pieces" in result.stdout
    assert "512 on 1 host" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_hostile_values_are_only_printed(base: Path) -> None:
    name = HOSTILE.replace("/", "|")
    with Logbook("x", base, params={HOSTILE: HOSTILE}) as log:
        log.info(HOSTILE)
        log.array("[red]T[|red]", [1])
        log.text(name.translate({7: None, 27: None}), HOSTILE)
        log.json("metrics", {HOSTILE: HOSTILE})
    log.path.rename(base / f"log_{name}")
    metadata = base / f"log_{name}" / "metadata.json"
    metadata.write_text(
        json.dumps(
            json.loads(metadata.read_text()) | {"status": HOSTILE, "failure_reason": HOSTILE}
        )
    )
    result = notata("show", base / f"log_{name}", width=140)
    assert_harmless(result.stdout)
    assert "[bold red]x[/] \\x1b[31m" in result.stdout
    assert "[red]T[|red]" in result.stdout
    assert ":boom:" in result.stdout


# ----- damage -----


def test_no_such_run(base: Path) -> None:
    base.mkdir()
    for path, told in ((base / "nowhere", "no such run"), (base, "is no run")):
        result = notata("show", path)
        assert result.exit_code == 2
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not result.stdout


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def test_an_array_that_is_cut_off(base: Path) -> None:
    with Logbook("x", base) as log:
        log.array("T", np.arange(9.0))
        log.arrays("b", u=[1])
    _cut(log.path / "data" / "T.npy")
    _cut(log.path / "data" / "b.npz")
    result = notata("show", log.path, width=140)
    assert result.exit_code == 1
    assert result.stdout.count("damaged") == 2
    assert "array 'T': " in result.stderr
    assert "is cut off: 63 bytes of 72" in result.stderr
    assert "b.npz is damaged" in result.stderr


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"parallel": {"size": "x", "hosts": [3]}}', "\xff"]
)
def test_damaged_metadata(heat: Path, text: str) -> None:
    (heat / "metadata.json").write_bytes(text.encode("latin-1"))
    result = notata("show", heat)
    assert result.exit_code == 1
    assert "metadata.json" in result.stderr
    assert "hot on 2" in result.stdout
    json.loads(notata("show", "--json", heat).stdout)


@pytest.mark.parametrize("file", ["params.yaml", "artifacts/metrics.json"])
def test_damaged_parameters_and_metrics(heat: Path, file: str) -> None:
    (heat / file).write_text("{")
    result = notata("show", heat)
    assert result.exit_code == 1
    assert f"{Path(file).name} is" in result.stderr
    assert "float64" in result.stdout


def test_a_manifest_that_is_none(heat: Path) -> None:
    (heat / "ranks" / "rank_00001" / "manifest.jsonl").write_text('{"a": 1}\n')
    result = notata("show", heat, width=200)
    assert result.exit_code == 1
    assert "manifest.jsonl, line 1" in result.stderr


def test_pieces_that_contradict(base: Path) -> None:
    run = run_of(2, base, lambda log: log.array("T", np.zeros((2, 2 + log.rank))))
    result = notata("show", run, width=140)
    assert result.exit_code == 1
    assert "array 'T': it beyond axis 0 has shape (2,) on rank 0, (3,) on rank 1" in result.stderr


def test_messages_behind_a_very_long_one(base: Path) -> None:
    log = Logbook("a", base)
    log.error("diverged at step 12")
    log.error("x" * 300_000)
    log.info("and on it goes")
    said = [m.message[:20] for m in tails.last(str(log.path), 3)]
    assert said == ["diverged at step 12", "x" * 20, "and on it goes"]


def test_the_status_has_its_colour(base: Path) -> None:
    with Logbook("x", base) as log:
        pass
    env = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}
    assert "\x1b[32mcomplete" in program("show", log.path, env=env).stdout
    assert "\x1b[3" not in program("show", log.path, env=env | {"NO_COLOR": "1"}).stdout


def test_arrays_that_are_kept_apart(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.arrays("hist", join="none", residual=[1.0] * (1 + log.rank))
        log.array("T", [1.0], join="concat")

    run = run_of(3, base, work)
    result = notata("show", run)
    assert "hist:residual  [0-2], kept apart" in result.stdout
    told = json.loads(notata("show", "--json", run).stdout)
    assert told["apart"] == {"hist:residual": "0-2"}
    assert [array["name"] for array in told["arrays"]] == ["T"]
    where = "kept apart, as join='none' asked, on ranks 0-2: run.ranks[0].load_array"
    with pytest.raises(ArrayNotFoundError, match=re.escape(where)):
        LogReader(run).load_array("hist:residual")
    assert where in notata("plot", run, "hist:residual").stderr
    with pytest.raises(ArrayNotFoundError, match="there is: T; kept apart on ranks: hist:residual"):
        LogReader(run).load_array("nothing")


def test_a_long_reason_is_wrapped_and_a_traceback_ends_with_its_error(base: Path) -> None:
    words = " ".join(f"word{number}" for number in range(20))
    with suppress(ValueError), Logbook("x", base):
        raise ValueError(words)
    lines = [line[13:-1].strip() for line in notata("show", base / "log_x").stdout.splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("word0 "))
    assert " ".join(lines[start : start + 3]) == words
    (told,) = [line for line in lines if " ERROR " in line]
    assert "ERROR ValueError: word0 word1" in told
    assert not any("Traceback" in line for line in lines)
