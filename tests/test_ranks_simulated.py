"""Several ranks without a communicator, opened one after another in one process."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import being, open_as, tree, write_as

import notata
from notata import Logbook, LogReader, mergerecord
from notata.errors import (
    ArrayNotFoundError,
    DamagedError,
    HoleError,
    MergeError,
    PieceError,
    RunExistsError,
    UnsafeNameError,
)
from notata.pieces import Piece

T = np.arange(48.0).reshape(6, 8)


def blocks(log: Logbook) -> None:
    """Two rows of T from each of three ranks, with a halo of one row where there is one."""
    low, high = 2 * log.rank, 2 * log.rank + 2
    before, after = int(low > 0), int(high < 6)
    block = T[low - before : high + after]
    log.array("T", block, start=(low, 0), shape=T.shape, halo=((before, after), 0))


def manifest(run: Path, rank: int) -> list[Piece]:
    lines = (run / f"ranks/rank_{rank:05d}/manifest.jsonl").read_bytes().splitlines()
    return [Piece.from_line(line) for line in lines]


def record(run: Path, rank: int) -> dict[str, Any]:
    return dict(json.loads((run / f"ranks/rank_{rank:05d}/rank.json").read_text()))


# ----- who owns what -----


def test_one_rank_leaves_the_plain_tree(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.array("T", T, start=(0, 0), shape=T.shape)
        log.text("note", "x")

    under_a_launcher = write_as(1, base / "a", work, params={"n": 1})
    with Logbook("run", base / "b", params={"n": 1}) as log:
        work(log)
    assert tree(under_a_launcher) == tree(log.path)
    assert not (under_a_launcher / "ranks").exists()
    meta = json.loads((under_a_launcher / "metadata.json").read_text())
    times = {"start_time", "end_time", "runtime_sec"}
    ours = {"start_epoch", "host", "opening", "provenance"}
    assert meta.keys() == {"run_id", "status", *ours} | times


def test_every_rank_has_its_own_files(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.array("T", [log.rank])
        log.text("note", str(log.rank))
        log.json("config/c", {"rank": log.rank})
        log.info("here")
        log["artifacts/extra.dat"].write_text(str(log.rank))

    run = write_as(3, base, work, params={"n": 1})
    own = ["artifacts/config/c.json", "artifacts/extra.dat", "artifacts/note.txt", "data/T.npy"]
    expected = [
        "artifacts/config/c.json",
        "artifacts/extra.dat",
        "artifacts/note.txt",
        "log.txt",
        "metadata.json",
        "params.yaml",
        *(f"ranks/rank_00000/{n}" for n in ("data/T.npy", "manifest.jsonl", "rank.json")),
        *(
            f"ranks/rank_{rank:05d}/{name}"
            for rank in (1, 2)
            for name in (*own, "log.txt", "manifest.jsonl", "rank.json")
        ),
    ]
    assert tree(run) == sorted(expected)
    assert (run / "artifacts/note.txt").read_text() == "0"
    assert (run / "ranks/rank_00002/artifacts/note.txt").read_text() == "2"
    for rank in range(3):
        np.testing.assert_array_equal(np.load(run / f"ranks/rank_{rank:05d}/data/T.npy"), [rank])


def test_where_a_rank_writes(base: Path) -> None:
    root, other = open_as(0, 2, base), open_as(1, 2, base)
    run = base / "log_run"
    own = run / "ranks/rank_00001"
    assert root.path == other.path == run
    assert (root.rank, root.size, root.is_root) == (0, 2, True)
    assert (other.rank, other.size, other.is_root) == (1, 2, False)
    assert (root.log_path, root.plotdir, root.artifactsdir) == (
        run / "log.txt",
        run / "plots",
        run / "artifacts",
    )
    assert root.datadir == run / "ranks/rank_00000/data"
    assert (other.log_path, other.plotdir, other.artifactsdir, other.datadir) == (
        own / "log.txt",
        own / "plots",
        own / "artifacts",
        own / "data",
    )
    assert (root.rank_dir, other.rank_dir) == (run / "ranks/rank_00000", own)


def test_a_silent_rank_leaves_nothing(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.debug("dropped")
        log.meta(seen=log.rank)
        log.params(n=1)
        log.root.info("from the root")

    run = write_as(4, base, work, params={"m": 2})
    assert tree(run) == ["log.txt", "metadata.json", "params.yaml"]
    assert json.loads((run / "metadata.json").read_text())["seen"] == 0


def test_a_rank_that_only_logs_has_a_log_and_a_record(base: Path) -> None:
    run = write_as(3, base, lambda log: log.rank == 1 and log.info("x"))
    assert tree(run / "ranks") == ["rank_00001/log.txt", "rank_00001/rank.json"]
    assert record(run, 1)["status"] == "complete"
    assert record(run, 1)["pieces"] == 0


def test_parameters_and_metadata_are_those_of_rank_0(base: Path) -> None:
    for rank in range(2):
        with open_as(rank, 2, base, params={"rank": rank}) as log:
            log.meta(written_by=rank)
            assert log.params["rank"] == rank
    run = LogReader(base / "log_run")
    assert run.params == {"rank": 0}
    assert run.meta["written_by"] == 0


@pytest.mark.parametrize("launch", ["launch-1", None], ids=["named", "nameless"])
def test_without_a_communicator_other_parameters_are_told_at_the_end(
    base: Path, launch: str | None
) -> None:
    for rank in range(3):
        params = {"dt": 0.1, "n": 4} | ({"dt": 0.2, "tol": 1e-6} if rank == 2 else {})
        with open_as(rank, 3, base, launch=launch, params=params) as log:
            log.info("here")
    (warning,) = LogReader(base / "log_run").messages(level="WARNING")
    assert (warning.rank, warning.message) == (
        2,
        "parameters differ from those of rank 0, which are saved: dt",
    )


@pytest.mark.parametrize("old", [False, True], ids=["no-run", "old-run"])
def test_a_rank_that_ends_before_rank_0_begins_notes_what_was_not_compared(
    base: Path, old: bool
) -> None:
    """Nothing waits for rank 0 then, and what an old run had says nothing of this one."""
    if old:
        write_as(2, base, lambda log: log.info("old"), launch="launch-0", params={"dt": 7})
    for rank in (1, 0):
        with open_as(rank, 2, base, overwrite=old, params={"dt": rank, "n": 4}) as log:
            log.info("here")
    run = LogReader(base / "log_run")
    assert record(run.path, 1)["params_not_compared"] == ["dt", "n"]
    assert [m.message for m in run.messages(ranks=[1])] == ["here"]
    assert list(run.messages(level="WARNING")) == []


def test_metadata_of_a_parallel_run(base: Path) -> None:
    run = write_as(3, base, lambda log: log.array("x", log.rank))
    meta = json.loads((run / "metadata.json").read_text())
    assert meta["status"] == "complete"
    facts = meta["parallel"]
    assert (facts["size"], facts["rank_from"], facts["launcher"], facts["launch"]) == (
        3,
        "NOTATA_RANK",
        "NOTATA_RANK",
        "launch-1",
    )
    assert (facts["mpi"], facts["communicator"]) == (None, False)
    assert facts["hosts"] == {record(run, 0)["host"]: "0"}
    assert facts["hosts_unknown"] == "1-2"
    assert LogReader(run).size == 3


def test_the_record_of_a_rank(base: Path) -> None:
    log = open_as(1, 2, base)
    log.array("x", [1, 2])
    while_open = record(log.path, 1)
    assert (while_open["rank"], while_open["size"], while_open["run_id"]) == (1, 2, "run")
    assert (while_open["status"], while_open["launch"]) == ("initialized", "launch-1")
    log.mark_failed("diverged")
    closed = record(log.path, 1)
    assert (closed["status"], closed["failure_reason"]) == ("failed", "diverged")
    assert closed["pieces"] == 1
    assert closed["start_time"] == while_open["start_time"] <= closed["end_time"]


def test_an_exception_is_in_the_rank_s_record_with_its_traceback(base: Path) -> None:
    open_as(0, 2, base)
    with pytest.raises(ZeroDivisionError), open_as(1, 2, base):
        _ = 1 / 0
    told = record(base / "log_run", 1)
    assert (told["error"], told["status"]) == ("ZeroDivisionError", "failed")
    assert told["failure_reason"] == "division by zero"
    assert told["traceback"].splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "_ = 1 / 0" in told["traceback"]
    run = LogReader(base / "log_run")
    (message,) = run.messages("ERROR", ranks=[1])
    assert message.message == told["traceback"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_names_stay_inside_the_rank_s_folder(base: Path, name: str) -> None:
    open_as(0, 2, base)
    log = open_as(1, 2, base)
    before = tree(base)
    for write in (
        lambda: log.array(name, [1]),
        lambda: log.arrays(name, x=[1]),
        lambda: log.text(name, ""),
        lambda: log.bytes(name, b""),
        lambda: log[name],
    ):
        with pytest.raises(UnsafeNameError):
            write()
    assert tree(base) == before


def test_pieces_of_other_spellings_of_a_name_are_one_array(base: Path) -> None:
    names = [5, "./5", "a/../5"], ["s//T", "s/./T", Path("s/T")]

    def work(log: Logbook) -> None:
        log.array(names[0][log.rank], np.full(2, log.rank))
        log.arrays(names[1][log.rank], start=(log.rank,), shape=(3,), k=np.array([log.rank]))
        log.root.array(f"./whole{'/' * log.rank}", [1.0])

    path = write_as(3, base, work)
    assert {p.label for rank in range(3) for p in manifest(path, rank)} == {"5", "s/T:k"}
    run = LogReader(path)
    for _ in range(2):
        assert run.arrays == ["5", "s/T:k", "whole"]
        assert run.load_array("5").tolist() == run.load_array("./5").tolist() == [0, 0, 1, 1, 2, 2]
        assert run.load_array("s/T:k").tolist() == run.load_array("s//T:k").tolist() == [0, 1, 2]
        assert run.ranks[1].load_array("./5").tolist() == [1, 1]
        notata.merge(path)
    notata.merge(path, prune=True)
    assert run.ranks[1].load_array("./5").tolist() == [1, 1]


def test_paths_of_a_rank_lead_to_its_folder_wherever_it_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    open_as(0, 2, Path("out"))
    log = open_as(1, 2, Path("out"))

    def paths() -> list[Path]:
        return [log.path, log.rank_dir, log.log_path, log.datadir, log["artifacts/x"], log["."]]

    own = "out/log_run/ranks/rank_00001"
    expected = ["out/log_run", own, f"{own}/log.txt", f"{own}/data", f"{own}/artifacts/x", own]
    assert [str(path) for path in paths()] == expected
    monkeypatch.chdir(tmp_path / "scratch")
    assert paths() == [tmp_path / path for path in expected]
    log.array("x", [1])
    log["artifacts/x"].write_text("here")
    assert (tmp_path / own / "artifacts/x").read_text() == "here"
    assert tree(tmp_path / "scratch") == []


# ----- logs -----


def test_log_lines_name_the_rank_and_have_microseconds(base: Path) -> None:
    run = write_as(3, base, lambda log: log.warning(f"from {log.rank}\nand more"))
    form = re.compile(r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\] [A-Z]+ \[rank (\d+)\] .*|    .*")
    for rank, path in enumerate(["log.txt", *(f"ranks/rank_{r:05d}/log.txt" for r in (1, 2))]):
        found = [form.fullmatch(line) for line in (run / path).read_text().splitlines()]
        assert all(found)
        assert {match[1] for match in found if match and match[1]} == {str(rank)}
        assert (run / path).read_text().count(f"WARNING [rank {rank}] from {rank}\n    and more\n")


def test_messages_of_all_ranks_come_in_time_order(base: Path) -> None:
    logs = [open_as(rank, 3, base) for rank in range(3)]
    for step in range(30):
        logs[(7 * step) % 3].info(f"step {step}")
        logs[(7 * step) % 3].debug("dropped")
    for log in logs:
        log.mark_complete()
    run = LogReader(base / "log_run")
    steps = [(m.rank, m.message) for m in run.messages() if m.message.startswith("step")]
    assert steps == [((7 * step) % 3, f"step {step}") for step in range(30)]
    only = [m.message for m in run.messages(ranks=[2]) if m.message.startswith("step")]
    assert only == [f"step {step}" for step in range(30) if (7 * step) % 3 == 2]
    assert [m.message for m in run.ranks[2].messages()] == only
    before = list(run.messages())
    notata.merge(run.path)
    assert list(run.messages()) == before
    merged = (run.path / "log.txt").read_text().splitlines()
    assert len(merged) == len(before)


# ----- the root view -----


def test_the_root_view_acts_on_rank_0_alone(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.root.info("once")
        log.root.array("energy", np.arange(4))
        log.root.arrays("both", x=[1], y=[2])
        log.root.json("metrics", {"e": 1})
        log.root.text("note", "x")
        log.root.bytes("raw.bin", b"x")
        log.root.pickle("model", [1])
        log.root.params(n=3)
        log.root.meta(who="root")
        log.root["artifacts/deep/file.txt"].write_text(f"from {log.rank}")

    run = write_as(3, base, work)
    assert tree(run) == [
        "artifacts/deep/file.txt",
        "artifacts/metrics.json",
        "artifacts/model.pkl",
        "artifacts/note.txt",
        "artifacts/raw.bin",
        "data/both.npz",
        "data/energy.npy",
        "log.txt",
        "metadata.json",
        "params.yaml",
    ]
    assert (run / "artifacts/deep/file.txt").read_text() == "from 0"
    reader = LogReader(run)
    assert reader.arrays == ["both:x", "both:y", "energy"]
    np.testing.assert_array_equal(reader.load_array("energy"), np.arange(4))
    assert [m.message for m in reader.messages()].count("once") == 1


def test_folders_of_the_root_view_are_the_runs_on_rank_0_alone(base: Path) -> None:
    def work(log: Logbook) -> None:
        for folder in (log.root.datadir, log.root.plotdir, log.root.artifactsdir):
            folder.mkdir(exist_ok=True)
            (folder / f"of_{log.rank}").write_text("x")
        with log.root.log_path.open("a") as file:
            file.write(f"by hand, on rank {log.rank}\n")

    run = write_as(2, base, work)
    assert [name for name in tree(run) if "of_" in name] == [
        "artifacts/of_0",
        "data/of_0",
        "plots/of_0",
    ]
    assert "on rank 0" in (run / "log.txt").read_text()
    assert "on rank 1" not in (run / "log.txt").read_text()


def test_an_array_is_whole_or_in_pieces_not_both(base: Path) -> None:
    log = open_as(0, 2, base)
    log.array("a", [1])
    log.root.array("b", [1])
    with pytest.raises(PieceError, match="another name"):
        log.root.array("a", [1])
    with pytest.raises(PieceError, match="another name"):
        log.array("b", [1])
    log.root.arrays("a", x=[1])  # a bundle is another file
    assert tree(log.path / "data") == ["a.npz", "b.npy"]


def test_the_root_view_does_not_write_over_what_was_merged_of_pieces(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise PermissionError("a record that a colleague keeps for himself")

    def work(log: Logbook) -> None:
        blocks(log)
        log.arrays("b", u=[log.rank])

    run = write_as(3, base, work)
    notata.merge(run)
    with open_as(0, 3, base, launch="launch-2", resume=True) as log:
        with pytest.raises(PieceError, match=r"data/T\.npy was made by notata merge"):
            log.root.array("T", T + 1)
        with pytest.raises(PieceError, match=r"data/b\.npz was made by notata merge"):
            log.root.arrays("b", u=[7])
        log.root.array("b", [7])  # an array is another file
        monkeypatch.setattr(mergerecord, "read", refuse)
        log.root.array("c", [8])
    monkeypatch.undo()
    np.testing.assert_array_equal(LogReader(run).load_array("T"), T)
    assert LogReader(run).load_array("b:u").tolist() == [0, 1, 2]


# ----- pieces -----


def test_blocks_with_a_halo_make_the_whole(base: Path) -> None:
    run = LogReader(write_as(3, base, blocks))
    assert run.arrays == ["T"]
    np.testing.assert_array_equal(run.load_array("T"), T)
    for rank in range(3):
        np.testing.assert_array_equal(run.ranks[rank].load_array("T"), T[2 * rank : 2 * rank + 2])


def test_the_manifest_lists_each_piece_as_it_is_written(base: Path) -> None:
    log = open_as(1, 2, base)
    log.array("states/T", np.zeros((3, 4), "f4"), start=(3, 0), shape=(6, 4))
    run = log.path
    size = (run / "ranks/rank_00001/data/states/T.npy").stat().st_size
    (first,) = manifest(run, 1)
    place = ("place", (3, 4), "<f4", False, (3, 0), (6, 4))
    told = ("states/T", None, "data/states/T.npy", *place, size)
    assert first == (*told, first.write, first.checksum, False)
    log.arrays("b", x=[1, 2], y=np.asfortranarray(np.ones((2, 2))), join={"y": "stack"})
    assert [(p.label, p.join, p.shape, p.fortran) for p in manifest(run, 1)[1:]] == [
        ("b:x", "concat", (2,), False),
        ("b:y", "stack", (2, 2), True),
    ]


@pytest.mark.parametrize(
    ("join", "expected"),
    [("concat", np.arange(6)), ("stack", np.arange(6).reshape(3, 2))],
)
def test_joins(base: Path, join: str, expected: np.ndarray[Any, Any]) -> None:
    def work(log: Logbook) -> None:
        log.array("x", [2 * log.rank, 2 * log.rank + 1], join=join)

    run = LogReader(write_as(3, base, work))
    np.testing.assert_array_equal(run.load_array("x"), expected)


def test_pieces_that_are_kept_apart(base: Path) -> None:
    run = LogReader(write_as(3, base, lambda log: log.array("x", [0] * log.rank, join="none")))
    assert run.arrays == []
    with pytest.raises(ArrayNotFoundError):
        run.load_array("x")
    assert [len(rank.load_array("x")) for rank in run.ranks] == [0, 1, 2]
    notata.merge(run.path)
    assert run.arrays == []


def test_numbers_become_a_vector_over_ranks(base: Path) -> None:
    run = LogReader(write_as(4, base, lambda log: log.array("e", 0.5 * log.rank)))
    np.testing.assert_array_equal(run.load_array("e"), [0, 0.5, 1, 1.5])


def test_a_bundle_is_joined_key_by_key(base: Path) -> None:
    def work(log: Logbook) -> None:
        r = log.rank
        log.arrays(
            "b",
            placed=np.full((1, 2), r),
            row=[r, r],
            apart=[r],
            start={"placed": (r, 0)},
            shape={"placed": (3, 2)},
            join={"row": "stack", "apart": "none"},
        )

    run = LogReader(write_as(3, base, work))
    expected = [[0, 0], [1, 1], [2, 2]]
    for _ in range(2):  # before and after the merge
        assert run.arrays == ["b:placed", "b:row"]
        np.testing.assert_array_equal(run.load_array("b:placed"), expected)
        np.testing.assert_array_equal(run.load_array("b:row"), expected)
        np.testing.assert_array_equal(run.ranks[2].load_array("b:apart"), [2])
        notata.merge(run.path)


@pytest.mark.parametrize("halo", [(1, 0), np.array([1, 0]), np.array([[1, 1], [0, 0]])], ids=str)
def test_start_and_shape_as_numpy_arrays_are_options_of_ranks(base: Path, halo: Any) -> None:
    def work(log: Logbook) -> None:
        block = np.pad(T[2 * log.rank : 2 * log.rank + 2], ((1, 1), (0, 0)))
        start, shape = np.array([2 * log.rank, 0]), np.array(T.shape)
        log.arrays("b", T=block, U=block, start=start, shape=shape, halo=halo)

    run = LogReader(write_as(3, base, work))
    assert run.arrays == ["b:T", "b:U"]
    np.testing.assert_array_equal(run.load_array("b:T"), T)


@pytest.mark.parametrize(
    "given",
    [
        {"start": np.array([0, 0])},
        {"shape": np.array([6, 8])},
        {"halo": np.array([1, 1])},
        {"halo": np.array([[1, 1], [1, 1]])},
        {"start": np.array([0, 0]), "shape": np.zeros((6, 8))},
    ],
    ids=str,
)
def test_arrays_that_may_be_options_of_ranks_are_refused(base: Path, given: Any) -> None:
    log = open_as(1, 3, base)
    with pytest.raises(PieceError, match=r"arrays 'b': .*=tuple\("):
        log.arrays("b", T=T, **given)
    assert not log.datadir.exists()


def test_arrays_that_can_not_be_options_are_saved(base: Path) -> None:
    given = {
        "start": np.array([0.0, 0.5]),
        "shape": np.array([6, 8, 1]),
        "halo": np.zeros((3, 3), int),
        "join": np.array([0, 0]),
    }
    log = open_as(1, 3, base)
    log.arrays("b", T=T, **given)
    assert [piece.key for piece in manifest(log.path, 1)] == ["T", *given]
    with Logbook("one", base) as one:
        one.arrays("b", T=T, **given)
        one.arrays("c", T=T, start=np.array([0, 0]), halo=np.array([1, 1]))  # as in notata 0.3.0
    assert LogReader(one.path).arrays == [
        *(f"b:{key}" for key in sorted(["T", *given])),
        *("c:T", "c:halo", "c:start"),
    ]


@pytest.mark.parametrize("more", [{}, {"halo": np.array([1, 1])}], ids=str)
@pytest.mark.parametrize("root", [False, True])
def test_one_rank_is_asked_for_tuples_where_arrays_may_say_a_place(
    base: Path, root: bool, more: dict[str, Any]
) -> None:
    with Logbook("one", base, comm=None) as log:
        verbs = log.root if root else log
        with pytest.raises(PieceError, match=r"start=tuple\(start\), shape=tuple\(shape\)"):
            verbs.arrays("b", T=T, start=np.array([0, 0]), shape=np.array(T.shape), **more)
        verbs.arrays("b", T=T, start=(0, 0), shape=T.shape)
    assert LogReader(log.path).arrays == ["b:T"]


def test_the_last_array_of_a_name_counts(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.array("x", [0, 0, 0])
        log.array("x", [log.rank])

    run = LogReader(write_as(2, base, work))
    np.testing.assert_array_equal(run.load_array("x"), [0, 1])
    assert [piece.begun for piece in manifest(run.path, 1)] == [False, True, False]
    assert record(run.path, 1)["pieces"] == 1


def test_a_bundle_that_is_replaced_keeps_no_key_of_the_older_one(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.arrays("s", x=[log.rank], y=[9.0, 9.0])
        log.arrays("s", x=[10 + log.rank])
        log.arrays("t", x=[log.rank])
        log.arrays("t", y=[20 + log.rank])

    run = write_as(2, base, work)
    assert LogReader(run).arrays == ["s:x", "t:y"]
    assert record(run, 1)["pieces"] == 2
    notata.merge(run)
    assert LogReader(run).arrays == ["s:x", "t:y"]
    np.testing.assert_array_equal(LogReader(run).load_array("s:x"), [10, 11])
    np.testing.assert_array_equal(LogReader(run).load_array("t:y"), [20, 21])


def test_a_second_launch_with_another_number_of_ranks_stays_out_of_the_run(base: Path) -> None:
    run = write_as(2, base, lambda log: log.array("x", [log.rank]), launch=None)
    before = tree(run)
    for rank in range(4):
        with pytest.raises(RunExistsError):
            open_as(rank, 4, base, launch=None)
    assert tree(run) == before


def test_a_torn_last_line_of_a_manifest_was_no_piece(base: Path) -> None:
    run = write_as(3, base, blocks)
    path = run / "ranks/rank_00001/manifest.jsonl"
    whole = path.read_bytes()
    path.write_bytes(
        whole
        + Piece("U", None, "data/U.npy", "concat", (1,), "<f8", False, None, None, 9, 1).line()[:-7]
    )
    assert LogReader(run).arrays == ["T"]
    np.testing.assert_array_equal(LogReader(run).load_array("T"), T)


def test_another_broken_line_of_a_manifest_is_said(base: Path) -> None:
    run = write_as(3, base, blocks)
    path = run / "ranks/rank_00001/manifest.jsonl"
    path.write_bytes(b'{"name":1}\n' + path.read_bytes())
    with pytest.raises(DamagedError, match=r"rank_00001/manifest\.jsonl, line 1"):
        LogReader(run).load_array("T")


def test_a_manifest_can_not_lead_out_of_the_run(base: Path) -> None:
    run = write_as(2, base, lambda log: log.array("x", [1]))
    np.save(base / "secret.npy", [42])
    path = run / "ranks/rank_00001/manifest.jsonl"
    path.write_bytes(path.read_bytes().replace(b"data/x.npy", b"../../../secret.npy") + b"\n")
    with pytest.raises(DamagedError, match="line 1"):
        LogReader(run).load_array("x")


# ----- pieces that don't make a whole -----


def wrong(log: Logbook, kind: str) -> None:
    start, piece = 2 * log.rank, np.ones(2)
    if log.rank == 1:
        start += {"hole": 99, "overlap": -1}.get(kind, 0)
        piece = {"type": np.ones(2, "f4"), "short": np.ones(1)}.get(kind, piece)
    if start > 4:
        return
    log.array("x", piece, start=start, shape=7 if kind == "shape" and log.rank == 2 else 6)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("hole", r"array 'x' of shape \(6,\): nothing covers \[2:4\]"),
        ("short", r"nothing covers \[3:4\]"),
        ("overlap", r"ranks 0-1 overlap at \[1:2\].*nothing covers \[3:4\]"),
        ("type", r"has type <f8 on ranks 0, 2, <f4 on rank 1"),
        ("shape", r"of shape \(6,\) on ranks 0-1, \(7,\) on rank 2"),
    ],
)
def test_pieces_that_do_not_make_a_whole(base: Path, kind: str, told: str) -> None:
    run = write_as(3, base, lambda log: wrong(log, kind))
    before = tree(run)
    with pytest.raises(HoleError, match=told):
        LogReader(run).load_array("x")
    with pytest.raises(MergeError, match=told) as caught:
        notata.merge(run)
    assert len(caught.value.problems) == 1
    assert tree(run) == before


def test_a_region_that_has_no_hole_can_be_read(base: Path) -> None:
    run = LogReader(write_as(3, base, lambda log: wrong(log, "hole")))
    np.testing.assert_array_equal(run.load_array("x", region=np.s_[4:]), [1, 1])
    np.testing.assert_array_equal(run.load_array("x", region=np.s_[:2]), [1, 1])
    with pytest.raises(HoleError, match=r"nothing covers \[2:4\]"):
        run.load_array("x", region=np.s_[1:5])


def test_a_stack_without_one_rank(base: Path) -> None:
    run = write_as(3, base, lambda log: log.rank != 1 and log.array("x", [1], join="stack"))
    with pytest.raises(HoleError, match="rank 1 wrote none"):
        LogReader(run).load_array("x")


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_piece_that_is_not_what_the_manifest_says(base: Path, damage: str) -> None:
    run = write_as(3, base, blocks)
    path = run / "ranks/rank_00001/data/T.npy"
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    else:
        np.save(path, np.ones((2, 7)))
    with pytest.raises(DamagedError, match="rank 1's piece of 'T'"):
        LogReader(run).load_array("T")
    np.testing.assert_array_equal(LogReader(run).load_array("T", region=np.s_[4:]), T[4:])
    with pytest.raises(MergeError, match="rank 1's piece of 'T'"):
        notata.merge(run)
    assert not (run / "data").exists()


def test_only_the_files_that_hold_a_region_are_opened(base: Path) -> None:
    run = write_as(3, base, blocks)
    (run / "ranks/rank_00000/data/T.npy").write_bytes(b"")
    (run / "ranks/rank_00001/data/T.npy").write_bytes(b"")
    np.testing.assert_array_equal(LogReader(run).load_array("T", region=np.s_[4:, 2]), T[4:, 2])


# ----- an earlier run of the same id -----


def age(path: Path, launch: str | None = None) -> None:
    """Let a record be of a run that began and ended long ago."""
    told = json.loads(path.read_text())
    told |= {"start_time": "2001-01-01T00:00:00", "end_time": "2001-01-01T00:01:00"}
    told.get("parallel", told)["launch"] = launch
    path.write_text(json.dumps(told))


def old_run(base: Path, how: str) -> Path:
    """A run of three ranks: of another launch, or old where launches have no names."""
    run = write_as(3, base, lambda log: (log.array("old", [1]), log.info("old")))
    if how == "old":
        for path in run.rglob("*.json"):
            age(path)
    return run


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("how", ["old", "another launch"])
def test_an_old_run_is_refused_on_every_rank(base: Path, rank: int, how: str) -> None:
    run = old_run(base, how)
    before = {name: (run / name).read_bytes() for name in tree(run)}
    launch = None if how == "old" else "launch-2"
    with pytest.raises(RunExistsError, match="overwrite=True"):
        open_as(rank, 3, base, launch=launch)
    assert {name: (run / name).read_bytes() for name in tree(run)} == before


def test_a_run_of_one_process_is_refused_by_ranks(base: Path) -> None:
    with Logbook("run", base):
        pass
    age_of_run = json.loads((base / "log_run/metadata.json").read_text())
    age_of_run |= {"start_time": "2001-01-01T00:00:00", "end_time": "2001-01-01T00:01:00"}
    (base / "log_run/metadata.json").write_text(json.dumps(age_of_run))
    for rank in range(2):
        with pytest.raises(RunExistsError):
            open_as(rank, 2, base)


def test_a_rank_s_folder_of_an_earlier_run_is_refused_when_it_first_writes(base: Path) -> None:
    run = old_run(base, "another launch")
    (run / "metadata.json").unlink()
    log = open_as(1, 3, base, launch="launch-2")
    with pytest.raises(RunExistsError, match=r"rank 1: .*rank_00001"):
        log.array("new", [1])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("how", ["old", "another launch"])
def test_overwrite_by_ranks_in_any_order(base: Path, order: tuple[int, ...], how: str) -> None:
    old_run(base, how)
    launch = None if how == "old" else "launch-2"
    logs = {
        rank: open_as(rank, 3, base, launch=launch, overwrite=True, params={"new": 1})
        for rank in order
    }
    for rank in range(3):
        logs[rank].array("new", [rank])
        logs[rank].mark_complete()
    run = LogReader(base / "log_run")
    assert run.arrays == ["new"]
    np.testing.assert_array_equal(run.load_array("new"), [0, 1, 2])
    assert tree(run.path) == sorted(
        ["log.txt", "metadata.json", "params.yaml"]
        + [
            f"ranks/rank_{rank:05d}/{name}"
            for rank in range(3)
            for name in ("data/new.npy", "manifest.jsonl", "rank.json")
            + (("log.txt",) if rank else ())
        ]
    )
    assert "old" not in [m.message for m in run.messages()]


def test_overwrite_by_fewer_ranks_takes_the_others_away(base: Path) -> None:
    old_run(base, "another launch")
    with_two = write_as(2, base, lambda log: log.root.info("x"), launch="launch-2", overwrite=True)
    assert tree(with_two) == ["log.txt", "metadata.json", "ranks/"]


def test_ranks_that_come_before_rank_0_are_of_the_same_run(base: Path) -> None:
    run = LogReader(write_as(3, base, blocks, order=(2, 1, 0)))
    np.testing.assert_array_equal(run.load_array("T"), T)
    assert run.meta["status"] == "complete"


def test_a_run_that_rank_0_never_opened(base: Path) -> None:
    run = write_as(3, base, blocks, order=(1, 2))
    with pytest.raises(notata.NotataError, match="rank 0 never opened it, though 2 other ranks"):
        LogReader(run)


# ----- opening -----


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"params": {"z": 1j}}, TypeError),
        ({"level": "loud"}, ValueError),
        ({"run_id": "a/b"}, ValueError),
    ],
)
def test_what_is_wrong_is_said_on_the_rank_where_it_is_wrong(
    base: Path, rank: int, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        open_as(rank, 2, base, **options)
    assert not base.exists()


def test_half_of_the_variables_is_an_error(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTATA_RANK", "0")
    with pytest.raises(ValueError, match="NOTATA_RANK is set without NOTATA_SIZE"):
        Logbook("a", base)


def test_comm_none_is_a_process_on_its_own(base: Path) -> None:
    with being(1, 4):
        log = Logbook("mine", base, comm=None)
    assert (log.rank, log.size, log.is_root) == (0, 1, True)
    log.array("x", [1])
    log.mark_complete()
    assert tree(log.path) == ["data/x.npy", "log.txt", "metadata.json"]


# ----- merge -----


def test_after_the_merge_the_run_is_as_one_process_would_have_left_it(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.info(f"hello from {log.rank}")
        blocks(log)

    run = write_as(3, base, work)
    own = {name: (run / name).read_bytes() for name in tree(run) if name.startswith("ranks/")}
    report = notata.merge(run)
    assert [(row.name, row.pieces, row.shape) for row in report.rows] == [
        ("T", 3, (6, 8)),
        ("log.txt", 3, None),
    ]
    np.testing.assert_array_equal(np.load(run / "data/T.npy"), T)
    assert np.load(run / "data/T.npy").flags.c_contiguous
    text = (run / "log.txt").read_text()
    assert [text.count(f"[rank {rank}] hello from {rank}\n") for rank in range(3)] == [1, 1, 1]
    assert {name: (run / name).read_bytes() for name in own} == own
    merged = {name: (run / name).stat().st_mtime_ns for name in tree(run)}
    again = notata.merge(run)
    assert again.nothing_to_do
    assert "nothing to do" in again.note
    assert {name: (run / name).stat().st_mtime_ns for name in tree(run)} == merged


def test_a_lost_rank_is_told_from_a_silent_one(base: Path) -> None:
    import shutil

    run = write_as(3, base, lambda log: log.rank != 1 and log.array("x", [log.rank]))
    np.testing.assert_array_equal(LogReader(run).load_array("x"), [0, 2])
    notata.merge(run, unfinished=True)
    lost = write_as(3, base / "lost", blocks)
    shutil.rmtree(lost / "ranks/rank_00001")
    with pytest.raises(MergeError, match=r"\[2:4"):
        notata.merge(lost)


def test_a_forked_child_may_be_the_first_to_write_for_its_rank(base: Path) -> None:
    with open_as(1, 2, base) as log:
        child = os.fork()
        if child == 0:
            log.array("child", [1])
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        log.array("parent", [2])
    with open_as(0, 2, base):
        pass
    run = LogReader(base / "log_run")
    assert run.ranks[1].load_array("child").tolist() == [1]
    assert run.ranks[1].load_array("parent").tolist() == [2]
    assert record(run.path, 1)["pid"] == os.getpid()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_below_a_file_each_rank_is_told_without_a_communicator(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    for rank in (2, 0, 1):
        with pytest.raises(NotADirectoryError, match=rf"rank {rank}.*file"):
            open_as(rank, 3, tmp_path / name)
    assert (tmp_path / "file").read_bytes() == b""
