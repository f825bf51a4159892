"""The sign of life: given while a run is open and its process lives, and read by others."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from simulated import ROOT, open_as, program, tree

from notata import Logbook, listing, pulse, vigil
from notata.errors import SettingError

LONG_AGO = 1e9


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without the threads that runs of earlier tests, never closed, keep."""
    monkeypatch.setattr(vigil, "_LONGEST", 0.05)
    vigil._tasks.clear()
    threads = list(vigil._threads.values())
    for lane in (vigil.FILES, vigil.LOOKS):
        vigil.Task.ring(0, lane)
    assert wait_for(lambda: not vigil._threads)
    for thread in threads:
        thread._ended.acquire()
    if threads:
        time.sleep(0.3)  # between that and the end for the kernel there is nothing to wait for


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTATA_HEARTBEAT", "0.05")


def make_old(run: Path) -> None:
    for name in ("metadata.json", "log.txt"):
        os.utime(run / name, (LONG_AGO, LONG_AGO))


def sign(run: Path) -> float:
    found = pulse.last_sign(run)
    assert found is not None
    return found


def wait_for(condition: Callable[[], bool]) -> bool:
    """Wait until something is so, at most half a minute."""
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def system_threads() -> int:
    return len(os.listdir("/proc/self/task"))


# ----- giving it -----


@pytest.mark.usefixtures("fast")
def test_an_open_run_gives_its_sign_while_the_program_computes(base: Path) -> None:
    log = Logbook("a", base)
    make_old(log.path)
    assert wait_for(lambda: sign(log.path) > LONG_AGO)
    assert (log.path / "log.txt").stat().st_mtime == LONG_AGO
    assert tree(log.path) == ["log.txt", "metadata.json"]
    log.mark_complete()


@pytest.mark.usefixtures("fast")
def test_a_run_that_is_closed_gives_none(base: Path) -> None:
    kept = Logbook("kept", base)
    Logbook("a", base).mark_complete()
    for name in ("a", "kept"):
        make_old(base / f"log_{name}")
    assert wait_for(lambda: sign(kept.path) > LONG_AGO)
    assert sign(base / "log_a") == LONG_AGO
    kept.mark_complete()


@pytest.mark.usefixtures("fast")
def test_one_thread_serves_all_runs_and_ends_with_the_last(base: Path) -> None:
    before = system_threads()
    logs = [Logbook(f"n{n}", base) for n in range(5)]
    assert system_threads() == before + 1
    for log in logs:
        make_old(log.path)
    assert wait_for(lambda: all(sign(log.path) > LONG_AGO for log in logs))
    for log in logs:
        log.mark_complete()
    assert wait_for(lambda: system_threads() == before)


@pytest.mark.usefixtures("fast")
def test_all_watchdogs_share_one_thread_more_which_ends_with_the_last(base: Path) -> None:
    logs = [Logbook(f"n{n}", base) for n in range(5)]
    assert set(vigil._threads) == {vigil.FILES}
    before = system_threads()
    for log in logs:
        log.watch(600)
    assert set(vigil._threads) == {vigil.FILES, vigil.LOOKS}
    assert system_threads() == before + 2  # and the one of faulthandler's timer
    for log in logs:
        log.watch(0)
    assert wait_for(lambda: set(vigil._threads) == {vigil.FILES})
    assert wait_for(lambda: system_threads() == before)
    for log in logs:
        log.mark_complete()


def test_a_sign_that_nobody_holds_is_given_no_more(base: Path) -> None:
    before = system_threads()
    beat = pulse.Beat(os.fspath(base), lambda: True)
    beat.start(0.05)
    del beat
    gc.collect()
    assert wait_for(lambda: system_threads() == before)


@pytest.mark.usefixtures("fast")
def test_rank_0_alone_gives_it(base: Path) -> None:
    open_as(0, 2, base).mark_complete()
    log = open_as(1, 2, base)
    assert log._session.beat._task is None
    log.mark_complete()


@pytest.mark.usefixtures("fast")
def test_an_older_attempt_gives_none(base: Path, capfd: pytest.CaptureFixture[str]) -> None:
    old = Logbook("a", base)
    new = Logbook("a", base, resume=True)
    said = ""

    def noticed() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "attempt 2 goes on" in said

    assert wait_for(noticed)  # though the older program does nothing
    old.info("older")
    assert "older" not in (new.path / "log.txt").read_text()
    new.mark_complete()


@pytest.mark.usefixtures("fast")
def test_a_run_that_was_taken_away_stays_away(base: Path) -> None:
    before = system_threads()
    log = Logbook("a", base, signals=())
    (log.path / "metadata.json").unlink()
    assert wait_for(lambda: system_threads() == before)
    assert not (log.path / "metadata.json").exists()


def test_it_can_be_turned_off(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTATA_HEARTBEAT", "0")
    beat = pulse.Beat(os.fspath(base), lambda: True)
    beat.start(pulse.interval())
    assert not vigil._tasks
    beat.stop()


def test_a_thread_that_waits_for_years_is_there(base: Path) -> None:
    before = system_threads()
    beat = pulse.Beat(os.fspath(base), lambda: True)
    beat.start(1e9)
    time.sleep(0.05)
    assert system_threads() == before + 1
    beat.stop()
    assert wait_for(lambda: system_threads() == before)


@pytest.mark.parametrize("value", ["often", "-1", "nan", "1e30"])
def test_a_variable_that_makes_no_sense_is_named(
    base: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("NOTATA_HEARTBEAT", value)
    with pytest.raises(SettingError, match=f"NOTATA_HEARTBEAT='{value}' is not a number"):
        Logbook("a", base)
    assert not base.exists()


def test_a_program_ends_though_its_run_is_open(tmp_path: Path) -> None:
    done = program("from notata import Logbook; log = Logbook('a', 'out')", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


# ----- forks -----

FORK = """
import os, signal, sys, time
from notata import Logbook, vigil
log = Logbook("a", "out")
for _ in range(20):
    child = os.fork()
    if child == 0:
        assert not vigil._tasks and not vigil._threads
        assert len(os.listdir("/proc/self/task")) == 1
        other = Logbook(f"child_{os.getpid()}", "out")
        assert len(vigil._tasks) >= 1
        other.mark_complete()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
os.utime("out/log_a/metadata.json", (1e9, 1e9))
end = time.monotonic() + 30
while os.stat("out/log_a/metadata.json").st_mtime == 1e9:
    assert time.monotonic() < end
    time.sleep(0.01)
print("goes on", len(os.listdir("out")))
"""


@pytest.mark.usefixtures("fast")
def test_a_forked_child_gives_no_sign_and_the_parent_goes_on(tmp_path: Path) -> None:
    # With warnings as errors: Python 3.12 warns of a fork while there are other threads.
    done = program(FORK, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "goes on 21\n"


# ----- reading it -----


def test_a_run_is_running_then_lost_until_it_ends(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Logbook("a", base)
    assert not pulse.is_lost(log.path)
    make_old(log.path)
    assert pulse.is_lost(log.path)
    monkeypatch.setenv("NOTATA_LOST_AFTER", str(2 * time.time()))
    assert not pulse.is_lost(log.path)
    log.mark_complete()
    monkeypatch.delenv("NOTATA_LOST_AFTER")
    make_old(log.path)
    assert not pulse.is_lost(log.path, log.status)


def test_the_newer_of_metadata_and_log_counts(base: Path) -> None:
    log = Logbook("a", base)
    make_old(log.path)
    log.info("still here")
    assert not pulse.is_lost(log.path)
    assert pulse.last_sign(base) is None
    assert pulse.is_lost(base)


def test_the_file_systems_clock_counts(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Logbook("a", base)
    monkeypatch.setattr(time, "time", lambda: LONG_AGO + 1e8)  # a machine whose clock is wrong
    assert abs(pulse.Clock(base).now - log.path.stat().st_mtime) < 1e6
    assert tree(base) == ["log_a/log.txt", "log_a/metadata.json"]
    assert pulse.Clock(base / "missing").now == LONG_AGO + 1e8
    log.mark_complete()


def test_ls_says_which_runs_are_lost(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = [Logbook(f"n{n}", base) for n in range(3)]
    make_old(logs[1].path)
    logs[2].mark_complete()
    make_old(logs[2].path)
    told = [entry.statuses for entry in listing.find(base)]
    assert told == [{"running": 1}, {"lost": 1}, {"complete": 1}]
    monkeypatch.setenv("NOTATA_LOST_AFTER", "soon")
    with pytest.raises(SettingError, match="NOTATA_LOST_AFTER='soon'"):
        listing.find(base)


@contextmanager
def sleeping(base: Path) -> Iterator[subprocess.Popen[str]]:
    code = f"""
    import time
    from notata import Logbook
    log = Logbook("a", {str(base)!r})
    print("open", flush=True)
    time.sleep(600)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


@pytest.mark.usefixtures("fast")
def test_a_process_that_is_killed_is_noticed(base: Path) -> None:
    with sleeping(base) as process:
        make_old(base / "log_a")
        assert wait_for(lambda: not pulse.is_lost(base / "log_a"))
        process.send_signal(signal.SIGKILL)
        process.wait()
    make_old(base / "log_a")
    time.sleep(0.3)
    assert pulse.is_lost(base / "log_a")


def test_a_dividing_time_asks_a_coarse_clock_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock moves on every second; a thousand tasks wait for it at once."""
    clock, touched, gone = [1_000.0], [], []
    unlink, utime = os.unlink, os.utime

    def touch(path: str) -> None:
        touched.append(path)
        if clock[0] >= 1_001:
            utime(path, (os.stat(path).st_mtime + 1,) * 2)

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("notata.pulse.time.sleep", sleep)
    monkeypatch.setattr("notata.pulse.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("notata.pulse.os.utime", touch)
    monkeypatch.setattr("notata.pulse.os.unlink", lambda path: (gone.append(path), unlink(path)))
    pulse.dividing_time(tmp_path)
    assert 1_001 <= clock[0] < 1_002.5
    assert set(touched) == set(gone)
    assert (len(gone), len(touched)) == (1, 10)
    assert os.listdir(tmp_path) == []


def test_a_dividing_time_parts_what_changed_before_from_what_changes_after(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for _ in range(30):
        before.write_text("")
        os.stat(before)
        os.utime(before)
        parting = pulse.dividing_time(tmp_path)
        after.write_text("")
        assert before.stat().st_mtime <= parting < after.stat().st_mtime
    assert sorted(os.listdir(tmp_path)) == ["after", "before"]
