"""A plan tells what the merge makes: the same names, ranks, shapes and bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calling import notata as command
from richrun import counted, rich
from simulated import write_as

import notata
from notata import Logbook
from notata.errors import MergeError

ROWS = ("name", "kind", "pieces", "shape", "bytes", "ranks")


def rows(*words: object) -> list[dict[str, Any]]:
    """What a command says of each output, but for what becomes of it."""
    done = command("merge", "--json", "--allow-missing", *words)
    assert done.exit_code == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    return sorted(({k: row[k] for k in ROWS} for row in run["outputs"]), key=lambda r: r["name"])


def test_the_plan_and_the_merge_say_the_same(base: Path) -> None:
    run = rich(base)
    for name in ("data/rows/n.npy", "data/b.npz"):
        (run / "ranks/rank_00001" / name).unlink()
    planned = rows("--dry-run", run)
    assert {row["kind"] for row in planned} == {"array", "bundle", "json", "table", "log", "mask"}
    assert planned == rows(run)
    for row in planned:  # all but arrays are files of their own
        if row["name"].endswith((".txt", ".json", ".csv", ".npy")):
            assert row["bytes"] == (run / row["name"]).stat().st_size, row
    assert planned == rows("--dry-run", run)
    with (run / "ranks/rank_00003/log.txt").open("a") as log:
        log.write("[2030-01-01T00:00:00.000001] INFO [rank 3] later\n")
    longer = rows("--dry-run", run)
    assert [a["name"] for a, b in zip(planned, longer, strict=True) if a != b] == ["log.txt"]
    assert longer == rows(run)


def test_the_plan_of_a_run_that_was_pruned(base: Path) -> None:
    run = rich(base)
    for name in ("data/rows/n.npy", "data/b.npz"):
        (run / "ranks/rank_00001" / name).unlink()
    made = {row["name"]: row for row in rows(run)}
    rows("--prune", run)
    assert not (run / "ranks").exists()
    pruned = {row["name"]: row for row in rows("--dry-run", run)}
    assert pruned.keys() == made.keys()
    for name, row in pruned.items():
        assert {**row, "ranks": 0, "pieces": 0} == {**made[name], "ranks": 0, "pieces": 0}
        assert row["ranks"] == made[name]["ranks"] or row["kind"] == "mask", name


def test_what_is_counted_is_what_is_joined(base: Path) -> None:
    run = rich(base)
    (planned,) = (n for n in command("merge", "--dry-run", run).stdout.splitlines() if "would" in n)
    assert ": would join 10 of 10, " in planned
    assert ": joined 10 of 10\n" in command("merge", run).stdout


@pytest.mark.parametrize("size", [40, 90])
def test_a_plan_says_which_ranks(base: Path, size: int) -> None:
    def work(log: Logbook) -> None:
        if log.rank % 2 == 0:
            log.array("x", [log.rank], start=log.rank // 2, shape=size // 2)

    run = counted(write_as(size, base, work))
    shown = command("merge", "--dry-run", run, width=80).stdout
    assert max(map(len, shown.splitlines()[1:])) <= 80
    told = " ".join(line[:60] for line in shown.splitlines())
    named = {int(word.strip(",")) for word in told.split() if word.strip(",").isdigit()}
    if size == 40:
        assert named >= set(range(0, 40, 2))
    else:
        assert {0, 2, 4, 6} <= named
        assert "… (45" in " ".join(told.split())
        assert 88 not in named


def test_python_objects_are_refused_by_name(base: Path) -> None:
    run = write_as(2, base, lambda log: [log.array(name, [log.rank]) for name in ("T", "x")])
    path = run / "ranks/rank_00001/data/T.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    for options in ([], ["--allow-missing"], ["--dry-run"], ["--dry-run", "--allow-missing"]):
        done = command("merge", *options, run)
        assert done.exit_code == 2
        assert f"rank 1's piece of 'T' holds Python objects: {path}: nothing" in done.stderr
        assert "would go on" not in done.stderr
        assert not [line for line in done.stdout.splitlines() if line.startswith("T ")]
    assert not (run / "data").exists()


@pytest.mark.parametrize("compressed", [False, True])
def test_python_objects_in_a_bundle_are_refused_by_their_key(base: Path, compressed: bool) -> None:
    def work(log: Logbook) -> None:
        log.arrays("b", compressed, u=[log.rank], v=[1.5])

    run = write_as(2, base, work)
    path = run / "ranks/rank_00001/data/b.npz"
    (np.savez_compressed if compressed else np.savez)(path, u=[1], v=np.array([{}, None], object))
    for options in ([], ["--allow-missing"], ["--dry-run"], ["--dry-run", "--allow-missing"]):
        done = command("merge", *options, run)
        assert done.exit_code == 2
        assert f"rank 1's piece of 'b:v' holds Python objects: {path}: nothing" in done.stderr
        assert "would go on" not in done.stderr
        assert not [line for line in done.stdout.splitlines() if line.startswith("b:")]
    assert not (run / "data").exists()


def test_damage_that_is_found_while_joining_becomes_a_hole_where_holes_may_be(base: Path) -> None:
    run = write_as(2, base, lambda log: log.arrays("b", False, u=np.full(9, float(log.rank + 1))))
    path = run / "ranks/rank_00001/data/b.npz"
    content = bytearray(path.read_bytes())
    content[content.index(b"\0\0\0\0\0\0\0@")] ^= 1
    path.write_bytes(content)
    before = sorted(run.rglob("*"))
    assert command("merge", "--dry-run", run).exit_code == 0  # contents are read by the merge alone
    done = command("merge", run)
    assert done.exit_code == 2
    assert f"rank 1's piece of 'b:u' is damaged: {path}" in done.stderr
    assert "let its rank write it again" in done.stderr
    assert "--allow-missing would go on" in done.stderr
    assert [path for path in sorted(run.rglob("*")) if path.name != ".merge.lock"] == before
    done = command("merge", "--allow-missing", run)
    assert done.exit_code == 0
    assert "hole: rank 1's piece of 'b:u' is damaged" in done.stdout
    assert np.isnan(np.load(run / "data/b.npz")["u"][9:]).all()


def test_json_that_is_none_on_any_rank_is_named(base: Path) -> None:
    def work(log: Logbook) -> None:
        log.bytes("x.json", b"{") if log.rank else log.info("here")

    run = write_as(3, base, work)
    odd = "; artifacts/x.json of ranks 1-2 is no JSON, whatever its name says, and stays there\n"
    for options in (["--dry-run"], []):
        done = command("merge", *options, run)
        assert (done.exit_code, odd in done.stdout) == (0, True), done.stdout
    assert not (run / "artifacts").exists()


@pytest.mark.parametrize("allow_missing", [False, True])
def test_python_objects_in_a_bundle_are_refused_by_name_too(
    base: Path, allow_missing: bool
) -> None:
    run = write_as(2, base, lambda log: log.arrays("b", u=[log.rank], v=[2.0]))
    path = run / "ranks/rank_00001/data/b.npz"
    np.savez(path, u=[1], v=np.array([{"x": 1}, None], dtype=object))
    with pytest.raises(MergeError, match=r"rank 1's piece of 'b:v' holds Python objects: \S+b.npz"):
        notata.merge(run, allow_missing=allow_missing)
    assert not (run / "merge.json").exists()
