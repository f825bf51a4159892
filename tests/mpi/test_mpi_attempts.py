"""Going on in a run of several ranks that talk."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from notata import LogReader, merge

pytestmark = pytest.mark.mpi

RANKS = 3


@pytest.fixture
def killed(launch, tmp_path):
    """A run whose rank 1 was killed."""
    done = launch(RANKS, "attempts", "killed", tmp_path, check=False)
    assert done.status != 0
    return tmp_path


def test_all_ranks_go_on(launch, killed):
    done = launch(RANKS, "attempts", "resumed", killed)
    for told in done.told.values():
        assert told["resuming"]["error"] is None
        assert told["number"] == 2
        assert told["params"] == {"dt": 0.1, "tol": 1e-6}
    run = LogReader(killed / "log_a")
    assert run.params == {"dt": 0.1, "tol": 1e-6}
    first, second = run.meta["attempts"]
    # Open MPI ends the other ranks by SIGTERM, so that rank 0 has a word; MPICH by SIGKILL.
    assert (first["status"], first["failure_reason"]) in (
        ("failed", "did not say how it ended; attempt 2 went on"),
        ("failed", "rank 0: ended by SIGTERM"),
    )
    assert second["status"] == "complete"
    assert run.meta["parallel"]["pieces"] == {"3": "0-2"}
    warnings = [m.message for m in run.messages(level="WARNING")]
    assert all(text == "received SIGTERM; the process ends" for text in warnings)
    merge(run.path)
    assert run.load_array("T_1").tolist() == [10, 10, 11, 11, 12, 12]
    assert run.load_array("T_2").tolist() == [20, 20, 21, 21, 22, 22]
    assert run.load_array("last").tolist() == [100, 100, 101, 101, 102, 102]


def test_ranks_that_are_silent_now_are_counted_with_what_they_wrote(launch, killed):
    launch(RANKS, "attempts", "silent", killed)
    run = LogReader(killed / "log_a")
    assert run.meta["parallel"]["pieces"] == {"1": "2", "2": "0-1"}
    assert {reader.record["status"] for reader in run.ranks} == {"complete"}


def test_another_number_of_ranks_is_refused_on_all(launch, killed):
    done = launch(RANKS - 1, "attempts", "resumed", killed)
    for told in done.told.values():
        error = told["resuming"]["error"]
        assert error["classes"][:2] == ["NotResumableError", "RunExistsError"]
        assert (
            "has 3 as its number of ranks, and this attempt has 2: go on with 3" in error["message"]
        )
    assert not (killed / "log_a" / ".attempt-2").exists()


def test_a_rank_that_cannot_go_on_is_told_to_all(launch, killed):
    (killed / "log_a" / "ranks" / "rank_00002" / "manifest.jsonl").write_text('{"file": 1}\n\n')
    done = launch(RANKS, "attempts", "one_cannot", killed)
    for told in done.told.values():
        assert "manifest.jsonl, line 1" in told["resuming"]["error"]["message"]
    meta = LogReader(killed / "log_a").meta
    assert meta["status"] == meta["attempts"][-1]["status"] == "failed"
    assert meta["failure_reason"].startswith("could not be gone on with: rank 2: ")


def test_an_error_of_the_disk_is_said_to_be_of_the_rank_that_met_it(launch, killed):
    manifest = killed / "log_a" / "ranks" / "rank_00002" / "manifest.jsonl"
    manifest.unlink()
    manifest.symlink_to("x" * 300)  # no disk takes such a name
    done = launch(RANKS, "attempts", "one_cannot", killed)
    for told in done.told.values():
        assert re.search(r"\(rank 2 on \S+\); give it a", told["resuming"]["error"]["message"])
        assert "rank 0 on" not in told["resuming"]["error"]["message"]


def test_the_ranks_of_an_older_attempt_write_no_more(launch, launch_in, tmp_path):
    """Those of a lost node may live on while the requeued job runs."""
    (tmp_path / "elsewhere").mkdir()
    with ThreadPoolExecutor() as pool:
        older = pool.submit(launch_in(tmp_path / "elsewhere"), RANKS, "attempts", "older", tmp_path)
        try:
            while not (tmp_path / "open").exists():
                assert not older.done(), older.result().output
                time.sleep(0.02)
            launch(RANKS, "attempts", "resumed", tmp_path)
            whole = {path: path.read_bytes() for path in files_below(tmp_path / "log_a")}
        finally:
            (tmp_path / "go").touch()
        done = older.result()
    for rank in range(RANKS):
        assert done.told[rank]["late"]["error"]["classes"][0] == "OutdatedError"
        assert done.told[rank]["closing"]["error"] is None
        assert f"rank {rank} of attempt 1, writes there no more" in done.output
    assert {path: path.read_bytes() for path in files_below(tmp_path / "log_a")} == whole
    run = LogReader(tmp_path / "log_a")
    assert [told["status"] for told in run.meta["attempts"]] == ["failed", "complete"]
    assert run.load_array("T_2").tolist() == [20, 20, 21, 21, 22, 22]
    assert "too late" not in [m.message for m in run.messages()]


def files_below(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())
