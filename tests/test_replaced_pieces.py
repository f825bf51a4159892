"""A piece that is written again: stopped in between, its file is the older or the newer one."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import CHANGES, each, kill_at, need_strace, points_in, python, run, strace
from richrun import counted
from simulated import open_as, write_as

import notata
from notata import Logbook, LogReader, manifests
from notata.errors import MergeError

NAN = np.nan
# Version 1 is at the beginning of arrays of 8 rows, version 2 at the end; both have as many bytes.
WHOLE = {1: [1.0] * 4 + [NAN] * 4, 2: [NAN] * 4 + [2.0] * 4}


def array(log: Logbook, version: int, cells: int = 1) -> None:
    block = np.full((4, cells), float(version))
    log.array("T", block, start=(4 * (version - 1), 0), shape=(8, cells))


def bundle(log: Logbook, version: int) -> None:
    place: dict[str, Any] = {"start": 4 * (version - 1), "shape": 8}
    log.arrays("b", False, u=np.full(4, float(version)), w=np.full(4, 2.0 + version), **place)


VERBS: dict[str, Callable[[Logbook, int], None]] = {
    "array": array,
    "large": lambda log, version: array(log, version, 200_000),
    "bundle": bundle,
}
NAMES = {"array": {"T": 0}, "large": {"T": 0}, "bundle": {"b:u": 0, "b:w": 2}}


def manifest(run: Path) -> Path:
    return run / "ranks/rank_00001/manifest.jsonl"


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in manifest(run).read_text().splitlines()]


def merged(run: Path, verb: str) -> int:
    """The version that a merge finds, at its own place."""
    copy = run.parent / "copies" / run.name
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    notata.merge(copy, unfinished=True, allow_missing=True)
    assert notata.merge(copy, unfinished=True, allow_missing=True).nothing_to_do
    holes = json.loads((copy / "merge.json").read_text())["holes"]
    assert not [hole["what"] for hole in holes if "damaged" in hole["what"]]
    versions = set()
    for name, more in NAMES[verb].items():
        found = LogReader(copy).load_array(name)
        rows = found[:, 0] if found.ndim == 2 else found
        (version,) = {float(one) for one in rows[~np.isnan(rows)]}
        version = int(version) - more
        np.testing.assert_array_equal(rows, np.array(WHOLE[version]) + more)
        versions.add(version)
    (only,) = versions
    return only


def read(run: Path, verb: str) -> int:
    """The version that a reader finds before the merge, at its own place."""
    versions = set()
    for name, more in NAMES[verb].items():
        for version in (1, 2):
            region = np.s_[4 * (version - 1) : 4 * version]
            try:
                found = LogReader(run).load_array(name, region=region)
            except notata.errors.HoleError:
                continue
            np.testing.assert_array_equal(found, np.full(found.shape, float(version + more)))
            versions.add(version)
    (only,) = versions
    return only


# ----- the lines -----


@pytest.mark.parametrize("verb", VERBS)
def test_only_what_replaces_a_file_is_said_before(base: Path, verb: str) -> None:
    with open_as(0, 2, base), open_as(1, 2, base) as log:
        count = len(NAMES[verb])
        VERBS[verb](log, 1)
        assert [one.get("begun") for one in lines(log.path)] == [None] * count
        VERBS[verb](log, 2)
        said = lines(log.path)
    assert [one.get("begun") for one in said] == [*[None] * count, *[True] * count, *[None] * count]
    for begun, done in zip(said[count : 2 * count], said[2 * count :], strict=True):
        assert {**done, "begun": True, "line": begun["line"]} == begun


# ----- killed -----

VICTIM = """
    import os, sys
    sys.path.insert(0, sys.argv[3])
    from simulated import open_as
    from test_replaced_pieces import VERBS

    base, verb = sys.argv[1:3]
    logs = [open_as(rank, 2, base, signals=()) for rank in range(2)]
    VERBS[verb](logs[1], 1)
    open(os.path.join(base, "now"), "w").close()
    VERBS[verb](logs[1], 2)
    print("done", flush=True)
    os._exit(0)
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("verb", VERBS)
def test_a_rank_that_is_killed_at_any_call_leaves_the_one_or_the_other(
    tmp_path: Path, verb: str
) -> None:
    need_strace()
    program = tmp_path / "victim.py"
    program.write_text(textwrap.dedent(VICTIM))
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    log, here = tmp_path / "calls", Path(__file__).parent
    done = run([*strace(CHANGES, to=log), *python(program, undisturbed, verb, here)], tmp_path)
    assert done.stdout == "done\n", done.stderr
    points = points_in(log, undisturbed)
    first = next(n for n, point in enumerate(points) if f"{undisturbed}/now" in point.line)
    points = points[first + 1 :]
    renamed = next(n for n, point in enumerate(points) if point.call == "rename")
    assert {"write", "rename"} <= {point.call for point in points[: renamed + 1]}
    assert "write" in {point.call for point in points[renamed + 1 :]}
    found = set()

    def kill(point: Any) -> Path:
        base = tmp_path / f"{points.index(point)}"
        base.mkdir()
        command = python(program, base, verb, here)
        assert run([*strace([point.call]), *kill_at(point), *command], tmp_path).returncode != 0
        return base / "log_run"

    def look(point: Any, killed: Path) -> None:
        expected = 1 if points.index(point) <= renamed else 2
        assert read(killed, verb) == expected
        assert merged(killed, verb) == expected
        more = write_as(
            2,
            killed.parent,
            lambda log: log.array("more", [log.rank]),
            resume=True,
            launch="launch-2",
        )
        assert not [one for one in lines(more) if "begun" in one]
        assert read(more, verb) == merged(more, verb) == expected
        found.add(expected)

    each(points, 0, kill, look, stride=1)
    assert found == {1, 2}


# ----- refused -----


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("renamed", [False, True])
def test_where_the_rename_is_refused_the_file_tells(
    base: Path, monkeypatch: pytest.MonkeyPatch, verb: str, renamed: bool
) -> None:
    """A server of files may have done it before its answer was lost."""
    replace = os.replace

    def refuse(source: str, target: str) -> None:
        if f"{target}".endswith(("T.npy", "b.npz")):
            if renamed:
                replace(source, target)
            raise OSError(5, os.strerror(5))
        replace(source, target)

    def work(log: Logbook) -> None:
        if log.rank:
            VERBS[verb](log, 1)
            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", refuse)
                with pytest.raises(OSError, match="rank 1"):
                    VERBS[verb](log, 2)

    run = counted(write_as(2, base, work))
    version = 2 if renamed else 1
    assert lines(run)[-1]["begun"] is True
    assert read(run, verb) == merged(run, verb) == version
    piece = dict.fromkeys(NAMES[verb])
    for name in piece:
        piece[name] = LogReader(run).ranks[1].load_array(name)
    notata.merge(run, allow_missing=True, prune=True)
    for name, values in piece.items():
        np.testing.assert_array_equal(LogReader(run).ranks[1].load_array(name), values)
    with zipfile.ZipFile(run / "ranks.zip") as archive:
        kept = archive.read("rank_00001/manifest.jsonl")
    assert b"begun" not in kept
    assert len(kept.splitlines()) == len(piece)


def refused(log: Logbook, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write an array that doesn't get its name."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", None)
        with pytest.raises(TypeError):
            array(log, version)


def test_what_is_refused_and_then_written_is_settled(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(log: Logbook) -> None:
        if log.rank:
            array(log, 1)
            refused(log, 1, monkeypatch)
            array(log, 2)

    run = write_as(2, base, work)
    assert [one.get("begun") for one in lines(run)] == [None, True, True, None]
    monkeypatch.setattr(manifests, "_settled", None)  # no file is asked
    assert read(run, "array") == 2


def test_damage_in_what_may_be_either_is_told(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(log: Logbook) -> None:
        if log.rank:
            array(log, 1)
            refused(log, 2, monkeypatch)
        else:
            log.array("T", np.full((4, 1), 9.0), start=(4, 0), shape=(8, 1))

    run = counted(write_as(2, base, work))
    path = run / "ranks/rank_00001/data/T.npy"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(MergeError, match="rank 1's piece of 'T' is damaged"):
        notata.merge(run)
    path.unlink()
    with pytest.raises(MergeError, match="rank 1's piece of 'T' is missing"):
        notata.merge(run)
    path.write_bytes(sound)
    notata.merge(run)


# ----- lines that a crash cut off -----


@pytest.mark.parametrize("verb", ["array", "bundle"])
def test_a_torn_line_of_what_is_to_come_says_nothing(base: Path, verb: str) -> None:
    def work(log: Logbook) -> None:
        if log.rank:
            VERBS[verb](log, 1)

    run = write_as(2, base, work)
    with open_as(1, 2, base / "other") as log:
        VERBS[verb](log, 1)
        VERBS[verb](log, 2)
    begun = b"".join(
        one for one in manifest(log.path).read_bytes().splitlines(True) if b'"begun"' in one
    )
    told = manifest(run).read_bytes()
    for end in range(1, len(begun), 7):
        manifest(run).write_bytes(told + begun[:end])
        assert read(run, verb) == 1
    assert merged(run, verb) == 1


def test_a_bundle_whose_last_lines_were_cut_off_has_all_its_keys(base: Path) -> None:
    def work(log: Logbook) -> None:
        if log.rank:
            bundle(log, 1)
            bundle(log, 2)

    run = write_as(2, base, work)
    told = manifest(run).read_bytes().splitlines(True)
    assert len(told) == 6
    for cut in (b"", told[5][:9], told[4], told[4] + told[5][:50]):
        manifest(run).write_bytes(b"".join(told[:4]) + cut)
        assert read(run, "bundle") == 2
        assert merged(run, "bundle") == 2


def test_a_manifest_without_checksums_is_told_by_the_newer_line(base: Path) -> None:
    """A run that an older version began, and this one went on in."""

    def work(log: Logbook) -> None:
        if log.rank:
            array(log, 1)
            array(log, 2)

    run = write_as(2, base, work)
    first, begun, _ = lines(run)
    del first["checksum"]
    manifest(run).write_text(f"{json.dumps(first)}\n{json.dumps(begun)}\n")
    assert read(run, "array") == merged(run, "array") == 2
    path = run / "ranks/rank_00001/data/T.npy"
    values = np.load(path)
    np.save(path, values - 1)
    assert read(run, "array") == merged(run, "array") == 1
