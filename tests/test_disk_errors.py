"""Disks that refuse: what an error says; what is left of the file that was there, and of lines."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import need_strace, run, strace
from simulated import open_as, program

from notata import Experiment, Logbook, LogReader, disk, files, layout, signalled
from notata.agreement import Agreement

BIG = 300_000  # bytes of what is written; the disk that is full has 256 KiB in all


def draw(log: Logbook, side: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side, side))
    figure.subplots().imshow(np.random.default_rng(0).random((200, 200)))
    log.plot("p", figure)


# Each verb with a size of what it writes, in bytes, and the file.
VERBS: dict[str, tuple[Callable[[Logbook, int], object], str]] = {
    "array": (lambda log, n: log.array("a/T", np.zeros(n // 8)), "data/a/T.npy"),
    "array_fortran": (lambda log, n: log.array("F", np.zeros((n // 80, 10)).T), "data/F.npy"),
    "arrays": (lambda log, n: log.arrays("b", False, u=np.zeros(n // 8)), "data/b.npz"),
    "arrays_compressed": (
        lambda log, n: log.arrays("z", u=np.random.default_rng(0).random(n // 8)),
        "data/z.npz",
    ),
    "json": (lambda log, n: log.json("j", "x" * n), "artifacts/j.json"),
    "text": (lambda log, n: log.text("t", "x" * n), "artifacts/t.txt"),
    "bytes": (lambda log, n: log.bytes("r.bin", b"x" * n), "artifacts/r.bin"),
    "pickle": (lambda log, n: log.pickle("p", "x" * n), "artifacts/p.pkl"),
    "plot": (lambda log, n: draw(log, min(n / 1600, 10)), "plots/p.png"),
    "params": (lambda log, n: log.params(a="x" * n), "params.yaml"),
    "meta": (lambda log, n: log.meta(a="x" * n), "metadata.json"),
}
OF_A_RANK = [verb for verb in VERBS if verb not in ("params", "meta")]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")


@contextmanager
def mounted(point: Path, *options: str) -> Iterator[Path]:
    point.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(point)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"can't mount here: {done.stderr}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=256k", "none") as point:
        yield point


def fill(folder: Path) -> None:
    """Take all that is left of a disk."""
    with suppress_full(), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@contextmanager
def suppress_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def litter(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(layout.TEMP_PREFIX)]


@needs_root
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_leaves_the_file_that_was_there(small: Path, verb: str) -> None:
    call, name = VERBS[verb]
    log = Logbook("run", small)
    call(log, 800)
    path = log.path / name
    before = path.read_bytes()
    fill(small)
    with pytest.raises(OSError, match="No space left on device") as caught:
        call(log, BIG)
    told = str(caught.value)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path)), told
    size = re.search(r"device \((\d+) bytes\); free space or inodes there \(df -h, df -i\)", told)
    assert size is not None, told
    assert int(size[1]) >= (BIG * 0.9 if "pickle" not in verb and verb != "plot" else 1), told
    assert "rank" not in told
    assert path.read_bytes() == before
    assert litter(small) == []
    (small / "filler").unlink()
    call(log, 1600)
    assert path.read_bytes() != before
    log.mark_complete()


@needs_root
@pytest.mark.parametrize("verb", OF_A_RANK)
def test_the_error_names_the_rank(small: Path, verb: str) -> None:
    call, name = VERBS[verb]
    open_as(0, 4, small).mark_complete()
    log = open_as(3, 4, small)
    call(log, 800)
    path = log.rank_dir / name
    before = path.read_bytes()
    fill(small)
    with pytest.raises(OSError, match=r"\(rank 3 on \S+, \d+ bytes\); free space") as caught:
        call(log, BIG)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == before
    assert litter(small) == []
    (small / "filler").unlink()
    call(log, 1600)
    log.mark_complete()
    assert LogReader(log.path).ranks[3].record["status"] == "complete"


@needs_root
def test_the_manifest_outlives_a_full_disk(small: Path) -> None:
    """A line of it may be cut off; what comes after it stands alone."""
    open_as(0, 2, small).mark_complete()
    log = open_as(1, 2, small)
    names = []
    for number in range(40):  # lines of a manifest that grow across a page, the last that there is
        with suppress_full():
            log.array(f"T{number}", np.full(2, number))
            names.append(f"T{number}")
        if number == 5:
            fill(small)
            # Room for files, and for a part of the manifest.
            os.truncate(small / "filler", (small / "filler").stat().st_size - 16384)
    assert 5 < len(names) < 40
    (small / "filler").unlink()
    log.array("after", np.full(2, 7.0))
    log.mark_complete()
    found = LogReader(log.path).ranks[1]
    assert set(names) | {"after"} <= set(found.arrays)
    for name in names:
        assert found.load_array(name).tolist() == 2 * [int(name.removeprefix("T"))]
    assert found.load_array("after").tolist() == [7.0, 7.0]


@needs_root
@pytest.mark.parametrize("size", [1, 2])
def test_lines_that_are_lost_are_counted_said_once_and_reported(
    small: Path, capfd: pytest.CaptureFixture[str], size: int
) -> None:
    log = open_as(0, size, small, comm=None) if size > 1 else Logbook("run", small)
    log.info("before")
    fill(small)
    for _ in range(200):  # beyond the page that the log has already
        log.info("x" * 100)
    said = capfd.readouterr().err
    assert said.count("notata: ") == 1
    assert "log.txt" in said
    assert "No space left" in said or "only a part of the line" in said
    lost = log._log.lost
    assert 100 < lost < 200
    (small / "filler").unlink()
    log.info("after")
    log.mark_complete()
    reader = LogReader(log.path)
    assert reader.meta["log_lines_lost"] == lost
    texts = [message.message for message in reader.messages()]
    assert {"before", "after", "Marked complete"} <= set(texts)
    assert texts.count("x" * 100) == 200 - lost


@needs_root
def test_a_rank_reports_its_lost_lines(small: Path) -> None:
    open_as(0, 2, small).mark_complete()
    log = open_as(1, 2, small)
    log.info("before")
    fill(small)
    for _ in range(200):
        log.info("x" * 100)
    (small / "filler").unlink()
    log.mark_complete()
    assert LogReader(log.path).ranks[1].record["log_lines_lost"] == log._log.lost > 100


@pytest.mark.parametrize("durability", ["process", "close"])
@pytest.mark.parametrize("call", ["write", "close"])
def test_the_last_line_is_counted_too(
    base: Path, monkeypatch: pytest.MonkeyPatch, call: str, durability: str
) -> None:
    """What says that the run is complete, or the closing of the log, which NFS may refuse."""
    log = Logbook("run", base, durability=durability)
    log.info("before")
    log.array("T", np.zeros(2))
    whole, refused = getattr(os, call), []

    def refuse(descriptor: int, *data: bytes) -> int | None:
        log_s = os.readlink(f"/proc/self/fd/{descriptor}").endswith("log.txt")
        told = whole(descriptor, *data) if call == "close" or not log_s else None
        if log_s and (call == "close" or b"Marked complete" in data[0]):
            refused.append(descriptor)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return told

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        log.mark_complete()
    assert len(refused) > 0
    assert LogReader(log.path).meta["log_lines_lost"] == log._log.lost == len(refused)


def test_a_rank_counts_a_line_that_is_refused_when_its_log_is_closed(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_as(0, 2, base).mark_complete()
    log = open_as(1, 2, base)
    log.info("before")
    close = os.close

    def refuse(descriptor: int) -> None:
        log_s = os.readlink(f"/proc/self/fd/{descriptor}").endswith("log.txt")
        close(descriptor)
        if log_s:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", refuse)
        log.mark_complete()
    assert LogReader(log.path).ranks[1].record["log_lines_lost"] == log._log.lost == 1


def test_an_error_of_closing_tells_what_was_wrong_before(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_as(0, 2, base).mark_complete()
    log = open_as(1, 2, base)
    log.info("before")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "rank.json")

    def gone(*_: object, **__: object) -> None:
        raise ConnectionError("rank 0 is gone")

    with monkeypatch.context() as patch:
        patch.setattr("notata.disk.Disk.replace", full)
        patch.setattr(Agreement, "agree", gone)
        with pytest.raises(ConnectionError, match="rank 0 is gone") as caught:
            log.mark_complete()
    (note,) = caught.value.__notes__
    assert note.startswith("notata: besides, OSError: [Errno 28] No space left on device")


def test_a_manifest_that_is_refused_when_it_is_closed_is_named_with_its_rank(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_as(0, 2, base).mark_complete()
    log = open_as(1, 2, base)
    log.array("T", [1.0])
    close = os.close

    def refuse(descriptor: int) -> None:
        manifest_s = os.readlink(f"/proc/self/fd/{descriptor}").endswith("manifest.jsonl")
        close(descriptor)
        if manifest_s:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", refuse)
        with pytest.raises(OSError, match=r"\(rank 1 on \S+\); free space .*manifest\.jsonl"):
            log.mark_complete()
    run = LogReader(log.path)
    assert run.ranks[1].record["status"] == run.meta["status"] == "failed"
    assert run.meta["failure_reason"].startswith("rank 1: [Errno 28]")


@pytest.mark.parametrize("size", [1, 2])
def test_a_run_whose_outcome_was_refused_once_has_failed(
    base: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    log = open_as(0, size, base) if size > 1 else Logbook("run", base)
    rename, refused = os.replace, []

    def refuse(source: Any, target: Any, **options: Any) -> None:
        if os.fspath(target).endswith("metadata.json") and not refused:
            refused.append(target)
            raise OSError(errno.EIO, os.strerror(errno.EIO), target)
        rename(source, target, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(OSError, match="Input/output error") as caught:
            log.mark_complete()
    meta = LogReader(log.path).meta
    assert (meta["status"], log.status) == ("failed", "failed")
    assert meta["failure_reason"] == ("rank 0: " if size > 1 else "") + str(caught.value)
    assert litter(log.path) == []
    log.mark_complete()  # once there is room again
    meta = LogReader(log.path).meta
    assert (meta["status"], "failure_reason" in meta) == ("complete", False)


@pytest.mark.parametrize("again", ["by hand", "at the end of the block"])
@pytest.mark.parametrize("times", [1, 2])
def test_an_outcome_that_is_written_later_has_what_all_ranks_told(
    base: Path, monkeypatch: pytest.MonkeyPatch, times: int, again: str
) -> None:
    log = open_as(0, 2, base)
    session, replace, refused = log._session, disk.Disk.replace, []
    signal = {"signal": "SIGUSR1", "time": "2026-11-23T03:00:00", "time_left": 9.5, "ends": False}

    def agree(what: str, told: Any, decide: Any, patience: float | None) -> Any:
        other = told | {"lost": 3, "pieces": 7, "signals": signalled.packed([signal])}
        return decide([told, other])

    def refuse(self: disk.Disk, path: str, data: bytes, **options: Any) -> None:
        if path.endswith("metadata.json") and len(refused) < times:
            refused.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        replace(self, path, data, **options)

    monkeypatch.setattr(session._agreement, "agree", agree)
    monkeypatch.setattr(disk.Disk, "replace", refuse)
    with log:
        with pytest.raises(OSError, match="No space left"):
            session._close({"status": "complete", "reason": None})
        if again == "by hand":
            log.mark_failed("full")
    assert len(refused) == times
    meta = LogReader(log.path).meta
    assert meta["status"] == "failed"
    assert meta["log_lines_lost"] == 3
    assert meta["signals"] == [signal | {"ranks": "1"}]
    assert meta["parallel"]["pieces"] == {"0": "0", "7": "1"}
    assert meta["parallel"]["log_bytes"] > 0


def test_an_outcome_that_is_written_at_the_end_of_the_block_is_synced(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, settle, refused, settled = disk.Disk.replace, disk.Disk.settle, [], []

    def refuse(self: disk.Disk, path: str, data: bytes, **options: Any) -> None:
        if path.endswith("metadata.json") and len(refused) < 2:
            refused.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        replace(self, path, data, **options)

    def note(self: disk.Disk, *paths: str) -> None:
        settled.extend(os.path.basename(path) for path in paths)
        settle(self, *paths)

    log = Logbook("run", base, params={"a": 1})
    monkeypatch.setattr(disk.Disk, "replace", refuse)
    monkeypatch.setattr(disk.Disk, "settle", note)
    with log:
        with pytest.raises(OSError, match="No space left"):
            log.mark_complete()
        assert "params.yaml" not in settled
    assert settled.count("params.yaml") == 1
    assert LogReader(log.path).meta["status"] == "failed"


def test_a_log_that_can_not_be_synced_is_counted_as_lost(
    base: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("log.txt"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    with Logbook("run", base, durability="node") as log:
        log.warning("hot")
        log.warning("hotter")
    assert capfd.readouterr().err.count("Input/output error") == 1
    assert LogReader(log.path).meta["log_lines_lost"] == 3


@needs_root
def test_a_read_only_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "ro", "-t", "tmpfs", "-o", "ro", "none") as point:
        with pytest.raises(OSError, match=r"\(base_dir\)") as caught:
            Logbook("run", point)
        told = caught.value
        assert (told.errno, told.filename) == (errno.EROFS, str(point / "log_run"))
        assert "mounted read-only here" in str(told)
        with pytest.raises(OSError, match="mounted read-only here"):
            Experiment("s", point)


@needs_root
@pytest.mark.parametrize("preallocate", [False, True])
@pytest.mark.parametrize("params", [{}, {"a": 1}])
def test_a_run_that_finds_no_room_to_begin_leaves_nothing(
    small: Path, params: dict[str, int], preallocate: bool
) -> None:
    fill(small)
    with pytest.raises(OSError, match="No space left on device") as caught:
        Logbook("run", small, params=params, preallocate=preallocate)
    assert caught.value.errno == errno.ENOSPC
    assert not hasattr(caught.value, "__notes__")
    assert [path.name for path in small.iterdir()] == ["filler"]
    (small / "filler").unlink()
    with Logbook("run", small, params=params) as log:
        pass
    assert LogReader(log.path).meta["status"] == "complete"
    assert "attempts" not in LogReader(log.path).meta


@needs_root
def test_an_experiment_can_add_a_run_again_that_found_no_room(small: Path) -> None:
    exp = Experiment("s", small)
    fill(small)
    with pytest.raises(OSError, match="No space left on device"):
        exp.add(k=1)
    (small / "filler").unlink()
    with exp.add(k=1):
        pass
    assert [row["run_status"] for row in exp.rows()] == ["complete"]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("way_out", ["overwrite", "resume", "removed"])
def test_a_run_that_could_not_begin_says_so_and_how_to_begin_it(base: Path, way_out: str) -> None:
    """Room for its parameters, but not for its metadata."""
    descriptors = len(os.listdir("/proc/self/fd"))
    with no_file_above(200), pytest.raises(OSError, match="File too large") as caught:
        Logbook("run", base, params={"a": 1})
    assert len(os.listdir("/proc/self/fd")) == descriptors
    folder = base / "log_run"
    (note,) = caught.value.__notes__
    assert note == (
        f"notata: the run has not begun, and {folder} is left half-made: remove it, or begin the "
        "run anew with overwrite=True"
    )
    assert {path.name for path in folder.iterdir()} == {"params.yaml", "log.txt"}
    with pytest.raises(FileExistsError, match=r"without metadata\.json.*overwrite=True"):
        Logbook("run", base)
    if way_out == "removed":
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    with Logbook("run", base, **({} if way_out == "removed" else {way_out: True})) as log:
        pass
    assert LogReader(log.path).meta["status"] == "complete"


def test_what_another_process_put_into_a_half_made_run_stays(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def meet(temporary: str, path: str) -> None:
        if str(path).endswith("metadata.json"):
            (base / "log_run" / "ranks" / "rank_00001").mkdir(parents=True)
            (base / "log_run" / "data").mkdir()
            (base / "log_run" / "data" / "T.npy").write_bytes(b"another's")
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", meet)
    with pytest.raises(OSError, match="write elsewhere") as caught:
        Logbook("run", base)
    assert "is left half-made" in caught.value.__notes__[0]
    assert (base / "log_run" / "data" / "T.npy").read_bytes() == b"another's"
    assert (base / "log_run" / "ranks" / "rank_00001").is_dir()
    assert litter(base) == []


def test_a_folder_whose_name_can_not_be_synced_is_not_left(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.mkdir(exist_ok=True)

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            Logbook("run", base, durability="node")
    assert list(base.iterdir()) == []
    with Logbook("run", base, durability="node") as log:
        pass
    assert LogReader(log.path).meta["status"] == "complete"


def test_no_permission(tmp_path: Path) -> None:
    program = """
        import sys
        from notata import Experiment, Logbook
        for make in (lambda: Logbook("run", sys.argv[1]), lambda: Experiment("s", sys.argv[1])):
            try:
                make()
            except PermissionError as error:
                print(error.errno, error)
    """
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    told = _unprivileged(program, str(locked))
    assert told.count("13 [Errno 13] Permission denied; you may not write there (ls -ld") == 2
    assert f"'{locked}/log_run'" in told


def _unprivileged(code: str, *arguments: str) -> str:
    import sys
    import textwrap

    from simulated import ROOT

    command = [sys.executable, "-B", "-c", textwrap.dedent(code), *arguments]
    if os.geteuid() == 0:  # root may write anywhere, unless it gives that up
        command = ["setpriv", "--bounding-set=-dac_override", *command]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_path_that_is_too_long(base: Path) -> None:
    log = Logbook("run", base)
    with pytest.raises(OSError, match="give it a shorter name") as caught:
        log.text("/".join(["x" * 200] * 21), "x")
    assert caught.value.errno == errno.ENAMETOOLONG
    log.mark_complete()


@pytest.mark.parametrize("verb", VERBS)
def test_too_many_open_files(base: Path, verb: str) -> None:
    call, name = VERBS[verb]
    log = Logbook("run", base)
    call(log, 800)
    path = log.path / name
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    newest = os.open("/", os.O_RDONLY)
    os.close(newest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (newest, hard))
        with pytest.raises(OSError, match=r"raise the limit \(ulimit -n\)") as caught:
            call(log, 1600)
        log.info("the log is open, and goes on")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, str(path))
    assert path.read_bytes() == before
    assert litter(base) == []
    call(log, 1600)
    log.mark_complete()
    assert "the log is open" in log.log_path.read_text()


def test_a_limit_on_the_size_of_files(base: Path) -> None:
    log = Logbook("run", base)
    log.array("T", np.ones(10))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
        with pytest.raises(OSError, match=r"80000 bytes\); there is a limit on the size") as caught:
            log.array("T", np.ones(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert LogReader(log.path).load_array("T").tolist() == [1.0] * 10
    assert litter(base) == []
    log.mark_complete()


@pytest.mark.parametrize("missing", [1, 700, 4000])
def test_an_array_is_never_cut_off_in_silence(base: Path, missing: int) -> None:
    """numpy's own writing does not look at what became of the last bytes."""
    log = Logbook("run", base)
    size = 128 + 8 * 2600  # a part of a block at the end
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, hard))
        with pytest.raises(OSError, match="File too large"):
            log.array("T", np.ones(2600))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (log.datadir / "T.npy").exists()
    assert litter(base) == []
    log.mark_complete()


@pytest.mark.parametrize("number", sorted(disk._ADVICE))
def test_each_error_says_what_to_do(number: int) -> None:
    error = OSError(number, os.strerror(number))
    disk.Disk(rank=7).explain(error, "/r/data/T.npy", 4096)
    kind = type(error)
    told = str(error)
    assert told.startswith(f"[Errno {number}] {os.strerror(number)} (rank 7 on ")
    assert ", 4096 bytes); " in told
    assert told.endswith(": '/r/data/T.npy'")
    disk.Disk(rank=8).explain(error, "/elsewhere")  # not twice
    assert str(error) == told
    assert type(error) is kind


@pytest.mark.parametrize(
    "error",
    [
        OSError("no number"),
        OSError(errno.ENOENT, os.strerror(errno.ENOENT)),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/another/file"),
        FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), "/r"),
    ],
)
def test_errors_of_something_else_are_left_as_they_are(error: Any) -> None:
    before = str(error)
    disk.Disk(rank=1).explain(error, "/r/data/T.npy", 1)
    assert str(error) == before


def test_room_for_a_large_array_is_reserved_and_no_more_than_it_takes(base: Path) -> None:
    """What is reserved behind the end of a file would be taken from the quota for nothing."""
    need_strace()
    code = """
        import sys
        import numpy as np
        from notata import Logbook
        with Logbook("r", sys.argv[1]) as log:
            log.array("large", np.zeros(1 << 18))
            log.array("small", np.zeros(10))
            log.arrays("bundle", zeros=np.zeros(1 << 18))
    """
    base.mkdir(parents=True)
    told = base / "calls"
    program = [sys.executable, "-c", textwrap.dedent(code), str(base)]
    done = run([*strace(["fallocate"], to=told), *program], base)
    assert done.returncode == 0, done.stderr
    (call,) = [line for line in told.read_text().splitlines() if "fallocate(" in line]
    assert "KEEP_SIZE" in call
    assert str(8 << 18) in call
    large = (base / "log_r/data/large.npy").stat()
    assert large.st_size == (8 << 18) + 128
    assert 512 * large.st_blocks <= large.st_size + 2 * large.st_blksize


def test_what_can_not_be_reserved_is_no_error(base: Path) -> None:
    base.mkdir(parents=True)
    path = base / "x"
    path.write_bytes(b"x")
    with open(path, "rb") as readable, open(os.devnull, "wb") as device:
        files.reserve(readable.fileno(), 1 << 21)
        files.reserve(device.fileno(), 1 << 21)
    assert path.read_bytes() == b"x"


REFUSING = """
    import errno, os
    from notata import Experiment, disk
    replace, refused = disk.Disk.replace, []

    def refuse(self, path, data, **options):
        if path.endswith("metadata.json") and len(refused) < TIMES:
            refused.append(path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        replace(self, path, data, **options)

    log = Experiment("s").add(k=1)
    disk.Disk.replace = refuse
"""


@pytest.mark.parametrize(
    ("close", "status", "times", "outcome"),
    [
        # the program ends by the error, and so does the run: at once, or as the program ends
        ("with log: pass", 1, 1, "failed"),
        ("with log: pass", 1, 2, "failed"),
        ("log.mark_complete()", 1, 2, "failed"),
        # the program goes on, and the end of the block tries once more
        ("with log:\n    try: log.mark_complete()\n    except OSError: pass", 0, 2, "failed"),
        # it tries again by itself
        ("try: log.mark_complete()\nexcept OSError: log.mark_complete()", 0, 1, "complete"),
        ("try: log.mark_complete()\nexcept OSError: log.mark_complete()", 0, 2, "complete"),
        # it ends well, and doesn't care
        ("try: log.mark_complete()\nexcept OSError: pass", 0, 2, "failed"),
    ],
)
def test_an_outcome_that_found_no_room_is_written_later(
    tmp_path: Path, close: str, status: int, times: int, outcome: str
) -> None:
    code = f"TIMES = {times}\n{textwrap.dedent(REFUSING)}{close}\nassert len(refused) == TIMES"
    done = program(code, tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (status, status > 0), done.stderr
    run = tmp_path / "outputs" / "s" / "runs" / "log_s_k_1"
    meta = LogReader(run).meta
    assert meta["status"] == outcome
    assert ("No space left on device" in meta.get("failure_reason", "")) == (outcome == "failed")
    (row,) = Experiment("s", tmp_path / "outputs").rows()
    assert row["run_status"] == outcome
