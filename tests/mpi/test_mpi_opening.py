"""Opening a run on many ranks: it never hangs, and what goes wrong is said on every rank."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from notata import LogReader

pytestmark = pytest.mark.mpi

RANKS = 3
GRACE = 2.0
PATIENT = 15.0  # a grace period that ranks of a busy machine keep
SLACK = 8.0  # starting and ending the job, on a machine that is busy


@pytest.fixture(scope="module")
def refusals(flavour, launch_in, tmp_path_factory):
    """The folder of programs/opening.py's runs, and what came of each opening on each rank."""
    folder = tmp_path_factory.mktemp(flavour.name)
    done = launch_in(folder)(RANKS, "opening", "refusals", folder)
    assert sorted(done.told) == list(range(RANKS))
    return folder, done.told


@pytest.mark.parametrize(
    ("name", "kinds", "words"),
    [
        ("different_ids", ["RanksDisagreeError", "ValueError"], ["log_id_0", "log_id_2", "comm="]),
        ("different_folders", ["RanksDisagreeError"], ["folder_0", "folder_1"]),
        ("exists", ["RunExistsError", "FileExistsError"], ["log_taken", "overwrite=True"]),
        ("file_in_the_way", ["NotADirectoryError", "OSError"], ["file/deeper"]),
        ("bad_params_on_one", ["UnsupportedValueError", "TypeError"], ["rank 1", "bad"]),
        ("bad_id", ["UnsafeNameError", "ValueError"], ["../escaped"]),
        ("bad_level_on_one", ["Exception"], ["rank 2", "LOUD"]),
        ("bad_grace_on_one", ["ValueError"], ["rank 2", "soon", "positive number"]),
        ("no_room", ["OSError"], ["File too large", "rank 0 on ", "metadata.json"]),
        ("no_room_for_metadata", ["OSError"], ["File too large", "rank 0 on "]),
        ("overwrite_no_run", ["NotARunError", "ValueError"], ["log_foreign"]),
    ],
)
def test_a_refusal_reaches_every_rank(refusals, name, kinds, words):
    _, told = refusals
    for rank in range(RANKS):
        error = told[rank][name]["error"]
        assert error is not None, f"rank {rank} opened it"
        assert set(kinds) <= set(error["classes"]), error
        own = f"rank {rank}"  # the rank that met it sees its own exception
        assert all(w in error["message"] for w in words if w != own), error["message"]
        assert told[rank][name]["seconds"] < 10
    assert len({tuple(told[rank][name]["error"]["classes"]) for rank in range(RANKS)}) == 1


def test_a_refused_run_leaves_nothing(refusals):
    folder, _ = refusals
    begun_later = {"log_no_room_0", "log_no_room_1"}
    there = {path.name for path in folder.glob("log_*")}
    assert there == {"log_taken", "log_foreign"} | begun_later
    assert [path.name for path in (folder / "log_foreign").iterdir()] == ["thesis.tex"]
    assert not list(folder.glob("folder_*"))
    assert (folder / "file").read_text() == "in the way"


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A folder in which nothing can be made; None where that can't be had."""
    folder = tmp_path_factory.mktemp("read_only")
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        return
    # Permissions don't keep root from writing.
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", os.fspath(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", os.fspath(folder)], check=True)


@pytest.fixture(scope="module")
def unmade(flavour, launch_in, read_only, tmp_path_factory):
    """What came of opening runs below what can't be a folder: by kind, the path and the errors."""
    folder = tmp_path_factory.mktemp(f"{flavour.name}_unmade")
    (folder / "link").symlink_to(folder / "gone" / "away")
    (folder / "file").write_text("in the way")
    bases = {
        "link_to_nowhere": folder / "link",
        "below_a_link_to_nowhere": folder / "link" / "deeper",
        "file": folder / "file",
        "below_a_file": folder / "file" / "deeper" / "still",
        "proc": Path("/proc/notata"),  # nobody makes folders there, root neither
    }
    if read_only is not None:
        bases |= {"read_only": read_only, "below_read_only": read_only / "deeper"}
    program = ("opening", "no_folder", folder, *bases.values())
    done = launch_in(folder)(RANKS, *program, NOTATA_GRACE=f"{PATIENT:g}")
    assert sorted(done.told) == list(range(RANKS))
    assert {told.pop("status") for told in done.told.values()} == {"complete"}
    kinds = {str(base): kind for kind, base in bases.items()}
    told = {
        kind: (base, [done.told[rank][base] for rank in range(RANKS)])
        for base, kind in kinds.items()
    }
    return folder, told


@pytest.mark.parametrize(
    ("kind", "classes", "words"),
    [
        ("link_to_nowhere", ["NotADirectoryError"], ["/link'", "give it another name"]),
        ("below_a_link_to_nowhere", ["NotADirectoryError"], ["/link'", "give it another name"]),
        ("file", ["NotADirectoryError"], ["/file/log_x'", "give it another name"]),
        ("below_a_file", ["NotADirectoryError"], ["/file/deeper", "give it another name"]),
        ("proc", ["FileNotFoundError"], ["'/proc/notata'"]),
        ("read_only", ["OSError"], ["/log_x'", "base_dir"]),
        ("below_read_only", ["OSError"], ["/deeper'", "base_dir"]),
    ],
)
def test_a_folder_that_can_not_be_made_is_an_error_on_every_rank(unmade, kind, classes, words):
    _, told = unmade
    if kind not in told:
        pytest.skip("root can't mount a file system that is read-only here")
    base, openings = told[kind]
    for rank, opening in enumerate(openings):
        error = opening["error"]
        assert error is not None, f"rank {rank} opened it below {base}"
        assert {*classes, "OSError"} <= set(error["classes"]), error
        assert "RanksMissingError" not in error["classes"], error  # it was told, not left waiting
        assert all(word in error["message"] for word in words), error["message"]
        assert opening["seconds"] < PATIENT
    assert len({opening["error"]["message"] for opening in openings}) == 1


def test_where_no_folder_can_be_made_nothing_is(unmade):
    folder, _ = unmade
    assert {path.name for path in folder.glob("log_*")} == {"log_after"}  # the run that was opened
    assert not (folder / "gone").exists()
    assert (folder / "link").is_symlink()
    assert (folder / "file").read_text() == "in the way"


def test_a_run_that_found_no_room_can_be_begun_when_there_is(refusals):
    folder, told = refusals
    for rank in range(RANKS):
        assert told[rank]["room_again"]["error"] is None, told[rank]["room_again"]
        assert told[rank]["no_room"]["error"]["notes"] == []
        (note,) = told[rank]["no_room_for_metadata"]["error"]["notes"]
        assert "log_no_room_1 is left half-made" in note
    for name in ("log_no_room_0", "log_no_room_1"):
        assert LogReader(folder / name).meta["status"] == "complete"


def test_overwriting_replaces_what_all_ranks_wrote(refusals):
    folder, told = refusals
    assert all(told[rank]["first"]["error"] is None for rank in range(RANKS))
    assert all(told[rank]["overwrite"]["error"] is None for rank in range(RANKS))
    run = LogReader(folder / "log_taken")
    assert run.params == {"age": "new"}
    assert run.meta["status"] == "complete"
    assert "failure_reason" not in run.meta
    assert (run.arrays, run.artifacts) == (["new"], [])
    texts = [m.message for m in run.messages()]
    assert [t for t in texts if "line of rank" in t] != []
    assert not [t for t in texts if t.startswith("old")]
    for rank in run.ranks:
        assert (rank.arrays, rank.artifacts) == (["new"], [])
    assert not list(run.path.rglob(".notata-*"))


@pytest.mark.parametrize(
    ("mode", "argument", "variable", "there"),
    [
        pytest.param("only_root", (), GRACE, {0}, id="only_root"),
        pytest.param("only_root_others_leave", (GRACE,), 3600, {0}, id="grace_as_an_argument"),
        # Rank 1 comes so late that rank 0 is about to end when rank 1 gives up as well.
        pytest.param("one_missing", (0.6 * GRACE,), GRACE, {0, 1}, id="one_missing"),
    ],
)
def test_ranks_that_do_not_come_are_waited_for_no_longer_than_the_grace_period(
    launch, tmp_path, mode, argument, variable, there
):
    done = launch(
        *(RANKS, "opening", mode, tmp_path, *argument), check=False, NOTATA_GRACE=f"{variable:g}"
    )
    assert done.status != 0
    assert set(done.told) == there  # each rank that is there, and waits, gets its own error
    for told in done.told.values():
        opening = told["opening"]
        assert {"RanksMissingError", "TimeoutError"} <= set(opening["error"]["classes"])
        message = opening["error"]["message"]
        assert all(word in message for word in ("comm=None", "log.root", "lonely", "NOTATA_GRACE"))
        assert GRACE <= opening["seconds"] < GRACE + 2
    assert done.seconds < 2 * GRACE + SLACK  # the job ends when none can be waiting any more
    assert not (tmp_path / "log_lonely").exists()


def test_a_rank_may_come_late(launch, tmp_path):
    done = launch(RANKS, "opening", "one_late", tmp_path, NOTATA_GRACE="20")
    assert {told["status"] for told in done.told.values()} == {"complete"}


def test_a_grace_period_must_be_a_positive_number(mpich, tmp_path):
    done = mpich(2, "opening", "one_late", tmp_path, check=False, NOTATA_GRACE="soon")
    assert done.status != 0
    assert "NOTATA_GRACE" in done.output
    assert not (tmp_path / "log_late").exists()


def test_a_rank_with_other_parameters_is_told_which(launch, tmp_path):
    launch(4, "opening", "params_differ", tmp_path)
    run = LogReader(tmp_path / "log_differ")
    assert run.params == {"shared": "x" * 200_000, "kappa": 0.01, "steps": 10}
    warnings = list(run.messages(level="WARNING"))
    assert [m.rank for m in warnings] == [2]
    (warning,) = warnings
    assert all(key in warning.message for key in ("kappa", "extra", "steps"))
    assert "shared" not in warning.message
    assert len(warning.message) < 200


def test_a_digest_of_the_parameters_travels_and_not_they(launch, tmp_path):
    done = launch(RANKS, "opening", "what_travels", tmp_path)
    digests = []
    for rank in range(RANKS):
        told = done.told[rank]
        assert told["bytes"] < 50_000  # of parameters of 200,000
        assert not [word for word in ("mesh", "finer", "kappa", "0.01") if word in told["text"]]
        digests.append(re.findall(r'"params": "(\w+)"', told["text"]))
    assert [len(found) for found in digests] == [2, 2, 2]  # at opening and at closing
    assert len(set(digests[0] + digests[1])) == len(set(digests[2])) == 1
    assert digests[1] != digests[2]
    (warning,) = LogReader(tmp_path / "log_watched").messages(level="WARNING")
    assert (warning.rank, warning.message.split(": ")[1].split(" ")[0]) == (2, "kappa")


def test_parameters_that_come_later_are_compared_at_the_end(launch, tmp_path):
    done = launch(4, "opening", "params_later", tmp_path)
    run = LogReader(tmp_path / "log_later")
    assert run.params == {"a": 1, "b": 2, "of_root": 3}
    (warning,) = run.messages(level="WARNING")
    assert (warning.rank, "b" in warning.message.split(": ")[1]) == (3, True)
    assert "of_root" not in warning.message  # rank 0 alone may add some for all
    # The warning is all that this rank wrote, and it was not too late for its record.
    assert [path.name for path in (run.path / "ranks").iterdir()] == ["rank_00003"]
    assert run.ranks[3].record["status"] == "complete"
    assert {told["status"] for told in done.told.values()} == {"complete"}
