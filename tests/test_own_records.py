"""What rank 0 leaves beside others' folders, and records that tell whether they are as written."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import xxhash
from calling import notata as command
from hypothesis import given
from hypothesis import strategies as st
from richrun import counted, tree_of
from simulated import open_as, put_record, write_as

import notata
from notata import Logbook, LogReader, asleft, lifecycle
from notata.errors import MergeError, NotataError
from notata.merging import joining, logs, make_plan
from notata.pieces import Piece
from notata.sealed import is_broken, sealed

SIZE = 3


def work(log: Logbook) -> None:
    log.info(f"hello from {log.rank}")
    log.json("load", {"seconds": 0.5 + log.rank})
    log.root.json("own", {"steps": 10})
    log.root.text("notes", "of the run")
    log.array("T", [float(log.rank)])


def written(base: Path, work: Callable[[Logbook], object] = work) -> Path:
    return counted(write_as(SIZE, base, work))


def noted(run: Path) -> dict[str, dict[str, Any]]:
    return dict(LogReader(run).meta["parallel"]["files"])


def flip(path: Path, what: bytes, by: int = 1) -> None:
    """Let a bit of the first byte flip of what a file holds once, as on a disk that ages."""
    data, status = path.read_bytes(), path.stat()
    at = data.index(what)
    path.write_bytes(data[:at] + bytes([data[at] ^ by]) + data[at + 1 :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# ----- rank 0's log and JSON -----


def test_the_metadata_say_what_rank_0_leaves_for_a_merge(base: Path) -> None:
    run = written(base)
    assert sorted(noted(run)) == ["artifacts/load.json", "artifacts/own.json", "log.txt"]
    for name, told in noted(run).items():
        data = (run / name).read_bytes()
        assert told["size"] == len(data)
        assert told["checksum"] == f"xxh128:{xxhash.xxh3_128_hexdigest(data)}"
    with Logbook("alone", base) as log:
        work(log)
    assert "parallel" not in LogReader(log.path).meta


def test_of_many_the_first_are_noted(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asleft, "_MOST_OF_ROOT", 2)
    run = write_as(2, base, lambda log: [log.json(f"j{n}", n) for n in range(4)])
    assert sorted(noted(run)) == ["artifacts/j0.json", "artifacts/j1.json", "log.txt"]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("name", ["log.txt", "artifacts/load.json"])
def test_a_byte_of_them_that_flips_is_told(base: Path, name: str, jobs: int) -> None:
    run = written(base)
    flip(run / name, b"hello" if name == "log.txt" else b"0.5")
    before = tree_of(run)
    done = command("merge", "--jobs", jobs, run)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{run / name}" in done.stderr
    assert "not as that rank left it" in done.stderr
    assert tree_of(run) == before
    assert command("merge", "--jobs", jobs, "--allow-missing", run).exit_code == 0
    holes = json.loads((run / "merge.json").read_text())["holes"]
    assert [(hole["name"], hole["ranks"]) for hole in holes] == [(name, "0")]
    with pytest.raises(MergeError, match="not as that rank left it"):
        notata.merge(run)  # though the log is the merge's own by now
    again = notata.merge(run, allow_missing=True)
    assert (again.nothing_to_do, len(again.holes)) == (True, 1)
    flip(run / name, b"iello" if name == "log.txt" else b"1.5")  # mended
    assert notata.merge(run).holes == ()


def test_no_byte_of_the_log_flips_in_silence(base: Path) -> None:
    run = written(base)
    log = run / "log.txt"
    sound = log.read_bytes()
    assert sound.endswith(b"Marked complete\n")
    for at in range(0, len(sound), 3):
        log.write_bytes(sound[:at] + bytes([sound[at] ^ (1 << at % 7)]) + sound[at + 1 :])
        with pytest.raises(MergeError, match=r"rank 0's log\.txt"):
            notata.merge(run)
    log.write_bytes(sound)
    assert notata.merge(run).holes == ()


def test_and_where_the_log_is_divided(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_LARGE", 1)
    monkeypatch.setattr(logs, "RANGE", 200)
    monkeypatch.setattr(logs, "_OF_EACH", 1)
    run = written(base)
    sound = (run / "log.txt").read_bytes()
    flip(run / "log.txt", b"hello")
    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(MergeError, match=r"rank 0's log\.txt is not as that rank left it"):
            notata.merge(run, executor=executor)
        (run / "log.txt").write_bytes(sound)
        assert notata.merge(run, executor=executor).holes == ()


def test_json_that_is_gone_counts_where_others_have_it(base: Path) -> None:
    run = written(base)
    (run / "artifacts/own.json").unlink()  # nothing is made of it
    (run / "artifacts/notes.txt").unlink()
    sound = (run / "artifacts/load.json").read_bytes()
    (run / "artifacts/load.json").unlink()
    with pytest.raises(MergeError, match=r"rank 0's artifacts/load\.json is missing"):
        notata.merge(run)
    (run / "artifacts/load.json").write_bytes(sound)
    assert notata.merge(run).holes == ()


def test_what_is_logged_and_written_after_the_end_is_no_damage(base: Path) -> None:
    late: list[Logbook] = []
    run = written(base, lambda log: (work(log), late.append(log)))
    late[0].info("late")
    late[0].json("load", {"seconds": 7.0})
    late[0].text("notes", "late")
    assert notata.merge(run).holes == ()
    table = (run / "artifacts/load.ranks.csv").read_text().splitlines()
    assert table == ["rank,seconds", "0,7.0", "1,1.5", "2,2.5"]
    late[0].json("load", {"seconds": 8.0})  # of a run whose log is the merge's by now
    assert notata.merge(run).holes == ()


def test_a_log_that_is_merged_again_is_made_of_rank_0_s_sound_lines(base: Path) -> None:
    late: list[Logbook] = []
    run = written(base, lambda log: (log.info(f"hello from {log.rank}"), late.append(log)))
    notata.merge(run)
    sound = (run / "log.txt").read_bytes()
    late[1].info("more")
    flip(run / "log.txt", b"hello from 2")  # which is in rank 2's own as well
    notata.merge(run)
    assert b"hello from 2" in (run / "log.txt").read_bytes()
    assert LogReader(run).messages()
    (run / "log.txt").write_bytes(sound)
    late[1].info("more still")
    flip(run / "log.txt", b"hello from 0")
    with pytest.raises(MergeError, match=r"rank 0's log\.txt is not as that rank left it"):
        notata.merge(run)
    (run / "log.txt").write_bytes(sound)
    (run / "merge.json").unlink()  # nobody knows what the log is any more
    assert notata.merge(run).holes == ()
    (run / "merge.json").unlink()
    flip(run / "log.txt", b"hello from 0")
    with pytest.raises(MergeError, match=r"rank 0's log\.txt is not as that rank left it"):
        notata.merge(run)


def test_a_run_that_was_merged_and_gone_on_with_is_merged_again(base: Path) -> None:
    run = written(base)
    notata.merge(run)
    for rank in (0, 1, 2):
        with open_as(rank, SIZE, base, launch="launch-2", resume=True) as late:
            late.info(f"again {rank}")
    counted(run)
    assert notata.merge(run).holes == ()
    texts = [message.message for message in LogReader(run).messages()]
    assert [texts.count(f"hello from {rank}") for rank in range(SIZE)] == [1] * SIZE
    assert [texts.count(f"again {rank}") for rank in range(SIZE)] == [1] * SIZE
    flip(run / "log.txt", b"again 0")
    late.info("later")
    with pytest.raises(MergeError, match=r"rank 0's log\.txt is not as that rank left it"):
        notata.merge(run)


@pytest.mark.parametrize("newer", [1, -3600])
def test_json_that_people_correct_is_joined_and_named(base: Path, newer: int) -> None:
    run = written(base)
    path = run / "artifacts/load.json"
    changed = path.stat().st_mtime_ns + newer * 10**9
    path.write_text('{"seconds": 0.25}')
    os.utime(path, ns=(changed, changed))  # such as of a copy that keeps its time
    done = command("merge", run)
    assert done.exit_code == 0, done.stderr
    assert "artifacts/load.json of rank 0 was changed after the end of the run" in done.output
    table = (run / "artifacts/load.ranks.csv").read_text().splitlines()
    assert table == ["rank,seconds", "0,0.25", "1,1.5", "2,2.5"]
    assert notata.merge(run).nothing_to_do


def test_a_name_that_is_no_text_keeps_no_run_from_closing(base: Path) -> None:
    def odd(log: Logbook) -> None:
        work(log)
        if log.rank == 0:
            Path(os.fsdecode(os.fsencode(log["artifacts/x.json"].parent) + b"/m\xfc.json")).touch()

    run = written(base, odd)
    assert LogReader(run).meta["status"] == "complete"
    assert sorted(noted(run)) == ["artifacts/load.json", "artifacts/own.json", "log.txt"]
    assert notata.merge(run).holes == ()


def test_what_is_written_while_a_rank_reads_is_no_damage(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_all = asleft.read

    def read(folder: str, sizes: dict[str, asleft.Left]) -> dict[str, asleft.Left]:
        found = of_all(folder, sizes)
        if folder == os.fspath(log.path):
            other = threading.Thread(target=log.json, args=("load", {"seconds": 9.0}))
            other.start()
            other.join()
        return found

    monkeypatch.setattr(asleft, "read", read)
    for rank in (1, 0):
        with open_as(rank, 2, base) as log:
            work(log)
    run = counted(log.path)
    assert noted(run)["log.txt"]["size"] <= (run / "log.txt").stat().st_size
    assert notata.merge(run).holes == ()
    assert (run / "artifacts/load.ranks.csv").read_text().splitlines()[1] == "0,9.0"


def test_it_is_read_once_the_outcome_is_there(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = []
    of_all = asleft.read

    def read(folder: str, sizes: dict[str, asleft.Left]) -> dict[str, asleft.Left]:
        meta = Path(folder, "metadata.json")
        statuses.append(meta.exists() and json.loads(meta.read_text())["status"])
        return of_all(folder, sizes)

    monkeypatch.setattr(asleft, "read", read)
    write_as(2, base, work, order=(0,))
    assert statuses == ["complete"]


def test_a_rank_that_fails_while_rank_0_notes_it_is_heard(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between rank 0's look at the metadata, and its writing them once more."""
    news = lifecycle.Metadata._news
    noted_at: list[str] = []

    def look(metadata: lifecycle.Metadata) -> dict[str, Any]:
        found = news(metadata)
        if "files" in metadata.noted() and not noted_at:
            noted_at.append("now")
            other.mark_failed("lost its way")
        return found

    other = open_as(1, 2, base)
    other.info("here")
    monkeypatch.setattr(lifecycle.Metadata, "_news", look)
    with open_as(0, 2, base) as log:
        log.info("here")
    meta = LogReader(log.path).meta
    assert noted_at
    assert (meta["status"], meta["failure_reason"]) == ("failed", "rank 1: lost its way")


def test_nothing_that_noting_meets_fails_a_run(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: str, **options: bool) -> None:
        raise MemoryError

    monkeypatch.setattr(asleft, "of_root", refuse)
    run = write_as(2, base, work, order=(1, 0))
    assert LogReader(run).meta["status"] == "complete"
    assert "files" not in LogReader(run).meta["parallel"]
    assert notata.merge(run).holes == ()


def test_only_so_many_names_are_looked_at(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asleft, "_MOST_LOOKED", 3)

    def many(log: Logbook) -> None:
        for number in range(3):
            log.text(f"a{number}", "x")
        log.json("load", 1)

    assert sorted(noted(write_as(2, base, many, order=(0,)))) == ["log.txt"]


def test_a_second_outcome_is_noted_as_well(base: Path) -> None:
    late: list[Logbook] = []
    run = write_as(2, base, lambda log: (work(log), late.append(log)), order=(1, 0))
    late[1].mark_failed("seen later")
    flip(run / "log.txt", b"seen later")
    with pytest.raises(MergeError, match=r"rank 0's log\.txt is not as that rank left it"):
        notata.merge(run)


def test_a_file_of_many_others_costs_no_look(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    of_root = asleft.of_root

    def count(run: str, **options: bool) -> dict[str, asleft.Left]:
        with monkeypatch.context() as patch:
            real = os.stat
            patch.setattr(os, "stat", lambda path, **how: looked.append(path) or real(path, **how))
            return of_root(run, **options)

    monkeypatch.setattr(asleft, "of_root", count)

    def many(log: Logbook) -> None:
        for number in range(50):
            log.bytes(f"b{number}.bin", b"")
        log.json("load", 1)

    run = write_as(2, base, many, order=(0,))
    assert "artifacts/load.json" in noted(run)
    assert not [path for path in looked if str(path).endswith(".bin")]


def test_a_rank_that_is_silent_in_what_replaces_a_run_is_not_missed(base: Path) -> None:
    write_as(3, base, work)
    for rank in (1, 0, 2):  # rank 2's old folder stands until that begins
        with open_as(rank, 3, base, launch="launch-2", overwrite=True) as log:
            if rank < 2:
                work(log)
    assert "folders_seen" not in LogReader(log.path).meta["parallel"]
    assert notata.merge(log.path, unfinished=True).holes != ("",)


def test_a_folder_that_the_program_made_is_no_loss(base: Path) -> None:
    run = write_as(2, base, lambda log: log.rank or log.array("T", [1.0]), order=(0,))
    (run / "ranks/rank_00001").mkdir()
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    assert caught.value.ways_out == ["--unfinished"]
    assert notata.merge(run, unfinished=True)


@pytest.mark.parametrize("lost", ["pending", "gone"])
def test_a_merged_run_that_was_gone_on_with_is_no_damage_where_a_merge_was_cut_off(
    base: Path, lost: str
) -> None:
    run = written(base, lambda log: log.info(f"hello from {log.rank}"))
    notata.merge(run)
    for rank in (0, 1, 2):
        with open_as(rank, SIZE, base, launch="launch-2", resume=True) as log:
            log.info(f"again {rank}")
    assert noted(run)["log.txt"]["mixed"]
    counted(run)
    notata.merge(run)
    record = json.loads((run / "merge.json").read_text())
    if lost == "gone":
        (run / "merge.json").unlink()
    else:
        told = record | {"outputs": {}, "pending": ["log.txt"], "listing": ""}
        (run / "merge.json").write_text(json.dumps(told))
    assert notata.merge(run).holes == ()


# ----- records with checksums of their own -----

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda name: name != "checksum"), values))
def test_what_is_sealed_is_whole_once_it_is_read(told: dict[str, Any]) -> None:
    text = json.dumps(sealed(told), indent=2)
    assert not is_broken(json.loads(text))
    assert sealed(sealed(told)) == sealed(told) or told != told
    assert is_broken(json.loads(text) | {"another": 1}) == (told.get("another") != 1)


def test_other_programs_may_write_whole_floats_as_they_do() -> None:
    assert not is_broken(json.loads(json.dumps(sealed({"a": [0.0, {"b": 2.0}]})).replace(".0", "")))


def test_what_a_broken_record_says_of_files_is_not_believed(base: Path) -> None:
    run = written(base)
    sound = (run / "metadata.json").read_bytes()
    flip(run / "metadata.json", noted(run)["log.txt"]["checksum"].encode()[-9:])
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    assert len(caught.value.problems) == 1
    assert len(notata.merge(run, allow_missing=True).holes) == 1
    (run / "metadata.json").write_bytes(sound)
    assert notata.merge(run).holes == ()


def outcome(run: Path) -> tuple[object, ...]:
    """What a merge would make, if it is not refused."""
    plan = make_plan(str(run))
    hosts = (plan.metadata or {}).get("parallel", {}).get("hosts")
    return plan.problems, plan.outputs, plan.clocks, hosts, plan.unread


@pytest.mark.parametrize(
    "name", ["ranks/rank_00001/rank.json", "ranks/rank_00002/manifest.jsonl", "metadata.json"]
)
def test_each_byte_that_flips_is_told_or_does_no_harm(base: Path, name: str) -> None:
    run = written(base, lambda log: (work(log), log.array("mine", [1]) if log.rank == 2 else 0))
    meta = LogReader(run).meta
    clocks = {"n1": [["2026-11-23T03:00:00.000000", 0.0, 1e-6]]}
    meta["parallel"] |= {"clocks": clocks, "hosts": {"n1": "0-1"}, "hosts_unknown": "2"}
    put_record(run / "metadata.json", meta)
    sound, expected = (run / name).read_bytes(), outcome(run)
    assert expected[0] == ()
    told = 0
    for at in range(len(sound)):
        changed = sound[:at] + bytes([sound[at] ^ (1 << at % 7)]) + sound[at + 1 :]
        (run / name).write_bytes(changed)
        try:
            found = outcome(run)
        except NotataError:
            told += 1
            continue
        if found[0]:
            told += 1
        else:
            assert found == expected, (at, changed[max(0, at - 30) : at + 30])
    assert told > len(sound) // 2 or name == "metadata.json"


@pytest.mark.parametrize("change", [{"size": 1}, None])
def test_several_ranks_are_not_taken_for_one(base: Path, change: dict[str, int] | None) -> None:
    run = written(base)
    meta = json.loads((run / "metadata.json").read_text())
    meta["parallel"] = change and meta["parallel"] | change
    (run / "metadata.json").write_text(json.dumps(meta))
    done = command("merge", run)
    assert done.exit_code == 2
    told = "parallel is not as it was written" if change else "it says nothing of ranks, and"
    assert f"metadata.json is damaged: {told}" in done.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_without_a_communicator_a_folder_that_was_seen_is_missed(base: Path, rank: int) -> None:
    """Though the others' pieces and messages make a whole without it."""
    run = write_as(2, base, lambda log: log.array("kept", [1], join="none"), order=(1, 0))
    assert LogReader(run).meta["parallel"]["folders_seen"] == "0-1"
    shutil.rmtree(run / f"ranks/rank_{rank:05d}")
    with pytest.raises(MergeError, match=f"rank {rank} wrote .* but its folder is missing"):
        notata.merge(run)


def test_a_damaged_record_is_told_and_becomes_no_truth(base: Path) -> None:
    run = written(base)
    for name in ("metadata.json", "ranks/rank_00001/rank.json"):
        sound = (run / name).read_bytes()
        host = json.loads(sound)["host"].encode()
        at = sound.rindex(b'"' + host + b'"') + 1
        (run / name).write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        done = command("merge", run)
        assert done.exit_code == 2
        assert f"{run / name} is damaged" in done.stderr
        assert "by its own checksum" in done.stderr
        assert command("merge", "--allow-missing", run).exit_code == 0
        with pytest.raises(MergeError, match="by its own checksum"):
            notata.merge(run)
        (run / name).write_bytes(sound)
        assert notata.merge(run).holes == ()


def test_a_line_of_a_manifest_is_told_to_be_another(base: Path) -> None:
    run = written(base)
    path = run / "ranks/rank_00001/manifest.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"name":"T"', b'"name":"U"'))
    with pytest.raises(MergeError, match=r"manifest\.jsonl, line 1: not as it was written"):
        notata.merge(run)
    with pytest.raises(NotataError, match=r"manifest\.jsonl, line 1: not as it was written"):
        LogReader(run).load_array("T")


def test_lines_of_older_versions_have_no_checksum(base: Path) -> None:
    run = written(base)
    for path in run.glob("ranks/*/manifest.jsonl"):
        line = path.read_bytes().partition(b',"line":')[0] + b"}\n"
        assert Piece.from_line(line).name == "T"
        path.write_bytes(line)
    assert notata.merge(run).holes == ()
    shutil.rmtree(run)
