"""Ranks that were killed, named by what the others wrote down when their launcher ended them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calling import notata
from simulated import write_as

from notata.overview import of
from notata.silence import explained, fell_silent

NOTED = {"signals": [{"signal": "SIGTERM", "ends": True}], "status": "failed"}
NAMED = "rank 1 said nothing when the others were ended by SIGTERM"


@pytest.fixture
def run(base: Path) -> Path:
    """A run of three ranks as Open MPI leaves it, when rank 1 was killed; made up of records."""
    made = write_as(3, base, lambda log: log.array("T", np.ones(2)))
    for rank in range(3):
        put(made / f"ranks/rank_{rank:05d}/rank.json", NOTED if rank != 1 else {})
    reason = {"failure_reason": "rank 0: ended by SIGTERM"}
    put(made / "metadata.json", NOTED | reason, communicator=True)
    return made


def put(path: Path, fields: dict[str, Any], *, communicator: bool | None = None) -> None:
    values = json.loads(path.read_text())
    if fields == {}:
        values = {k: v for k, v in values.items() if k != "signals"} | {"status": "initialized"}
    values |= fields
    if communicator is not None:
        size = values["parallel"]["size"]
        values["parallel"] |= {"communicator": communicator, "hosts": {"n1": f"0-{size - 1}"}}
    path.write_text(json.dumps(values))


def record(run: Path, rank: int) -> Path:
    return run / f"ranks/rank_{rank:05d}/rank.json"


def meta(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metadata.json").read_text()))


def test_the_rank_that_was_killed_is_named(run: Path) -> None:
    assert fell_silent(run, meta(run)) == NAMED
    assert of(run).reason == f"rank 0: ended by SIGTERM; {NAMED}"
    assert NAMED in " ".join(notata("status", run, width=200).output.split())


def test_a_lost_run_names_it_too(run: Path) -> None:
    """Rank 0 was killed, and nobody wrote the outcome."""
    put(record(run, 1), NOTED)
    put(record(run, 0), {})
    values = meta(run) | {"status": "initialized"}
    del values["failure_reason"], values["signals"]
    (run / "metadata.json").write_text(json.dumps(values))
    os.utime(run / "metadata.json", (1, 1))
    os.utime(run / "log.txt", (1, 1))
    named = "rank 0 said nothing when the others were ended by SIGTERM"
    assert of(run).reason == named
    told = " ".join(notata("status", run, width=200).output.split())
    assert "no sign of life" in told
    assert named in told


def test_what_a_rank_said_before_all_were_killed_is_told(run: Path) -> None:
    said = "residual grows"
    for rank in range(3):
        put(record(run, rank), {})
    put(record(run, 2), {"failure_reason": said})
    values = {k: v for k, v in meta(run).items() if k not in ("failure_reason", "signals")}
    (run / "metadata.json").write_text(json.dumps(values | {"status": "initialized"}))
    for name in ("metadata.json", "log.txt"):
        os.utime(run / name, (1, 1))
    assert of(run).reason == f"rank 2 had marked it failed: {said}"


def test_a_rank_that_wrote_nothing_is_named(run: Path) -> None:
    shutil.rmtree(run / "ranks" / "rank_00001")
    assert fell_silent(run, meta(run)) == NAMED


def test_rank_0_without_a_record_says_so_in_the_metadata(run: Path) -> None:
    shutil.rmtree(run / "ranks" / "rank_00000")
    assert fell_silent(run, meta(run)) == NAMED
    put(run / "metadata.json", {"attempts": [{}, {}]})  # the signals may be an older attempt's
    assert fell_silent(run, meta(run)) is None


@pytest.mark.parametrize("how", ["killed together", "ended itself", "all asked", "no communicator"])
def test_nothing_is_said_where_nothing_is_known(run: Path, how: str) -> None:
    if how == "killed together":  # as MPICH does
        for rank in range(3):
            put(record(run, rank), {})
        put(run / "metadata.json", {"signals": []})
    elif how == "ended itself":
        put(record(run, 1), {"status": "failed", "failure_reason": "NaN"})
    elif how == "all asked":
        put(record(run, 1), NOTED)
    else:
        put(run / "metadata.json", {"status": "failed"}, communicator=False)
    assert fell_silent(run, meta(run)) is None
    assert explained("ended by SIGTERM", run, meta(run)) == "ended by SIGTERM"


def test_a_rank_of_a_node_where_nobody_was_asked_is_not_named(run: Path) -> None:
    values = meta(run)
    values["parallel"]["hosts"] = {"n1": "0,2", "n2": "1"}
    assert fell_silent(run, values) is None
    values["parallel"]["hosts"] = {"n1": "0", "n2": "1-2"}
    assert fell_silent(run, values) == NAMED
    for told in (None, {"n1": 7}):
        values["parallel"]["hosts"] = told
        assert fell_silent(run, values) == NAMED  # as if all were on one


def test_of_many_silent_ranks_none_is_named(base: Path) -> None:
    made = write_as(8, base, lambda log: log.array("T", np.ones(2)))
    for rank in range(8):
        put(record(made, rank), {} if rank < 5 else NOTED)
    put(made / "metadata.json", {"status": "initialized"}, communicator=True)
    assert fell_silent(made, meta(made)) is None
    put(record(made, 4), NOTED)
    told = fell_silent(made, meta(made))
    assert told == "ranks 0-3 said nothing when the others were ended by SIGTERM"
