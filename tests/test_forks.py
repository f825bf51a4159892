"""A child that is forked off while another thread of its parent is at work."""

from __future__ import annotations

import _thread
import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from simulated import open_as, program

from notata import Logbook, LogReader, npy, parking, tables, vigil

PATIENCE = 60.0


@contextmanager
def held_by_another_thread(lock: parking.Lock) -> Iterator[None]:
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with parking.held(lock):
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert taken.wait(PATIENCE)
        yield
    finally:
        done.set()
        thread.join()


def status_of_child(work: Callable[[], object]) -> int | None:
    """How a child ends that does some work; None where it never does."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None


def test_metadata_of_a_child(base: Path) -> None:
    with Logbook("run", base) as log:
        with held_by_another_thread(log._session.metadata._lock):
            assert status_of_child(lambda: log.meta(child=1)) == 0
        log.meta(parent=2)
    meta = LogReader(log.path).meta
    assert (meta["child"], meta["parent"], meta["status"]) == (1, 2, "complete")


def test_the_first_line_of_a_child(base: Path) -> None:
    with Logbook("run", base) as log:
        log._log.release()
        with held_by_another_thread(log._log._opening):
            assert status_of_child(lambda: log.info("child")) == 0
        log.info("parent")
    told = [message.message for message in LogReader(log.path).messages()]
    assert told == ["Logbook initialized", "child", "parent", "Marked complete"]


def test_a_child_that_is_the_first_to_write_for_its_rank(base: Path) -> None:
    with open_as(1, 2, base) as log, held_by_another_thread(log._session.folder._lock):
        assert status_of_child(lambda: log.array("x", [1])) == 0
    assert (log.rank_dir / "data" / "x.npy").exists()


def test_tables_and_arrays_that_a_child_reads(tmp_path: Path) -> None:
    table, file = tmp_path / "index.csv", BytesIO()
    table.write_text("run_id,m\nx,1\n")
    np.save(file, np.arange(3))

    def read_both() -> None:
        assert tables.read_table(table)[1] == [{"run_id": "x", "m": "1"}]
        assert npy.read_header(BytesIO(file.getvalue())).shape == (3,)

    with held_by_another_thread(tables._limit), held_by_another_thread(npy._parsing):
        assert status_of_child(read_both) == 0


def test_a_thread_that_forks_while_it_holds_a_lock_gives_it_back_in_both() -> None:
    lock = parking.Lock()
    with parking.held(lock):
        child = os.fork()
    if child == 0:
        os._exit(0 if lock.acquire(0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert lock.acquire(0)


def test_the_timer_of_a_watch_stands_still_during_a_fork(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child waits at its end for a thread that only its parent has, if the timer is set."""
    calls: list[str] = []

    def noted(name: str) -> Callable[..., None]:
        return lambda *args, **options: calls.append(name)

    monkeypatch.setattr(faulthandler, "dump_traceback_later", noted("set"))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", noted("cancelled"))
    with Logbook("run", base) as log:
        log.watch(600)
        assert calls == ["set"]
        assert status_of_child(lambda: calls == ["set", "cancelled"] or os._exit(2)) == 0
        assert calls == ["set", "cancelled", "set"]
    assert calls[3:] == ["set", "cancelled"]
    assert status_of_child(lambda: len(calls) == 5 or os._exit(2)) == 0


def test_a_child_of_a_watched_run_comes_to_its_end(tmp_path: Path) -> None:
    code = """
        import os, sys
        from notata import Logbook
        with Logbook("run") as log:
            log.watch(600)
            if os.fork() == 0:
                sys.exit(3)
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 3
    """
    assert program(code, tmp_path).returncode == 0


def test_a_thread_has_begun_once_its_last_task_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python of some versions crashes where it ends while a thread is just being started."""
    start = _thread.start_new_thread
    begun = []

    def slowly(run: Callable[[], None], given: tuple[()]) -> None:
        def later() -> None:
            time.sleep(0.2)
            begun.append(run)
            run()

        start(later, given)

    class Nothing:
        def do(self, byte: int) -> None: ...

    monkeypatch.setattr(_thread, "start_new_thread", slowly)
    nothing = Nothing()
    task = vigil.Task(nothing.do, None, lane="of this test")
    task.start()
    thread = vigil._threads["of this test"]
    task.stop()
    assert len(begun) == 1
    vigil._threads["of this test"] = thread  # which may have retired
    thread.give_way()  # as where the program has closed its pipe
    assert len(begun) == 1  # nothing is to be done, so that none takes its place
    assert "of this test" not in vigil._threads
