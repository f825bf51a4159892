"""`notata doctor`: what it finds on real file systems, and says of what can't be had here."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from notata import topology
from notata.cli import main
from notata.doctor import Check, filesystem, launch, locks, software
from notata.mounts import Mount

Rows = dict[str, dict[str, str]]
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
ALWAYS = [
    "file system",
    "space",
    "rename",
    "costs",
    "clock",
    "locks on this node",
    "appends on this node",
    "exclusive create on this node",
    "ranks",
    "MPI",
    "versions",
    "optional parts",
]


def doctor(
    folder: Path, *options: str, before: Sequence[str] = (), status: int = 0, **env: str
) -> Rows:
    """Examine a folder by the program, and check that nothing is left in it."""
    command = [*before, sys.executable, "-m", "notata", "doctor", "--json", *options, str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | env
    )
    assert done.returncode == status, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert os.listdir(folder) == []
    assert told["well"] is (status == 0)
    rows = {row["name"]: row for row in told["checks"]}
    assert [name for name in ALWAYS if name not in rows] == []
    assert all(row["remedy"] for row in rows.values() if row["verdict"] == "bad")
    return rows


def bad(rows: Rows) -> list[str]:
    return [name for name, row in rows.items() if row["verdict"] == "bad"]


# ----- real file systems -----


@pytest.fixture
def memory() -> Iterator[Path]:
    folder = Path("/dev/shm", f"doctor-{os.getpid()}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_a_disk_of_this_node(tmp_path: Path) -> None:
    rows = doctor(tmp_path)
    assert list(rows) == ALWAYS
    assert [name for name in ALWAYS if rows[name]["verdict"] != "ok"] == []
    assert "60 turns of 2 processes, never two at once" in rows["locks on this node"]["finding"]
    assert "all 120 lines" in rows["appends on this node"]["finding"]
    assert "20 names" in rows["exclusive create on this node"]["finding"]
    costs = re.findall(r"(\w+) [\d.]+ (?:µs|ms)", rows["costs"]["finding"])
    assert costs == ["append", "create", "rename", "fsync"]
    assert f"Python {sys.version.split()[0]}" in rows["versions"]["finding"]


def test_memory_is_for_trials(memory: Path) -> None:
    row = doctor(memory)["file system"]
    assert (row["verdict"], row["finding"]) == ("warn", "tmpfs on /dev/shm")
    assert "gone when the node restarts" in row["remedy"]


def test_fuse_whose_locks_are_local_to_a_mount(fuse_mount: Callable[[str], Path]) -> None:
    rows = doctor(fuse_mount("local"), status=1)
    assert bad(rows) == ["file system"]
    assert "within one mount only" in rows["file system"]["finding"]
    assert "rebuild_index()" in rows["file system"]["remedy"]
    assert rows["locks on this node"]["verdict"] == "ok"  # which is what makes it treacherous


def test_fuse_that_refuses_locks(fuse_mount: Callable[[str], Path]) -> None:
    rows = doctor(fuse_mount("ENOLCK"), status=1)
    assert "file system" in bad(rows)
    row = rows["locks on this node"]  # our own lock needs no flock, and holds
    assert row["verdict"] == "warn"
    assert "flock is refused (ENOLCK), and a lock file takes its place" in row["finding"]
    assert rows["exclusive create on this node"]["verdict"] == "ok"


# They hang in the kernel, where no signal reaches them until the file system is gone.
@pytest.mark.filterwarnings("ignore:.*still running:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_lock_that_hangs(
    fuse_mount: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LIMIT", 3.0)
    found = locks.on_this_node(str(fuse_mount("hang")))
    assert [(check.name, check.verdict) for check in found] == [("locks on this node", "bad")]
    assert "no answer within 3 s" in found[0].finding


def test_a_system_without_flock(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    folder = tmp_path / "examined"
    folder.mkdir()
    inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=flock"]
    rows = doctor(folder, before=[*inject, "-e", "inject=flock:error=ENOSYS"])
    row = rows["locks on this node"]
    assert row["verdict"] == "warn"
    assert "flock is refused (ENOSYS), and a lock file takes its place" in row["finding"]


@pytest.mark.parametrize(
    ("shift", "verdict", "told", "status"),
    [("+90s", "bad", "1 min 30 s ahead of", 1), ("-3s", "warn", "3.0 s behind", 0)],
)
def test_a_clock_that_is_off(
    tmp_path: Path, shift: str, verdict: str, told: str, status: int
) -> None:
    if not os.path.exists(FAKETIME):
        pytest.skip("needs Debian's faketime")
    # libfaketime does not shift the times of files: they are a server's with another clock.
    row = doctor(tmp_path, status=status, LD_PRELOAD=FAKETIME, FAKETIME=shift)["clock"]
    assert row["verdict"] == verdict
    assert re.match(told.replace("3.0", r"(3\.0|2\.9|3\.1)"), row["finding"]), row["finding"]
    assert "chrony" in row["remedy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_where_it_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "notata", "doctor", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("*/journal")):  # in the midst of the locks
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == b""
    assert list(tmp_path.iterdir()) == []


# ----- the command -----


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Check("costs", "warn", "fsync 1 s", "Log less [often]"), Check("space", "ok", "9 GB")]
    monkeypatch.setattr("notata.doctor.examine", lambda folder: (0, found))
    for width in (80, 140):
        done = CliRunner().invoke(main, ["doctor", str(tmp_path)], env={"COLUMNS": str(width)})
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        assert done.exit_code == 0
        assert lines[2:] == [
            "costs   warn      fsync 1 s",
            "                  Remedy: Log less [often]",
            "space   ok        9 GB",
        ]


def test_a_hint_where_all_is_well_is_no_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Check("exclusive create on this node", "ok", "20 names", "Try two nodes")]
    monkeypatch.setattr("notata.doctor.examine", lambda folder: (0, found))
    names = {
        80: (23, "exclusive create on", "this node"),
        140: (32, "exclusive create on this node", ""),
    }
    for width, (wide, first, second) in names.items():
        done = CliRunner().invoke(main, ["doctor", str(tmp_path)], env={"COLUMNS": str(width)})
        lines = [line.rstrip() for line in done.stdout.splitlines()]
        assert lines[2:] == [
            f"{first:{wide}}ok        20 names",
            f"{second:{wide}}          Try two nodes",
        ]


def test_the_table_fits_80_columns(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["doctor", str(tmp_path)], env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_no_such_folder(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["doctor", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert done.stderr == f"notata: error: no such folder: {tmp_path}/none\n"


def test_a_folder_that_one_may_not_write_to() -> None:
    done = CliRunner().invoke(main, ["doctor", "--json", "/proc"])
    rows = {row["name"]: row for row in json.loads(done.stdout)["checks"]}
    assert done.exit_code == 1
    assert rows["writing"]["verdict"] == "bad"
    assert "can't write to /proc" in rows["writing"]["finding"]


def test_other_ranks_print_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notata.doctor.examine", lambda folder: (1, []))
    done = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert (done.exit_code, done.output) == (0, "")


# ----- verdicts on what can't be had here -----


@pytest.mark.parametrize(
    ("mount", "verdict", "words"),
    [
        (
            Mount("/h", "nfs", {"vers": "3", "nolock": "", "local_lock": "all"}, "s:/h"),
            "bad",
            ["nfs on /h (vers=3, nolock, local_lock=all)", "holds within one node", "NFS 4"],
        ),
        (
            Mount("/h", "nfs", {"vers": "3", "nolock": "", "softerr": ""}, "s:/h"),
            "bad",
            ["holds within one node", "NFS 4", "option hard"],
        ),
        (Mount("/h", "nfs4", {"vers": "4.2", "soft": ""}, "s:/h"), "bad", ["soft", "option hard"]),
        (Mount("/h", "nfs4", {"softerr": ""}, "s:/h"), "bad", ["(softerr)", "option hard"]),
        (Mount("/h", "nfs4", {"softreval": "", "hard": ""}, "s:/h"), "ok", ["(hard)"]),
        (
            Mount("/h", "nfs4", {"vers": "4.2", "noac": "", "local_lock": "none"}, "s:/h"),
            "ok",
            ["(vers=4.2, local_lock=none, noac)"],
        ),
        (Mount("/l", "lustre", {"localflock": ""}, "m:/l"), "bad", ["option flock"]),
        (Mount("/l", "lustre", {"flock": ""}, "m:/l"), "ok", ["lustre on /l (flock)"]),
        (Mount("/", "unknown", {}, ""), "warn", ["no /proc"]),
    ],
)
def test_file_systems(
    monkeypatch: pytest.MonkeyPatch, mount: Mount, verdict: str, words: list[str]
) -> None:
    monkeypatch.setattr(filesystem, "mount_of", lambda path: mount)
    check = filesystem.kind("/h")
    assert check.verdict == verdict
    told = f"{check.finding} {check.remedy}".replace("locks hold", "holds")
    assert [word for word in words if word not in told] == []


def test_a_soft_mount_is_bad_whatever_its_locks_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = Mount("/h", "nfs", {"vers": "3", "nolock": "", "soft": ""}, "s:/h")
    monkeypatch.setattr(filesystem, "mount_of", lambda path: mount)
    assert filesystem.kind("/h", held=True).verdict == "bad"
    mount = mount._replace(options={"vers": "4.2", "soft": ""})
    result = CliRunner().invoke(main, ["doctor", str(tmp_path)])
    assert result.exit_code == 1, result.output
    mount = mount._replace(options={"vers": "4.2", "hard": ""})
    assert CliRunner().invoke(main, ["doctor", str(tmp_path)]).exit_code == 0


@pytest.mark.parametrize(
    ("free", "inodes", "verdict"),
    [
        (10**12, 10**8, "ok"),
        (10**12, 0, "bad"),
        (5 * 10**8, 10**8, "warn"),
        (10**7, 10**8, "bad"),
        (10**12, 5000, "warn"),
    ],
)
def test_space(
    monkeypatch: pytest.MonkeyPatch, free: int, inodes: int, verdict: str, tmp_path: Path
) -> None:
    told = os.statvfs_result((1, 1, 10**9, free, free, 10**9, inodes, inodes, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: told)
    check = filesystem.space(str(tmp_path))
    assert (check.verdict, bool(check.remedy)) == (verdict, verdict != "ok")


def test_space_without_a_count_of_inodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = os.statvfs_result((1, 1, 10**9, 10**12, 10**12, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: told)
    assert filesystem.space(str(tmp_path)).verdict == "ok"


def copied(old: str, new: str) -> None:
    Path(new).write_bytes(Path(old).read_bytes())


def removed(old: str, new: str) -> None:
    Path(old).unlink()


def copied_and_removed(old: str, new: str) -> None:
    copied(old, new)
    removed(old, new)


@pytest.mark.parametrize(
    ("what", "wrong"),
    [
        (removed, ["the file that was replaced still has its old content"]),
        (copied_and_removed, ["a reader that had the old file open lost it"]),
        (
            copied,
            [
                "the name that was renamed is still there",
                "a reader that had the old file open lost it",
            ],
        ),
    ],
)
def test_renames_that_replace_nothing(
    monkeypatch: pytest.MonkeyPatch,
    what: Callable[[str, str], None],
    wrong: list[str],
    tmp_path: Path,
) -> None:
    """No file system here renames so: what it would do is made up."""
    monkeypatch.setattr(os, "replace", what)
    check = filesystem.rename(str(tmp_path))
    assert (check.verdict, check.finding) == ("bad", "; ".join(wrong))
    assert check.remedy


def test_a_disk_that_is_slow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: time.sleep(0.11))
    check = filesystem.costs(str(tmp_path))
    assert check.verdict == "warn"
    assert "Slow: fsync." in str(check.remedy)


def account(me: int, turns: int = 2, **more: Any) -> dict[str, Any]:
    half = list(range(20))[me::2]
    return {"me": me, "turns": turns, "overlaps": 0, "won": half, "flock": None} | more


APART = "0 0 in 0\n0 0 out 0\n1 0 in 2\n1 0 out 0\n0 1 in 4\n0 1 out 0\n1 1 in 6\n1 1 out 0\n"
TOGETHER = "0 0 in 0\n1 0 in 1\n0 0 out 0\n1 0 out 0\n0 1 in 4\n0 1 out 0\n1 1 in 6\n1 1 out 0\n"


@pytest.mark.parametrize(
    ("told", "journal", "verdicts", "words"),
    [
        ([account(0), account(1)], APART, "ok ok ok", "4 turns of 2 processes"),
        # Each detector alone is enough.
        ([account(0, overlaps=1), account(1)], APART, "bad ok ok", "1 of 4 turns by exclusive"),
        ([account(0), account(1)], TOGETHER, "bad ok ok", "0 of 4 turns"),
        ([account(0), account(1)], TOGETHER, "bad ok ok", "in 1 by journal"),
        ([account(0, refused="no"), account(1)], APART, "bad ok ok", "the lock fails: no"),
        # A busy machine: all had the lock, and one waited too long for its next turn.
        ([account(0), account(1, refused="x", late=True)], APART, "warn ok ok", "is slow: x"),
        ([account(0), account(1, 0, refused="x", late=True)], APART, "bad ok ok", "fails: x"),
        ([account(0), account(1, refused="x", late=False)], APART, "bad ok ok", "fails: x"),
        ([account(0), account(1)], APART.replace("1 1 out 0\n", ""), "ok bad ok", "changed hands"),
        ([account(0), account(1)], APART.replace("in 4", "in 2"), "ok warn ok", "changed hands"),
        ([account(0), account(1, won=[0, 1])], APART, "ok ok bad", "changed hands"),
        ([account(0), {"error": "hangs"}], APART, "bad", "hangs"),
        (
            [account(0), account(1)],
            "".join(sorted(APART.splitlines(keepends=True), key=lambda line: line[0])),
            "warn warn ok",
            "never met",
        ),
    ],
)
def test_what_the_detectors_say(
    told: list[dict[str, Any]], journal: str, verdicts: str, words: str
) -> None:
    found = locks.judge(told, journal, "here")
    assert [check.verdict for check in found] == verdicts.split()
    assert words in found[0].finding
    assert all(check.remedy for check in found if check.verdict != "ok")


SRUN = topology.Topology(2, 4, "SLURM_PROCID", "Slurm (srun)", "7.0")


@pytest.mark.parametrize(
    ("place", "told", "verdict", "words"),
    [
        (SRUN, {}, "warn", ["mpi4py is not installed", "notata[mpi]"]),
        (topology.ALONE, {}, "ok", ["mpi4py is not installed"]),
        (SRUN, {"error": "ended with status 16: PMI"}, "bad", ["status 16", "srun --mpi=pmix"]),
        (topology.ALONE, {"error": "cannot load MPI library"}, "warn", ["cannot load"]),
    ],
)
def test_what_mpi_says(
    place: topology.Topology, told: dict[str, Any], verdict: str, words: list[str]
) -> None:
    check = launch.judge_mpi(place, told)
    assert check.verdict == verdict
    assert [word for word in words if word not in f"{check.finding} {check.remedy}"] == []


@pytest.mark.parametrize("rank", ["0", "3"])
def test_srun_that_starts_programs_of_one_rank(tmp_path: Path, rank: str) -> None:
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}
    env = os.environ | step | {"SLURM_PROCID": rank, "NOTATA_GRACE": "0.5"}
    command = [sys.executable, "-m", "notata", "doctor", "--json", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert list(tmp_path.iterdir()) == []
    if rank != "0":
        assert (done.returncode, done.stdout) == (0, "")
        return
    assert done.returncode == 1
    rows = {row["name"]: row for row in json.loads(done.stdout)["checks"]}
    assert rows["MPI"]["verdict"] == "bad"
    assert "started 4 processes" in rows["MPI"]["finding"]
    assert rows["MPI"]["remedy"].startswith("Start it with `srun --mpi=pmi2`")
    assert rows["nodes"]["verdict"] == "bad"  # nobody else is there
    assert "of 4 ranks, 1-3 left no file here" in rows["nodes"]["finding"]


def test_variables_that_make_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTATA_RANK", "1")
    monkeypatch.setenv("NOTATA_SIZE", "many")
    (check,) = launch.find().checks
    assert (check.name, check.verdict) == ("ranks", "bad")
    assert "NOTATA_SIZE='many'" in check.finding


@pytest.mark.parametrize(("off", "verdict"), [(0.9, "ok"), (-1.5, "warn"), (-90.0, "bad")])
def test_clocks(off: float, verdict: str) -> None:
    assert filesystem.judge_clock("clock", off, "the server's").verdict == verdict


def test_optional_parts_are_all_that_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_version", lambda package: None)
    found = software.optional_parts()
    for extra in ("mpi", "plot", "pandas", "hdf5", "netcdf", "xarray", "zarr"):
        assert f"'notata[{extra}]'" in found.remedy
    assert found.finding.count(" is missing (") == 7
