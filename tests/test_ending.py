"""Ways in which a program of one process ends, and what its run says then."""

from __future__ import annotations

import json
import math
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from simulated import ROOT, open_as, program

import notata
from notata import Logbook, LogReader, holders
from notata.agreement import Agreement, grace_seconds
from notata.failure import NEVER_CLOSED
from notata.lifecycle import Metadata
from notata.speaking import speak_for_root

NEVER = "the program ended without closing the run"

# The end of a program that has opened the run `log`, its exit status, and what the run says.
ENDS = {
    "left_well": ("with log: pass", 0, "complete", None),
    "raised": ("with log: raise ValueError('NaN')", 1, "failed", "NaN"),
    "exits": ("with log: sys.exit(3)", 3, "failed", "sys.exit(3)"),
    "exits_well": ("with log: sys.exit()", 0, "failed", "sys.exit(None)"),
    "interrupted": ("with log: raise KeyboardInterrupt", -2, "failed", "KeyboardInterrupt"),
    "in_a_thread": (
        "with log:\n    t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
        0,
        "complete",
        None,
    ),
    "never_entered": ("pass", 0, "failed", NEVER),
    "never_entered_and_raised": ("raise ValueError('NaN')", 1, "failed", "NaN"),
    "never_entered_and_exits": ("sys.exit(3)", 3, "failed", NEVER),
    "never_left": ("log.__enter__()", 0, "failed", NEVER),
    "marked": ("log.mark_complete()", 0, "complete", None),
    "dies": ("with log: os._exit(1)", 1, "initialized", None),
    "killed": ("with log: os.kill(os.getpid(), 9)", -9, "initialized", None),
    "segfaults": ("with log: ctypes.string_at(0)", -11, "initialized", None),
}
# Those that an exception ended, whose traceback is in the log.
TRACED = {"raised", "exits", "exits_well", "interrupted", "never_entered_and_raised"}


@pytest.mark.parametrize("end", ENDS)
def test_what_a_run_says_of_its_end(end: str, tmp_path: Path) -> None:
    code, status, said, reason = ENDS[end]
    start = "import ctypes, os, sys, threading\nfrom notata import Logbook\nlog = Logbook('x')\n"
    done = program(f"{start}log.info('here')\n{code}", tmp_path)
    assert done.returncode == status, done.stderr
    run = LogReader(tmp_path / "outputs" / "log_x")
    assert (run.meta["status"], run.meta.get("failure_reason")) == (said, reason)
    told = list(run.messages())
    raised = [m.message for m in told if m.level == "ERROR"]
    assert len(raised) == (end in TRACED)
    assert all(text.startswith("Traceback (most recent call last):") for text in raised)
    texts = [m.message for m in told if m.level != "ERROR"]
    assert texts[:2] == ["Logbook initialized", "here"]
    ended = {"complete": ["Marked complete"], "failed": [f"Marked failed: {reason}"]}
    assert texts[2:] == ended.get(said, [])


def test_a_forked_process_does_not_end_its_parent_s_run(tmp_path: Path) -> None:
    code = """
        import os, sys
        from notata import Logbook
        log = Logbook("x")
        if os.fork() == 0:
            sys.exit()
        os.wait()
        assert "initialized" in log["metadata.json"].read_text()
        log.mark_complete()
    """
    assert program(code, tmp_path).returncode == 0


@pytest.mark.parametrize("end", ["sys.exit(0)", "raise ValueError", "pass"])
def test_a_forked_process_that_leaves_the_block_ends_nothing(tmp_path: Path, end: str) -> None:
    code = f"""
        import os, sys
        from notata import Logbook
        child = None
        with Logbook("x") as log:
            child = os.fork()
            if child == 0:
                {end}
            else:
                os.waitpid(child, 0)
                assert "initialized" in log["metadata.json"].read_text()
                log.info("all is well")
    """
    assert program(code, tmp_path).returncode == 0
    run = LogReader(tmp_path / "outputs" / "log_x")
    assert run.meta["status"] == "complete"
    told = [message.message for message in run.messages()]
    assert told == ["Logbook initialized", "all is well", "Marked complete"]


@pytest.mark.parametrize("watched", [False, True])
def test_a_program_that_becomes_a_daemon_in_the_block_ends_its_run(
    tmp_path: Path, watched: bool
) -> None:
    code = f"""
        import os, time
        from notata import Logbook
        with Logbook("x") as log:
            if {watched}:
                log.watch(600)
            parent = os.getpid()
            if os.fork():
                os._exit(0)
            while os.getppid() == parent:
                time.sleep(0.01)
            log.info("all is well")
    """
    done = program(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    run = LogReader(tmp_path / "outputs" / "log_x")
    assert [message.message for message in run.messages()][1:] == ["all is well", "Marked complete"]


def test_a_process_on_its_way_out_runs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon's parent may still be there in part when the daemon already ends the run.

    No process can be kept in that state here, so that what the kernel says of one is made up.
    """
    assert holders.runs_on(os.getpid())
    of_one = b"R 1 9 9 0 -1 4194560".split()
    leaving = b"R 1 9 9 0 -1 4194564".split()
    gone = b"Z 1 9 9 0 -1 4194564".split()
    monkeypatch.setattr(holders, "_threads", lambda pid: [gone, leaving])
    assert not holders.runs_on(9)
    assert holders.lives(9)
    monkeypatch.setattr(holders, "_threads", lambda pid: [gone, of_one])
    assert holders.runs_on(9)


@pytest.mark.parametrize("method", ["fork", "thread"])
def test_what_a_worker_says_of_the_run_counts(tmp_path: Path, method: str) -> None:
    code = f"""
        import multiprocessing, threading
        from notata import Logbook

        def work(log):
            log.meta(residual=1e-9)
            log.mark_failed("solver diverged")

        with Logbook("x") as log:
            log.meta(operator="ada")
            kind = multiprocessing.get_context("fork").Process if {method == "fork"} \\
                else threading.Thread
            worker = kind(target=work, args=(log,))
            worker.start()
            worker.join()
    """
    done = program(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    meta = LogReader(tmp_path / "outputs" / "log_x").meta
    assert (meta["status"], meta["failure_reason"]) == ("failed", "solver diverged")
    assert (meta["residual"], meta["operator"]) == (1e-9, "ada")


def test_what_a_worker_said_outlives_what_its_parent_notes_then(tmp_path: Path) -> None:
    code = """
        import os
        from notata import Logbook
        with Logbook("x") as log:
            log.meta(kind="a")
            if os.fork() == 0:
                log.meta(kind="b")
                log.mark_failed("solver diverged")
                os._exit(0)
            os.wait()
            log.meta(step=1)
    """
    assert program(code, tmp_path).returncode == 0
    meta = LogReader(tmp_path / "outputs" / "log_x").meta
    assert (meta["status"], meta["failure_reason"]) == ("failed", "solver diverged")
    assert (meta["kind"], meta["step"]) == ("b", 1)


def test_the_run_that_was_replaced_leaves_the_new_one_s_outcome(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both say the same, but for what tells one opening from another."""
    old = Logbook("x", base)
    time.sleep(0.05)  # more than a tick of the file system's clock
    new = Logbook("x", base, overwrite=True)
    old.mark_failed("old run's failure")
    assert "log_x/metadata.json is another run's by now" in capsys.readouterr().err
    assert LogReader(new.path).meta["status"] == "initialized"
    new.mark_complete()
    meta = LogReader(new.path).meta
    assert (meta["status"], meta.get("failure_reason")) == ("complete", None)


def test_a_reason_that_has_no_text_fails_the_run_all_the_same(base: Path) -> None:
    class Wordless:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    log = Logbook("x", base)
    log.mark_failed(Wordless())  # type: ignore[arg-type]
    meta = LogReader(log.path).meta
    assert (meta["status"], meta["failure_reason"]) == ("failed", "Wordless")


def test_a_child_of_another_rank_counts_without_a_communicator(base: Path) -> None:
    with open_as(1, 2, base) as log:
        child = os.fork()
        if child == 0:
            log.mark_failed("solver diverged")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    with open_as(0, 2, base):
        pass
    meta = LogReader(base / "log_run").meta
    assert (meta["status"], meta["failure_reason"]) == ("failed", "rank 1: solver diverged")


def test_the_program_s_own_word_counts_for_more_than_its_worker_s(tmp_path: Path) -> None:
    code = """
        import os
        from notata import Logbook
        log = Logbook("x")
        if os.fork() == 0:
            log.meta(tried=1)
            log.mark_failed("first solver diverged")
            os._exit(0)
        os.wait()
        log.mark_complete()
    """
    assert program(code, tmp_path).returncode == 0
    meta = LogReader(tmp_path / "outputs" / "log_x").meta
    assert (meta["status"], meta.get("failure_reason"), meta["tried"]) == ("complete", None, 1)


# ----- ranks that no communicator joins -----

ORDERS = [(0, 1, 2), (1, 0, 2), (2, 1, 0)]


@pytest.mark.parametrize("launch", ["launch-1", None], ids=["named", "nameless"])
@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("how", ["raises", "says"])
def test_a_rank_that_fails_makes_the_run_failed_without_a_communicator(
    base: Path, launch: str | None, order: tuple[int, ...], how: str
) -> None:
    def end(rank: int) -> None:
        with open_as(rank, 3, base, launch=launch) as log:
            if rank == 1 and how == "says":
                log.mark_failed("NaN")
            elif rank == 1:
                raise ValueError("NaN")

    for rank in order:
        with suppress(ValueError):
            end(rank)
    meta = LogReader(base / "log_run").meta
    assert (meta["status"], meta["failure_reason"]) == ("failed", "rank 1: NaN")
    assert LogReader(base / "log_run").ranks[1].record["status"] == "failed"


def test_a_rank_that_fails_while_rank_0_closes_is_heard(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between rank 0's look for such a note and its own word."""
    root, other = (open_as(rank, 2, base) for rank in (0, 1))
    update = Metadata.update

    def fail_before(self: Metadata, fields: Any, *args: Any, **more: Any) -> None:
        monkeypatch.undo()
        other.mark_failed("NaN")
        assert LogReader(root.path).meta["status"] == "initialized"
        update(self, fields, *args, **more)

    monkeypatch.setattr(Metadata, "update", fail_before)
    root.mark_complete()
    meta = LogReader(root.path).meta
    assert (meta["status"], meta["failure_reason"]) == ("failed", "rank 1: NaN")


@pytest.mark.parametrize("launch", ["launch-1", None], ids=["named", "nameless"])
@pytest.mark.parametrize("how", ["overwrite", "resume"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
def test_a_failure_is_one_of_its_own_opening(
    base: Path, launch: str | None, how: str, order: tuple[int, ...]
) -> None:
    for again in range(3):
        options: dict[str, Any] = {how: True} if again else {}
        for rank in order:
            log = open_as(rank, 2, base, launch=launch, **options)
            log.mark_failed("NaN") if rank and again != 1 else log.mark_complete()
        status = LogReader(base / "log_run").meta["status"]
        assert status == ("complete" if again == 1 else "failed"), again


def test_what_rank_0_notes_later_leaves_a_failure_as_it_is(base: Path) -> None:
    root, other = (open_as(rank, 2, base) for rank in (0, 1))
    root.mark_complete()
    other.mark_failed("NaN")
    root.meta(plotted=True)
    meta = LogReader(root.path).meta
    assert (meta["status"], meta["failure_reason"]) == ("failed", "rank 1: NaN")
    assert meta["plotted"] is True
    assert not list(root.path.glob(".notata-*"))


def test_a_silent_rank_0_has_no_folder_where_another_one_fails(base: Path) -> None:
    for rank in (1, 0):
        log = open_as(rank, 2, base)
        log.mark_failed("NaN") if rank else log.mark_complete()
    ranks = base / "log_run" / "ranks"
    assert sorted(path.name for path in ranks.iterdir()) == ["failed.json", "rank_00001"]


def test_an_older_launch_s_failure_is_not_this_one_s(base: Path) -> None:
    for launch, fails in (("launch-1", True), ("launch-2", False), ("launch-3", True)):
        for rank in range(2):
            options: dict[str, Any] = {"overwrite": True} if launch != "launch-1" else {}
            log = open_as(rank, 2, base, launch=launch, **options)
            if fails and rank:
                log.mark_failed(launch)
            else:
                log.mark_complete()
        meta = LogReader(base / "log_run").meta
        wanted = ("failed", f"rank 1: {launch}") if fails else ("complete", None)
        assert (meta["status"], meta.get("failure_reason")) == wanted


def test_what_a_failed_rank_noted_is_kept_when_the_run_is_merged_and_pruned(base: Path) -> None:
    for rank in range(2):
        log = open_as(rank, 2, base)
        log.array("x", [float(rank)])
        log.mark_failed("NaN") if rank else log.mark_complete()
    notata.merge(base / "log_run", prune=True)
    run = LogReader(base / "log_run")
    assert run.meta["failure_reason"] == "rank 1: NaN"
    assert run.load_array("x").tolist() == [0.0, 1.0]


def test_a_run_that_another_one_took_the_place_of_is_left_alone(tmp_path: Path) -> None:
    code = """
        import pathlib, shutil
        from notata import Logbook
        older = Logbook("x")
        with Logbook("x", overwrite=True): pass
        gone = Logbook("gone")
        shutil.rmtree(gone.path)
        foreign = Logbook("foreign")
        (foreign.path / "metadata.json").write_text('{"status": "complete"}')
        closed = Logbook("closed")
        (closed.path / "metadata.json").write_text('{"status": "complete"}')
        closed.mark_failed("too late")
    """
    done = program(code, tmp_path)
    assert done.returncode == 0
    (told,) = done.stderr.splitlines()
    assert "log_closed/metadata.json is another run's by now" in told
    base = tmp_path / "outputs"
    assert LogReader(base / "log_x").meta["status"] == "complete"
    assert sorted(path.name for path in base.iterdir()) == ["log_closed", "log_foreign", "log_x"]
    for name in ("log_closed", "log_foreign"):
        assert (base / name / "metadata.json").read_text() == '{"status": "complete"}'


def test_what_is_in_place_while_a_run_is_open_is_undone(tmp_path: Path) -> None:
    code = """
        import atexit, json, signal, sys, threading
        from notata import Logbook, vigil
        hooks = []
        atexit.register, atexit.unregister = hooks.append, hooks.remove

        def in_place():
            handlers = [signal.getsignal(number) for number in range(1, 32)]
            excepthooks = sys.excepthook, threading.excepthook
            return len(hooks), set(vigil._tasks), handlers, excepthooks

        states = [in_place()]
        with Logbook("a") as log:
            log.watch(timeout=600)
            states.append(in_place())
        states.append(in_place())
        for state in states[1:]:
            print(*[here == there for here, there in zip(states[0], state)])
    """
    done = program(code, tmp_path)
    assert done.stderr == ""
    # A hook for the end of the program; what goes on beside it: the sign of life, signals, and the
    # watch; and the handlers of the signals that are noted. No hook for exceptions.
    assert done.stdout == "False False False True\nTrue True True True\n"


def test_what_stays_in_place_is_named_in_the_docs(tmp_path: Path) -> None:
    """Four times for forks, however many runs there were; and a timer of the program is gone."""
    code = """
        import faulthandler, os, sys
        hooks = []
        os.register_at_fork = lambda **given: hooks.append({f.__module__ for f in given.values()})
        import notata
        assert hooks == []
        from notata import Logbook
        for _ in range(2):
            with Logbook("a", overwrite=True):
                pass
        print(*sorted(name for (name,) in hooks if name.startswith("notata")))
        faulthandler.dump_traceback_later(1, file=sys.stdout)
        with Logbook("b") as log:
            log.watch(timeout=600)
        import time
        time.sleep(2)
    """
    done = program(code, tmp_path)
    rooms = [f"notata.{name}" for name in ("parking", "signals", "topology", "vigil")]
    assert (done.stdout.split(), done.stderr) == (rooms, "")
    told = (ROOT / "docs" / "failures.md").read_text()
    for name in ("os.register_at_fork", "faulthandler.dump_traceback_later"):
        assert name in told.partition("can't be undone")[2]


def test_the_traceback_is_on_disk_before_a_rank_tells_anybody(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_as(0, 2, base)
    log = open_as(1, 2, base)
    log.info("here")
    events: list[str] = []
    fsync, agree = os.fsync, Agreement.agree

    def note_sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)
        events.append(path.name)
        if path.name == "rank.json":
            told = json.loads(path.read_text())
            assert told["traceback"].endswith("ValueError: NaN")
            assert {"host", "rank", "failed_at"} <= told.keys()
        if path.name == "log.txt":
            assert "ValueError: NaN" in path.read_text()

    def note_message(*args: Any, **more: Any) -> Any:
        events.append("message")
        return agree(*args, **more)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Agreement, "agree", note_message)
    with pytest.raises(ValueError, match="NaN"), log:
        raise ValueError("NaN")
    assert events.count("message") == 1
    before = events[: events.index("message")]
    assert {"rank.json", "rank_00001", "ranks", "log_run", "log.txt"} <= set(before)


@pytest.mark.parametrize("on_failure", ["", "never", None, 1])
def test_what_is_no_way_to_meet_a_failure_is_refused(base: Path, on_failure: Any) -> None:
    with pytest.raises(ValueError, match="grace, abort, raise"):
        Logbook("x", base, on_failure=on_failure)
    assert not base.exists()


@pytest.mark.parametrize("grace", [0, -1.5, math.nan, "soon", ""])
def test_what_is_no_grace_period_is_refused(base: Path, grace: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"grace={grace!r} (NOTATA_GRACE) is not")):
        Logbook("x", base, grace=grace)
    assert not base.exists()


def test_how_long_ranks_wait_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTATA_GRACE", raising=False)
    assert grace_seconds(None) == 30
    monkeypatch.setenv("NOTATA_GRACE", "7.5")
    assert grace_seconds(None) == 7.5
    assert grace_seconds(2) == 2
    monkeypatch.setenv("NOTATA_GRACE", "soon")
    with pytest.raises(ValueError, match=r"grace='soon' \(NOTATA_GRACE\)"):
        grace_seconds(None)


# ----- speaking for rank 0 -----


def test_one_rank_speaks_for_rank_0_and_the_outcome_stays(base: Path) -> None:
    root = open_as(0, 3, base)
    root.meta(operator="ada")
    assert speak_for_root(os.fspath(root.path), "rank 2: NaN", 1.5)
    assert not speak_for_root(os.fspath(root.path), "rank 1: NaN", 2.5)  # it stands there already
    said = LogReader(root.path).meta
    assert (said["status"], said["failure_reason"]) == ("failed", "rank 2: NaN")
    assert (said["runtime_sec"], said["operator"]) == (1.5, "ada")
    assert not list(root.path.glob(".notata-*"))


def test_a_rank_that_died_while_it_spoke_keeps_nobody_from_speaking(base: Path) -> None:
    root = open_as(0, 3, base)
    (root.path / ".notata-speaker").touch()
    assert speak_for_root(os.fspath(root.path), "rank 2: NaN", 1.5)
    assert LogReader(root.path).meta["status"] == "failed"
    assert not list(root.path.glob(".notata-*"))


def test_nobody_speaks_for_a_run_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "log_x").mkdir()
    assert not speak_for_root(os.fspath(tmp_path / "log_x"), "rank 2: NaN", 1.5)
    assert not list((tmp_path / "log_x").iterdir())


def test_a_run_that_was_killed_at_its_very_beginning_can_be_gone_on_with(tmp_path: Path) -> None:
    """It had its parameters, but no log and no metadata yet."""
    run = tmp_path / "log_x"
    (run / "data").mkdir(parents=True)
    (run / "params.yaml").write_text("k: 1\n")
    with Logbook("x", tmp_path, resume=True) as log:
        assert log.params["k"] == 1
    assert LogReader(run).meta["status"] == "complete"


def test_the_log_of_one_rank_says_where_it_broke(tmp_path: Path) -> None:
    program("from notata import Logbook\nwith Logbook('x'): {}['rho']", tmp_path)
    run = LogReader(tmp_path / "outputs" / "log_x")
    assert run.meta["failure_reason"] == "KeyError: 'rho'"
    traced, marked = list(run.messages())[-2:]
    assert (traced.level, traced.message.splitlines()[-1]) == ("ERROR", "KeyError: 'rho'")
    assert "line 2" in traced.message
    assert marked.message == "Marked failed: KeyError: 'rho'"
    assert not (run.path / "ranks").exists()


def test_runs_that_took_all_descriptors_are_closed_at_the_end(tmp_path: Path) -> None:
    code = """
        import resource
        from notata import Experiment
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        logs, many = [], Experiment("many")
        try:
            while True:
                logs.append(many.add(i=len(logs)))
        except OSError:
            print(len(logs))
    """
    done = program(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    runs = sorted((tmp_path / "outputs" / "many" / "runs").iterdir())
    told = [LogReader(run).meta for run in runs if (run / "metadata.json").exists()]
    assert len(told) == int(done.stdout) > 20
    assert {meta["status"] for meta in told} == {"failed"}
    assert {meta["failure_reason"] for meta in told} == {NEVER_CLOSED}
    table = (tmp_path / "outputs" / "many" / "index.csv").read_text()
    assert len(table.splitlines()) == len(told) + 1
