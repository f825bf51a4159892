"""After a merge, and after the ranks' folders were pruned: the same answers from fewer files."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xxhash
from richrun import SIZE, answers, rich, tree_of
from simulated import open_as, tree, write_as

import notata
from notata import Logbook, LogReader, checksums, contents, mergerecord
from notata.errors import MergeError, RunExistsError
from notata.merging import prune, record
from notata.opened import open_array


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


@pytest.mark.parametrize("merged", [False, True])
def test_a_reader_that_was_opened_before_the_pruning_goes_on(base: Path, merged: bool) -> None:
    def work(log: Logbook) -> None:
        log.array("T", np.full(50, float(log.rank)))
        log.arrays("b", u=[log.rank])
        log.array("kept", [log.rank], join="none")
        log.json("metrics", {"solve": log.rank})
        for number in range(4000):  # more than a reader takes in at once
            log.info(f"step {number} of {log.rank}")

    run = write_as(3, base, work)
    expected = list(LogReader(run).messages())
    own = list(LogReader(run).ranks[2].messages())
    assert (len(expected), len(own)) == (12014, 4004)
    if merged:
        notata.merge(run)
    reader = LogReader(run)
    ranks = reader.ranks
    all_of_them, of_one = reader.messages(), ranks[2].messages()
    begun = [next(all_of_them) for _ in range(10)], [next(of_one) for _ in range(10)]
    mapped = reader.load_array("T")
    notata.merge(run, prune=True)
    assert not (run / "ranks").exists()
    assert begun[0] + list(all_of_them) == expected
    assert begun[1] + list(of_one) == own
    assert (
        mapped.tolist() == reader.load_array("T").tolist() == [0.0] * 50 + [1.0] * 50 + [2.0] * 50
    )
    assert reader.load_array("b:u").tolist() == [0, 1, 2]
    assert [rank.load_array("kept").tolist() for rank in ranks] == [[0], [1], [2]]
    assert [rank.load_json("metrics") for rank in ranks] == [{"solve": n} for n in range(3)]
    assert list(reader.messages()) == expected
    assert list(ranks[2].messages()) == own


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


@pytest.mark.parametrize(("size", "attempts"), [(3, 1), (40, 1), (3, 13)])
def test_few_files_are_left_whatever_the_number_of_ranks_and_attempts(
    base: Path, size: int, attempts: int
) -> None:
    def work(log: notata.Logbook) -> None:
        log.info("here")
        log.array("T", np.zeros(3))
        log.arrays("b", u=[1], v=[2])
        log.array("kept", [log.rank], join="none")
        for name in JSON_NAMES:
            log.json(name, {"x": log.rank})
        log.text("notes", "x")
        for name in PLOTS:
            log[name].write_bytes(b"png")

    run = write_as(size, base, work, params={"a": 1})
    for number in range(1, attempts):
        resumed = {"resume": True, "launch": f"launch-{number + 1}", "params": {"a": 1}}
        for log in [open_as(rank, size, base, **resumed) for rank in range(size)]:
            work(log)
            log.mark_complete()
    notata.merge(run, prune=True)
    left = set(tree(run))
    arrays = {"data/T.npy", "data/b.npz"}
    # What was gathered of a name, and its table, are artifacts as rank 0's own is.
    gathered = {f"{name}{end}" for name in JSON_NAMES for end in (".json", *GATHERED)}
    artifacts = {f"artifacts/{name}" for name in (*gathered, "notes.txt")}
    assert arrays | artifacts | PLOTS <= left
    assert len(left - arrays - artifacts - PLOTS) <= 10
    assert {name for name in left if not name.startswith(("data/", "artifacts/", "plots/"))} == {
        ".merge.lock",
        "log.txt",
        "merge.json",
        "metadata.json",
        "params.yaml",
        "ranks.zip",
        *([f".attempt-{attempts}"] if attempts > 1 else ()),
    }


def test_a_mask_of_an_array_with_holes_is_one_more_file_each(base: Path) -> None:
    names = [f"T{number}" for number in range(12)]

    def work(log: Logbook) -> None:
        for number, name in enumerate(names):
            kind = int if number < 8 else float  # of which NaN says that it is missing
            log.array(name, np.full(2, log.rank, kind))
        log.arrays("b", u=[log.rank], v=[log.rank])
        log["plots/p.png"].write_bytes(b"png")

    run = write_as(3, base, work)
    for name in (*(f"{name}.npy" for name in names), "b.npz"):
        (run / "ranks/rank_00001/data" / name).unlink()
    notata.merge(run, prune=True, allow_missing=True)
    left = set(tree(run))
    arrays = {f"data/{name}.npy" for name in names} | {"data/b.npz"}
    masks = {f"data/{name}.mask.npy" for name in names[:8]} | {"data/b.mask.npz"}
    assert {name for name in left if name.startswith("data/")} == arrays | masks
    assert len(left - arrays - masks - {"plots/p.png"}) <= 10


PLOTS = {"plots/p.png", "plots/sub/q.pdf"}
JSON_NAMES = ("metrics", "deep/metrics", "timing")
GATHERED = (".ranks.json", ".ranks.csv")


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


def test_what_a_pruning_could_not_delete_goes_with_the_next_merge(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = rich(base)
    before = answers(run)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    note = notata.merge(run, prune=True).note
    assert note.endswith("; .notata-pruned could not be deleted: the next merge tries again")
    assert (run / ".notata-pruned/rank_00001/log.txt").exists()
    assert answers(run) == before
    monkeypatch.undo()
    assert notata.merge(run).nothing_to_do
    assert not (run / ".notata-pruned").exists()
    assert answers(run) == before


def test_a_run_that_has_not_ended_is_not_pruned(base: Path) -> None:
    logs = [open_as(rank, 2, base) for rank in range(2)]
    for log in logs:
        log.array("x", [log.rank])
    run = logs[0].path
    with pytest.raises(MergeError, match=r"can't be pruned: it has not ended"):
        notata.merge(run, unfinished=True, prune=True)
    assert (run / "ranks/rank_00001/data/x.npy").exists()


def test_a_rank_that_may_be_at_work_keeps_its_folder(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = [open_as(rank, 2, base) for rank in range(2)]  # without a communicator
    for log in logs:
        log.array("x", [log.rank])
    logs[0].mark_complete()
    run = logs[0].path
    with pytest.raises(MergeError, match=r"can't be pruned: rank 1 never closed it.*LOST_AFTER=0"):
        notata.merge(run, unfinished=True, prune=True)
    logs[1].array("late", [1, 2, 3])
    assert LogReader(run).load_array("late").tolist() == [1, 2, 3]
    notata.merge(run, unfinished=True)
    monkeypatch.setenv("NOTATA_LOST_AFTER", "0")
    assert notata.merge(run, unfinished=True, prune=True).pruned


def test_a_rank_of_which_the_scheduler_knows_that_it_ended_does_not(base: Path) -> None:
    logs = [open_as(rank, 2, base) for rank in range(2)]
    for log in logs:
        log.array("x", [log.rank])
    path = logs[0].path / "metadata.json"
    told = json.loads(path.read_text()) | {"status": "failed", "reconciled": {"source": "sacct"}}
    path.write_text(json.dumps(told))
    assert notata.merge(logs[0].path, unfinished=True, prune=True).pruned


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


# ----- arrays that share a name, and bundles that are joined in part -----


def array_and_key(log: notata.Logbook) -> None:
    log.array("t:x", np.full(2, 7.0) + log.rank)
    log.arrays("t", x=np.zeros(1), y=[log.rank])


def two_bundles(log: notata.Logbook) -> None:
    log.arrays("a", **{"b:c": np.full(2, log.rank)})
    log.arrays("a:b", c=np.full(3, 10.0 + log.rank))


def all_three(log: notata.Logbook) -> None:
    two_bundles(log)
    log.array("a:b:c", [log.rank - 5])


def a_bundle_of_the_root(log: notata.Logbook) -> None:
    log.root.arrays("t", x=[1.0, 2.0], y=[3])
    log.array("t:x", np.full(2, 7.0))


def an_array_of_the_root(log: notata.Logbook) -> None:
    log.root.array("t:x", [1.0, 2.0])
    log.arrays("t", x=np.full(2, 7.0), y=[log.rank])


def one_is_kept_apart(log: notata.Logbook) -> None:
    log.array("t:x", [log.rank, 8], join="none")
    log.arrays("t", x=np.full(2, 7.0))


def a_key_is_kept_apart(log: notata.Logbook) -> None:
    log.arrays("t", x=np.full(2, log.rank), y=[10 + log.rank], join={"y": "none"})


def nothing_to_show(log: notata.Logbook) -> None:
    log.array("ids", [10 * log.rank + i for i in range(log.rank)])
    log.arrays("t", x=np.arange(6).reshape(2, 3) if log.rank else [], y=[log.rank])


def told_of(run: Path) -> dict[str, object]:
    """All that readers tell of the arrays of a run, and of those of its ranks."""
    reader = LogReader(run)
    told: dict[str, object] = {
        "facts": [(f.name, f.shape, f.dtype, f.problem) for f in contents.arrays(os.fspath(run))]
    }
    for whose, arrays in (("run", reader), *((rank.rank, rank) for rank in reader.ranks)):
        told[f"arrays of {whose}"] = arrays.arrays
        for name in arrays.arrays:
            found = arrays.load_array(name)
            told[f"{name} of {whose}"] = (found.dtype.str, found.shape, found.tolist())
            np.testing.assert_array_equal(arrays.load_array(name, np.s_[::-1]), found[::-1])
            if whose == "run":
                np.testing.assert_array_equal(open_array(run, name).read(), found)
    return told


WAYS = [
    (array_and_key, "t:x", [7.0, 7.0, 8.0, 8.0], ["t.npz", "t:x.npy"]),
    (two_bundles, "a:b:c", [0, 0, 1, 1], ["a.npz", "a:b.npz"]),
    (all_three, "a:b:c", [-5, -4], ["a.npz", "a:b.npz", "a:b:c.npy"]),
    (a_bundle_of_the_root, "t:x", [7.0] * 4, ["t.npz", "t:x.npy"]),
    (an_array_of_the_root, "t:x", [1.0, 2.0], ["t.npz", "t:x.npy"]),
    (one_is_kept_apart, "t:x", [7.0] * 4, ["t.npz"]),
    (a_key_is_kept_apart, "t:x", [0, 0, 1, 1], ["t.npz"]),
    (nothing_to_show, "ids", [10], ["ids.npy", "t.npz"]),
]


@pytest.mark.parametrize(
    ("work", "name", "values", "files"), WAYS, ids=[w[0].__name__ for w in WAYS]
)
def test_readers_answer_the_same_before_and_after(
    base: Path, work: Callable[[notata.Logbook], None], name: str, values: object, files: list[str]
) -> None:
    run = write_as(2, base, work)
    before = told_of(run)
    assert LogReader(run).load_array(name).tolist() == values
    assert LogReader(run).arrays.count(name) == 1
    notata.merge(run)
    assert tree(run / "data") == files
    assert told_of(run) == before
    assert notata.merge(run).nothing_to_do
    notata.merge(run, prune=True)
    assert not (run / "ranks").exists()
    assert tree(run / "data") == files
    assert told_of(run) == before
    assert notata.merging.verify(run).damaged == ()


def test_arrays_that_share_a_name_are_joined_as_one_process_writes_them(base: Path) -> None:
    run = write_as(2, base, all_three)
    with Logbook("alone", base) as log:
        log.arrays("a", **{"b:c": np.repeat([0, 1], 2)})
        log.arrays("a:b", c=np.repeat([10.0, 11.0], 3))
        log.array("a:b:c", [-5, -4])
    notata.merge(run, prune=True)
    for file in ("a.npz", "a:b.npz", "a:b:c.npy"):
        found, alone = (np.load(folder / "data" / file) for folder in (run, log.path))
        if file.endswith(".npy"):
            found, alone = {"": found}, {"": alone}
        assert {key: (found[key].dtype, found[key].tolist()) for key in found} == {
            key: (alone[key].dtype, alone[key].tolist()) for key in alone
        }
    assert LogReader(run).arrays == LogReader(log.path).arrays == ["a:b:c"]
    assert LogReader(run).load_array("a:b:c").tolist() == [-5, -4]
    assert LogReader(log.path).load_array("a:b:c").tolist() == [-5, -4]


def test_of_arrays_that_share_a_name_the_one_that_was_written_again_is_joined_again(
    base: Path,
) -> None:
    run = write_as(2, base, array_and_key)
    notata.merge(run)
    write_as(2, base, lambda log: log.arrays("t", x=np.full(1, 4.0), y=[log.rank]), resume=True)
    before = told_of(run)
    assert before["t:x of run"] == ("<f8", (4,), [7.0, 7.0, 8.0, 8.0])
    report = notata.merge(run)
    assert [row.kind for row in report.rows if row.action == "joined"] == [
        "bundle",
        "bundle",
        "log",
    ]
    assert told_of(run) == before
    with np.load(run / "data/t.npz") as bundle:
        assert bundle["x"].tolist() == [4.0, 4.0]


def test_a_bundle_that_is_joined_in_part_stays_in_the_archive(base: Path) -> None:
    run = write_as(2, base, a_key_is_kept_apart)
    own = {rank: (run / f"ranks/rank_0000{rank}/data/t.npz").read_bytes() for rank in range(2)}
    report = notata.merge(run, prune=True)
    assert report.pruned
    with zipfile.ZipFile(run / "ranks.zip") as archive:
        assert {r: archive.read(f"rank_0000{r}/data/t.npz") for r in own} == own
    with np.load(run / "data/t.npz") as bundle:
        assert list(bundle) == ["x"]


@pytest.mark.parametrize("how", ["not joined", "another's input", "no such key", "no manifest"])
def test_a_piece_that_is_in_no_output_is_kept_whatever_the_record_says(
    base: Path, how: str
) -> None:
    """Records as a merge with a fault would write them."""

    def work(log: notata.Logbook) -> None:
        log.array("T", np.full(2, log.rank))
        log.arrays("b", u=[1], v=[log.rank])
        log.array("kept", [log.rank], join="none")

    run = write_as(2, base, work)
    notata.merge(run)
    merged = mergerecord.read(os.fspath(run))
    outputs = dict(merged.outputs)
    folder = "ranks/rank_00001"
    kept = f"{folder}/data/T.npy"
    if how == "not joined":  # `kept` named as an input of T
        kept = f"{folder}/data/kept.npy"
        inputs = {**outputs["data/T.npy"].inputs, kept: record.stamp_of(os.fspath(run), kept)}
        outputs["data/T.npy"] = outputs["data/T.npy"]._replace(inputs=inputs)
    elif how == "another's input":  # T's pieces named as inputs of b, and no T
        inputs = {**outputs["data/b.npz"].inputs, **outputs.pop("data/T.npy").inputs}
        outputs["data/b.npz"] = outputs["data/b.npz"]._replace(inputs=inputs)
    elif how == "no such key":
        kept = f"{folder}/data/b.npz"
        np.savez(run / "data/b.npz", u=[1, 1])
        stamp = record.stamp_of(os.fspath(run), "data/b.npz")
        outputs["data/b.npz"] = outputs["data/b.npz"]._replace(itself=stamp)
    else:
        (run / folder / "manifest.jsonl").write_bytes(b"{}\n")
    record.save(os.fspath(run), merged._replace(outputs=outputs))
    data = (run / kept).read_bytes()
    gone = prune.prune(os.fspath(run)).gone
    assert gone
    assert not (run / "ranks").exists()
    with zipfile.ZipFile(run / "ranks.zip") as archive:
        assert archive.read(kept.removeprefix("ranks/")) == data
        names = set(archive.namelist())
    joined = {"not joined": "T.npy", "another's input": "b.npz", "no such key": "T.npy"}.get(how)
    assert f"rank_00001/data/{joined}" not in names


# ----- is everything as it was merged -----


def test_what_was_merged_is_verified(base: Path) -> None:
    run = rich(base)
    assert notata.merging.verify(run).changed == ("it was never merged",)
    notata.merge(run)
    verdict = notata.merging.verify(run)
    made = json.loads((run / "merge.json").read_text())
    assert (verdict.damaged, verdict.changed) == ((), ())
    # Of what nothing joins, ranks other than 0 noted at their end what it held.
    noted = {
        os.path.relpath(path.parent / name, run)
        for path in run.glob("ranks/*/rank.json")
        for name in json.loads(path.read_text()).get("files", {})
    }
    assert len(noted - made["inputs"].keys()) == 7
    assert verdict.checked == len(made["inputs"].keys() | noted) + len(made["outputs"])


@pytest.mark.parametrize("prune", [False, True])
def test_the_record_has_size_and_checksum_of_each_input_and_output(base: Path, prune: bool) -> None:
    run = rich(base)
    before = tree_of(run)
    notata.merge(run, prune=prune)
    told = json.loads((run / "merge.json").read_text())
    found = {**tree_of(run), **{k: v for k, v in before.items() if k.startswith("ranks/")}}
    stamps = {**told["inputs"], **told["outputs"]}
    assert len(stamps) == len(told["inputs"]) + len(told["outputs"]) == 23 + 9
    assert ("archive" in told) == prune
    stamps |= {"ranks.zip": told["archive"]} if prune else {}
    for name, stamp in stamps.items():
        assert stamp["size"] == len(found[name]), name
        assert stamp["checksum"] == f"xxh128:{xxhash.xxh3_128_hexdigest(found[name])}", name
        if (run / name).exists():
            assert stamp["checksum"] == checksums.of_file(run / name)
            assert stamp["mtime_ns"] == (run / name).stat().st_mtime_ns
    named = [set(made["inputs"]) for made in told["outputs"].values()]
    assert all(named)
    assert set().union(*named) == told["inputs"].keys()
    assert [name for name in told["inputs"] if not name.startswith("ranks/")] == [
        "artifacts/conf/solver.json",
        "artifacts/metrics.json",
    ]


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
