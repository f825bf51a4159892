"""What ranks note of their files at the end, and what is said where they hold something else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import xxhash
from calling import notata as command
from richrun import counted, tree_of
from simulated import open_as, put_record, write_as

import notata
from notata import Logbook, LogReader, asleft
from notata.errors import MergeError
from notata.merging import joining, logs

SIZE = 3
JOINED = "artifacts/load.json"
APART = ("artifacts/only.json", "artifacts/conf/raw.bin", "artifacts/notes.txt", "artifacts/p.pkl")
OTHERS = ("plots/sub/p.png",)
ALL = ("log.txt", JOINED, *APART, *OTHERS)


def work(log: Logbook) -> None:
    log.info(f"hello from {log.rank}")
    log.json("load", {"seconds": 0.5 + log.rank})
    if log.rank == 1:
        log.json("only", {"x": 12345})
        log.bytes("conf/raw.bin", bytes(range(100)))
        log.text("notes", "of rank 1")
        log.pickle("p", [1, 2])
        log["plots/sub/p.png"].write_bytes(b"drawn by the program itself")
    log.array("T", [float(log.rank)])
    log.info(f"rank {log.rank} is done")


def written(base: Path, work: Callable[[Logbook], object] = work) -> Path:
    return counted(write_as(SIZE, base, work))


def row(run: Path, rank: int = 1) -> Path:
    return run / f"ranks/rank_{rank:05d}"


def record(run: Path, rank: int = 1) -> dict[str, Any]:
    return dict(json.loads((row(run, rank) / "rank.json").read_text()))


def flip(path: Path, at: int = -3, bit: int = 0, *, keep_time: bool = False) -> None:
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def told_of(run: Path, name: str) -> str:
    return f"rank 1's {name} is not as that rank left it: {row(run) / name}"


# ----- what is noted -----


def test_a_rank_notes_what_its_files_held(base: Path) -> None:
    run = written(base)
    noted = record(run)["files"]
    assert sorted(noted) == sorted(ALL)
    for name, told in noted.items():
        data = (row(run) / name).read_bytes()
        checksum = f"xxh128:{xxhash.xxh3_128_hexdigest(data)}"
        assert told == {"size": len(data), "checksum": checksum}, name
    assert record(run)["log_bytes"] == noted["log.txt"]["size"]
    assert sorted(record(run, 2)["files"]) == sorted(["log.txt", JOINED])
    assert "files" not in record(run, 0)  # its files are the run's own


def test_a_silent_rank_notes_nothing_and_one_that_was_killed_neither(base: Path) -> None:
    run = write_as(2, base, lambda log: None)
    assert not (run / "ranks").exists()
    log = open_as(1, 2, base, "killed")
    log.json("load", {})
    assert "files" not in json.loads((base / "log_killed/ranks/rank_00001/rank.json").read_text())
    log.mark_complete()


def test_what_is_logged_and_written_after_the_end_is_no_damage(base: Path) -> None:
    late = []

    def leave(log: Logbook) -> None:
        work(log)
        late.append(log)

    run = written(base, leave)
    before = record(run)["files"]
    late[1].info("late")
    late[1].json("load", {"seconds": 7.0})
    late[1].bytes("new.bin", b"new")
    with (row(run) / "artifacts/notes.txt").open("a") as file:
        file.write(", and more of the program")
    after = record(run)["files"]
    assert {name for name in after if after[name] != before.get(name)} == {
        JOINED,
        "artifacts/new.bin",
    }
    report = notata.merge(run)
    assert report.holes == ()
    assert report.metrics[0].max == 7.0
    assert (run / "log.txt").read_text().count("[rank 1] late\n") == 1
    assert notata.merge(run, prune=True).holes == ()
    assert LogReader(run).ranks[1].record["files"] == after


def test_files_count_once_the_run_is_closed_and_no_sooner(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    of_one = asleft.read_one

    def read_one(folder: str, name: str, size: int | None = None) -> asleft.Left:
        read.append(name)
        return of_one(folder, name, size)

    monkeypatch.setattr(asleft, "read_one", read_one)
    with open_as(1, 2, base) as log:
        log.mark_failed("diverged")  # without a communicator, and the program goes on
        early = record(base / "log_run")
        for step in range(20):
            log.text(f"step{step}", "x")
        assert read == []
    assert (early["status"], early["failure_reason"]) == ("failed", "diverged")
    assert "files" not in early
    told = record(base / "log_run")
    assert (told["status"], told["failure_reason"]) == ("failed", "diverged")
    assert sorted(read) == sorted(told["files"])
    assert len(read) == 21


def test_what_is_noted_anew_after_the_end_is_bounded(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = []

    def leave(log: Logbook) -> None:
        log.json("a", 1)
        log.json("b", 1)
        late.append(log)

    monkeypatch.setattr(asleft, "_MOST_RENEWALS", 3)
    monkeypatch.setattr(asleft, "_SLOW", 10)
    run = written(base, leave)
    noted: list[dict[str, Any]] = []

    def write(name: str, size: int) -> None:
        late[1].bytes(name, bytes(size))
        noted.append(record(run)["files"])

    write("new", 7)
    write("b.json", 9)  # more than may still be read: by its size alone
    write("new", 2)
    write("a.json", 5)  # once too often
    at = (row(run) / "rank.json").stat().st_ino
    write("new2", 5)
    assert [sorted(name for name in told if name != "log.txt") for told in noted] == [
        ["artifacts/a.json", "artifacts/b.json", "artifacts/new"],
        ["artifacts/a.json", "artifacts/b.json", "artifacts/new"],
        ["artifacts/a.json", "artifacts/b.json", "artifacts/new"],
        ["artifacts/b.json", "artifacts/new"],
        ["artifacts/b.json", "artifacts/new"],
    ]
    assert noted[-1]["artifacts/b.json"] == {"size": 9}
    assert noted[-1]["artifacts/new"].keys() == {"size", "checksum"}
    assert (row(run) / "rank.json").stat().st_ino == at  # nor is it written again
    (row(run) / "artifacts/b.json").write_text("1        ")
    (row(run) / "artifacts/a.json").write_text("2")
    assert notata.merge(run).holes == ()


@pytest.mark.parametrize("name", ["log.txt", "artifacts/notes.txt"])
def test_a_byte_that_flips_above_what_was_appended_is_told(base: Path, name: str) -> None:
    run = written(base)
    with (row(run) / name).open("a") as file:
        file.write("[2030-01-01T00:00:00.000000] INFO [rank 1] late\n")
    flip(row(run) / name, at=1)
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    assert [told_of(run, name) in problem for problem in caught.value.problems] == [True]


def test_a_run_that_is_gone_on_with_notes_all_anew(base: Path) -> None:
    run = written(base)

    def more(log: Logbook) -> None:
        log.info("again")
        if log.rank == 1:
            log.text("notes", "of the second attempt")

    for rank in range(SIZE):
        log = open_as(rank, SIZE, base, launch="launch-2", resume=True)
        if rank == 1:
            assert "files" not in record(run)  # until it ends: who is killed leaves no old ones
        with log:
            more(log)
    counted(run)
    noted = record(run)["files"]
    assert sorted(noted) == sorted(ALL)
    assert noted["log.txt"]["size"] == (row(run) / "log.txt").stat().st_size
    assert notata.merge(run).holes == ()
    flip(row(run) / "artifacts/notes.txt")
    with pytest.raises(MergeError, match=r"notes\.txt is not as that rank left it"):
        notata.merge(run)


def test_what_was_removed_before_the_end_is_not_missed(base: Path) -> None:
    def remove(log: Logbook) -> None:
        work(log)
        if log.rank == 1:
            log["artifacts/notes.txt"].unlink()

    run = written(base, remove)
    assert "artifacts/notes.txt" not in record(run)["files"]
    assert notata.merge(run).holes == ()


def test_the_cost_is_bounded(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(asleft, "_MOST_BYTES", 1 << 12)
        run = write_as(2, base, lambda log: (log.bytes("a", bytes(5000)), log.bytes("b", bytes(9))))
    noted = record(run)["files"]
    assert {name: "checksum" in told for name, told in noted.items()} == {
        "log.txt": True,
        "artifacts/a": False,
        "artifacts/b": True,
    }
    with monkeypatch.context() as patch:
        patch.setattr(asleft, "_MOST_FILES", 2)
        many = write_as(2, base, lambda log: [log.json("z", 1), log.text("a", "")], "many")
    told = record(many)
    assert list(told["files"]) == ["artifacts/z.json", "log.txt"]
    assert [told["more_files"], told["json_files"]] == [1, 1]
    assert "more_files" not in record(run)
    counted(run)
    flip(row(run) / "artifacts/a")  # nobody can know
    assert notata.merge(run).holes == ()
    (row(run) / "artifacts/a").write_bytes(bytes(4999))
    with pytest.raises(MergeError, match=r"artifacts/a has 4999 bytes of 5000"):
        notata.merge(run)


def test_a_record_lists_few_of_many_files(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = []

    def many(log: Logbook) -> None:
        for number in range(30):
            log.json(f"j{number:02d}", number)
            log.text(f"t{number:02d}", "x")
        late.append(log)

    monkeypatch.setattr(asleft, "_MOST_FILES", 40)
    run = written(base, many)
    told = record(run)
    assert (told["more_files"], told["json_files"], len(told["files"])) == (21, 30, 40)
    assert sum(name.endswith(".json") for name in told["files"]) == 30
    late[1].text("new", "x")
    late[1].json("j00", 0.0)
    again = record(run)
    assert again["files"].keys() == told["files"].keys()
    assert again["files"]["artifacts/j00.json"] != told["files"]["artifacts/j00.json"]
    (row(run) / "artifacts/t29.txt").unlink()  # unknown: nobody misses it
    assert notata.merge(run).holes == ()
    (row(run) / "artifacts/t08.txt").unlink()
    with pytest.raises(MergeError, match=r"artifacts/t08\.txt is missing"):
        notata.merge(run)


def test_json_that_is_not_listed_counts_all_the_same(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(log: Logbook) -> None:
        for number in range(5):
            log.json(f"j{number}", number)

    monkeypatch.setattr(asleft, "_MOST_FILES", 3)
    run = written(base, many)
    assert sorted(record(run)["files"]) == ["artifacts/j0.json", "artifacts/j1.json", "log.txt"]
    (row(run) / "artifacts/j4.json").unlink()
    with pytest.raises(MergeError, match="rank 1 left 5 files of JSON, of which 4 are in"):
        notata.merge(run)


def test_how_a_rank_ended_is_there_before_much_is_read(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    of_all = asleft.read

    def read(folder: str, sizes: dict[str, asleft.Left]) -> dict[str, asleft.Left]:
        if Path(folder, "metadata.json").exists():
            return of_all(folder, sizes)  # rank 0
        told = json.loads(Path(folder, "rank.json").read_text())
        found.append((told["status"], "pieces" in told, "files" in told))
        return of_all(folder, sizes)

    monkeypatch.setattr(asleft, "read", read)
    write_as(2, base, work, "little")
    monkeypatch.setattr(asleft, "_SLOW", 0)
    run = write_as(2, base, work, "much")
    assert found == [("initialized", False, False), ("complete", True, False)]
    assert sorted(record(run)["files"]) == sorted(ALL)


# ----- damage -----


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("name", ALL)
def test_a_byte_that_flips_is_told(base: Path, name: str, jobs: int) -> None:
    run = written(base)
    flip(row(run) / name)
    before = tree_of(run)
    done = command("merge", "--jobs", jobs, run)
    assert (done.exit_code, done.stdout) == (2, "")
    told, hint = done.stderr.splitlines()
    assert "not as that rank left it" in told
    assert str(row(run) / name) in told
    assert hint == "notata: nothing was written; --allow-missing would go on"
    assert tree_of(run) == before
    holes = _merged_all_the_same(run, jobs)
    assert [(hole["ranks"], hole["name"]) for hole in holes] == [("1", name)]


def _merged_all_the_same(run: Path, jobs: int = 1) -> list[dict[str, Any]]:
    """Merge with holes, which are named, each time as well; gives those of the record."""
    done = command("merge", "--jobs", jobs, "--allow-missing", run)
    assert done.exit_code == 0, done.stderr
    holes = json.loads((run / "merge.json").read_text())["holes"]
    assert [f"hole: {hole['what']}" for hole in holes] == [
        line for line in done.stdout.splitlines() if line.startswith("hole: ")
    ]
    again = notata.merge(run, allow_missing=True)
    assert again.nothing_to_do
    assert list(again.holes) == [hole["what"] for hole in holes]
    with pytest.raises(MergeError):
        notata.merge(run)  # nor is it passed over once it was merged
    return list(holes)


def test_what_is_damaged_is_left_out_of_the_table_and_kept_by_the_pruning(base: Path) -> None:
    run = written(base)
    for name in ALL:
        flip(row(run) / name)
    own = {name: (row(run) / name).read_bytes() for name in ALL if name != "log.txt"}
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    assert len(caught.value.problems) == 1  # JSON is read before anything is joined
    holes = _merged_all_the_same(run)
    assert sorted(hole["name"] for hole in holes) == sorted(ALL)
    table = (run / "artifacts/load.ranks.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["rank", "0", "2"]
    report = notata.merge(run, allow_missing=True, prune=True)
    assert len(report.holes) == len(ALL)
    assert command("merge", "--verify", run).exit_code == 0
    reader = LogReader(run).ranks[1]
    assert reader.artifacts == ["conf/raw.bin", "load.json", "notes.txt", "only.json", "p.pkl"]
    assert reader.load_json("only") == json.loads(own["artifacts/only.json"])


@pytest.mark.parametrize("name", ALL)
def test_a_file_that_is_cut_off_or_gone_is_told_once(base: Path, name: str) -> None:
    run = written(base)
    sound = (row(run) / name).read_bytes()
    (row(run) / name).write_bytes(sound[:-1])
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    assert [str(row(run) / name) in problem for problem in caught.value.problems] == [True]
    (row(run) / name).unlink()
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    assert ["rank 1" in problem for problem in caught.value.problems] == [True]
    assert caught.value.ways_out == ["--allow-missing"]
    (row(run) / name).write_bytes(sound)
    assert notata.merge(run).holes == ()


def test_and_where_a_log_is_divided(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_LARGE", 1)
    monkeypatch.setattr(logs, "RANGE", 200)
    monkeypatch.setattr(logs, "_OF_EACH", 1)
    run = written(base)
    with ThreadPoolExecutor(2) as executor:
        notata.merge(run, executor=executor)
        flip(row(run, 2) / "log.txt")
        flip(row(run) / "artifacts/p.pkl")
        with pytest.raises(MergeError, match="is not as that rank left it"):
            notata.merge(run, executor=executor)  # whichever was found first
        report = notata.merge(run, allow_missing=True, executor=executor)
    assert [hole.split(" is not")[0] for hole in report.holes] == [
        "rank 1's artifacts/p.pkl",
        "rank 2's log.txt",
    ]


@pytest.mark.parametrize("name", [*APART, *OTHERS])
def test_what_flips_after_the_merge_is_told_by_verify_and_by_the_pruning(
    base: Path, name: str
) -> None:
    run = written(base)
    notata.merge(run)
    assert command("merge", "--verify", run).exit_code == 0
    flip(row(run) / name, keep_time=True)  # as on a disk that ages
    before = tree_of(run)
    verified = command("merge", "--verify", run)
    assert verified.exit_code == 1
    assert told_of(run, name) in verified.stderr
    with pytest.raises(MergeError, match=r"can't be pruned: rank 1's .* is not as that rank left"):
        notata.merge(run, prune=True)
    assert tree_of(run) == before
    report = notata.merge(run, prune=True, allow_missing=True)
    assert report.holes == (told_of(run, name),)


def test_of_what_a_killed_rank_left_nothing_is_known(base: Path) -> None:
    log = open_as(1, 2, base)
    work(log)
    with open_as(0, 2, base) as other:
        work(other)
    run = base / "log_run"
    flip(row(run) / "log.txt")
    flip(row(run) / "artifacts/notes.txt")
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    assert caught.value.ways_out == ["--unfinished"]
    assert not [problem for problem in caught.value.problems if "as that rank" in problem]
    notata.merge(run, unfinished=True)
    log.mark_complete()


def test_runs_of_older_versions_merge_as_before(base: Path) -> None:
    run = written(base)
    for rank in (1, 2):
        told = record(run, rank)
        del told["files"]
        put_record(row(run, rank) / "rank.json", told)
    flip(row(run) / "artifacts/conf/raw.bin")
    assert notata.merge(run).holes == ()
    assert command("merge", "--verify", run).exit_code == 0
    assert notata.merge(run, prune=True).pruned


@pytest.mark.parametrize(
    "files",
    [[], {"log.txt": 3}, {"log.txt": {}}, {"log.txt": {"size": "3"}}, {"../x": {"size": 1}}],
)
def test_a_record_that_says_something_else_is_damaged(base: Path, files: object) -> None:
    run = written(base)
    told = record(run)
    put_record(row(run) / "rank.json", told | {"files": files})
    with pytest.raises(MergeError, match=r"rank\.json is damaged: files has|files is"):
        notata.merge(run)
    assert len(notata.merge(run, allow_missing=True).holes) == 1
    shutil.rmtree(run)


def test_what_a_later_version_notes_beside_is_no_damage(base: Path) -> None:
    run = written(base)
    told = record(run)
    told["files"]["log.txt"] |= {"mode": 0o644, "checksum": "sha3:0"}
    put_record(row(run) / "rank.json", told)
    assert notata.merge(run).holes == ()
