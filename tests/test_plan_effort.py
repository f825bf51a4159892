"""Reading manifests and planning a merge look at each piece a few times, however many."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulated import put_record, write_as

import notata
from notata import Logbook, manifests
from notata.assembly import Part, assemble
from notata.mergerecord import MergeRecord
from notata.merging import commit, faults, losses, plan, survey
from notata.pieces import Identity, Piece


def _asked(monkeypatch: pytest.MonkeyPatch, run: Path) -> int:
    """How often a plan asks a piece which array it is of."""
    count = 0
    told = Piece.identity.fget  # type: ignore[attr-defined]

    def identity(piece: Piece) -> Identity:
        nonlocal count
        count += 1
        return told(piece)  # type: ignore[no-any-return]

    with monkeypatch.context() as patch:
        patch.setattr(Piece, "identity", property(identity))
        planned = plan.make_plan(str(run))
    assert not planned.problems
    assert [o.file for o in planned.outputs if o.kind == "array"]
    return count


def test_a_plan_asks_each_piece_a_few_times_whatever_else_there_is(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(count: int, log: Logbook) -> None:
        for number in range(count):
            log.array(f"x{number}", [log.rank], start=log.rank, shape=3)

    few = write_as(3, base, lambda log: work(5, log), "few")
    many = write_as(3, base, lambda log: work(20, log), "many")
    asked = _asked(monkeypatch, few), _asked(monkeypatch, many)
    assert asked[1] == 4 * asked[0] <= 4 * 5 * 3 * 8


class _Counted(tuple[Part, ...]):
    """Parts of a whole that count how often all of them are looked through."""

    __slots__ = ()
    looked = 0

    def __iter__(self) -> Iterator[Part]:
        type(self).looked += 1
        return super().__iter__()


def test_failed_ranks_do_not_each_look_through_all_pieces(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, arrays = 12, 5

    def work(log: Logbook) -> None:
        log.info("here")
        for number in range(arrays if log.rank % 2 else 0):
            log.array(f"x{number}", [log.rank])

    run = write_as(size, base, work)
    for path in run.glob("ranks/rank_*/rank.json"):
        told = json.loads(path.read_text()) | {"status": "failed", "failure_reason": "no room"}
        put_record(path, told)
    meta = json.loads((run / "metadata.json").read_text()) | {"status": "failed"}
    found = survey.survey(str(run), meta, size, survey.walk(str(run)))
    wholes = {
        which: whole._replace(parts=_Counted(whole.parts))
        for which, whole in assemble(manifests.read_all(str(run)), size).items()
    }
    monkeypatch.setattr(_Counted, "looked", 0)
    told = list(losses.doubts(found, wholes, MergeRecord()))
    without = {(p.ranks, p.name) for p in told if "without a piece of" in p.text}
    names = {f"x{number}" for number in range(arrays)}
    assert {(r, n) for (r,), n in without if r} == {(r, n) for r in range(2, 12, 2) for n in names}
    assert _Counted.looked == arrays


class _Number(int):
    """A number that counts how often it is compared."""

    compared = 0

    def __ne__(self, other: object) -> bool:
        type(self).compared += 1
        return int.__ne__(self, int(other))  # type: ignore[call-overload]

    __hash__ = int.__hash__


def test_each_line_of_a_bundle_is_compared_with_one_other(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 40

    def work(log: Logbook) -> None:
        log.arrays("b", **{f"older{number}": [number] for number in range(3)})
        log.arrays("b", **{f"k{number:02}": [number] for number in range(count)})

    run = write_as(2, base, work)
    told = Piece.from_line

    def from_line(line: bytes) -> Piece:
        piece = told(line)
        return piece._replace(write=_Number(piece.write))

    monkeypatch.setattr(Piece, "from_line", from_line)
    monkeypatch.setattr(_Number, "compared", 0)
    pieces = manifests.read(str(run / "ranks/rank_00001"))
    assert [piece.key for piece in pieces] == [f"k{number:02}" for number in range(count)]
    assert _Number.compared <= 3 * (3 + count)  # as what is to come, and twice as what is there


def test_ranks_hold_what_they_all_spell_alike_once(base: Path) -> None:
    """4,096 ranks have as many pieces of each array, which need no name of their own."""

    def work(log: Logbook) -> None:
        log.array("a/x", [[log.rank]], start=(log.rank, 0), shape=(3, 1))
        log.arrays("b", u=[1.0, 2.0])

    run = write_as(3, base, work)
    pieces = manifests.read_all(str(run))
    for one, other in zip(pieces[1], pieces[2], strict=True):
        for field in ("name", "key", "file", "join", "dtype", "shape", "whole"):
            assert getattr(one, field) is getattr(other, field), field
    first = run / "ranks/rank_00001/manifest.jsonl"
    lines = [line.partition(',"line":')[0] + "}\n" for line in first.read_text().splitlines()]
    damaged = "".join(lines).replace('"shape":[2]', '"shape":[2.0]')  # of an older version
    first.write_text(damaged)  # equal to the other ranks' shape, and no shape
    (found,) = [piece for piece in manifests.read_all(str(run))[1] if piece.key == "u"]
    assert repr(found.shape) == "(2.0,)"


def test_the_first_plan_is_gone_when_the_second_is_made(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is as long as there are pieces. The second one opens none of them again."""
    run = write_as(3, base, lambda log: log.array("x", [log.rank], start=log.rank, shape=3))
    alive: list[int] = []
    opened: list[str] = []

    def made(*args: Any, **options: Any) -> plan.Plan:
        gc.collect()
        alive.append(sum(isinstance(one, Part) for one in gc.get_objects()))
        return plan.make_plan(*args, **options)

    head = faults._head
    monkeypatch.setattr(commit, "make_plan", made)
    monkeypatch.setattr(faults, "_head", lambda *args: opened.append(args[0]) or head(*args))
    before = sum(isinstance(one, Part) for one in gc.get_objects())
    assert notata.merge(run).note == "joined 2 of 2"
    assert alive == [before, before]
    assert len(opened) == 3
