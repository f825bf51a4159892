"""Signals: noted at once, handlers that were there run, and everything is put back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from simulated import ROOT, open_as, program

from notata import Logbook, LogReader, vigil
from notata.errors import NoCommunicatorError, SettingError
from notata.signals import WARNINGS, _ears, _listeners

# A call of C that no signal interrupts: as in a blocking receive, no handler of Python's runs.
STUCK = """
def stuck():
    import ctypes
    libc, barrier = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    libc.pthread_barrier_init(barrier, None, 2)
    print("stuck", flush=True)
    libc.pthread_barrier_wait(barrier)  # for one that never comes
"""


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Begin without the runs that earlier tests never closed."""
    _listeners.clear()
    _ears.close()


def metadata(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metadata.json").read_text()))


def wait_until(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def running(code: str, cwd: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A program that has said that it is ready."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", STUCK + textwrap.dedent(code)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said in ("ready\n", "stuck\n"), (said, process.communicate())
            time.sleep(0.05)  # until it is in the call that it announced
            yield process
        finally:
            process.kill()


def texts(run: Path, level: str = "WARNING") -> list[str]:
    return [message.message for message in LogReader(run).messages(level=level)]


# ----- in this process -----


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
def test_a_warning_is_noted_and_the_program_goes_on(base: Path, number: signal.Signals) -> None:
    with Logbook("a", base) as log:
        assert not log.should_stop
        os.kill(os.getpid(), number)
        assert log.should_stop
        wait_until(lambda: "signals" in metadata(log.path))
        (told,) = metadata(log.path)["signals"]
        assert told.keys() == {"signal", "time", "time_left", "ends"}
        assert (told["signal"], told["time_left"], told["ends"]) == (number.name, None, False)
        assert texts(log.path) == [f"received {number.name}; the program goes on"]
    assert log.should_stop
    assert metadata(log.path)["status"] == "complete"


def test_the_time_left_is_noted(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 500.5))
    with Logbook("a", base) as log:
        assert 490 < log.time_left() < 501
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(lambda: "signals" in metadata(log.path))
        (told,) = metadata(log.path)["signals"]
        assert 490 < told["time_left"] < 501
        (text,) = texts(log.path)
        assert text.startswith("received SIGUSR1, ")
        assert "s before the end of the job; the program goes on" in text


def test_ctrl_c_is_noted_and_raises_as_ever(base: Path) -> None:
    def run() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)

    with pytest.raises(KeyboardInterrupt), Logbook("a", base):
        run()
    told = texts(base / "log_a")
    assert told.count("received SIGINT; the program goes on") == 1
    assert [text for text in told if text.startswith("Traceback") and "KeyboardInterrupt" in text]
    assert metadata(base / "log_a")["status"] == "failed"


def test_ctrl_c_while_the_run_closes_is_how_it_ended(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(records: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("notata.lifecycle.joint_verdict", interrupted)
    with pytest.raises(KeyboardInterrupt), Logbook("a", base):
        pass
    told = metadata(base / "log_a")
    assert (told["status"], told["failure_reason"]) == ("failed", "KeyboardInterrupt")


def test_handlers_that_were_there_run_and_are_put_back(base: Path) -> None:
    came: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    ours = signal.getsignal(signal.SIGTERM)
    try:
        with Logbook("a", base) as log:
            assert signal.getsignal(signal.SIGTERM) is not ours
            os.kill(os.getpid(), signal.SIGTERM)
            assert came == [signal.SIGTERM]
            assert log.should_stop
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, handler)


def state() -> tuple[Any, ...]:
    descriptor = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    return (*map(signal.getsignal, WARNINGS), descriptor)


def test_everything_is_put_back_when_the_last_run_ends(base: Path) -> None:
    vigil._tasks.clear()
    before = state()
    with Logbook("a", base):
        inside = state()
        assert all(now != then for now, then in zip(inside, before, strict=True))
        with Logbook("b", base):
            assert state() == inside
        c = Logbook("c", base)
    assert state() == inside
    c.mark_complete()
    assert state() == before
    assert not _ears._before


def test_runs_may_end_in_any_order(base: Path) -> None:
    before = state()
    first = Logbook("a", base, signals=["SIGUSR1"])
    second = Logbook("b", base)
    first.mark_complete()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (first.should_stop, second.should_stop) == (False, True)
    wait_until(lambda: texts(second.path))
    second.mark_complete()
    assert state() == before
    assert texts(first.path) == []


def test_nothing_is_installed_without_signals(base: Path) -> None:
    before = state()
    with Logbook("a", base, signals=()) as log:
        assert state() == before
        assert not log.should_stop


@pytest.mark.parametrize(
    ("given", "word"), [(["SIGFOO"], "SIGFOO"), ([999], "999"), ([signal.SIGKILL], "SIGKILL")]
)
def test_signals_that_cannot_be_caught_are_refused(base: Path, given: list[Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Logbook("a", base, signals=given)
    assert not base.exists()


def test_off_the_main_thread_nothing_is_installed(base: Path) -> None:
    before = state()
    found: list[Any] = []

    def work() -> None:
        with Logbook("a", base) as log:
            found.append(log.should_stop)
        found.append(log.status)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, "complete"]
    assert state() == before


def test_a_run_that_another_thread_ends_leaves_handlers_that_hand_on(base: Path) -> None:
    before = state()
    log = Logbook("a", base)
    thread = threading.Thread(target=log.mark_complete)
    thread.start()
    thread.join()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert state() == before
    assert texts(log.path) == []


def test_a_handler_that_the_program_puts_there_meanwhile_stays(base: Path) -> None:
    came: list[int] = []
    with Logbook("a", base) as log:
        mine = signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(lambda: log.should_stop)  # the C part of any handler tells us
        assert came == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is not mine
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def test_a_signal_that_is_ignored_stays_ignored(base: Path) -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with Logbook("a", base) as log:
            assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.05)
            assert not log.should_stop
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_handler_in_c_runs_and_is_put_back(tmp_path: Path) -> None:
    done = program(
        """
        import faulthandler, os, signal, sys
        from notata import Logbook, files
        faulthandler.register(signal.SIGUSR1, file=sys.stdout)
        with Logbook("a", "out") as log:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert log.should_stop
            while b"received SIGUSR1" not in files.read_bytes("out/log_a/log.txt"):
                pass
        print("closed", flush=True)
        os.kill(os.getpid(), signal.SIGUSR1)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    inside, _, outside = done.stdout.partition("closed")
    assert inside.count("Current thread") == outside.count("Current thread") == 1


def test_asyncio_gets_its_signals(tmp_path: Path) -> None:
    done = program(
        """
        import asyncio, os, signal
        from notata import Logbook, files

        async def main():
            came = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, came.set)
            with Logbook("a", "out") as log:  # within the loop, whose descriptor is there before
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.wait_for(came.wait(), 30)
                while not log.should_stop:
                    await asyncio.sleep(0.01)
            came.clear()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(came.wait(), 30)

        asyncio.run(main())
        with Logbook("b", "out") as log:  # the loop puts its own descriptor in the place of ours
            async def inner():
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, lambda: None)
                os.kill(os.getpid(), signal.SIGUSR1)
                await asyncio.sleep(0.01)
            asyncio.run(inner())
            assert log.should_stop
            import time
            end = time.monotonic() + 30
            while b"received SIGUSR1" not in files.read_bytes("out/log_b/log.txt"):
                assert time.monotonic() < end
                time.sleep(0.01)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert texts(tmp_path / "out" / "log_b") == ["received SIGUSR1; the program goes on"]


def test_a_flood_is_cut_off(base: Path) -> None:
    with Logbook("a", base) as log:
        for _ in range(60):
            os.kill(os.getpid(), signal.SIGXCPU)
            time.sleep(0.002)
        wait_until(lambda: len(metadata(log.path)["signals"]) == 20)
        time.sleep(0.1)
    assert len(texts(log.path)) == 20


# ----- how it ends -----


def test_sigterm_ends_the_process_with_its_status(tmp_path: Path) -> None:
    code = """
    import time
    from notata import Logbook
    with Logbook("a", "out") as log:
        print("ready", flush=True)
        time.sleep(60)
    """
    end = str(time.time() + 30)
    with running(code, tmp_path, SLURM_JOB_END_TIME=end) as process:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (-signal.SIGTERM, "", "")
    run = LogReader(tmp_path / "out" / "log_a")
    assert run.meta["status"] == "failed"
    assert run.meta["failure_reason"].startswith("ended by SIGTERM, ")
    assert run.meta["end_time"]
    assert [told["signal"] for told in run.meta["signals"]] == ["SIGTERM"]
    assert "the process ends" in texts(run.path)[-1]


def test_in_a_slurm_job_the_scheduler_says_how_it_ended(tmp_path: Path) -> None:
    code = """
    import time
    from notata import Logbook
    with Logbook("a", "out") as log:
        print("ready", flush=True)
        time.sleep(60)
    """
    with running(code, tmp_path, SLURM_JOB_ID="77") as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGTERM
    meta = metadata(tmp_path / "out" / "log_a")
    assert meta["status"] == "initialized"
    assert [(told["signal"], told["ends"]) for told in meta["signals"]] == [("SIGTERM", True)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted_while_the_main_thread_is_stuck(
    tmp_path: Path, number: signal.Signals
) -> None:
    code = """
    from notata import Logbook
    log = Logbook("a", "out")
    stuck()
    """
    with running(code, tmp_path) as process:
        process.send_signal(number)
        run = tmp_path / "out" / "log_a"
        wait_until(lambda: texts(run))
        assert texts(run)[0].startswith(f"received {number.name}; ")
        if number == signal.SIGTERM:
            process.communicate(timeout=60)
            assert process.returncode == -signal.SIGTERM
            assert metadata(run)["failure_reason"] == "ended by SIGTERM"
        else:
            assert process.poll() is None


@pytest.mark.parametrize("signals", ["signals=()", ""])
def test_sigterm_waits_for_a_call_that_holds_python_s_lock(tmp_path: Path, signals: str) -> None:
    """Unless the run does without signals: then the system ends the process at once."""
    code = f"""
    import ctypes
    from notata import Logbook
    log = Logbook("a", "out", {signals})
    print("ready", flush=True)
    ctypes.PyDLL(None).sleep({3600 if signals else 3})
    """
    with running(code, tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGTERM
    meta = metadata(tmp_path / "out" / "log_a")
    told = ("failed", "ended by SIGTERM")
    assert (meta["status"], meta.get("failure_reason")) == (
        ("initialized", None) if signals else told
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize(
    "end", ["stuck()", "import time; print('ready', flush=True); time.sleep(60)"]
)
def test_a_signal_after_another_thread_ended_the_run_ends_the_process(
    tmp_path: Path, number: signal.Signals, end: str
) -> None:
    code = f"""
    import threading
    from notata import Logbook
    log = Logbook("a", "out")
    thread = threading.Thread(target=log.mark_complete)
    thread.start()
    thread.join()
    {end}
    """
    with running(code, tmp_path) as process:
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == -number
    run = tmp_path / "out" / "log_a"
    assert (metadata(run)["status"], texts(run)) == ("complete", [])


def test_another_thread_s_end_leaves_asyncio_its_signals(tmp_path: Path) -> None:
    code = """
    import asyncio, os, signal
    from notata import Logbook

    async def main():
        came = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, came.set)
        log = Logbook("a", "out")
        await asyncio.to_thread(log.mark_complete)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(came.wait(), 30)

    asyncio.run(main())
    print("ready", flush=True)
    """
    with running(code, tmp_path) as process:
        _, told = process.communicate(timeout=60)
        assert (process.returncode, told) == (0, "")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_that_comes_while_handlers_are_put_back_is_the_program_s(
    tmp_path: Path, when: str
) -> None:
    """One for each handler that is put back, just before or after; and runs that follow hear."""
    code = f"""
    import _signal, os, signal
    from notata import Logbook
    from notata.signals import WARNINGS, _ears
    came, real, closing = [], _signal.signal, False
    mine = lambda number, frame: came.append(number)
    for number in WARNINGS:
        signal.signal(number, mine)

    def put_back(number, handler):
        if closing and {when == "before"}:
            os.kill(os.getpid(), number)
        found = real(number, handler)
        if closing and {when == "after"}:
            for other in WARNINGS:
                os.kill(os.getpid(), other)
        return found

    _signal.signal = put_back
    for _ in range(2):
        with Logbook("a", overwrite=True) as log:
            closing = True
        closing = False
        print(sorted(set(came)) == sorted(WARNINGS), log.status, len(_ears._before))
        assert {{signal.getsignal(number) for number in WARNINGS}} == {{mine}}
        came.clear()
    """
    done = program(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "True complete 0\n" * 2


def test_with_a_handler_of_its_own_the_program_decides(tmp_path: Path) -> None:
    code = """
    import signal, sys, time
    from notata import Logbook
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
    with Logbook("a", "out") as log:
        print("ready", flush=True)
        time.sleep(60)
    """
    with running(code, tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 7
    assert metadata(tmp_path / "out" / "log_a")["failure_reason"] == "sys.exit(7)"


def test_sigterm_ends_a_process_that_cannot_write(tmp_path: Path) -> None:
    """A call that never returns stands for a file server that does not answer."""
    code = """
    import time
    from notata import Logbook, logwriter
    log = Logbook("a", "out")
    logwriter.LogWriter.apart = lambda self: time.sleep(600)
    print("ready", flush=True)
    time.sleep(60)
    """
    with running(code, tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGTERM


def test_sigterm_is_noted_while_the_main_thread_writes_metadata(tmp_path: Path) -> None:
    code = """
    import os, signal
    from notata import Logbook
    from notata.lifecycle import Metadata
    update = Metadata._update

    def interrupted(self, plain, drop, durable):
        if "step" in plain:
            os.kill(os.getpid(), signal.SIGTERM)
        update(self, plain, drop, durable)

    with Logbook("a", "out") as log:
        Metadata._update = interrupted
        log.meta(step=1)
    """
    assert program(code, tmp_path).returncode == -signal.SIGTERM
    told = metadata(tmp_path / "out" / "log_a")
    assert (told["status"], told["failure_reason"]) == ("failed", "ended by SIGTERM")
    assert [note["ends"] for note in told["signals"]] == [True]


def test_a_signal_at_a_rank_s_end_takes_back_nothing(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its note begins while the rank's end is on its way to disk."""
    log = open_as(1, 2, base)
    folder, noting = log._session.folder, []
    replace = folder.disk.replace

    def slow(path: str, data: bytes, **options: Any) -> None:
        if b'"complete"' in data and not noting:
            noting.append(threading.Thread(target=folder.note, kwargs={"signals": ["SIGUSR1"]}))
            noting[0].start()
            noting[0].join(0.3)
        replace(path, data, **options)

    log.array("x", [1.0], start=(1,), shape=(2,))
    monkeypatch.setattr(folder.disk, "replace", slow)
    log.mark_complete()
    noting[0].join()
    told = json.loads((log.rank_dir / "rank.json").read_text())
    assert (told["status"], told["signals"]) == ("complete", ["SIGUSR1"])


# ----- children -----


def test_a_forked_child_has_its_parents_handlers_from_before(tmp_path: Path) -> None:
    done = program(
        """
        import multiprocessing, os, signal, time
        from notata import Logbook, files
        from notata.signals import WARNINGS

        def child(before):
            assert [signal.getsignal(number) for number in WARNINGS] == before
            assert signal.set_wakeup_fd(-1) == -1
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

        before = [signal.getsignal(number) for number in WARNINGS]
        context = multiprocessing.get_context("fork")
        with Logbook("a", "out") as log:
            for _ in range(5):
                process = context.Process(target=child, args=(before,))
                process.start()
                process.join()
                assert process.exitcode == -signal.SIGTERM, process.exitcode
            assert not log.should_stop
            os.kill(os.getpid(), signal.SIGUSR1)
            end = time.monotonic() + 30
            while b"received SIGUSR1" not in files.read_bytes("out/log_a/log.txt"):
                assert time.monotonic() < end
                time.sleep(0.01)
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert texts(tmp_path / "out" / "log_a") == ["received SIGUSR1; the program goes on"]


# ----- limits -----


def test_should_stop_close_to_the_limit(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 100))
    assert not Logbook("a", base).should_stop
    assert Logbook("b", base, margin=120).should_stop
    monkeypatch.setenv("NOTATA_END_TIME", str(time.time() + 7200))
    assert 7100 < Logbook("c", base).time_left() < 7300
    monkeypatch.setenv("NOTATA_END_TIME", "tomorrow")
    with pytest.raises(SettingError, match="NOTATA_END_TIME='tomorrow'"):
        Logbook("d", base)
    assert not (base / "log_d").exists()


def test_without_a_limit_there_is_time_for_ever(base: Path) -> None:
    log = Logbook("a", base)
    assert log.time_left() == float("inf")
    assert not log.should_stop


def test_alone_a_rank_agrees_with_itself(base: Path) -> None:
    log = Logbook("a", base)
    assert (log.agree(False), log.agree(1)) == (False, True)
    with pytest.raises(NoCommunicatorError, match="without a communicator"):
        open_as(1, 2, base, "b").agree(True)
