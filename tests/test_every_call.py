"""A program that uses every verb, killed or refused at each system call that touches its files.

By default every so manieth call, from another one on each kind; `make sweep` takes all of them.
"""

from __future__ import annotations

import ast
import inspect
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from calls import (
    CHANGES,
    REFUSABLE,
    STRIDE,
    Point,
    each,
    errors_of,
    fail_at,
    kill_at,
    need_strace,
    points_in,
    python,
    refused,
    run,
    strace,
)
from promises import (
    LINES,
    acknowledged,
    check,
    check_goes_on,
    check_sweep,
    check_sweep_goes_on,
    check_table,
    lines,
    litter,
    newest,
    prepare,
    run_in,
)

from notata import Experiment, Logbook, LogReader, disk

VICTIM = Path(__file__).parent / "allverbs.py"
KINDS = ("first", "resumed", "overwrite")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTATA_HEARTBEAT", "0")


def find_points(
    folder: Path, kind: str, options: Sequence[str], calls: Sequence[str], *, reads: bool = False
) -> list[Point]:
    """The calls of an undisturbed run of the program that touch its files."""
    need_strace()
    base, told = prepare(folder / "undisturbed", kind)
    log = folder / "calls"
    done = run([*strace(calls, to=log), *python(VICTIM, kind, base, told, *options)], folder)
    assert done.stdout == "done\n", done.stderr
    assert "close" in newest(acknowledged(Path(f"{told}.0")))
    return points_in(log, base, reads=reads)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("durability", ["close", "node"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_death_at_each_call_loses_nothing(tmp_path: Path, kind: str, durability: str) -> None:
    points = find_points(tmp_path, kind, [durability], CHANGES)
    if durability == "node":  # the calls that differ
        points = [point for point in points if "sync" in point.call]
    assert len(points) > (100 if durability == "close" else 50)
    print(f"{kind}, {durability}: {len(points)} points, of which {len(points[::STRIDE])} are tried")
    folders = {point: tmp_path / f"{n}" for n, point in enumerate(points)}
    missed: list[Point] = []

    def kill(point: Point) -> int:
        base, told = prepare(folders[point], kind)
        command = python(VICTIM, kind, base, told, durability)
        return run([*strace([point.call], *kill_at(point)), *command], tmp_path).returncode

    def look(point: Point, status: int) -> None:
        if status == 0:  # it made one call less than the one that was counted
            missed.append(point)
            return
        assert status in (-9, 137)
        base, told = folders[point] / "base", folders[point] / "told"
        oldest = 1 if kind == "first" else 0
        check(base, told, oldest=oldest)
        if kind == "first":
            check_table(base, told)
        check_goes_on(base, told)
        shutil.rmtree(folders[point])

    each(points, KINDS.index(kind), kill, look)
    assert len(missed) <= max(1, len(points) // STRIDE // 50), missed


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_at_each_call_is_told_and_harms_nothing_else(tmp_path: Path, kind: str) -> None:
    options = ["node", "tolerant"]
    points = find_points(tmp_path, kind, options, REFUSABLE, reads=True)
    locks = {"flock"} if kind == "first" else set()  # of the table, which only an experiment has
    assert {"close", "fsync", "newfstatat", "rename"} | locks <= {point.call for point in points}
    assert len(points) > 450
    tried = [(point, name) for point in points for name in errors_of(point)]
    print(f"{kind}: {len(points)} calls, {len(tried)} errors, of which one in {STRIDE} is tried")
    folders = {which: tmp_path / f"{n}" for n, which in enumerate(tried)}
    missed: list[Any] = []

    def refuse(which: Any) -> Any:
        point, name = which
        for _ in range(3):  # a slow run looks for newer attempts more often, which shifts the count
            shutil.rmtree(folders[which], ignore_errors=True)
            base, told = prepare(folders[which], kind)
            command = python(VICTIM, kind, base, told, *options)
            under = strace([point.call], *fail_at(point, name), to=f"{folders[which]}.calls")
            done = run([*under, *command], tmp_path)
            if refused(Path(f"{folders[which]}.calls"), base):
                break
        return done

    def look(which: Any, done: Any) -> None:
        point, _ = which
        base, told = folders[which] / "base", Path(f"{folders[which]}/told.0")
        if not refused(Path(f"{folders[which]}.calls"), base):
            missed.append(which)
            return
        said = acknowledged(told)
        assert done.stdout == "done\n", done.stderr[-2000:]
        failed = [answer for answer in said if "errno" in answer]
        for answer in failed:
            assert f"; {disk._ADVICE[answer['errno']]}" in answer["error"], answer
            assert str(base) in answer["error"], answer
        assert len(failed) <= 2, failed
        if "open" not in newest(said):
            check_goes_on(base, told)
            return
        check(base, folders[which] / "told", oldest=0, lossy=True)
        lost = said[-1]["lost"]
        there = lines(run_in(base), 0, 1)
        expected = {text.format(v) for v in (1, 2) for text in LINES.values()}
        assert len(expected - there) <= lost <= 2, (lost, expected - there)
        if "close" in newest(said):
            assert LogReader(run_in(base)).meta.get("log_lines_lost", 0) == lost
        if point.call not in ("unlink", "rmdir"):
            # What an old run left when it could not be taken away is a folder, out of sight.
            assert [path for path in litter(base) if path.is_file()] == []
            assert kind == "overwrite" or litter(base) == []
        check_goes_on(base, told)
        shutil.rmtree(folders[which])

    each(tried, KINDS.index(kind), refuse, look)
    assert len(missed) <= max(1, len(tried) // STRIDE // 50), missed


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", ["death", "error"])
def test_after_any_call_the_next_sweep_does_what_is_left(tmp_path: Path, how: str) -> None:
    calls = CHANGES if how == "death" else REFUSABLE
    points = find_points(tmp_path, "sweep", ["close"], calls, reads=how == "error")
    assert len(points) > (100 if how == "death" else 250)
    # Each is tried with one error, also where all errors of the verbs of a run are.
    print(f"sweep, {how}: {len(points)} points, of which {len(points[::STRIDE])} are tried")
    folders = {point: tmp_path / f"{n}" for n, point in enumerate(points)}
    missed: list[Point] = []

    def stopped(point: Point, done: Any) -> bool:
        if how == "death":  # else it made one call less than the one that was counted
            return bool(done.returncode)
        return bool(refused(Path(f"{folders[point]}.calls"), folders[point] / "base"))

    def stop(point: Point) -> Any:
        errors = errors_of(point)
        stopping = kill_at(point)
        if how == "error":
            stopping = fail_at(point, errors[point.number % len(errors)])
        for _ in range(3):  # a slow run makes other calls besides, which shifts the count
            shutil.rmtree(folders[point], ignore_errors=True)
            base, told = prepare(folders[point], "first")
            under = strace([point.call], *stopping, to=f"{folders[point]}.calls")
            done = run([*under, *python(VICTIM, "sweep", base, told, "close")], tmp_path)
            if stopped(point, done):
                break
        return done

    def look(point: Point, done: Any) -> None:
        base, told = folders[point] / "base", folders[point] / "told"
        if not stopped(point, done):
            missed.append(point)
            return
        if how == "death":
            assert done.returncode in (-9, 137)
        elif done.returncode != 0:  # whoever reads it knows which file it was, and what to do
            said = done.stderr[done.stderr.rindex("\nOSError: ") :]
            advised = any(f"; {advice}" in said for advice in disk._ADVICE.values())
            assert advised or point.call == "flock", done.stderr  # one that can't be let go
            assert str(base) in said or point.call == "flock", done.stderr
        check_sweep_goes_on(base, check_sweep(base, told))
        shutil.rmtree(folders[point])

    each(points, 5, stop, look)
    assert len(missed) <= max(1, len(points) // STRIDE // 50), missed


# What the program leaves out: they read the table as `rows` does, and then need pandas.
LEFT_OUT = {"to_dataframe", "select"}


def test_the_program_uses_every_verb() -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(VICTIM.read_text()))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value) in ("log", "log.root", "exp", 'Experiment("s", base)')
    }
    known_as: dict[Any, set[str]] = {}  # an older name of a verb is the same function
    for cls in (Logbook, Experiment):
        for name in dir(cls):
            member = inspect.getattr_static(cls, name)
            if name[0] != "_" and (inspect.isfunction(member) or name in ("params", "logger")):
                known_as.setdefault(member, set()).add(name)
    assert set().union(*(n for n in known_as.values() if not n & used)) == LEFT_OUT
