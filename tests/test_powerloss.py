"""The power goes: what each durability promised is on disk, and the next attempt or merge goes on.

On a file system of its own, which is shut down without writing what it still has in memory, as it
would lose it; once with its journal written, once without.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calls import (
    CHANGES,
    STRIDE,
    Point,
    each,
    kill_at,
    need_strace,
    points_in,
    python,
    run,
    strace,
)
from power import AT_ONCE, SYSTEMS, WITH_JOURNAL, Power, powered
from promises import acknowledged, check_after_power_loss, check_goes_on, newest, prepare
from richrun import answers, counted
from simulated import write_as
from test_crash import killed, plain, work
from test_crash import points as merge_points
from test_crash import prepared as merged_before

import notata

VICTIM = Path(__file__).parent / "allverbs.py"


@pytest.fixture(params=list(SYSTEMS))
def power(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Power]:
    with powered(tmp_path, request.param) as disk:
        yield disk


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTATA_HEARTBEAT", "0")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", [AT_ONCE, WITH_JOURNAL])
@pytest.mark.parametrize("durability", ["process", "close", "node"])
@pytest.mark.parametrize("kind", ["first", "resumed", "overwrite"])
def test_what_was_promised_outlives_the_power(
    power: Power, tmp_path: Path, kind: str, durability: str, how: int
) -> None:
    need_strace()
    base, told = prepare(power.path / "undisturbed", kind)
    log = tmp_path / "calls"
    done = run([*strace(CHANGES, to=log), *python(VICTIM, kind, base, told, durability)], tmp_path)
    assert done.stdout == "done\n", done.stderr
    points = points_in(log, base)
    assert len(points) > 100
    stride = 1 if STRIDE == 1 else (5 if kind == "first" else 10) * STRIDE
    tried = len(points[how % stride :: stride])
    print(f"{kind}, {durability}, {how}: {len(points)} points, of which {tried} are tried")

    def kill(point: Point) -> tuple[Path, Path]:
        name = f"{point.call}-{point.number}"
        base, _ = prepare(power.path / name, kind)
        power.settle()
        told = tmp_path / f"told-{name}"  # this disk keeps its power
        command = python(VICTIM, kind, base, told, durability)
        done = run([*strace([point.call]), *kill_at(point), *command], tmp_path)
        assert done.returncode in (-9, 137), done.stdout
        power.cut(how)
        return base, told

    def look(point: Point, found: tuple[Path, Path]) -> None:
        base, told = found
        check_after_power_loss(base, told, durability, kind=kind)
        check_goes_on(base, told)
        shutil.rmtree(base.parent)

    each(points, how, kill, look, workers=0, stride=stride)


@pytest.mark.parametrize("how", [AT_ONCE, WITH_JOURNAL])
@pytest.mark.parametrize("until", ["halfway", "end"])
@pytest.mark.parametrize("durability", ["close", "node"])
def test_without_the_syncs_it_would_be_lost(
    power: Power, tmp_path: Path, durability: str, until: str, how: int
) -> None:
    """The test above would notice if the syncs were left out: here they are."""
    outcomes = []
    for sync in ("synced", "unsynced"):
        base, _ = prepare(power.path / sync, "first")
        power.settle()
        told = tmp_path / f"told-{sync}"
        run(python(VICTIM, "first", base, told, durability, until, sync), tmp_path)
        assert ("close" in newest(acknowledged(Path(f"{told}.0")))) == (until == "end")
        power.cut(how)
        try:
            check_after_power_loss(base, told, durability)
        except Exception as error:  # whatever a run that is in pieces leads to
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("kept")
    promised = durability == "node" or until == "end"
    assert outcomes[0] == "kept"
    assert (outcomes[1] != "kept") == promised, outcomes


# ----- while a run is merged -----


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", [AT_ONCE, WITH_JOURNAL])
@pytest.mark.parametrize("state", ["new", "again"])
@pytest.mark.parametrize("way", ["plain", "prune"])
def test_a_merge_loses_nothing_with_the_power(
    power: Power, tmp_path: Path, way: str, state: str, how: int
) -> None:
    need_strace()
    if state == "new":
        original = counted(write_as(2, tmp_path / "original", work))
    else:
        original = merged_before(tmp_path, state)  # so that it replaces what it made
    before = answers(original)

    def prepared(name: str) -> Path:
        copy = Path(shutil.copytree(original, power.path / name / original.name))
        power.settle()
        return copy

    undisturbed = prepared("undisturbed")
    found = merge_points(undisturbed, way, tmp_path / "calls")
    whole = plain(undisturbed)
    power.cut(how)  # what a merge has returned from outlives the power
    assert plain(undisturbed) == whole
    assert answers(undisturbed) == before
    assert notata.merge(undisturbed, prune=way == "prune").nothing_to_do
    stride = 1 if STRIDE == 1 else STRIDE // 2 or 1
    print(f"{way}, {state}, {how}: {len(found)} points, one in {stride} is tried")
    assert len(found) > 40

    def kill(point: Any) -> Path:
        run = prepared(f"{point.call}-{point.number}")
        killed(run, way, point)  # a thread of its own may have come less far: any moment is one
        power.cut(how)
        return run

    def look(point: Any, run: Path) -> None:
        assert answers(run) == before
        notata.merge(run, prune=way == "prune")
        assert answers(run) == before
        assert plain(run) == whole
        assert notata.merging.verify(run)[2:4] == ((), ())
        shutil.rmtree(run.parent)

    each(found, how, kill, look, workers=0, stride=stride)
