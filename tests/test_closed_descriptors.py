"""A program that closes descriptors that it never opened: no line lost, none in another's file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from simulated import ROOT

from notata import LogReader

# As a program does that becomes a daemon; standard error stays, so that the test sees it.
BEGINNING = """
import json, os, signal, threading, time
import numpy as np
from notata import Logbook, vigil
def close_all():
    os.closerange(3, 4096)
def open_own():
    return [os.open(f"own-{n}", os.O_RDWR | os.O_CREAT) for n in range(30)]
def assert_untouched(own):
    assert [os.fstat(descriptor).st_size for descriptor in own] == 30 * [0]
"""


def run(code: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGINNING + textwrap.dedent(code)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def texts(folder: Path) -> list[str]:
    return [message.message for message in LogReader(folder).messages()]


def metadata(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metadata.json").read_text()))


@pytest.mark.parametrize("durability", ["process", "close", "node"])
def test_no_line_is_lost_and_none_goes_into_a_file_of_the_program(
    tmp_path: Path, durability: str
) -> None:
    done = run(
        f"""
        log = Logbook("a", ".", durability="{durability}")
        log.info("before")
        close_all()
        own = open_own()
        log.info("after")
        log.warning("and again")
        with log:
            pass
        assert_untouched(own)  # none of them was closed either
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = texts(tmp_path / "log_a")
    assert told == ["Logbook initialized", "before", "after", "and again", "Marked complete"]
    assert metadata(tmp_path / "log_a")["status"] == "complete"
    assert "log_lines_lost" not in metadata(tmp_path / "log_a")


def test_threads_that_write_meanwhile_lose_no_line(tmp_path: Path) -> None:
    done = run(
        """
        log = Logbook("a", ".")
        def work(k):
            for n in range(2000):
                log.info(f"thread {k} line {n}")
        threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            time.sleep(0.002)
            close_all()
        for thread in threads:
            thread.join()
        log.mark_complete()
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    told = [text for text in texts(tmp_path / "log_a") if text.startswith("thread")]
    assert sorted(told) == sorted(f"thread {k} line {n}" for k in range(3) for n in range(2000))


def test_a_line_that_finds_no_file_any_more_is_counted_and_said(tmp_path: Path) -> None:
    done = run(
        """
        import resource
        log = Logbook("a", ".", signals=())
        close_all()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        log.info("lost")
        log.info("lost too")
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        log.info("there")
        log.mark_complete()
        """,
        tmp_path,
        NOTATA_HEARTBEAT="0",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("a log line could not be written to ") == 1
    assert "Too many open files" in done.stderr
    assert metadata(tmp_path / "log_a")["log_lines_lost"] == 2
    assert texts(tmp_path / "log_a") == ["Logbook initialized", "there", "Marked complete"]


def test_a_rank_s_pieces_are_entered_all_the_same(tmp_path: Path) -> None:
    done = run(
        """
        log = Logbook("a", ".")
        log.array("T", np.arange(3.0))
        close_all()
        own = open_own()
        log.array("u", np.arange(4.0))
        assert_untouched(own)
        close_all()
        log.mark_complete()
        """,
        tmp_path,
        NOTATA_RANK="0",
        NOTATA_SIZE="2",
    )
    assert (done.returncode, done.stderr) == (0, "")
    reader = LogReader(tmp_path / "log_a").ranks[0]
    assert reader.load_array("T").tolist() == [0, 1, 2]
    assert reader.load_array("u").tolist() == [0, 1, 2, 3]
    assert reader.record["status"] == "complete"


def test_signals_are_noted_and_signs_of_life_given_all_the_same(tmp_path: Path) -> None:
    done = run(
        """
        log = Logbook("a", ".")
        path = log.path / "metadata.json"
        def wait_for(condition):
            end = time.monotonic() + 20
            while not condition():
                assert time.monotonic() < end
                time.sleep(0.01)
        def noted():
            return len(json.loads(path.read_text()).get("signals", []))
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_for(lambda: noted() == 1)
        for number in (2, 3):
            close_all()
            own = open_own()
            os.kill(os.getpid(), signal.SIGUSR2)
            wait_for(lambda: noted() == number)
            assert_untouched(own)
            time.sleep(1.1)  # the same signal twice within a second is told of once
        os.utime(path, (0, 0))
        wait_for(lambda: path.stat().st_mtime > 0)
        log.mark_complete()
        assert signal.set_wakeup_fd(-1) == -1
        """,
        tmp_path,
        NOTATA_HEARTBEAT="0.2",
    )
    assert done.returncode == 0, done.stderr
    warned = done.stderr.count("Exception ignored when trying to write to the signal wakeup fd")
    assert warned <= 2  # by Python, where the pipe was still the old one
    signals = metadata(tmp_path / "log_a")["signals"]
    assert [told["signal"] for told in signals] == ["SIGUSR1", "SIGUSR2", "SIGUSR2"]
    assert metadata(tmp_path / "log_a")["status"] == "complete"


def test_the_new_pipe_hears_of_signals_while_the_main_thread_is_stuck(tmp_path: Path) -> None:
    done = run(
        """
        import ctypes
        libc, barrier = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        libc.pthread_barrier_init(barrier, None, 2)
        log = Logbook("a", ".")
        for _ in range(2):
            close_all()
            in_between = os.open("own", os.O_RDWR | os.O_CREAT)
            log.info("reopened, perhaps at the number of the old pipe")
            os.kill(os.getpid(), signal.SIGUSR1)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        libc.pthread_barrier_wait(barrier)  # for one that never comes
        """,
        tmp_path,
    )
    assert done.returncode == -15, done.stderr
    told = metadata(tmp_path / "log_a")
    assert (told["status"], told["failure_reason"]) == ("failed", "ended by SIGTERM")
    assert [signal["signal"] for signal in told["signals"]] == ["SIGUSR1", "SIGTERM"]
    assert (tmp_path / "own").stat().st_size == 0


@pytest.mark.parametrize("watched", ["from the outside", "afterwards"])
def test_a_run_that_is_watched_ends_as_others_do(tmp_path: Path, watched: str) -> None:
    done = run(
        f"""
        log = Logbook("a", ".")
        close_all()
        own = open_own()
        if {watched == "afterwards"}:
            log.watch(600)
        log.mark_complete()
        assert_untouched(own)
        assert signal.set_wakeup_fd(-1) == -1  # what comes after the watch was ended, too
        """,
        tmp_path,
        **({"NOTATA_WATCH": "600"} if watched == "from the outside" else {}),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert texts(tmp_path / "log_a") == ["Logbook initialized", "Marked complete"]
    assert metadata(tmp_path / "log_a")["status"] == "complete"


def test_stacks_of_a_rank_that_can_not_run_python_have_a_file_all_the_same(tmp_path: Path) -> None:
    done = run(
        """
        import ctypes
        log = Logbook("a", ".")
        log.watch(0.5)
        (aside,) = log.path.glob(".notata-stacks/*")
        made = aside.stat().st_ino
        os.link(aside, "kept")  # so that no other file gets its number
        close_all()
        own = open_own()
        while not aside.exists() or aside.stat().st_ino == made:
            log.tick()
            time.sleep(0.01)
        time.sleep(0.2)
        log.tick()
        ctypes.PyDLL(None).sleep(3)  # holds Python's lock
        assert "most recent call first" in aside.read_text()
        log.mark_complete()
        assert_untouched(own)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_sigterm_says_why_the_run_ended(tmp_path: Path) -> None:
    done = run(
        """
        log = Logbook("a", ".")
        close_all()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)
        """,
        tmp_path,
    )
    assert done.returncode == -15, done.stderr
    told = metadata(tmp_path / "log_a")
    assert (told["status"], told["failure_reason"]) == ("failed", "ended by SIGTERM")


def test_a_fork_after_it_harms_neither_process(tmp_path: Path) -> None:
    done = run(
        """
        log = Logbook("a", ".")
        close_all()
        if os.fork() == 0:
            log.info("of the child")
            os._exit(0)
        assert os.wait()[1] == 0
        log.info("of the parent")
        log.mark_complete()
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert texts(tmp_path / "log_a")[1:3] == ["of the child", "of the parent"]
