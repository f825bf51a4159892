"""What a death, or a refusal, at each system call of a row leaves: the next writer mends it."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from calls import (
    REFUSABLE,
    each,
    errors_of,
    fail_at,
    points_in,
    python,
    refused,
    run,
)
from calls import strace as under_strace
from simulated import ROOT

from notata import Experiment, ExperimentReader, files, inplace, turns
from notata.index import Index
from notata.rows import row_of
from notata.stored import read_json

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")

# What changes the disk: each of these calls on a file of the table or its lock is a point.
CALLS = ["openat", "mkdir", "write", "pwrite64", "ftruncate", "rename", "unlink", "chmod"]
CHANGES_BY_OPENING = re.compile("O_CREAT|O_TRUNC|O_APPEND")

# A run of each kind ends: the table's first; one that fits it; one with a line break in its reason;
# one with a new column; one that has a row already.
KINDS = ("first", "append", "lines", "column", "again")
PROGRAM = textwrap.dedent("""
    import sys
    from notata import Experiment
    kind, base = sys.argv[1:]
    exp = Experiment("s", base)
    if kind == "again":
        from notata.index import Index
        from notata.rows import row_of
        Index(str(exp.exp_dir)).add(row_of(str(exp.runs_dir / "log_s_k_0")))
    else:
        log = exp.add(k=7)
        log.json("metrics", {"m": 7, **({"new": 1} if kind == "column" else {})})
        if kind == "lines":
            log.mark_failed("one,\\ntwo\\nthree")
        else:
            log.mark_complete()
""")


def prepared(base: Path, kind: str, *, refused: bool) -> Path:
    exp = Experiment("s", base)
    for k in range(0 if kind == "first" else 3):
        log = exp.add(k=k)
        assert log is not None
        log.json("metrics", {"m": k})
        log.mark_complete()
    if refused:
        (exp.exp_dir / ".index.csv.lock.turns").mkdir(exist_ok=True)
    return exp.exp_dir


def strace(base: Path, kind: str, *options: str, log: Path) -> subprocess.CompletedProcess[str]:
    python = [sys.executable, "-B", "-c", PROGRAM, kind, str(base)]
    # -e signal=none, -y: only calls, with the files behind descriptors.
    command = ["strace", "-f", "-qq", "-y", "-s", "16", "-e", "signal=none", "-o", str(log)]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("NOTATA_")}
    # In no checkout: how much of one is looked at depends on how long it takes.
    return subprocess.run(
        [*command, *options, *python],
        cwd=log.parent,
        env=environ | {"PYTHONPATH": os.fspath(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def points(folder: Path, kind: str, *, refused: bool) -> list[tuple[str, int]]:
    """The calls that touch the table's or the lock's files: name, and ordinal of its name."""
    base = folder / "count"
    prepared(base, kind, refused=refused)
    log = folder / "calls.txt"
    done = strace(base, kind, "-e", f"trace={','.join(CALLS)}", log=log)
    assert done.returncode == 0, done.stderr
    seen: dict[str, int] = {}
    found = []
    main = None
    for line in log.read_text(errors="replace").splitlines():
        pid, _, text = line.partition(" ")
        main = main or pid
        call = text.strip().split("(", 1)[0]
        if pid != main or call not in CALLS:
            continue  # the heartbeat's thread does nothing in so short a time
        seen[call] = seen.get(call, 0) + 1
        if f"{base}/s" not in line or f"{base}/s/runs" in line:
            continue
        if call != "openat" or CHANGES_BY_OPENING.search(line):
            found.append((call, seen[call]))
    return found


def values(exp: Experiment) -> dict[str, Any]:
    """The rows by run id; a run has one on disk, too."""
    lines = [row["run_id"] for row in exp.rows()]
    assert len(set(lines)) == len(lines)
    return {row["run_id"]: (row["m"], row["run_status"]) for row in exp.rows()}


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "refused"), [*((kind, False) for kind in KINDS), ("append", True)]
)
def test_a_death_at_each_call_is_mended_by_the_next_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, refused: bool
) -> None:
    monkeypatch.setattr(turns, "GONE_AFTER", 0.5)  # for one that died before it said who it was
    monkeypatch.setattr(turns, "_WATCHED", 0.5)
    todo = points(tmp_path, kind, refused=refused)
    assert len(todo) >= 4, todo
    names = {call for call, _ in todo}
    assert {"write" if kind == "append" else "pwrite64", "openat"} <= names
    assert "rename" not in names  # over the table, it would lose rows of other nodes
    mended = 0
    for call, ordinal in todo:
        base = tmp_path / f"{call}-{ordinal}"
        prepared(base, kind, refused=refused)
        inject = f"inject={call}:signal=SIGKILL:when={ordinal}"
        done = strace(base, kind, "-e", f"trace={call}", "-e", inject, log=tmp_path / "log.txt")
        assert done.returncode in (-9, 137), (call, ordinal, done.stderr)
        exp = Experiment("s", base)
        log = exp.add(k=100)
        assert log is not None
        with log:
            log.json("metrics", {"m": 100})
        found = values(exp)
        # What had a row has it still, and the next writer has its own. The dead run has one where
        # that saw that something was wrong, or where it had come so far; else a rebuild brings it.
        expected = {f"s_k_{k}": (k, "complete") for k in range(0 if kind == "first" else 3)}
        expected["s_k_100"] = (100, "complete")
        dead = read_json(base / "s" / "runs" / "log_s_k_7" / "metadata.json") or {}
        ended = dead.get("status") in ("complete", "failed")
        mine = {"s_k_7": (7, dead["status"])} if ended else {}
        mended += found == expected | mine
        assert found in (expected, expected | mine), (call, ordinal)
        exp.rebuild_index()
        assert values(exp) == expected | mine, (call, ordinal)
        shutil.rmtree(base)
    assert mended > 0


@needs_strace
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "first"])
def test_an_error_at_each_call_leaves_the_older_rows(tmp_path: Path, kind: str) -> None:
    # Python looks again into the folder of a program each time that something comes into it.
    program = tmp_path / "program" / "program.py"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    whole, log = tmp_path / "whole", tmp_path / "calls"
    prepared(whole, kind, refused=False)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(whole, undisturbed)
    command = python(program, kind, undisturbed)
    assert run([*under_strace(REFUSABLE, to=log), *command], tmp_path).returncode == 0
    todo = [p for p in points_in(log, undisturbed, reads=True) if "/s/runs" not in p.line]
    assert {"flock", "fsync", "newfstatat", "read"} <= {point.call for point in todo}
    tried = [(point, name) for point in todo for name in errors_of(point)]
    print(f"{kind}: {len(todo)} calls, {len(tried)} errors")
    folders = {which: tmp_path / f"{n}" for n, which in enumerate(tried)}
    missed: list[Any] = []

    def refuse(which: Any) -> Any:
        point, name = which
        shutil.copytree(whole, folders[which])
        options = fail_at(point, name)
        under = under_strace([point.call], *options, to=f"{folders[which]}.calls")
        return run([*under, *python(program, kind, folders[which])], tmp_path)

    def look(which: Any, done: Any) -> None:
        base = folders[which]
        told = Path(f"{base}.calls")
        if not refused(told, base) or refused(told, base / "s" / "runs"):
            missed.append(which)
            return
        exp = Experiment("s", base)
        older = {f"s_k_{k}": (k, "complete") for k in range(3)}
        meta = read_json(base / "s" / "runs" / "log_s_k_7" / "metadata.json") or {}
        mine = {"s_k_7": (7, meta["status"])} if meta else {}
        if done.returncode == 0:
            assert bool(mine) == (kind != "again")
            assert meta.get("status") != "initialized", meta
        else:  # who asks for a row by itself, or opens the experiment, hears of the error
            assert "OSError" in done.stderr or "Stale file" in done.stderr, done.stderr
            assert not mine
        found = values(exp)
        assert found in (older, older | mine), found
        if mine and found == older:
            there = (base / "s" / "runs" / "log_s_k_7" / "log.txt").read_text()
            assert "no row in" in there
            assert os.strerror(getattr(errno, which[1])) in there
        if kind == "again":  # a rebuild must bring all of them from the runs alone
            exp.index_file.unlink()
        log = exp.add(k=100)
        assert log is not None
        with log:
            log.json("metrics", {"m": 100})
        newer = {"s_k_100": (100, "complete")}
        assert values(exp) in (found | newer, older | mine | newer)
        assert exp.rebuild_index() == len(older | mine | newer)
        assert values(exp) == older | mine | newer
        shutil.rmtree(base)

    each(tried, KINDS.index(kind), refuse, look)
    assert len(missed) <= max(1, len(tried) // 50), missed


@pytest.mark.parametrize("reason", ["one, two", "one,\ntwo\n\nthree"])
def test_a_torn_append_is_noticed_wherever_it_is_cut(
    base: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """Also behind a line break within a cell, where the table would look whole."""
    prepared(base, "append", refused=False)
    exp = Experiment("s", base)
    log = exp.add(k=7)
    assert log is not None
    log.json("metrics", {"m": 7})
    log.mark_failed(reason)
    expected = exp.rows()
    whole = exp.index_file.read_bytes()
    line = whole[whole.index(b"s_k_7") :]
    row, index = row_of(os.fspath(log.path)), Index(os.fspath(exp.exp_dir))

    whole_write = files.write_all

    def torn(descriptor: int, data: bytes) -> None:
        if data != line:  # the filter of a table that is made anew
            whole_write(descriptor, data)
            return
        os.write(descriptor, data[:cut])
        raise OSError("the disk is full")

    def full(descriptor: int, data: bytes, size: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(files, "write_all", torn)
    for cut in range(1, len(line)):
        exp.index_file.write_bytes(whole.removesuffix(line))
        with monkeypatch.context() as still_full:  # else the table is put back as it was
            still_full.setattr(inplace, "_overwrite", full)
            with pytest.raises(OSError, match="the disk is full"):
                index.add(row)
        assert exp.index_file.read_bytes()[1:] == whole[1 : len(whole) - len(line) + cut]
        index.add(row)  # the next writer
        assert exp.rows() == expected, cut


@pytest.mark.parametrize("reason", ["123456", "one, two", "one,\ntwo\n\nthree"])
def test_no_reader_takes_a_torn_last_line_for_a_row(base: Path, reason: str) -> None:
    """As the loss of a node leaves it, whatever was in the file before, and with zeros behind."""
    exp = Experiment("s", base)
    for k in range(2):
        log = exp.add(k=k)
        assert log is not None
        log.json("metrics", {"m": 123456})
        log.mark_failed(reason)
    expected, (_, second) = exp.rows()[:1], exp.rows()
    whole = exp.index_file.read_bytes()
    start = whole.index(b"s_k_1")
    reader = ExperimentReader(exp.exp_dir)
    for cut in range(start, len(whole)):
        for zeros in (b"", bytes(500)):
            exp.index_file.write_bytes(whole[:cut] + zeros)
            assert exp.rows() == reader.rows() == expected, cut
            assert [row["run_id"] for row in reader.index()] == ["s_k_0"], cut
            assert "with 1 entries" in str(reader)
    for zeros in (1, 500):
        exp.index_file.write_bytes(whole + bytes(zeros))
        assert exp.rows() == [*expected, second]
        assert exp.to_dataframe()["m"].tolist() == [123456, 123456]
    for cut in (start + 5, whole.rindex(b"123456") + 3, len(whole) - 1):
        exp.index_file.write_bytes(whole[:cut])
        assert exp.to_dataframe()["run_id"].tolist() == ["s_k_0"]
        assert len(exp.select(m=123)) == len(exp.select(k=1)) == 0
    exp.index_file.write_bytes(whole[:8])  # of the header
    assert exp.rows() == [] == list(reader.index())
    exp.index_file.write_bytes(whole[:-3])
    log = exp.add(k=2)
    assert log is not None
    log.mark_complete()
    assert [row["k"] for row in exp.rows()] == [0, 1, 2]


def test_a_quote_that_somebody_put_into_a_table_is_no_torn_line(base: Path) -> None:
    exp = Experiment("s", base)
    exp.index_file.write_text('run_id,size,status\ns_1,5" pipe,complete\ns_2,x,complete\n')
    assert [row["size"] for row in exp.rows()] == ['5" pipe', "x"]


def test_an_append_costs_the_same_however_long_the_table_is(base: Path) -> None:
    """Counted in the calls that read and write, and their bytes."""
    costs = []
    for name, rows in (("wa", 10), ("sh", 10), ("me", 1_000), ("lo", 100_000)):
        exp = Experiment(name, base)
        log = exp.add(k=1)
        assert log is not None
        log.json("metrics", {"m": 1.5})
        log.mark_complete()
        head, row = exp.index_file.read_text().splitlines(keepends=True)
        more = [row.replace(f"{name}_k_1", f"{name}_k_1{n}") for n in range(rows)]
        exp.index_file.write_text(head + "".join(more))
        for k in (2, 3):  # the first finds a table that somebody else has written to
            log = exp.add(k=k)
            assert log is not None
            log.json("metrics", {"m": 2.5})
            before = counted()
            log.mark_complete()
        costs.append([now - then for now, then in zip(counted(), before, strict=True)])
        assert exp.index_file.read_text().count("\n") == rows + 3
    _, short, medium, along = costs
    assert along[2:] == medium[2:], costs  # as many reads and writes
    assert abs(along[0] - medium[0]) <= 64
    assert along[2] - short[2] <= 2
    # The head and the end of the table are read in buffers, which 10 rows don't fill.
    assert along[0] - short[0] <= 2 * io.DEFAULT_BUFFER_SIZE
    for other in (short, medium):
        assert abs(along[1] - other[1]) <= 20  # names, and digits of a duration


def counted() -> list[int]:
    """Bytes read and written, and reads and writes, of this process so far."""
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return [int(told[key]) for key in ("rchar", "wchar", "syscr", "syscw")]
