"""A rank that writes nothing costs nothing: no file, no folder, hardly a call."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest

pytestmark = pytest.mark.mpi

RANKS = 3
MAKES = re.compile(
    r"\b(mkdir|mkdirat|rename\w*|link\w*|symlink\w*|mknod\w*|creat|unlink\w*)\(|O_CREAT"
)


@pytest.fixture(scope="module")
def strace() -> str:
    found = shutil.which("strace")
    if found is None:
        missing = "strace is no Python package, and is missing: apt install strace"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return found


@pytest.mark.parametrize("way", ["mpi", "launcher"])
def test_a_silent_rank_touches_no_file(launch, tmp_path, files_of, strace, way):
    out, trace = tmp_path / "out", tmp_path / "trace.txt"
    variable = launch.flavour.rank_variable

    def traced(command: list[str]) -> list[str]:
        script = (
            f'[ "${variable}" = 1 ] || exec "$@"; '
            f'exec {strace} -f -qq -s 4096 -o "{trace}" -e trace=%file,%desc,%process "$@"'
        )
        return ["sh", "-c", script, "sh", *command]

    done = launch(RANKS, "silent", out, way, wrapper=traced)
    assert {rank: told["size"] for rank, told in done.told.items()} == dict.fromkeys(
        range(RANKS), RANKS
    )
    run = out / "log_silent"
    assert files_of(run) == ["log.txt", "metadata.json", "params.yaml"]
    assert not (run / "ranks").exists()

    calls = trace.read_text(errors="replace").splitlines()
    # What the rank told this test shows that the trace sees files being made.
    assert [call for call in calls if "told-" in call and MAKES.search(call)]
    named = [call for call in calls if str(out) in call and "execve" not in call]
    assert not [call for call in named if MAKES.search(call)]
    assert not [call for call in calls if "rank_00001" in call]
    # The run's folder is named by at most one call that opens it and two that look at it.
    assert len([call for call in named if str(run) in call]) <= 3, "\n".join(named)


def test_no_program_is_started_within_an_mpi_job(launch, tmp_path, strace):
    """Many systems let no rank start one; what the metadata tell is read from files."""
    traces = tmp_path / "trace"
    variable = launch.flavour.rank_variable

    def traced(command: list[str]) -> list[str]:
        script = f'exec {strace} -f -qq -o "{traces}.${variable}" -e trace=execve,execveat "$@"'
        return ["sh", "-c", script, "sh", *command]

    launch(RANKS, "silent", tmp_path / "out", "mpi", wrapper=traced)
    told = json.loads((tmp_path / "out" / "log_silent" / "metadata.json").read_text())
    assert {"command", "packages", "user"} <= told["provenance"].keys()
    for rank in range(RANKS):
        started = tmp_path.joinpath(f"trace.{rank}").read_text().splitlines()
        assert len(started) == 1, started  # Python itself
        assert "python" in started[0]


@pytest.mark.parametrize("way", ["mpi", "launcher"])
def test_other_ranks_folders_are_not_made_for_a_silent_one(launch, tmp_path, way):
    done = launch(4, "some_write", tmp_path, way)
    assert sorted(done.told) == [0, 1, 2, 3]
    ranks = tmp_path / "log_some" / "ranks"
    assert sorted(path.name for path in ranks.iterdir()) == ["rank_00002"]
