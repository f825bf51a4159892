"""After a merge, and after the ranks' folders were pruned: the same answers from fewer files."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from richrun import SIZE, answers, rich, tree_of
from simulated import open_as, tree, write_as

import notata
from notata import LogReader
from notata.errors import MergeError, RunExistsError


def test_a_pruned_run_is_not_gone_on_with(base: Path) -> None:
    run = rich(base)
    notata.merge(run, prune=True)
    before = tree_of(run)
    with pytest.raises(RunExistsError, match=r"was merged and pruned.*overwrite=True"):
        open_as(0, 4, base, resume=True)
    assert tree_of(run) == before
    log = open_as(0, 4, base, overwrite=True)
    assert not (run / "ranks.zip").exists()
    log.mark_complete()


def test_before_the_merge_after_it_and_after_the_pruning_the_answers_are_the_same(
    base: Path,
) -> None:
    run = rich(base)
    before = answers(run)
    assert "rank 3: array kept" in before
    assert before["rank 1: json only_mine"] == "{'x': 1}"
    assert len(before["messages"]) > 10
    notata.merge(run)
    assert answers(run) == before
    report = notata.merge(run, prune=True)
    assert not (run / "ranks").exists()
    assert report.pruned
    assert answers(run) == before
    assert notata.merge(run).nothing_to_do
    assert notata.merge(run, prune=True).nothing_to_do
    assert answers(run) == before


def test_merging_and_pruning_at_once_is_the_same(base: Path) -> None:
    run, other = rich(base), base / "other"
    shutil.copytree(run, other)  # with the times of change
    notata.merge(run)
    notata.merge(run, prune=True)
    notata.merge(other, prune=True)
    one, two = tree_of(run), tree_of(other)
    for made in (one, two):
        del made["merge.json"]  # which has the times of the outputs
    assert one == two


@pytest.mark.parametrize("size", [3, 40])
def test_few_files_are_left_whatever_the_number_of_ranks(base: Path, size: int) -> None:
    def work(log: notata.Logbook) -> None:
        log.info("here")
        log.array("T", np.zeros(3))
        log.arrays("b", u=[1], v=[2])
        log.array("kept", [log.rank], join="none")
        log.json("metrics", {"x": log.rank})
        log.text("notes", "x")

    run = write_as(size, base, work, params={"a": 1})
    notata.merge(run, prune=True)
    left = tree(run)
    of_the_program = ("data/T.npy", "data/b.npz", "artifacts/metrics.json", "artifacts/notes.txt")
    assert set(of_the_program) <= set(left)
    assert len(left) - len(of_the_program) <= 10
    assert {name for name in left if not name.startswith(("data/", "artifacts/"))} == {
        ".merge.lock",
        "log.txt",
        "merge.json",
        "metadata.json",
        "params.yaml",
        "ranks.zip",
    }


def test_the_archive_holds_what_nothing_joins_and_nothing_else(base: Path) -> None:
    run = rich(base)
    own = {name: (run / name).read_bytes() for name in tree(run) if name.startswith("ranks/")}
    notata.merge(run, prune=True)
    with zipfile.ZipFile(run / "ranks.zip") as archive:
        kept = {f"ranks/{name}": archive.read(name) for name in archive.namelist()}
    joined = {name for name in own if name not in kept}
    assert {name: own[name] for name in kept} == kept
    assert {os.path.basename(name) for name in joined} == {
        *("log.txt", "T.npy", "F.npy", "n.npy", "b.npz", "z.npz"),
        *("metrics.json", "solver.json"),
    }
    assert "ranks/rank_00003/data/mixed/b.npz" in kept
    assert "ranks/rank_00001/artifacts/only_mine.json" in kept


def test_nothing_is_pruned_where_what_was_merged_is_damaged(base: Path) -> None:
    run = rich(base)
    notata.merge(run)
    path = run / "data/T.npy"
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a disk would damage it
    before = tree_of(run)
    with pytest.raises(MergeError, match=r"can't be pruned: data/T\.npy does not hold what it"):
        notata.merge(run, prune=True)
    assert tree_of(run) == before


def test_a_run_that_has_not_ended_is_not_pruned(base: Path) -> None:
    logs = [open_as(rank, 2, base) for rank in range(2)]
    for log in logs:
        log.array("x", [log.rank])
    run = logs[0].path
    with pytest.raises(MergeError, match=r"can't be pruned: it has not ended"):
        notata.merge(run, unfinished=True, prune=True)
    assert (run / "ranks/rank_00001/data/x.npy").exists()


def test_what_ranks_write_after_the_pruning_is_not_mixed_with_it(base: Path) -> None:
    run = rich(base)
    notata.merge(run, prune=True)
    before = tree_of(run)
    other = open_as(1, SIZE, base / "other")
    other.array("T", [1.0])
    other.mark_complete()
    shutil.copytree(other.rank_dir, run / "ranks/rank_00001")
    with pytest.raises(MergeError, match="rank 1 wrote in ranks/ after the run was pruned"):
        notata.merge(run)
    with pytest.raises(MergeError, match="rank 1 wrote in ranks/ after the run was pruned"):
        notata.merge(run, prune=True)
    shutil.rmtree(run / "ranks")
    assert tree_of(run) == before


def test_an_output_that_changes_after_the_pruning_is_told(base: Path) -> None:
    run = rich(base)
    notata.merge(run, prune=True)
    os.utime(run / "data/T.npy")  # as a copy does
    assert notata.merge(run).nothing_to_do
    (run / "data/T.npy").write_bytes(b"x")
    with pytest.raises(MergeError, match=r"data/T\.npy is not as it was merged"):
        notata.merge(run)


def test_a_link_in_a_rank_s_folder_is_not_followed_by_a_pruning(base: Path, tmp_path: Path) -> None:
    run = rich(base)
    (tmp_path / "scratch").mkdir()
    (run / "ranks/rank_00001/scratch").symlink_to(tmp_path / "scratch")
    with pytest.raises(MergeError, match=r"rank_00001/scratch is no plain file"):
        notata.merge(run, prune=True)
    assert (run / "ranks/rank_00001/log.txt").exists()


def test_a_damaged_archive_is_said_to_be_damaged(base: Path) -> None:
    run = rich(base)
    notata.merge(run, prune=True)
    path = run / "ranks.zip"
    data = path.read_bytes()
    at = data.index(b"\x93NUMPY") + 130  # within a stored array
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert notata.merging.verify(run).damaged == ("ranks.zip does not hold what it held",)
    own = [(rank, name) for rank in LogReader(run).ranks for name in rank.arrays]
    with pytest.raises(notata.errors.DamagedError):
        [rank.load_array(name) for rank, name in own]
    path.write_bytes(data[:-30])
    with pytest.raises(notata.errors.DamagedError, match=r"ranks\.zip is damaged"):
        LogReader(run).ranks[1].record  # noqa: B018


# ----- is everything as it was merged -----


def test_what_was_merged_is_verified(base: Path) -> None:
    run = rich(base)
    assert notata.merging.verify(run).changed == ("it was never merged",)
    notata.merge(run)
    verdict = notata.merging.verify(run)
    made = json.loads((run / "merge.json").read_text())
    assert (verdict.damaged, verdict.changed) == ((), ())
    assert verdict.checked == len(made["inputs"]) + len(made["outputs"])


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_each_output_that_is_damaged_is_named(base: Path, how: str) -> None:
    run = rich(base)
    notata.merge(run)
    for name in json.loads((run / "merge.json").read_text())["outputs"]:
        data = (run / name).read_bytes()
        changed = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "gone": None}[how]
        (run / name).unlink() if changed is None else (run / name).write_bytes(changed)
        verdict = notata.merging.verify(run)
        assert [told.split(" ")[0] for told in verdict.damaged] == [name]
        (run / name).write_bytes(data)
    assert not notata.merging.verify(run).damaged


def test_an_input_that_changed_since_is_named_and_one_that_is_gone_is_not(base: Path) -> None:
    run = rich(base)
    notata.merge(run)
    with (run / "ranks/rank_00003/log.txt").open("ab") as file:
        file.write(b"[2026-11-23T03:00:00.000005] INFO [rank 3] late\n")
    shutil.rmtree(run / "ranks/rank_00001")
    verdict = notata.merging.verify(run)
    assert verdict.damaged == ()
    assert len(verdict.changed) == 1
    assert verdict.changed[0].startswith("ranks/rank_00003/log.txt has")


def test_a_record_that_can_t_be_read_is_an_error_of_verify(base: Path) -> None:
    run = rich(base)
    notata.merge(run)
    (run / "merge.json").write_text("{")
    with pytest.raises(MergeError, match=r"merge\.json is damaged"):
        notata.merging.verify(run)
