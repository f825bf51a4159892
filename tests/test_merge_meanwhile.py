"""Merging a run that goes on all the same: no line of rank 0 is alive."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from simulated import being, open_as, write_as

import notata
from notata import Logbook, LogReader, layout, merging
from notata.errors import MergeError
from notata.logwriter import LogWriter
from notata.merging import hosts


def rows(log: Logbook) -> None:
    """A row of x from each rank, and a message."""
    log.array("x", [log.rank])
    log.info(f"here is {log.rank}")


def files_of(run: Path) -> dict[str, tuple[int, bytes]]:
    """What is there, and which file it is."""
    return {
        os.fspath(path.relative_to(run)): (path.stat().st_ino, path.read_bytes())
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name != layout.MERGE_LOCK
    }


def lines(run: Path) -> list[str]:
    return [record.message for record in LogReader(run).messages()]


@pytest.fixture
def alive(base: Path) -> Iterator[Logbook]:
    """A run whose rank 0 is at work; rank 1 is done."""
    with ExitStack() as stack:
        logs = [stack.enter_context(open_as(rank, 2, base)) for rank in range(2)]
        for log in logs:
            rows(log)
        logs[1].mark_complete()
        yield logs[0]


def during(act: Callable[[], object]) -> Callable[[int, int], None]:
    """Act once while pieces are joined."""
    todo = [act]

    def progress(done: int, total: int) -> None:
        if todo:
            todo.pop()()

    return progress


# ----- at work when the merge begins -----


def test_a_merge_gives_no_sign_of_life_in_the_run_s_place(
    alive: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(alive.path / layout.METADATA, (0, 0))
    os.utime(alive.path / layout.LOG, (5, 5))
    size = (alive.path / layout.LOG).stat().st_size
    notata.merge(alive.path, unfinished=True)
    assert (alive.path / layout.LOG).stat().st_size > size
    assert (alive.path / layout.LOG).stat().st_mtime == 5


def test_what_is_written_after_mark_failed_is_merged_once_the_block_has_ended(base: Path) -> None:
    def fail(log: Logbook) -> None:
        rows(log)
        if log.rank == 0:
            log.mark_failed("diverged")
            log.info("diagnostic")

    run = write_as(2, base, fail)
    notata.merge(run)
    assert lines(run).count("diagnostic") == 1


# ----- at work while it is merged -----


def test_nothing_is_put_in_place_where_rank_0_writes_during_the_merge(alive: Logbook) -> None:
    rows_before = set(files_of(alive.path))
    with pytest.raises(MergeError, match="the run goes on: rank 0 wrote messages"):
        notata.merge(alive.path, unfinished=True, progress=during(lambda: alive.info("not dead")))
    assert set(files_of(alive.path)) == rows_before
    alive.info("still not")
    assert lines(alive.path)[-2:] == ["not dead", "still not"]


def test_nothing_is_put_in_place_where_another_attempt_begins(base: Path) -> None:
    run = write_as(2, base, rows)
    before = set(files_of(run))
    with ExitStack() as stack:

        def begin() -> None:
            with being(0, 2, "launch-2"):
                log = stack.enter_context(Logbook("run", base, resume=True))
            log.info("once more")

        with pytest.raises(MergeError, match="the run goes on: attempt 2 at it has begun"):
            notata.merge(run, progress=during(begin))
        assert set(files_of(run)) == before | {layout.attempt_file(2)}
        assert "once more" in lines(run)


def test_nothing_is_put_in_place_where_the_metadata_changes(base: Path) -> None:
    run = write_as(2, base, rows)
    path = run / layout.METADATA

    def fail() -> None:
        path.write_text(path.read_text().replace('"complete"', '"failed"'))

    with pytest.raises(MergeError, match="the run goes on: its metadata changed"):
        notata.merge(run, progress=during(fail))
    assert not (run / layout.MERGE_RECORD).exists()
    assert LogReader(run).meta["status"] == "failed"


@pytest.mark.parametrize(
    "changed", [{"status": "failed"}, {"opening": "another"}, {"attempts": []}]
)
def test_metadata_that_change_at_the_end_of_a_merge_stay(
    base: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object]
) -> None:
    run = write_as(2, base, rows)  # without a communicator, so that the merge adds rank 1's host
    path, save = run / layout.METADATA, hosts.save
    late = json.loads(path.read_text()) | changed

    def late_save(where: str, meta: Mapping[str, object]) -> bool:
        path.write_text(json.dumps(late))
        return save(where, meta)

    monkeypatch.setattr(hosts, "save", late_save)
    notata.merge(run)
    assert json.loads(path.read_text()) == late
    assert not list(run.glob(f"{layout.MERGE_PREFIX}*"))


# ----- two merges at once -----


def test_what_a_merge_sees_while_another_is_at_work_is_no_problem(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_as(2, base, rows)
    plans = []

    def plan_amid(*given: Any, **options: Any) -> merging.Plan:
        half = run / "data/x.npy"
        if not plans:  # the first array is in place, though the record was read before
            (run / layout.MERGE_LOCK).touch()
            half.parent.mkdir()
            half.write_bytes(b"")
        plans.append(merging.make_plan(*given, **options))
        if len(plans) == 1:
            half.unlink()
        return plans[-1]

    monkeypatch.setattr("notata.merging.commit.make_plan", plan_amid)
    assert notata.merge(run).note.startswith("joined 2 of 2")
    assert plans[0].problems


# ----- at work after all -----


def test_rank_0_goes_on_in_the_file_that_a_merge_put_in_place(
    alive: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    notata.merge(alive.path, unfinished=True)
    later = time.time() + 60
    monkeypatch.setattr("notata.logwriter.time.time", lambda: later)
    alive.info("found again")
    assert lines(alive.path)[-1] == "found again"
    assert lines(alive.path).count("here is 0") == 1


def test_rank_0_writes_into_no_log_that_replaced_its_own_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / layout.LOG
    log = LogWriter(os.fspath(path), rank=0, look=lambda: None)
    log.write(20, "mine")
    path.unlink()
    path.write_text("another run's\n")
    later = time.time() + 60
    monkeypatch.setattr("notata.logwriter.time.time", lambda: later)
    log.write(20, "mine, too")
    log.close()
    assert path.read_text() == "another run's\n"
