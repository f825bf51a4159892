"""The lock: its two kinds, who holds it, and what becomes of a holder that died."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest

from notata import Experiment, LogReader, flocking, holders, lock, turns
from notata.errors import LockTimeoutError, SettingError
from notata.lock import FLOCK, TURNS, Held, locked, timeout_from_environment
from notata.mounts import UNKNOWN

HOLD = """
import sys, time
from notata.lock import locked, timeout_from_environment
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(100)
"""


@contextmanager
def holder(path: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(params=[FLOCK, TURNS])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A lock file, where flock is refused or not."""
    if request.param == TURNS:
        (tmp_path / "lock.turns").mkdir()
    return tmp_path / "lock"


def record_of(path: Path) -> Path:
    """The file in which the holder of a lock says who it is."""
    folder = path.with_name("lock.turns")
    return max(folder.iterdir()) if folder.exists() else path


def test_a_holder_keeps_others_out_and_is_named(path: Path) -> None:
    job = {"SLURM_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "3"}
    with holder(path, **job) as other, pytest.raises(LockTimeoutError) as caught, locked(path, 0.2):
        pytest.fail("two at once")
    message = str(caught.value)
    assert f"{path} was held by others for 0.2 s, at last by process {other.pid} on" in message
    assert f"on {os.uname().nodename}, job 4711, since 20" in message
    assert message.endswith("; set NOTATA_LOCK_TIMEOUT to wait for longer")
    assert isinstance(caught.value, TimeoutError)


def test_it_is_there_again_once_let_go(path: Path) -> None:
    kinds = set()
    for _ in range(5):
        with locked(path, 0) as held:
            kinds.add(held.kind)
            with pytest.raises(LockTimeoutError), locked(path, 0):
                pytest.fail("two at once")
        with pytest.raises(RuntimeError, match="within"), locked(path, 0):
            raise RuntimeError("within")
    assert kinds == {TURNS if path.with_name("lock.turns").exists() else FLOCK}
    if kinds == {TURNS}:
        assert len(list(path.with_name("lock.turns").iterdir())) == 1  # old turns are cleared away


def test_that_a_flock_can_not_be_marked_as_free_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(holders, "let_go", refuse)
    for _ in range(2):
        with locked(tmp_path / "lock", 0) as held:
            assert held.kind == FLOCK


def test_a_holder_that_was_killed_is_gone_at_once(path: Path) -> None:
    with holder(path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        with locked(path, 5):
            pass


HOLD_IN_A_THREAD = """
import ctypes, sys, threading, time
from notata.lock import locked, timeout_from_environment

def hold():
    with locked(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.readline()

threading.Thread(target=hold).start()
ctypes.CDLL(None).syscall(60, 0)  # the end of the first thread alone
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the call has another number here")
def test_a_holder_whose_first_thread_alone_has_ended_still_holds(tmp_path: Path) -> None:
    """So it stands with a killed process for a moment, while another thread of it still writes."""
    (tmp_path / "lock.turns").mkdir()
    command = [sys.executable, "-c", HOLD_IN_A_THREAD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        while ") Z " not in Path(f"/proc/{process.pid}/stat").read_text():
            time.sleep(0.01)
        with pytest.raises(LockTimeoutError), locked(tmp_path / "lock", 0.3):
            pytest.fail("two at once")
        process.stdin.close()
    with locked(tmp_path / "lock", 5):
        pass


def test_a_process_that_has_no_descriptor_left_takes_nobody_for_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holder(path):
        other = holders.parse(record_of(path).read_bytes())
        assert other is not None
        assert other.gone is False

        def refuse(*args: Any, **more: Any) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr("builtins.open", refuse)
        assert other.gone is None
        monkeypatch.undo()


def test_a_holder_that_is_stopped_still_holds(path: Path) -> None:
    with holder(path) as other:
        other.send_signal(signal.SIGSTOP)
        with pytest.raises(LockTimeoutError), locked(path, 0.3):
            pytest.fail("two at once")
        other.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("content", ["elsewhere", "cut off", "empty", "nobody's"])
def test_who_can_not_be_asked_is_gone_after_a_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """A process of another node; or one that died before its record was whole."""
    folder = tmp_path / "lock.turns"
    folder.mkdir()
    data = json.loads(holders.record(holders.this_process())) | {"node": "another", "host": "n2"}
    text = {"elsewhere": json.dumps(data) + "\n", "cut off": '{"ho', "empty": "", "nobody's": "1"}
    turn = folder / "000000000007"
    turn.write_text(text[content])
    with pytest.raises(LockTimeoutError) as caught, locked(tmp_path / "lock", 0.1):
        pytest.fail("two at once")
    assert ("on n2, since" if content == "elsewhere" else "has not said") in str(caught.value)
    old = time.time() - turns.GONE_AFTER + 20
    os.utime(turn, (old, old))
    with pytest.raises(LockTimeoutError), locked(tmp_path / "lock", 0):
        pytest.fail("two at once")
    old -= 21
    os.utime(turn, (old, old))
    with pytest.raises(LockTimeoutError), locked(tmp_path / "lock", 0.1):
        pytest.fail("it was not watched for long enough")
    monkeypatch.setattr(turns, "_WATCHED", 0.0)
    with locked(tmp_path / "lock", 0) as held:
        assert held.kind == TURNS
    assert [file.name for file in folder.iterdir()] == ["000000000008"]
    assert not [name for name in os.listdir(folder) if name.startswith(".notata")]


def test_a_holder_whose_clock_is_far_behind_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Lustre, where a node's own clock stamps what it touches."""
    folder = tmp_path / "lock.turns"
    folder.mkdir()
    data = json.loads(holders.record(holders.this_process())) | {"node": "another", "host": "n2"}
    turn = folder / "000000000007"
    turn.write_text(json.dumps(data) + "\n")
    clock = [1000.0]
    monkeypatch.setattr("notata.turns.time.monotonic", lambda: clock[0])
    for touch in range(20):
        behind = time.time() - 3600 + 5 * touch
        os.utime(turn, (behind, behind))
        clock[0] += 5
        assert turns.Turns(str(folder)).take() is None
    for seconds, expected in ((5, None), (4, None), (3, 8)):
        clock[0] += seconds
        assert turns.Turns(str(folder)).take() == expected  # who waits may be another each time


def test_a_holder_at_work_gives_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_TOUCH", 0.05)
    (tmp_path / "lock.turns").mkdir()
    with locked(tmp_path / "lock", 0):
        (turn,) = (tmp_path / "lock.turns").iterdir()
        os.utime(turn, (0, 0))
        deadline = time.monotonic() + 60
        while turn.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert turns.last_touch(str(turn))[1] < 60


def test_an_old_listing_gives_nobody_a_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS: a process believes for a while that turn 3 is the newest, and free."""
    folder = tmp_path / "turns"
    folder.mkdir()
    old = turns.Turns(str(folder))
    (folder / "000000000003").write_bytes(b"free")
    listings = iter([[3]])
    real = turns.Turns._numbers
    with monkeypatch.context() as patch:
        others = turns.Turns(str(folder))
        for expected in (4, 5, 6):
            number = others.take()
            assert number == expected
            if number < 6:
                others._end(number)
        (folder / "000000000003").write_bytes(b"free")
        patch.setattr(turns.Turns, "_numbers", lambda self: next(listings, None) or real(self))
        assert old.take() is None
    assert old.holder() == others.holder()
    assert others.take() is None
    others._end(6)
    assert old.take() == 7
    assert [file.name for file in folder.iterdir()] == ["000000000007"]


def test_a_turn_is_given_back_where_there_are_no_more_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lock.turns").mkdir()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with locked(tmp_path / "lock", 0) as held:
            assert held.kind == TURNS
    with locked(tmp_path / "lock", 0):
        pass


def test_a_lock_may_be_waited_for_as_long_as_can_be(tmp_path: Path) -> None:
    with locked(tmp_path / "lock", float("inf")) as held:
        assert held.kind == FLOCK


# ----- where flock is refused -----


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_refused_flock_makes_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(filelock, "lock_descriptor", refuse)
        with locked(tmp_path / "lock", 0) as held:
            assert held == Held(TURNS, f"flock is refused here: {os.strerror(code)}")
    # On a node where it works, too, from now on.
    with locked(tmp_path / "lock", 0) as held:
        assert held == Held(TURNS, "a process that shares this folder was refused flock")


def test_another_error_of_flock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(filelock, "lock_descriptor", fail)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "lock", 0):
        pytest.fail("held")
    assert not (tmp_path / "lock.turns").exists()


def test_who_is_refused_flock_waits_for_who_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes differ: here flock works, there it doesn't."""
    path = tmp_path / "lock"

    def refuse(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with holder(path) as other:
        with monkeypatch.context() as patch:
            patch.setattr(filelock, "lock_descriptor", refuse)
            for _ in range(2):
                with pytest.raises(LockTimeoutError), locked(path, 0.2):
                    pytest.fail("two at once")
        other.kill()
        other.wait()
        with locked(path, 5) as held:
            assert held.kind == TURNS


def test_who_waits_for_flock_takes_a_turn_once_there_are_turns(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as other:
        waiter = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
        )
        time.sleep(0.3)
        turns.Turns(str(path) + ".turns").prepare()
        assert waiter.poll() is None
        other.kill()
        other.wait()
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "held\n"
        assert turns.Turns(str(path) + ".turns").holder() is not None
        with pytest.raises(LockTimeoutError, match=f"process {waiter.pid}"), locked(path, 0.1):
            pytest.fail("two at once")
        waiter.kill()
        waiter.communicate()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all files lay on a server, which answers for their locks."""
    monkeypatch.setattr(flocking, "mount_of", lambda path: UNKNOWN)
    monkeypatch.setattr(flocking, "_answered_here", {})


def test_a_server_of_locks_is_asked_by_a_thread(served: None, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, 0) as held:
        assert held == Held(FLOCK)
    with holder(path), pytest.raises(LockTimeoutError, match="held by others"), locked(path, 0.2):
        pytest.fail("two at once")


def test_an_error_of_a_server_of_locks_is_told(
    served: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(filelock, "lock_descriptor", fail)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "lock", 0):
        pytest.fail("held")


def test_an_answer_that_comes_too_late_is_given_back(
    served: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that does not come back is made up here; below, it is real."""
    path = tmp_path / "lock"
    answers = threading.Event()
    asked = []

    def late(descriptor: int, *, blocking: bool) -> bool:
        asked.append(descriptor)
        answers.wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(filelock, "lock_descriptor", late)
        for why in ("flock gave no answer in 1 s", "an earlier flock has not come back"):
            with pytest.raises(LockTimeoutError, match=why), locked(path, 0):
                pytest.fail("held")
        assert len(asked) == 1
        answers.set()
        while flocking._unanswered:
            time.sleep(0.01)
    with locked(path, 5) as held:
        assert held == Held(FLOCK)


ADDS = """
import sys
from notata import Experiment
experiment = Experiment("s", sys.argv[1])
for k in range(2):
    with experiment.add(k=k) as log:
        log.json("metrics", {"loss": 0.5})
print("went on", flush=True)
"""


@pytest.fixture
def ended_late() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that can't end before a FUSE server does, which has not answered them."""
    programs: list[subprocess.Popen[bytes]] = []
    yield programs
    for program in programs:
        program.wait()


def test_a_flock_that_never_answers_costs_a_run_its_row_alone(
    ended_late: list[subprocess.Popen[bytes]], fuse_mount: Callable[[str], Path], tmp_path: Path
) -> None:
    environ = {**os.environ, "NOTATA_LOCK_TIMEOUT": "1"}
    command = [sys.executable, "-c", ADDS, str(fuse_mount("hang"))]
    said = tmp_path / "said"
    with said.open("w") as file:
        program = subprocess.Popen(command, stdout=file, env=environ)
    ended_late.append(program)
    while not said.read_text():
        assert program.poll() is None
        time.sleep(0.05)
    assert said.read_text() == "went on\n"
    exp = Experiment("s", tmp_path / "shown")
    runs = sorted(exp.runs_dir.iterdir())
    assert [LogReader(run).meta["status"] for run in runs] == ["complete", "complete"]
    told = [next(LogReader(run).messages("WARNING")).message for run in runs]
    assert "no row in" in told[0]
    assert "flock gave no answer in 1 s" in told[0]
    assert "an earlier flock has not come back" in told[1]
    assert exp.rows() == []
    exp.rebuild_index()
    assert [(row["k"], row["loss"]) for row in exp.rows()] == [(0, 0.5), (1, 0.5)]


def test_a_run_says_once_how_its_table_is_locked(base: Path) -> None:
    exp = Experiment("s", base)
    (exp.exp_dir / ".index.csv.lock.turns").mkdir()
    log = exp.add(k=1)
    assert log is not None
    log.mark_failed("too early")
    log.mark_complete()
    meta = LogReader(log.path).meta
    why = "a process that shares this folder was refused flock"
    assert meta["lock"] == {"kind": "turns", "why": why}
    told = [m.message for m in LogReader(log.path).messages() if "locked" in m.message]
    assert told == [f"the table is locked by files that processes make in turn: {why}"]


def test_a_run_says_once_that_its_lock_can_not_be_trusted(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount is made up: which ones are doubted is tested with `mounts`."""
    from notata import index

    monkeypatch.setattr(index, "lock_doubt", lambda mount: "/here is NFS mounted with nolock")
    exp = Experiment("s", base)
    for k in (1, 2):
        log = exp.add(k=k)
        assert log is not None
        log.mark_complete()
        log.mark_complete()
        assert LogReader(log.path).meta["lock"] == {
            "kind": "flock",
            "doubt": "/here is NFS mounted with nolock",
        }
        (warning,) = [m.message for m in LogReader(log.path).messages("WARNING")]
        assert "can't be trusted: /here is NFS mounted with nolock" in warning
        assert "notata index" in warning


def test_a_run_without_its_row_says_too_that_its_lock_can_not_be_trusted(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from notata import index

    monkeypatch.setattr(index, "lock_doubt", lambda mount: "/here is NFS mounted with nolock")
    exp = Experiment("s", base)
    exp.index_file.mkdir()
    log = exp.add(k=1)
    assert log is not None
    log.mark_complete()
    assert LogReader(log.path).meta["lock"] == {"doubt": "/here is NFS mounted with nolock"}
    row, lock = [m.message for m in LogReader(log.path).messages("WARNING")]
    assert row.startswith("no row in")
    assert "can't be trusted: /here is NFS mounted with nolock" in lock


def test_an_ordinary_run_says_nothing_of_locks(base: Path) -> None:
    log = Experiment("s", base).add(k=1)
    assert log is not None
    log.mark_complete()
    assert "lock" not in LogReader(log.path).meta


@pytest.mark.parametrize("text", ["soon", "nan", "-1"])
def test_a_time_limit_that_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setenv("NOTATA_LOCK_TIMEOUT", text)
    with pytest.raises(SettingError, match=f"'{text}' is not a number"), locked(tmp_path / "lock"):
        pytest.fail("held")


def test_a_lock_is_waited_for_a_minute_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTATA_LOCK_TIMEOUT", raising=False)
    assert timeout_from_environment() == 60


@pytest.mark.parametrize("text", ["inf", "1e10", "0"])
def test_any_time_limit_leaves_its_row_to_a_run(
    served: None, base: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """No thread can be waited for as long as the first two are."""
    monkeypatch.setenv("NOTATA_LOCK_TIMEOUT", text)
    exp = Experiment("s", base)
    log = exp.add(k=1)
    assert log is not None
    log.mark_complete()
    assert [row["k"] for row in exp.rows()] == [1]


def test_a_lock_file_that_is_taken_away_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, 0):
        path.unlink()
        with locked(path, 0):
            assert path.exists()


# ----- a group's folder -----

ADD = """
import os, sys
os.umask(int(sys.argv[3], 8))
from notata import Experiment
exp = Experiment("s", sys.argv[1])
log = exp.add(k=int(sys.argv[2]))
log.json("metrics", {"m": int(sys.argv[2])})
log.mark_complete()
print([m for m in open(log.path / "log.txt") if "WARNING" in m])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is missing")
@pytest.mark.parametrize("umask", ["002", "022", "077"])
@pytest.mark.parametrize("kind", [FLOCK, TURNS])
def test_a_group_shares_the_table(kind: str, umask: str) -> None:
    """A folder of a project: setgid, and writable for the group, whatever a member's umask is."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="notata-group-"))  # pytest's own is root's alone
    try:
        folder.chmod(0o755)
        exp = folder / "s"
        (exp / "runs").mkdir(parents=True)
        if kind == TURNS:
            (exp / ".index.csv.lock.turns").mkdir()
        for path in (exp, *exp.iterdir()):
            os.chown(path, 0, 4242)
            path.chmod(0o2775)

        def add(user: int, k: int, umask: str) -> None:
            command = [*_as(user), sys.executable, "-B", "-c", ADD, str(folder), str(k), umask]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, cwd="/", env=_plain()
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")

        add(4001, 1, umask)
        add(4002, 2, "022")
        add(4001, 3, umask)
        rows = Experiment("s", folder).rows()
        assert [row["m"] for row in rows] == [1, 2, 3]
        add(4002, 4, umask)
        for path in (exp / "index.csv", exp / ".index.csv.bloom", exp / ".index.csv.lock"):
            if path.exists():
                assert path.stat().st_mode & 0o060 == 0o060, path
    finally:
        shutil.rmtree(folder)


HOLD_WITH_A_MASK = "import os, sys; os.umask(int(sys.argv[2], 8))\n" + HOLD


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is missing")
@pytest.mark.parametrize("umask", ["002", "077"])
@pytest.mark.parametrize("kind", [FLOCK, TURNS])
def test_a_colleague_who_holds_the_lock_is_named_and_waited_for(kind: str, umask: str) -> None:
    """Of two users in a group's folder one holds the table's lock; then that one is killed."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="notata-group-"))  # pytest's own is root's alone
    try:
        folder.chmod(0o755)
        exp = folder / "s"
        (exp / "runs").mkdir(parents=True)
        lock_file = exp / ".index.csv.lock"
        if kind == TURNS:
            lock_file.with_name(f"{lock_file.name}.turns").mkdir()
        for path in (exp, *exp.iterdir()):
            os.chown(path, 0, 4242)
            path.chmod(0o2775)

        def added(k: int, seconds: str) -> str:
            done = subprocess.run(
                [*_as(4002), sys.executable, "-B", "-c", ADD, str(folder), str(k), "002"],
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                env={**_plain(), "NOTATA_LOCK_TIMEOUT": seconds},
            )
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout

        assert added(0, "60") == "[]\n"
        command = [*_as(4001), sys.executable, "-B", "-c", HOLD_WITH_A_MASK, str(lock_file), umask]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd="/", env=_plain()
        ) as colleague:
            assert colleague.stdout is not None
            assert colleague.stdout.readline() == "held\n"
            said = added(1, "1")
            assert f"by process {colleague.pid} on {os.uname().nodename}" in said
            assert "no row in" in said
            colleague.kill()
        assert added(2, "60") == "[]\n"
        assert [row["m"] for row in Experiment("s", folder).rows()] == [0, 2]
        assert Experiment("s", folder).rebuild_index() == 3  # the run is whole without its row
        assert sorted(row["m"] for row in Experiment("s", folder).rows()) == [0, 1, 2]
    finally:
        shutil.rmtree(folder)


def _as(user: int) -> list[str]:
    """What lets a command run as a member of the group."""
    return ["setpriv", f"--reuid={user}", "--regid=4242", "--clear-groups"]


def _plain() -> dict[str, str]:
    root = str(Path(lock.__file__).parents[1])
    return {"PATH": os.environ["PATH"], "PYTHONPATH": root}


def test_a_killed_holder_of_flock_does_not_keep_turns_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path) as other:
        other.kill()
        other.wait()
    data: dict[str, Any] = json.loads(path.read_text())
    assert data["pid"] == other.pid
    turns.Turns(str(path) + ".turns").prepare()
    with locked(path, 0) as held:
        assert held.kind == TURNS
    path.write_text(json.dumps(data | {"node": "another", "host": "n2"}))
    with pytest.raises(LockTimeoutError, match="process"), locked(path, 0.1):
        pytest.fail("two at once")
    os.utime(path, (0, 0))
    with locked(path, 0):
        pass
