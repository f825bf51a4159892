"""A table that is made anew while others use it: runs are read without its lock."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from notata import Experiment, index, inplace, rows
from notata.errors import LockTimeoutError
from notata.lock import locked
from notata.rows import row_of

COUNT = 6


def experiment(base: Path, count: int = COUNT) -> Experiment:
    exp = Experiment("s", base)
    for k in range(count):
        ended(exp, k)
    return exp


def ended(exp: Experiment, k: int, **metrics: Any) -> None:
    log = exp.add(k=k)
    assert log is not None
    log.json("metrics", {"m": k} | metrics)
    log.mark_complete()
    assert "no row in" not in (log.path / "log.txt").read_text()


def folder(exp: Experiment, k: int) -> Path:
    return exp.runs_dir / f"log_s_k_{k}"


def again(exp: Experiment, k: int, m: int) -> None:
    """Give a run another result, as a second attempt does."""
    (folder(exp, k) / "artifacts/metrics.json").write_text(json.dumps({"m": m}))
    index.Index(os.fspath(exp.exp_dir)).add(row_of(os.fspath(folder(exp, k))))


def values(exp: Experiment) -> dict[int, int]:
    """The metric of each run in the table, which has one row of each."""
    found = exp.rows()
    assert len({row["run_id"] for row in found}) == len(found)
    assert len(exp.index_file.read_bytes().splitlines()) == len(found) + 1
    return {row["k"]: row["m"] for row in found}


class Reads:
    """The runs that are read for a table, and what happens behind each; others may do something."""

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self._aside = False
        self.names: list[tuple[str, bool]] = []  # each with whether the table was locked
        self.then: Callable[[int, bool], object] = lambda number, held: None

    def __call__(self, path: str) -> Any:
        row = row_of(path)
        if self._aside:  # it is another who makes the table anew
            return row
        held = self._held()
        self.names.append((os.path.basename(path), held))
        self.then(len(self.names), held)
        return row

    def _held(self) -> bool:
        try:
            with locked(self._lock, timeout=0):
                return False
        except LockTimeoutError:
            return True

    def once(self, number: int, do: Callable[[], object]) -> None:
        """Do something just after so many runs were read, and while the table is not locked."""

        def then(count: int, held: bool) -> None:
            if count == number:
                assert not held
                self.then = lambda number, held: None
                self._aside = True
                do()
                self._aside = False

        self.names.clear()
        self.then = then

    @property
    def under_lock(self) -> list[str]:
        return [name for name, held in self.names if held]


@pytest.fixture
def reads(base: Path, monkeypatch: pytest.MonkeyPatch) -> Reads:
    found = Reads(base / "s/.index.csv.lock")
    monkeypatch.setattr(rows, "row_of", found)
    monkeypatch.setattr(index, "_FEW", 2)
    monkeypatch.setenv("NOTATA_LOCK_TIMEOUT", "30")
    return found


def test_no_run_is_read_under_the_lock_where_nothing_happens(base: Path, reads: Reads) -> None:
    exp = experiment(base)
    for damage in (bytes, lambda: b"#" + exp.index_file.read_bytes()[1:]):
        exp.index_file.write_bytes(damage())
        reads.names.clear()
        assert exp.rebuild_index() == COUNT
        assert values(exp) == {k: k for k in range(COUNT)}
        assert sorted(reads.names) == [(f"log_s_k_{k}", False) for k in range(COUNT)]


def test_few_runs_are_read_at_once_with_the_lock_taken_once(
    base: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_FEW", COUNT)
    exp = experiment(base)
    reads.names.clear()
    assert exp.rebuild_index() == COUNT
    assert reads.under_lock == [f"log_s_k_{k}" for k in range(COUNT)]


# What happens to a run, or to the table, in the middle of it; and what the table has then.
def _ends(exp: Experiment) -> dict[int, int | None]:
    ended(exp, 8)
    return {8: 8}


def _ends_with_a_new_column(exp: Experiment) -> dict[int, int | None]:
    ended(exp, 8, new=1)
    return {8: 8}


def _second_result(exp: Experiment) -> dict[int, int | None]:
    again(exp, 0, 100)
    return {0: 100}


def _deleted(exp: Experiment) -> dict[int, int | None]:
    shutil.rmtree(folder(exp, 0))
    return {0: None}


def _deleted_and_done_again(exp: Experiment) -> dict[int, int | None]:
    shutil.rmtree(folder(exp, 0))
    ended(exp, 0, m=50)
    return {0: 50}


def _open_again(exp: Experiment) -> dict[int, int | None]:
    """The run goes on, and has ended again before anybody looks."""
    path = folder(exp, 0) / "metadata.json"
    meta = path.read_text()
    path.write_text(json.dumps(json.loads(meta) | {"status": "initialized"}))
    path.write_text(meta)
    again(exp, 0, 7)
    return {0: 7}


def _half_written(exp: Experiment) -> dict[int, int | None]:
    """Another process is killed while it writes the table, which had newer rows."""
    ended(exp, 8)
    again(exp, 0, 70)
    with exp.index_file.open("r+b") as file:
        file.write(inplace.MARK)
    return {8: 8, 0: 70}


def _cut_off(exp: Experiment) -> dict[int, int | None]:
    """Another process is killed within the row of a run that has ended."""
    ended(exp, 8)
    again(exp, 0, 70)
    os.truncate(exp.index_file, exp.index_file.stat().st_size - 5)
    return {8: 8, 0: 70}


def _lost(exp: Experiment) -> dict[int, int | None]:
    """The table is deleted by hand, with rows that came meanwhile."""
    ended(exp, 8)
    again(exp, 0, 70)
    exp.index_file.unlink()
    return {8: 8, 0: 70}


def _lost_and_made_by_the_next(exp: Experiment) -> dict[int, int | None]:
    ended(exp, 8)
    exp.index_file.unlink()
    again(exp, 1, 60)
    return {8: 8, 1: 60}


def _another_rebuild(exp: Experiment) -> dict[int, int | None]:
    ended(exp, 8)
    assert Experiment("s", exp.exp_dir.parent).rebuild_index() == COUNT + 1
    again(exp, 8, 80)
    return {8: 80}


EVENTS = [
    *(_ends, _ends_with_a_new_column, _second_result, _deleted, _deleted_and_done_again),
    *(_open_again, _half_written, _cut_off, _lost, _lost_and_made_by_the_next, _another_rebuild),
]


@pytest.mark.parametrize("number", [1, COUNT])
@pytest.mark.parametrize(
    ("event", "before"),
    [
        (event, before)
        for event in EVENTS
        for before in ("whole", "missing", "half")
        # Twice deleted by hand within one reading: nothing tells that there was one in between.
        if (event, before) != (_lost, "missing")
    ],
)
def test_what_happens_while_runs_are_read_is_in_the_table(
    base: Path,
    reads: Reads,
    event: Callable[[Experiment], dict[int, int | None]],
    before: str,
    number: int,
) -> None:
    exp = experiment(base)
    if before == "missing":
        exp.index_file.unlink()
    elif before == "half":
        exp.index_file.write_bytes(inplace.MARK + exp.index_file.read_bytes()[1:])
    told: dict[int, int | None] = {}
    reads.once(number, lambda: told.update(event(Experiment("s", base))))
    count = exp.rebuild_index()
    assert told
    expected = {k: k for k in range(COUNT)} | told
    assert values(exp) == {k: m for k, m in expected.items() if m is not None}
    assert count == len(values(exp))
    assert len(reads.under_lock) <= 2
    ended(exp, 9)  # and the filter beside the table knows which runs have a row
    again(exp, 2, 90)
    expected |= {9: 9, 2: 90}
    assert values(exp) == {k: m for k, m in expected.items() if m is not None}


def test_a_run_that_was_open_when_it_was_read_has_its_row(base: Path, reads: Reads) -> None:
    exp = experiment(base)
    log = exp.add(k=8)
    assert log is not None

    def end() -> None:
        log.json("metrics", {"m": 8})
        log.mark_complete()

    reads.once(COUNT + 1, end)
    assert exp.rebuild_index() == COUNT + 1
    assert values(exp) == {**{k: k for k in range(COUNT)}, 8: 8}
    assert reads.under_lock == ["log_s_k_8"]


def test_a_run_that_ends_when_the_table_is_made_adds_its_row(base: Path, reads: Reads) -> None:
    """It has read its own row already, and waits for the lock."""
    exp = experiment(base)
    late = Experiment("s", base)
    log = late.add(k=8)
    assert log is not None
    log.json("metrics", {"m": 8})
    at_it = threading.Thread(target=log.mark_complete)

    def then(count: int, held: bool) -> None:
        if held:
            reads.then = lambda number, held: None
            at_it.start()

    reads.once(COUNT, lambda: [again(exp, 0, 3), setattr(reads, "then", then)])
    exp.rebuild_index()
    at_it.join()
    assert values(exp) == {**{k: k for k in range(COUNT)}, 0: 3, 8: 8}


def test_where_runs_never_stop_ending_the_last_round_holds_them_off(
    base: Path, reads: Reads
) -> None:
    exp = experiment(base)
    given = dict.fromkeys(range(COUNT), 0)

    def then(count: int, held: bool) -> None:
        if not held:
            k = count % COUNT
            given[k] = count
            again(exp, k, count)

    reads.names.clear()
    reads.then = then
    assert exp.rebuild_index() == COUNT
    assert values(exp) == given
    assert 0 < len(reads.under_lock) <= COUNT
    assert len(reads.names) <= index._ROUNDS * COUNT


@pytest.mark.parametrize("before", ["whole", "missing"])
def test_two_at_once_and_a_run_that_ends_between_them(
    base: Path, reads: Reads, before: str
) -> None:
    exp = experiment(base)
    if before == "missing":
        exp.index_file.unlink()
    gate = threading.Barrier(2, lambda: [ended(exp, 8), again(exp, 0, 100)], timeout=60)
    met = threading.local()

    def then(count: int, held: bool) -> None:
        met.count = getattr(met, "count", 0) + 1
        if met.count == COUNT // 2:  # both are in the middle of reading
            gate.wait()

    reads.then = then
    counts: list[int] = []

    def rebuild() -> None:
        counts.append(Experiment("s", base).rebuild_index())

    both = [threading.Thread(target=rebuild) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert counts == [COUNT + 1] * 2
    assert values(exp) == {**{k: k for k in range(COUNT)}, 0: 100, 8: 8}


def test_rebuilding_all_the_time_loses_no_row_of_those_that_end(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_FEW", 1)
    exp = experiment(base)
    done = threading.Event()

    def end(first: int) -> None:
        mine = Experiment("s", base)
        for k in range(first, first + 10):
            ended(mine, k, **{f"m{k % 3}": k})

    def rebuild() -> None:
        while not done.is_set():
            Experiment("s", base).rebuild_index()

    adding = [threading.Thread(target=end, args=(first,)) for first in (100, 200, 300)]
    making = [threading.Thread(target=rebuild) for _ in range(2)]
    for thread in (*adding, *making):
        thread.start()
    for thread in adding:
        thread.join()
    done.set()
    for thread in making:
        thread.join()
    wanted = {*range(COUNT), *(first + k for first in (100, 200, 300) for k in range(10))}
    assert values(exp) == {k: k for k in wanted}
