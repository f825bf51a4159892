"""Many runs and their table."""

from __future__ import annotations

import csv
import errno
import fcntl
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import answer, tree

from notata import Experiment, ExperimentReader, Logbook, LogReader, files
from notata.bloom import Bloom, Table
from notata.errors import RunExistsError, UnsafeNameError, UnsupportedValueError

OURS = ["run_status", "failure_reason", "start_time", "runtime_sec"]


def table(exp: Experiment) -> list[dict[str, str]]:
    """The rows of the table, each of which has to fit the header."""
    with exp.index_file.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert all(len(row) == len(header) for row in rows), rows
    assert len(set(header)) == len(header), header
    return [dict(zip(header, row, strict=True)) for row in rows]


WITHOUT_PANDAS = """
    import json, sys
    sys.modules["pandas"] = None  # to import it fails, as where it is not installed
    from notata import Experiment
    exp = Experiment("s", ".")
    for k, extra in enumerate([1, None, "a, b", [1, 2]]):
        with exp.add(k=k, half=k / 2, odd=k % 2 == 1) as log:
            if extra is not None:
                log.json("metrics", {"extra": extra})
    rows = [{key: row[key] for key in ("k", "half", "odd", "extra")} for row in exp.rows()]
    refused = []
    for ask in (exp.to_dataframe, lambda: exp.select(k=1)):
        try:
            ask()
        except ImportError as error:
            refused.append(str(error))
    print(json.dumps([rows, refused]))
"""


def test_rows_need_no_pandas(tmp_path: Path) -> None:
    rows, refused = answer(WITHOUT_PANDAS, tmp_path)
    extras = [1, None, "a, b", [1, 2]]
    assert rows == [
        {"k": k, "half": k / 2, "odd": k % 2 == 1, "extra": extras[k]} for k in range(4)
    ]
    assert [type(row["half"]) for row in rows] == [float] * 4
    assert refused == ["a DataFrame needs pandas: pip install 'notata[pandas]'"] * 2


def header(exp: Experiment) -> list[str]:
    with exp.index_file.open(newline="") as file:
        return next(csv.reader(file))


def run(exp: Experiment, metrics: Any = None, **params: Any) -> Logbook:
    log = exp.add(**params)
    assert log is not None
    with log:
        if metrics is not None:
            log.json("metrics", metrics)
    return log


def test_folders(base: Path) -> None:
    exp = Experiment("sweep", base)
    assert (exp.name, exp.base_dir) == ("sweep", base)
    assert exp.exp_dir == base / "sweep"
    assert exp.runs_dir == base / "sweep" / "runs"
    assert exp.index_file == base / "sweep" / "index.csv"
    assert exp.runs_dir.is_dir()
    assert not exp.index_file.exists()


@pytest.mark.parametrize("name", ["", "../x", "/x", "a\nb"])
def test_a_name_that_is_none(base: Path, name: str) -> None:
    with pytest.raises(UnsafeNameError):
        Experiment(name, base)
    assert not base.exists()


def test_a_name_is_taken_by_its_text(base: Path) -> None:
    for name, plain in ((Path("a/b"), "a/b"), ("./c", "c"), (5, "5")):
        exp = Experiment(name, base)
        assert (exp.name, exp.exp_dir) == (plain, base / plain)
        exp.add(n=1).mark_complete()
        (row,) = exp.rows()
        assert row["run_id"] == f"{plain.replace('/', '_')}_n_1"


def test_a_run_is_a_logbook_in_the_experiment(base: Path) -> None:
    exp = Experiment("sweep", base)
    log = exp.add(omega=2.0, n=3)
    assert isinstance(log, Logbook)
    assert log.run_id == "sweep_n_3_omega_2"
    assert log.path == exp.runs_dir / "log_sweep_n_3_omega_2"
    assert dict(log.params) == {"omega": 2.0, "n": 3}
    assert tree(log.path) == [
        "artifacts/",
        "data/",
        "log.txt",
        "metadata.json",
        "params.yaml",
        "plots/",
    ]
    assert not exp.index_file.exists()
    log.mark_complete()
    assert [row["run_id"] for row in table(exp)] == [log.run_id]


def test_columns_and_rows(base: Path) -> None:
    exp = Experiment("sweep", base)
    run(exp, {"energy": 4.5, "drift": 1e-9}, omega=2.0, n=3)
    run(exp, None, omega=3.0, n=3)
    assert header(exp) == ["run_id", "n", "omega", "status", "drift", "energy", *OURS]
    first, second = table(exp)
    assert (first["n"], first["omega"], first["status"]) == ("3", "2.0", "complete")
    assert (first["drift"], first["energy"]) == ("1e-09", "4.5")
    assert (first["run_status"], first["failure_reason"]) == ("complete", "")
    assert float(first["runtime_sec"]) >= 0
    assert len(first["start_time"]) == len("2026-11-23T03:00:00")
    assert (second["status"], second["energy"], second["run_status"]) == ("missing", "", "complete")


def test_a_failed_run_without_metrics_is_missing_and_its_reason_is_told(base: Path) -> None:
    exp = Experiment("sweep", base)
    log = exp.add(dt=0.5)
    assert log is not None
    with pytest.raises(RuntimeError), log:
        raise RuntimeError("hit the ground,\nhard")
    (row,) = table(exp)
    assert (row["status"], row["run_status"]) == ("missing", "failed")
    assert row["failure_reason"] == "hit the ground,\nhard"


def test_a_failed_run_with_metrics_is_failed(base: Path) -> None:
    exp = Experiment("sweep", base)
    log = exp.add(dt=0.5)
    assert log is not None
    log.json("metrics", {"e": 1})
    log.mark_failed("diverged")
    (row,) = table(exp)
    assert (row["status"], row["e"], row["run_status"]) == ("failed", "1", "failed")


@pytest.mark.parametrize("content", ["{", "[1, 2]", "\xff"])
def test_metrics_that_can_not_be_read(base: Path, content: str) -> None:
    exp = Experiment("sweep", base)
    log = exp.add(dt=0.5)
    assert log is not None
    with log:
        log["artifacts/metrics.json"].write_bytes(content.encode("latin-1"))
    (row,) = table(exp)
    assert row["status"] == "error"
    assert row["error_reason"]
    assert row["run_status"] == "complete"


def test_a_run_that_exists_is_refused_or_skipped(base: Path) -> None:
    exp = Experiment("sweep", base)
    run(exp, {"e": 1}, dt=0.1)
    with pytest.raises(RunExistsError, match=r"sweep_dt_0\.1"):
        exp.add(dt=0.1)
    assert exp.add(skip_existing=True, dt=0.1) is None
    assert exp.add(skip_existing=True, dt=0.2) is not None
    assert len(table(exp)) == 1


def test_a_parameter_that_can_not_be_stored_names_its_key(base: Path) -> None:
    exp = Experiment("sweep", base)
    with pytest.raises(UnsupportedValueError, match="parameter 'z'"):
        exp.add(z=1j)
    assert list(exp.runs_dir.iterdir()) == []


def test_numpy_parameters_name_the_run_as_numbers_do(base: Path) -> None:
    exp = Experiment("sweep", base)
    log = exp.add(dt=np.float64(0.1), n=np.int32(3))
    assert log is not None
    assert log.run_id == "sweep_dt_0.1_n_3"
    assert exp.add(skip_existing=True, dt=0.1, n=3) is None


def test_a_new_parameter_or_metric_makes_a_column(base: Path) -> None:
    exp = Experiment("sweep", base)
    run(exp, {"e": 1}, dt=0.1)
    run(exp, {"f": 2}, n=7)
    run(exp, {"e": 3, "f": 4}, dt=0.2, n=8)
    assert header(exp) == ["run_id", "dt", "n", "status", "e", "f", *OURS]
    assert [(r["dt"], r["n"], r["e"], r["f"]) for r in table(exp)] == [
        ("0.1", "", "1", ""),
        ("", "7", "", "2"),
        ("0.2", "8", "3", "4"),
    ]


def test_columns_that_share_a_name_do_not_overwrite_each_other(base: Path) -> None:
    exp = Experiment("sweep", base)
    log = run(exp, {"dt": "m1", "status": "m2", "runtime_sec": "m3"}, dt="p1", status="p2")
    (row,) = table(exp)
    assert row["run_id"] == log.run_id
    assert row["status"] == "complete"
    assert float(row["runtime_sec"]) >= 0
    assert sorted(value for value in row.values() if value[:1] in "mp" and value[1:].isdigit()) == [
        "m1",
        "m2",
        "m3",
        "p1",
        "p2",
    ]
    assert row["dt"] == "p1"


def test_a_second_verdict_replaces_the_row(base: Path) -> None:
    exp = Experiment("sweep", base)
    run(exp, {"e": 0}, dt=0.1)
    log = exp.add(dt=0.2)
    assert log is not None
    log.json("metrics", {"e": 1})
    log.mark_failed("too early")
    log.mark_complete()
    rows = table(exp)
    assert [(r["run_id"], r["status"], r["failure_reason"]) for r in rows] == [
        ("sweep_dt_0.1", "complete", ""),
        ("sweep_dt_0.2", "complete", ""),
    ]


def test_record_takes_metrics_from_another_file(base: Path) -> None:
    exp = Experiment("sweep", base)
    log = run(exp, {"e": 1}, dt=0.1)
    log.json("final", {"g": 9})
    exp.record(log, metrics_file="artifacts/final.json")
    (row,) = table(exp)
    assert (row["g"], row["e"]) == ("9", "")


def test_values_of_every_kind_in_the_table(base: Path) -> None:
    exp = Experiment("sweep", base)
    run(exp, {"list": [1, {"a": 2}], "none": None, "text": 'a,"b"\nc', "ok": True}, path="a/b,ü")
    (row,) = table(exp)
    assert row["path"] == "a/b,ü"
    assert row["list"] == '[1, {"a": 2}]'
    assert (row["none"], row["text"], row["ok"]) == ("", 'a,"b"\nc', "True")


@pytest.mark.parametrize("damage", ["gone", "half", "foreign", "started"])
def test_a_table_that_is_lost_is_made_anew_from_the_runs(base: Path, damage: str) -> None:
    exp = Experiment("sweep", base)
    for dt in (0.1, 0.2, 0.3):
        run(exp, {"e": dt}, dt=dt)
    before = table(exp)
    whole = exp.index_file.read_bytes()
    if damage == "gone":
        exp.index_file.unlink()
    elif damage == "half":
        exp.index_file.write_bytes(whole[:-7])
    elif damage == "foreign":
        exp.index_file.write_bytes(b"not,a table\n")
    else:
        exp.index_file.write_bytes(b"#" + whole[1:60])
    run(exp, {"e": 0.4}, dt=0.4)
    rows = sorted(table(exp), key=lambda row: row["run_id"])
    assert rows[:3] == sorted(before, key=lambda row: row["run_id"])
    assert rows[3]["e"] == "0.4"


def test_rebuild(base: Path) -> None:
    exp = Experiment("sweep", base)
    for dt in (0.1, 0.2):
        run(exp, {"e": dt}, dt=dt)
    still_open = exp.add(dt=0.3)
    before = table(exp)
    exp.index_file.write_text("nonsense")
    assert exp.rebuild_index() == 2
    assert table(exp) == before
    assert still_open is not None
    assert still_open.run_id not in exp.index_file.read_text()


# ----- a row that is odd, and what must not stand or fall with it -----


def messages(log: Logbook) -> list[str]:
    return [m.message for m in LogReader(log.path).messages("WARNING")]


def test_what_is_no_run_is_not_in_the_table(base: Path) -> None:
    exp = Experiment("sweep", base)
    run(exp, {"e": 1}, dt=0.1)
    before = table(exp)
    (exp.runs_dir / ".DS_Store").write_bytes(b"Bud1")
    (exp.runs_dir / "log_notes").write_text("a file")
    (exp.runs_dir / "log_empty").mkdir()
    shutil.copytree(exp.runs_dir / "log_sweep_dt_0.1", exp.runs_dir / "copy of it")
    assert exp.rebuild_index() == 1
    assert table(exp) == before


@pytest.mark.parametrize("content", ["{", "[1, 2]", "a: [", "!!bool 3", "when: 2026-13-45", "\xff"])
def test_a_run_with_damaged_parameters_keeps_its_row(base: Path, content: str) -> None:
    exp = Experiment("sweep", base)
    run(exp, {"e": 1}, dt=0.1)
    log = run(exp, {"e": 2}, dt=0.2)
    log["params.yaml"].write_bytes(content.encode("latin-1"))
    assert exp.rebuild_index() == 2
    found = [(r["run_id"], r["dt"], r["status"], r["e"], r["run_status"]) for r in table(exp)]
    assert found == [
        ("sweep_dt_0.1", "0.1", "complete", "1", "complete"),
        ("sweep_dt_0.2", "", "error", "2", "complete"),
    ]
    assert "params.yaml" in table(exp)[1]["error_reason"]


def test_a_run_that_can_not_be_read_keeps_its_row(base: Path) -> None:
    exp = Experiment("sweep", base)
    run(exp, {"e": 1}, dt=0.1)
    log = run(exp, {"e": 2}, dt=0.2)
    log["metadata.json"].write_text('{"status": "comp')
    log["artifacts/metrics.json"].unlink()
    log["artifacts/metrics.json"].mkdir()
    log["params.yaml"].unlink()
    log["params.yaml"].mkdir()
    assert exp.rebuild_index() == 2
    good, bad = table(exp)
    assert (good["dt"], good["e"], good["run_status"]) == ("0.1", "1", "complete")
    assert (bad["run_id"], bad["status"], bad["run_status"]) == (log.run_id, "error", "damaged")
    assert "metadata.json is damaged" in bad["failure_reason"]


def test_cells_of_any_length(base: Path) -> None:
    exp = Experiment("sweep", base)
    curve = [0.123456789] * 20_000
    limit = csv.field_size_limit()
    run(exp, {"curve": curve}, dt=0.1)
    run(exp, {"e": 1}, dt=0.2)
    assert csv.field_size_limit() == limit
    first, second = ExperimentReader(exp.exp_dir).index()
    assert json.loads(first["curve"]) == curve
    assert (second["run_id"], second["e"]) == ("sweep_dt_0.2", "1")
    for found in (exp.rows(), exp.to_dataframe().to_dict("records")):
        first, second = found
        assert first["curve"] == curve
        assert (second["run_id"], second["e"]) == ("sweep_dt_0.2", 1)
    assert "with 2 entries" in str(ExperimentReader(exp.exp_dir))
    assert exp.rebuild_index() == 2
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("a\rb", "a\rb"),
        ('a\r\nb,"', 'a\r\nb,"'),
        ("half \ud800 pair", "half \\ud800 pair"),
        (["\udcff"], '["\\udcff"]'),
    ],
)
def test_characters_that_csv_or_utf8_do_not_like(base: Path, value: object, cell: str) -> None:
    exp = Experiment("sweep", base)
    log = exp.add(dt=0.1)
    assert log is not None
    with log:
        log["artifacts/metrics.json"].write_text(json.dumps({"x": value}))
    run(exp, {"y": 1}, dt=0.2)
    assert [(r["x"], r["y"]) for r in table(exp)] == [(cell, ""), ("", "1")]
    assert len(exp.to_dataframe()) == 2


def test_values_that_json_does_not_know(base: Path) -> None:
    exp = Experiment("sweep", base)
    log = exp.add(dt=0.1)
    assert log is not None
    log["params.yaml"].write_text("when: {1: 2026-11-23, b: 2}\n")
    log.mark_complete()
    (row,) = table(exp)
    assert row["when"] == "{1: datetime.date(2026, 11, 23), 'b': 2}"


def test_what_is_wrong_with_a_row_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by errors whose text says nothing by itself, such as that of a key that is missing."""

    def torn(*args: object, **more: object) -> None:
        raise KeyError("run_id")

    exp = Experiment("sweep", base)
    monkeypatch.setattr(exp._index, "add", torn)
    log = run(exp, {"e": 1}, dt=0.1)
    (warning,) = messages(log)
    assert f"no row in {exp.index_file} for this run: KeyError 'run_id'; " in warning


def test_a_table_that_loses_its_header_meanwhile_is_made_anew(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another node does where locks don't exclude."""
    from notata import index

    exp = Experiment("sweep", base)
    run(exp, {"e": 1}, dt=0.1)
    monkeypatch.setattr(index, "read_table", lambda path: (["dt"], [{"dt": "0.1"}]))
    run(exp, {"f": 1}, dt=0.2)
    monkeypatch.undo()
    assert [row["dt"] for row in exp.rows()] == [0.1, 0.2]


@pytest.mark.parametrize("trouble", ["table", "lock", "environment"])
def test_a_run_does_not_fail_for_want_of_its_row(
    base: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    exp = Experiment("sweep", base)
    in_the_way = exp.exp_dir / ("index.csv" if trouble == "table" else ".index.csv.lock")
    if trouble == "environment":
        monkeypatch.setenv("NOTATA_LOCK_TIMEOUT", "soon")
    else:
        in_the_way.mkdir()
    log = run(exp, {"e": 1}, dt=0.1)
    assert log.status == LogReader(log.path).meta["status"] == "complete"
    (warning,) = messages(log)
    assert "no row in" in warning
    assert "rebuild_index()" in warning
    if trouble == "environment":
        monkeypatch.delenv("NOTATA_LOCK_TIMEOUT")
    else:
        in_the_way.rmdir()
    assert exp.rebuild_index() == 1
    assert table(exp)[0]["e"] == "1"


def refuse_to_open(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> list[str]:
    """Let each opening of a file of this name fail; gives the paths that were asked for."""
    opened, asked = os.open, []

    def refusing(path: Any, *args: Any, **more: Any) -> int:
        if os.path.basename(os.fspath(path)) == name:
            asked.append(os.fspath(path))
            raise OSError(number, os.strerror(number), path)
        return opened(path, *args, **more)

    monkeypatch.setattr(os, "open", refusing)
    return asked


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ENOSPC])
def test_a_table_whose_filter_can_not_be_used(
    base: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    exp = Experiment("sweep", base)
    run(exp, {"e": 1}, dt=0.1)
    asked = refuse_to_open(monkeypatch, ".index.csv.bloom", number)
    log = run(exp, {"e": 2}, dt=0.2)
    assert len(asked) > 0
    assert messages(log) == []
    shutil.rmtree(exp.runs_dir / "log_sweep_dt_0.1")
    run(Experiment("sweep", base), {"e": 3}, dt=0.1)
    assert [row["e"] for row in table(exp)] == ["2", "3"]
    monkeypatch.undo()
    run(exp, {"e": 4}, dt=0.4)
    assert [row["e"] for row in table(exp)] == ["2", "3", "4"]


def test_whether_a_run_is_done_is_told_to_all_ranks_by_opening_it(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exp = Experiment("sweep", base)
    log = run(exp, {"e": 1}, dt=0.1)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert exp.add(skip_existing=True, dt=0.1) is None
    refuse_to_open(monkeypatch, "metadata.json", errno.EIO)
    with pytest.raises(OSError, match="the disk or its server failed") as caught:
        exp.add(skip_existing=True, dt=0.1)
    assert caught.value.filename == str(log.path / "metadata.json")


def test_a_lock_that_is_held(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exp = Experiment("sweep", base)
    monkeypatch.setenv("NOTATA_LOCK_TIMEOUT", "0.1")
    with (exp.exp_dir / ".index.csv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        log = run(exp, {"e": 1}, dt=0.1)
    (warning,) = messages(log)
    assert ".index.csv.lock was held by others for 0.1 s, at last by a process that has" in warning
    assert "set NOTATA_LOCK_TIMEOUT to wait for longer" in warning
    assert "remove" not in warning  # of a lock file that is held, which would let two in
    assert not exp.index_file.exists()


def appended_by_hand(exp: Experiment, old: str, new: str) -> None:
    """Append the table's last row once more, changed, as a program would that knows no filter."""
    with exp.index_file.open("a", newline="") as file:
        file.write(exp.index_file.read_text().splitlines()[-1].replace(old, new) + "\n")


@pytest.mark.parametrize("meanwhile", ["nothing", "another row", "rebuilt", "no filter", "damaged"])
def test_a_run_that_is_done_again_has_one_row(base: Path, meanwhile: str) -> None:
    """Its folder was deleted, and another process makes it again."""
    for number in range(5):
        run(Experiment("sweep", base), {"e": number}, dt=number)
    exp = Experiment("sweep", base)
    bloom = exp.exp_dir / ".index.csv.bloom"
    shutil.rmtree(exp.runs_dir / "log_sweep_dt_1")
    expected = {"0": "0", "1": "7", "2": "2", "3": "3", "4": "4"}
    if meanwhile == "another row":
        appended_by_hand(exp, "sweep_dt_4,4", "sweep_dt_9,9")
        expected["9"] = "4"
    elif meanwhile == "rebuilt":
        exp.rebuild_index()
    elif meanwhile == "no filter":
        bloom.unlink()
    elif meanwhile == "damaged":
        bloom.write_bytes(bloom.read_bytes()[:40])
    run(exp, {"e": 7}, dt=1)
    found = [(row["dt"], row["e"]) for row in table(exp)]
    assert sorted(found) == sorted(expected.items())
    run(exp, {"e": 8}, dt=8)
    assert table(exp)[-1]["e"] == "8"
    assert exp.index_file.read_text().count("\n") == 1 + len(found) + 1


@pytest.mark.parametrize("blocks", [0, 1, 1 << 40, (1 << 64) - 1])
def test_a_filter_whose_head_is_damaged_is_made_anew(base: Path, blocks: int) -> None:
    exp = Experiment("sweep", base)
    path = exp.exp_dir / ".index.csv.bloom"
    run(exp, {"e": 0}, dt=0)
    head = path.read_bytes()
    path.write_bytes(head[:88] + struct.pack("<Q", blocks) + head[96:])
    shutil.rmtree(exp.runs_dir / "log_sweep_dt_0")
    run(exp, {"e": 1}, dt=0)
    assert [row["e"] for row in table(exp)] == ["1"]
    assert path.read_bytes()[88:96] == head[88:96] == struct.pack("<Q", 64)


def test_a_row_of_the_same_length_that_others_wrote_is_seen(base: Path) -> None:
    """One run's row was announced and never came; in its place stands another one."""
    exp = Experiment("sweep", base)
    for number in (1, 2, 3):
        run(exp, {"e": number}, dt=number)
    whole = exp.index_file.read_text()
    exp.index_file.write_text(whole.replace("sweep_dt_3,3,", "sweep_dt_7,7,"))
    shutil.rmtree(exp.runs_dir / "log_sweep_dt_3")
    run(exp, {"e": 8}, dt=7)
    assert [(row["dt"], row["e"]) for row in table(exp)] == [("1", "1"), ("2", "2"), ("7", "8")]


@pytest.mark.parametrize("other", [b"#un_id,dt\n", b"dt,status\n1,complete\n", None])
def test_a_table_that_another_node_takes_away_meanwhile_costs_no_row(
    base: Path, monkeypatch: pytest.MonkeyPatch, other: bytes | None
) -> None:
    """Where locks don't exclude: it is made anew from the runs."""
    exp = Experiment("sweep", base)
    for number in (1, 2):
        run(exp, {"e": number}, dt=number)
    (exp.exp_dir / ".index.csv.bloom").unlink()
    read = files.read_bytes
    monkeypatch.setattr(
        files, "read_bytes", lambda path: other if str(path).endswith(".csv") else read(path)
    )
    log = run(exp, {"e": 3}, dt=3)
    monkeypatch.undo()
    assert messages(log) == []
    assert [row["e"] for row in table(exp)] == ["1", "2", "3"]


def test_a_filter_that_can_not_be_made_costs_no_row(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EDQUOT, "no room")

    exp = Experiment("sweep", base)
    monkeypatch.setattr(Bloom, "make", refuse)
    for number in (1, 2, 2):
        shutil.rmtree(exp.runs_dir / f"log_sweep_dt_{number}", ignore_errors=True)
        log = run(exp, {"e": number}, dt=number)
        assert messages(log) == []
    assert [row["e"] for row in table(exp)] == ["1", "2"]
    assert not (exp.exp_dir / ".index.csv.bloom").exists()


def test_a_colleague_s_filter_is_written_in_place(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody but its owner may replace it in a sticky folder."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    exp = Experiment("sweep", base)
    run(exp, {"e": 1}, dt=1)
    path = exp.exp_dir / ".index.csv.bloom"
    before = path.stat()
    monkeypatch.setattr(os, "unlink", refuse)
    exp.record(run(exp, {"e": 1}, dt=0))  # a second result: the table is written anew
    appended_by_hand(exp, "sweep_dt_0,0", "sweep_dt_2,2")
    run(exp, {"e": 3}, dt=3)
    data = exp.index_file.read_bytes()
    now = Table(len(data), data[-64:])
    assert Bloom(str(path)).enter("sweep_dt_4", now, now) is False
    assert Bloom(str(path)).enter("sweep_dt_2", now, now) is True
    assert path.stat().st_ino == before.st_ino


def test_a_folder_without_an_id_is_no_obstacle(base: Path) -> None:
    exp = Experiment("sweep", base)
    log = run(exp, {"e": 1}, dt=1)
    shutil.copytree(log.path, exp.runs_dir / "log_")
    assert exp.rebuild_index() == 2
    run(exp, {"e": 2}, dt=2)
    assert len(table(exp)) == 3


def test_the_last_row_of_a_run_counts(base: Path) -> None:
    """As where locks don't exclude, and two processes append."""
    exp = Experiment("sweep", base)
    run(exp, {"e": 1}, dt=0.1)
    run(exp, {"e": 2}, dt=0.2)
    appended_by_hand(exp, "sweep_dt_0.2,0.2,complete,2", "sweep_dt_0.1,0.1,complete,3")
    assert [row["e"] for row in table(exp)] == ["1", "2", "3"]
    expected = [("sweep_dt_0.2", 2.0), ("sweep_dt_0.1", 3.0)]
    rows = ExperimentReader(exp.exp_dir).index()
    assert [(row["run_id"], float(row["e"])) for row in rows] == expected
    assert "with 2 entries" in str(ExperimentReader(exp.exp_dir))
    frame = exp.to_dataframe()
    assert list(zip(frame["run_id"], frame["e"], strict=True)) == expected
    assert list(frame.index) == [0, 1]
    assert len(exp.select(dt=0.1)) == 1
    run(exp, {"f": 4}, dt=0.3)  # a new column: the table is written anew
    assert [row["e"] for row in table(exp)] == ["2", "3", ""]


# ----- columns do not depend on the order of runs -----


def cells_of(base: Path, runs: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> Any:
    """The header, and the cells of each run but for its times, after a row was added for each."""
    exp = Experiment("sweep", base)
    for params, metrics in runs:
        run(exp, metrics, **params)
    added = header(exp), sorted(table(exp), key=lambda row: row["run_id"])
    exp.rebuild_index()
    assert (header(exp), sorted(table(exp), key=lambda row: row["run_id"])) == added
    times = ("start_time", "runtime_sec")
    return added[0], [{k: v for k, v in row.items() if k not in times} for row in added[1]]


def test_columns_do_not_depend_on_the_order_of_runs(base: Path) -> None:
    runs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"x": 1}, {"y": 2}),
        ({"y": 3, "a": "b,c\n"}, {"x": 4}),
        ({"z": 5}, {"x": 6, "y": 7, "b": 8}),
    ]
    found = [cells_of(base / str(n), order) for n, order in enumerate(itertools.permutations(runs))]
    names, rows = found[0]
    assert names == ["run_id", "a", "x", "y", "z", "status", "b", "metrics.x", "metrics.y", *OURS]
    assert [(r["x"], r["y"], r["metrics.x"], r["metrics.y"]) for r in rows] == [
        ("", "3", "4", ""),
        ("1", "", "", "2"),
        ("", "", "6", "7"),
    ]
    assert all(other == found[0] for other in found)


@pytest.mark.parametrize("backwards", [False, True])
def test_names_that_look_like_columns_of_others(base: Path, backwards: bool) -> None:
    names = ["x", "status", "run_id", "run_status", "error_reason"]
    names += [f"{prefix}.{name}" for prefix in ("params", "metrics") for name in names]
    names += [f"{prefix}.metrics.x" for prefix in ("params", "metrics")]
    runs = [({name: f"p{n}"}, {name: f"m{n}"}) for n, name in enumerate(names)]
    _, rows = cells_of(base, reversed(runs) if backwards else runs)
    for _, row in zip(names, rows, strict=True):
        values = sorted(v for k, v in row.items() if v[:1] in "mp" and v[1:].isdigit())
        assert [value[0] for value in values] == ["m", "p"]
        assert values[0][1:] == values[1][1:]


def test_a_dataframe(base: Path) -> None:
    exp = Experiment("sweep", base)
    assert exp.to_dataframe().empty
    run(exp, {"e": 1.5}, dt=0.1, scheme="rk4")
    run(exp, {"e": 2.5}, dt=0.2, scheme="rk4")
    frame = exp.to_dataframe()
    assert frame["e"].tolist() == [1.5, 2.5]
    assert frame["dt"].dtype == np.float64
    assert list(frame.columns) == header(exp)


def test_select(base: Path) -> None:
    exp = Experiment("sweep", base)
    for dt in (0.1, 0.2):
        for scheme in ("rk4", "euler"):
            run(exp, {"e": dt}, dt=dt, scheme=scheme)
    assert len(exp.select()) == 4
    assert exp.select(dt=0.2)["scheme"].tolist() == ["rk4", "euler"]
    chosen = exp.select(dt=0.2, scheme="euler")
    assert chosen["run_id"].tolist() == ["sweep_dt_0.2_scheme_euler"]
    assert exp.select(dt=9).empty
    with pytest.raises(KeyError):
        exp.select(nothing=1)


def test_one_experiment_from_two_objects(base: Path) -> None:
    one, two = Experiment("sweep", base), Experiment("sweep", base)
    run(one, {"e": 1}, dt=0.1)
    run(two, {"f": 2}, dt=0.2)
    run(one, {"e": 3}, dt=0.3)
    assert [(r["e"], r["f"]) for r in table(one)] == [("1", ""), ("", "2"), ("3", "")]
    assert len(ExperimentReader(base / "sweep")) == 3


def test_runs_that_end_at_the_same_instant_have_one_row_each(tmp_path: Path) -> None:
    """The first of them makes the table from all runs that have ended, the others' among them."""
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from notata import Experiment
        log = Experiment("s", sys.argv[2]).add(k=int(sys.argv[1]))
        log.json("metrics", {"m": int(sys.argv[1])})
        Path(sys.argv[2], f"ready_{sys.argv[1]}").touch()
        while not Path(sys.argv[2], "go").exists():
            pass
        log.mark_complete()
    """)
    for trial in range(3):
        base = tmp_path / str(trial)
        base.mkdir()
        command = [sys.executable, "-c", code]
        tasks = [subprocess.Popen([*command, str(k), str(base)]) for k in range(6)]
        while len(list(base.glob("ready_*"))) < len(tasks):
            assert all(task.poll() is None for task in tasks)
            time.sleep(0.01)
        (base / "go").touch()
        assert [task.wait(60) for task in tasks] == [0] * len(tasks)
        rows = (base / "s" / "index.csv").read_text().splitlines()[1:]
        assert sorted(row.split(",")[0] for row in rows) == [f"s_k_{k}" for k in range(6)]


def test_no_table_is_read_through_what_appends_to_it(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS that lost other nodes' rows: such a descriptor can't be read from."""
    opened, modes = os.open, []

    def note(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if str(path).endswith("index.csv") and flags & os.O_APPEND:
            modes.append(flags & os.O_ACCMODE)
        return opened(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", note)
    exp = Experiment("s", base)
    for k in range(3):  # the first row, the next, and a new column
        run = exp.add(k=k)
        assert run is not None
        run.json("metrics", {"m": k} | ({"new": 1} if k == 2 else {}))
        run.mark_complete()
    assert len(exp.rows()) == 3
    assert set(modes) == {os.O_WRONLY}
