"""Noticing that a rank is stuck, and seeing where."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from simulated import open_as, program, tree

from notata import Logbook, LogReader, layout, vigil
from notata.stacks import survey
from notata.watchdog import Watchdog

PLENTY = 60.0  # seconds after which a test gives up waiting


def until(what: Callable[[], object]) -> None:
    """Wait in a function that the stacks name, without a sign of life."""
    deadline = time.monotonic() + PLENTY
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def watchdogs() -> int:
    """How many are at work in this process; each looks in one thread, and writes in another."""
    found = {vigil.FILES: 0, vigil.LOOKS: 0}
    for task in list(vigil._tasks.values()):
        found[task.lane] += isinstance(getattr(task._call(), "__self__", None), Watchdog)
    assert found[vigil.FILES] == found[vigil.LOOKS]
    return found[vigil.LOOKS]


def test_a_rank_that_gives_signs_of_life_leaves_no_stacks(base: Path) -> None:
    for sign in (Logbook.tick, lambda log: log.debug("dropped"), lambda log: log.info("step")):
        with Logbook("x", base, overwrite=True) as log:
            log.watch(timeout=0.5)
            end = time.monotonic() + 1.2
            while time.monotonic() < end:
                sign(log)
        assert not (log.path / "stacks.txt").exists()


def test_a_stuck_process_writes_where_it_stands_and_that_it_went_on(base: Path) -> None:
    with Logbook("x", base) as log:
        log.watch(timeout=0.3)
        assert watchdogs() == 1
        stacks = log.path / "stacks.txt"
        until(stacks.exists)
        until(lambda: "until" in stacks.read_text())
        found = survey(str(log.path), 1)
        ((stand,),) = found.groups
        assert stand.rank == 0
        assert stand.silent >= 0.3
        assert "until" in [frame.function for frame in stand.frames]
        log.tick()
        until(lambda: "went on" in stacks.read_text())
        assert survey(str(log.path), 1).groups == []
        assert survey(str(log.path), 1).went_on == [0]
        until(lambda: stacks.read_text().count("no sign of life") == 2)  # stuck once more
        assert len(survey(str(log.path), 1).groups) == 1
    assert watchdogs() == 0
    assert log.status == "complete"


def test_nothing_watches_over_a_run_that_is_closed(tmp_path: Path) -> None:
    """Neither Python nor faulthandler's own timer, which needs no Python."""
    done = program(
        """
        import ctypes
        from notata import Logbook
        with Logbook("x") as log:
            log.watch(timeout=0.4)
            log.info("step")
        others = [Logbook(f"y{n}") for n in range(4)]  # may have the descriptors of the first
        ctypes.PyDLL(None).usleep(1_000_000)  # holds Python's lock
        ctypes.CDLL(None).usleep(1_000_000)  # lets it go
        for other in others:
            other.mark_complete()
        """,
        tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.rglob("stacks.txt"))
    logs = list(tmp_path.rglob("log.txt"))
    assert len(logs) == 5
    assert not [log for log in logs if "most recent call first" in log.read_text()]


def test_a_rank_of_several_writes_into_its_own_folder(base: Path) -> None:
    root, other = open_as(0, 3, base), open_as(1, 3, base)
    for log in (root, other):
        log.watch(timeout=0.2)
    files = [log.path / f"ranks/rank_0000{log.rank}/stacks.txt" for log in (root, other)]
    until(lambda: all(file.exists() for file in files))
    until(lambda: len(survey(str(root.path), 3).groups) == 1)
    found = survey(str(root.path), 3)
    assert [stand.rank for stand in found.groups[0]] == [0, 1]
    assert found.silent == [2]
    other.mark_failed("given up")
    root.mark_failed("given up")
    assert tree(root.path / "ranks") == [
        "failed.json",
        "rank_00000/rank.json",
        "rank_00000/stacks.txt",
        "rank_00001/rank.json",
        "rank_00001/stacks.txt",
    ]


HOLDS_THE_LOCK = """
    import ctypes, os, time
    from notata import Logbook
    log = Logbook("x"{options})
    log.watch(timeout=0.5{watch})
    def holds_the_lock(seconds):
        ctypes.PyDLL(None).sleep(seconds)
"""


@pytest.mark.parametrize("rank", [None, 0, 2])
def test_a_process_that_holds_python_s_lock_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int | None
) -> None:
    """`ctypes.PyDLL` keeps the lock, as an extension does that computes or waits without Python.

    Nothing was written before, not even a line of the log.
    """
    if rank is not None:
        monkeypatch.setenv("NOTATA_RANK", f"{rank}")
        monkeypatch.setenv("NOTATA_SIZE", "3")
    code = HOLDS_THE_LOCK.format(options=", level='ERROR'", watch="")
    done = program(f"{code}\n    holds_the_lock(4); os._exit(0)", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    run = tmp_path / "outputs" / "log_x"
    found = survey(str(run), 1 if rank is None else 3)
    ((stand,),) = found.groups
    assert stand.rank == (rank or 0)
    assert stand.place.startswith("holds_the_lock (")
    # Had it ended while its own watchdog wrote, a head would be there too.
    folder = run if rank is None else run / layout.rank_dir(rank)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / layout.STACKS).write_text(
        f"[2026-11-26T12:00:00] rank {stand.rank} on n, process 1: no sign of life for 4.0 s; "
        "main thread 0x0000000000000001\n"
    )
    assert survey(str(run), 1 if rank is None else 3).groups[0][0].frames == stand.frames != ()
    assert stand.silent >= 0.5
    assert len(found.silent) == (0 if rank is None else 2)
    assert not list(run.rglob("log.txt"))


def test_a_process_that_held_python_s_lock_is_seen_to_go_on(tmp_path: Path) -> None:
    code = HOLDS_THE_LOCK.format(options="", watch="")
    more = """
    holds_the_lock(2)
    def told():
        return [path.read_text() for path in log.path.glob(".notata-stacks/*")]
    assert len(told()) == 1 and "holds_the_lock" in told()[0]
    while "went on" not in told()[0]:
        log.tick()
        time.sleep(0.1)
    first = told()
    holds_the_lock(2)
    assert len(told()[0]) > 1.5 * len(first[0])
    log.mark_complete()
    assert told()[0].count("went on") == 2
    """
    done = program(code + more, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = survey(str(tmp_path / "outputs" / "log_x"), 1)
    assert (found.groups, found.went_on) == ([], [0])


def test_a_watch_leaves_nothing_where_it_was_not_needed(base: Path) -> None:
    logs = [open_as(rank, 3, base) for rank in range(3)]
    for log in logs:
        log.watch(timeout=600)
    aside = base / "log_run" / "ranks" / ".notata-stacks"
    assert sorted(path.name for path in aside.iterdir()) == ["00000.txt", "00001.txt", "00002.txt"]
    logs[1].watch(timeout=300)  # in place of the first
    assert len(list(aside.iterdir())) == 3
    for log in logs:
        log.mark_complete()
    assert tree(base / "log_run") == ["log.txt", "metadata.json", "ranks/"]


def test_an_older_attempt_leaves_the_newer_one_s_file(base: Path) -> None:
    older = Logbook("x", base)
    older.watch(timeout=600)
    newer = Logbook("x", base, resume=True)
    newer.watch(timeout=600)
    older.mark_complete()
    (aside,) = (base / "log_x" / ".notata-stacks").iterdir()
    assert newer._session._watchdog is not None
    assert newer._session._watchdog._open_aside() > 0
    newer.mark_complete()
    assert not aside.exists()


def test_a_watchdog_can_end_a_process_that_is_stuck(tmp_path: Path) -> None:
    code = """
        import time
        from notata import Logbook
        def hangs():
            time.sleep(3600)
        with Logbook("x") as log:
            log.watch(timeout=0.3, abort=True)
            hangs()
    """
    done = program(code, tmp_path)
    assert done.returncode == 1
    assert "no sign of life" in done.stderr
    meta = LogReader(tmp_path / "outputs" / "log_x").meta
    assert meta["status"] == "failed"
    assert meta["failure_reason"].startswith("no sign of life for ")
    assert ": rank 0 in hangs (" in meta["failure_reason"]


def test_a_watchdog_can_end_a_process_that_holds_python_s_lock(tmp_path: Path) -> None:
    """No thread of Python can: `faulthandler` writes the stacks, and ends it."""
    code = HOLDS_THE_LOCK.format(options="", watch=", abort=True")
    done = program(f"{code}\n    holds_the_lock(3600)", tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    run = tmp_path / "outputs" / "log_x"
    ((stand,),) = survey(str(run), 1).groups
    assert stand.place.startswith("holds_the_lock (")
    assert LogReader(run).meta["status"] == "initialized"  # as of one that was killed


def test_a_process_that_holds_python_s_lock_at_its_end_is_let_live(tmp_path: Path) -> None:
    code = HOLDS_THE_LOCK.format(options="", watch=", abort=True")
    more = """
    log._session._watchdog.spare()  # as where it waits for other ranks
    holds_the_lock(7)
    log.mark_complete()
    """
    done = program(code + more, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert LogReader(tmp_path / "outputs" / "log_x").meta["status"] == "complete"


@pytest.mark.parametrize("given", ["soon", "-1", "inf", "nan"])
def test_what_is_no_time_to_watch_is_refused(
    base: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    log = Logbook("x", base)
    with pytest.raises(ValueError, match="NOTATA_WATCH"):
        log.watch(timeout=float(given) if given != "soon" else given)  # type: ignore[arg-type]
    monkeypatch.setenv("NOTATA_WATCH", given)
    with pytest.raises(ValueError, match="NOTATA_WATCH"):
        Logbook("y", base)
    assert watchdogs() == 0
    assert not (base / "log_y").exists()


def test_the_environment_can_have_a_run_watched(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTATA_WATCH", "600")
    with Logbook("x", base) as log:
        assert watchdogs() == 1
        log.watch(timeout=0)  # the program knows better
        assert watchdogs() == 0


def test_stacks_that_cannot_be_written_keep_nobody_from_watching(
    base: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Logbook("x", base) as log:
        (log.path / "stacks.txt").mkdir()
        log.watch(timeout=0.2)
        said: list[str] = []
        until(lambda: said.append(capfd.readouterr().err) or "stacks.txt" in "".join(said))
        assert watchdogs() == 1


@pytest.mark.parametrize("child", ["log.mark_failed('NaN')", "log.watch(300)", "pass"])
def test_a_forked_child_of_a_rank_that_is_watched_goes_on(tmp_path: Path, child: str) -> None:
    """`faulthandler` would have it wait for a thread of its parent, whose timer is set again."""
    code = f"""
        import ctypes, os, signal
        from notata import Logbook
        log = Logbook("x")
        log.watch(timeout=0.5)
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                signal.alarm(30)
                {child}
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        ctypes.PyDLL(None).sleep(3)  # holds Python's lock
        os._exit(0)
    """
    done = program(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    if child != "log.watch(300)":  # which has a file of its own, at the same place
        ((stand,),) = survey(str(tmp_path / "outputs" / "log_x"), 1).groups
        assert stand.frames


def test_a_program_that_becomes_a_daemon_is_watched_if_it_asks_for_it(tmp_path: Path) -> None:
    code = """
        import os, signal, time
        from notata import Logbook
        with Logbook("x") as log:
            log.watch(timeout=600)
            if os.fork():
                os._exit(0)
            signal.alarm(30)
            log.watch(timeout=0.3)
            while not (log.path / "stacks.txt").exists():
                time.sleep(0.05)
            log.tick()
    """
    done = program(code, tmp_path)  # until nobody has its output open
    assert done.stderr == ""
    run = tmp_path / "outputs" / "log_x"
    assert survey(str(run), 1).went_on == [0]
    assert LogReader(run).meta["status"] == "complete"
