"""One run of many ranks: the tree that it leaves, what a reader sees, and the merge."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import notata
from notata import LogReader

pytestmark = pytest.mark.mpi

PLACED = ["states/T_step0", "states/T_step100", "per_axis", "per_side", "cube", "fortran", "short"]
JOINED = ["line", "mostly_empty", "row", "scalar", "even"]
BUNDLES = {"bundle": ["x", "mean"], "nested/mixed": ["part", "row"]}
IN_BUNDLES = [f"{name}:{key}" for name, keys in BUNDLES.items() for key in keys]
WHOLE = sorted([*PLACED, *JOINED, *IN_BUNDLES, "energy"])
# These hold the same numbers however many ranks there were.
AS_ALONE = [*PLACED, "line", "mostly_empty", "bundle:x", "nested/mixed:part", "energy"]


class Written(NamedTuple):
    """The run that programs/pieces.py left."""

    run: Path
    size: int
    way: str
    told: dict[int, dict[str, Any]]
    flavour: Any


@pytest.fixture(scope="module")
def write(flavour, launch_in, tmp_path_factory):
    def run(size: int, way: str) -> Written:
        folder = tmp_path_factory.mktemp(f"{flavour.name}-{size}-{way}")
        done = launch_in(folder)(size, "pieces", folder, way)
        return Written(folder / "log_pieces", size, way, done.told, flavour)

    return run


@pytest.fixture(scope="module", params=["mpi", "launcher"])
def single(request, write) -> Written:
    """Of one rank, under mpiexec."""
    return write(1, request.param)


@pytest.fixture(
    scope="module",
    params=[(2, "mpi"), (3, "mpi"), (3, "launcher"), (5, "mpi"), (5, "launcher")],
    ids=lambda job: f"{job[0]}-{job[1]}",
)
def many(request, write) -> Written:
    """Of several ranks, not merged; tests must not change it."""
    return write(*request.param)


@pytest.fixture(scope="module")
def merged(many, tmp_path_factory) -> Path:
    """A copy of it, merged."""
    run = tmp_path_factory.mktemp("merged") / "log_pieces"
    shutil.copytree(many.run, run)
    notata.merge(run)
    return run


@pytest.fixture(scope="session")
def alone(run_alone, tmp_path_factory) -> Path:
    """The run of the same program by one process, without any launcher."""
    folder = tmp_path_factory.mktemp("serial")
    run_alone("pieces", folder, "launcher")
    return folder / "log_pieces"


def over_ranks(size: int) -> dict[str, np.ndarray]:
    """What differs with the number of ranks."""
    even = [rank for rank in range(size) if rank % 2 == 0]
    return {
        "row": np.arange(4) + 10 * np.arange(size)[:, None],
        "scalar": 0.5 + np.arange(size),
        "even": np.repeat(even, 2),
        "bundle:mean": np.arange(size, dtype=float),
        "nested/mixed:row": np.array([[rank, size] for rank in range(size)]),
    }


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other)


# ----- one rank -----


def test_one_rank_leaves_the_plain_tree(single, alone, files_of):
    assert files_of(single.run) == files_of(alone)
    assert not (single.run / "ranks").exists()
    assert single.told[0]["mpi"] == (single.way == "mpi")


def test_one_rank_leaves_the_same_arrays_and_metadata(single, alone, metadata_of):
    ours, serial = LogReader(single.run), LogReader(alone)
    assert ours.arrays == serial.arrays
    for name in serial.arrays:
        assert same(ours.load_array(name), serial.load_array(name)), name
    assert metadata_of(single.run).keys() == metadata_of(alone).keys()
    assert (single.run / "params.yaml").read_bytes() == (alone / "params.yaml").read_bytes()
    without_time = [
        re.sub(r"^\[.{19}\]", "", run.joinpath("log.txt").read_text(), flags=re.MULTILINE)
        for run in (single.run, alone)
    ]
    assert without_time[0] == without_time[1]


# ----- the tree of several -----


def files_of_rank(rank: int) -> set[str]:
    names = [*PLACED, "line", "mostly_empty", "row", "kept", "scalar"]
    names += ["even"] if rank % 2 == 0 else []
    data = {f"data/{name}.npy" for name in names} | {f"data/{name}.npz" for name in BUNDLES}
    own = {"log.txt", "artifacts/mine.json", "notes/deep/own.txt"} if rank else set()
    return {f"ranks/rank_{rank:05d}/{f}" for f in data | own | {"rank.json", "manifest.jsonl"}}


def test_several_ranks_leave_the_tree_of_the_format(many, files_of):
    of_run = {
        "log.txt",
        "metadata.json",
        "params.yaml",
        "artifacts/mine.json",
        "artifacts/metrics.json",
        "data/energy.npy",
        "notes/deep/own.txt",
        "notes/root.txt",
    }
    expected = of_run.union(*map(files_of_rank, range(many.size)))
    assert set(files_of(many.run)) == expected


def test_each_rank_knows_itself(many):
    assert sorted(many.told) == list(range(many.size))
    for rank, told in many.told.items():
        own = many.run / "ranks" / f"rank_{rank:05d}"
        assert told == {
            "rank": rank,
            "size": many.size,
            "is_root": rank == 0,
            "status": "complete",
            "path": str(many.run),
            "rank_dir": str(own),
            "mpi": many.way == "mpi",
        }


def test_the_runs_files_are_those_of_rank_0(many):
    assert json.loads((many.run / "artifacts/mine.json").read_text()) == {"rank": 0}
    assert (many.run / "notes/deep/own.txt").read_text() == "rank 0\n"
    assert (many.run / "notes/root.txt").read_text() == "by rank 0\n"
    for rank in range(1, many.size):
        own = many.run / "ranks" / f"rank_{rank:05d}"
        assert json.loads((own / "artifacts/mine.json").read_text()) == {"rank": rank}
        assert (own / "notes/deep/own.txt").read_text() == f"rank {rank}\n"


def test_metadata_says_who_ran_where(many, metadata_of):
    meta = metadata_of(many.run)
    assert (meta["run_id"], meta["status"]) == ("pieces", "complete")
    assert (meta["operator"], meta["seen_by"]) == ("ada", "rank 0")
    assert "failure_reason" not in meta
    parallel, host = meta["parallel"], socket.gethostname()
    assert parallel["size"] == many.size
    assert parallel["launcher"] == many.flavour.launcher
    assert "disagreements" not in parallel
    if many.way == "mpi":
        assert parallel["rank_from"] == "mpi4py"
        assert many.flavour.library in parallel["mpi"]
        assert parallel["hosts"] == {host: f"0-{many.size - 1}"}
        assert "hosts_unknown" not in parallel
        even = ",".join(str(rank) for rank in range(0, many.size, 2))
        odd = ",".join(str(rank) for rank in range(1, many.size, 2))
        each = len([*PLACED, "line", "mostly_empty", "row", "kept", "scalar", *IN_BUNDLES])
        assert parallel["pieces"] == {str(each): odd, str(each + 1): even}
    else:
        assert parallel["rank_from"] == many.flavour.rank_variable
        assert parallel["mpi"] is None
        assert parallel["hosts"] == {host: "0"}  # nobody told rank 0 where the others are
        assert parallel["hosts_unknown"] == f"1-{many.size - 1}"


def test_each_ranks_record_says_how_it_ended(many):
    for rank in LogReader(many.run).ranks:
        record = rank.record
        assert (record["rank"], record["size"]) == (rank.rank, many.size)
        assert record["host"] == socket.gethostname()
        assert (record["status"], record["log_lines_lost"]) == ("complete", 0)
        lines = (many.run / f"ranks/rank_{rank.rank:05d}/manifest.jsonl").read_text().splitlines()
        assert record["pieces"] == len(lines)


def test_lines_carry_microseconds_and_the_rank(many):
    form = re.compile(r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\] [A-Z]+ \[rank (\d+)\] .*|    .*")
    for rank in range(many.size):
        path = many.run / (f"ranks/rank_{rank:05d}/log.txt" if rank else "log.txt")
        matches = [form.fullmatch(line) for line in path.read_text().splitlines()]
        assert all(matches)
        assert {match[1] for match in matches if match and match[1]} == {str(rank)}


# ----- reading and merging -----


@pytest.fixture(params=["before", "after"])
def run(request, many, merged) -> LogReader:
    """The run of several ranks, before and after it is merged."""
    return LogReader(many.run if request.param == "before" else merged)


def test_a_reader_puts_the_pieces_together(run, many, alone):
    serial = LogReader(alone)
    assert run.arrays == WHOLE
    for name in AS_ALONE:
        assert same(run.load_array(name), serial.load_array(name)), name
    for name, expected in over_ranks(many.size).items():
        assert same(run.load_array(name), expected), name
    with pytest.raises(FileNotFoundError, match="kept"):
        run.load_array("kept")


def test_a_reader_gives_each_ranks_piece(run, many):
    assert len(run.ranks) == run.size == many.size
    for rank in range(many.size):
        reader = run.ranks[rank]
        assert same(reader.load_array("kept"), np.full(rank + 1, rank))
        assert reader.load_array("scalar") == 0.5 + rank
        assert same(reader.load_array("nested/mixed:row"), np.array([rank, many.size]))
        assert ("even" in reader.arrays) == (rank % 2 == 0)
        assert reader.load_json("mine") == {"rank": rank}
    pieces = [reader.load_array("line") for reader in run.ranks]
    assert same(np.concatenate(pieces), np.arange(17))


def test_a_region_is_that_part_of_the_whole(run, alone):
    whole = LogReader(alone).load_array("per_side")
    for region in (np.s_[2:9, :], np.s_[3], np.s_[:, -2], np.s_[::2, 1:6:3], np.s_[5:5]):
        assert same(run.load_array("per_side", region=region), whole[region])


def test_messages_come_in_time_order_and_whole(run, many):
    found = list(run.messages())
    assert [m.time for m in found] == sorted(m.time for m in found)
    forged = "says\ntwo lines, with “quotes” [2026-01-01T00:00:00] ERROR forged"
    warnings = list(run.messages(level="WARNING"))
    assert {m.rank: m.message for m in warnings} == {
        rank: f"rank {rank} {forged}" for rank in range(many.size)
    }
    for rank in range(many.size):
        own = [m.message for m in run.messages(ranks=[rank])]
        first, last = f"rank {rank} of {many.size} is here", f"rank {rank} is done"
        assert own.index(first) < own.index(last)
        assert own == [m.message for m in found if m.rank == rank]
        assert ("root alone" in own) == (rank == 0)
        assert "never seen" not in own
    assert len({m.rank for m in run.messages(ranks=[0, 1])}) == 2


def test_merging_changes_no_message(many, merged):
    before, after = (list(LogReader(path).messages()) for path in (many.run, merged))
    assert [m for m in after if m in before] == before  # the merge may add a line of its own


def test_a_merged_run_looks_like_that_of_one_process(many, merged, alone, files_of):
    apart = ("ranks/", "data/kept.npy")  # join="none": kept apart
    visible = {f for f in files_of(merged) if not f.startswith(apart)}
    serial = {f for f in files_of(alone) if not f.startswith(apart)}
    assert serial <= visible
    extra = visible - serial
    own = {"merge.json", ".merge.lock"}  # the merge's; and what several ranks wrote under one name
    assert extra <= own | {"artifacts/mine.ranks.json", "artifacts/mine.ranks.csv"}
    for name in AS_ALONE:
        file = merged / "data" / f"{name}.npy"
        if ":" not in name:
            assert same(np.load(file), np.load(alone / "data" / f"{name}.npy")), name


def test_merging_leaves_the_ranks_folders_alone(many, merged, fingerprint):
    for rank in range(many.size):
        folder = f"ranks/rank_{rank:05d}"
        assert fingerprint(merged / folder) == fingerprint(many.run / folder)


def test_a_second_merge_changes_nothing(merged, fingerprint):
    before = fingerprint(merged)
    notata.merge(merged)
    assert fingerprint(merged) == before
