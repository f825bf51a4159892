"""What real ranks left and what was lost of it since: named by the merge, never passed over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calling import notata as command

import notata
from notata.errors import MergeError

pytestmark = pytest.mark.mpi


@pytest.fixture
def run(launch: Callable[..., Any], tmp_path: Path) -> Path:
    launch(4, "words", tmp_path / "out")
    return tmp_path / "out/log_words"


def test_the_ranks_that_have_a_folder_are_known_and_a_silent_one_is_not_missed(run: Path) -> None:
    parallel = json.loads((run / "metadata.json").read_text())["parallel"]
    assert (parallel["pieces"], parallel["folders"]) == ({"0": "0-3"}, "1,3")
    log = (run / "log.txt").read_bytes()
    assert log[: parallel["log_bytes"]].count(b"\n") == len(log.splitlines()) - 1  # the outcome
    own = run / "ranks/rank_00003"
    record = json.loads((own / "rank.json").read_text())
    assert record["log_bytes"] == (own / "log.txt").stat().st_size
    assert record["json_files"] == 1
    assert notata.merge(run, prune=True).holes == ()
    assert json.loads((run / "merge.json").read_text())["holes"] == []


def test_a_rank_that_wrote_no_array_is_missed(run: Path) -> None:
    shutil.rmtree(run / "ranks/rank_00001")
    missing = "rank 1 wrote messages or files, but its folder is missing"
    for options in ([], ["--prune"], ["--dry-run"]):
        done = command("merge", *options, run)
        assert (done.exit_code, missing in done.stderr) == (2, True)
    assert not (run / "merge.json").exists()
    assert notata.merge(run, allow_missing=True, prune=True).holes == (missing,)
    (hole,) = json.loads((run / "merge.json").read_text())["holes"]
    assert (hole["ranks"], hole["what"]) == ("1", missing)


@pytest.mark.parametrize(
    ("file", "how", "told"),
    [
        ("log.txt", "cut", "rank 0's log has"),
        ("log.txt", "gone", "rank 0's log is missing"),
        ("ranks/rank_00003/log.txt", "cut", "rank 3's log has"),
        ("ranks/rank_00003/log.txt", "gone", "rank 3's log is missing"),
        ("ranks/rank_00003/rank.json", "gone", "rank 3's record is missing"),
        ("ranks/rank_00003/rank.json", "cut", "rank 3's record is missing"),
        ("ranks/rank_00003/artifacts/metrics.json", "gone", "rank 3 left 1 files of JSON"),
        ("ranks/rank_00003/artifacts/metrics.json", "cut", "rank 3's"),
    ],
)
def test_a_log_or_json_that_lost_something_is_named(
    mpich: Callable[..., Any], tmp_path: Path, file: str, how: str, told: str
) -> None:
    mpich(4, "words", tmp_path / "out")
    run = tmp_path / "out/log_words"
    path = run / file
    if how == "gone":
        path.unlink()
    else:
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-5]))
    with pytest.raises(MergeError) as caught:
        notata.merge(run)
    assert [told in problem for problem in caught.value.problems] == [True]
    assert caught.value.ways_out == ["--allow-missing"]
    assert len(notata.merge(run, allow_missing=True).holes) == 1
    with pytest.raises(MergeError):
        notata.merge(run)  # nor is it passed over once it was merged
