"""Signals of many ranks, as few entries of the metadata."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import open_as, put_record

import notata
from notata import LogReader, silence
from notata.agreement import _frame, _unframe
from notata.claims import _was_warned
from notata.ranges import expand
from notata.signalled import came_to, joined, packed, unpacked

START = time.mktime((2026, 11, 23, 3, 0, 0, 0, 0, -1))


def noted(name: str, after: float = 0.0, *, ends: bool = False, **more: Any) -> dict[str, Any]:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(START + after))
    return {"signal": name, "time": stamp, "time_left": 300.0 - after, "ends": ends} | more


def events(entries: list[dict[str, Any]]) -> list[tuple[str, bool, int]]:
    """Each signal of each rank."""
    return sorted(
        (one["signal"], one["ends"], rank) for one in entries for rank in expand(one["ranks"])
    )


# ----- entries -----


def test_a_thousand_ranks_are_one_entry_with_the_time_of_rank_0() -> None:
    mine = noted("SIGUSR1", 1, ranks="0")
    told = {rank: [noted("SIGUSR1", rank % 3)] for rank in range(1, 1000)}
    assert joined([mine], told) == [mine | {"ranks": "0-999"}]


def test_without_rank_0_it_has_the_time_of_the_first() -> None:
    told = {rank: [noted("SIGUSR1", 7 - rank)] for rank in (3, 4, 7)}
    assert joined([], told) == [noted("SIGUSR1", 0, ranks="3-4,7")]


def test_other_signals_other_ends_and_other_times_are_apart() -> None:
    told = {
        1: [noted("SIGUSR1"), noted("SIGTERM", 60, ends=True)],
        2: [noted("SIGUSR2"), noted("SIGTERM", 60)],
        3: [noted("SIGUSR1", 6)],
    }
    assert joined([], told) == [
        noted("SIGUSR1", ranks="1"),
        noted("SIGUSR2", ranks="2"),
        noted("SIGUSR1", 6, ranks="3"),
        noted("SIGTERM", 60, ends=True, ranks="1"),
        noted("SIGTERM", 60, ranks="2"),
    ]


def test_a_signal_that_comes_each_second_is_an_entry_each_time() -> None:
    flood = [noted("SIGXCPU", second) for second in range(20)]
    assert joined([], dict.fromkeys(range(1, 9), flood)) == [
        one | {"ranks": "1-8"} for one in flood
    ]


def test_the_same_signal_in_each_of_two_attempts_is_two() -> None:
    before, after = noted("SIGTERM", 0, ranks="0-1"), noted("SIGTERM", 3)
    starts = [noted("", -60)["time"], noted("", 2)["time"]]
    assert joined([before], {1: [after]}, starts) == [before, after | {"ranks": "1"}]


def test_where_times_are_all_over_no_rank_is_forgotten_and_entries_stay_few() -> None:
    told = {rank: [noted("SIGUSR1", 10 * rank)] for rank in range(1, 2000)}
    entries = joined([noted("SIGUSR1", ranks="0")], told)
    assert len(entries) == 50
    assert events(entries) == [("SIGUSR1", False, rank) for rank in range(2000)]
    assert joined(entries, told) == entries


@given(
    st.dictionaries(
        st.integers(1, 6),
        st.lists(
            st.builds(
                noted,
                st.sampled_from(["SIGUSR1", "SIGTERM"]),
                st.integers(0, 40),
                ends=st.booleans(),
            ),
            max_size=5,
        ),
    ),
    st.lists(st.builds(noted, st.just("SIGUSR1"), st.integers(0, 40), ranks=st.just("0"))),
)
def test_each_signal_is_there_once_however_often_it_is_told(
    told: dict[int, list[dict[str, Any]]], mine: list[dict[str, Any]]
) -> None:
    entries = joined(mine, told)
    expected = events(mine) + [
        (one["signal"], one["ends"], rank) for rank, all_ in told.items() for one in all_
    ]
    assert events(entries) == sorted(expected)
    assert joined(entries, told) == entries
    assert [came_to(0, entries)] == [[one for one in entries if 0 in expand(one["ranks"])]]


@pytest.mark.parametrize("odd", ["text", 7, None, {}, {"signal": 3}, {"signal": "X", "time": "?"}])
def test_what_is_no_signal_is_left_alone(odd: Any) -> None:
    usr1 = noted("SIGUSR1", ranks="0")
    assert joined([odd, usr1], {1: [odd, noted("SIGUSR1")], 2: odd}) == [
        odd,
        usr1 | {"ranks": "0-1"},
    ]
    assert joined([odd], {1: [odd]}) == [odd]


# ----- the message in which ranks tell them -----


def test_as_many_as_a_rank_notes_fit_into_its_message_beside_a_reason() -> None:
    flood = [noted("SIGXCPU", second, ends=True) for second in range(30)]
    record = {"status": "failed", "reason": "x" * 5000, "raised": True, "at": time.time()}
    record |= {"pieces": 10**6, "folder": True, "params": "f" * 64, "lost": 10**6}
    told = _unframe(_frame(record | {"signals": packed(flood)}, 1024))
    assert unpacked(told["signals"]) == flood[:20]
    assert len(told["reason"]) > 100
    assert {k: v for k, v in told.items() if k not in ("signals", "reason")} == {
        k: v for k, v in record.items() if k != "reason"
    }


# ----- ranks without a communicator -----


def warn(log: notata.Logbook, base: Path) -> None:
    """Send this process a signal, and wait until the rank has written that down."""
    os.kill(os.getpid(), signal.SIGUSR1)
    path = log.rank_dir / "rank.json"
    end = time.monotonic() + 30
    while (not path.exists() or "signals" not in path.read_text()) and time.monotonic() < end:
        time.sleep(0.01)


def test_a_merge_finds_the_signals_that_only_the_ranks_knew(base: Path) -> None:
    for rank in (1, 2, 0):
        with open_as(rank, 3, base) as log:
            log.info("here")
            if rank:
                warn(log, base)
    run = LogReader(base / "log_run")
    before = run.meta
    assert "signals" not in before
    first = [run.ranks[rank].record["signals"] for rank in (1, 2)]
    notata.merge(run.path)
    told = run.meta["signals"]
    assert events(told) == [("SIGUSR1", False, 1), ("SIGUSR1", False, 2)]
    assert {key: told[0][key] for key in first[0][0]} == first[0][0]
    assert {k: v for k, v in run.meta.items() if k not in ("signals", "parallel")} == {
        k: v for k, v in before.items() if k != "parallel"
    }
    written = (run.path / "metadata.json").read_bytes()
    assert notata.merge(run.path).nothing_to_do
    (run.path / "merge.json").unlink()
    notata.merge(run.path)
    assert (run.path / "metadata.json").read_bytes() == written


def test_signals_of_a_program_s_own_are_left_alone(base: Path) -> None:
    for rank in (1, 0):
        with open_as(rank, 2, base) as log:
            if rank == 0:  # as the published library lets it
                log._session.metadata.update({"signals": "traffic lights"})
            else:
                warn(log, base)
    run = LogReader(base / "log_run")
    notata.merge(run.path)
    assert run.meta["signals"] == "traffic lights"


# ----- what reads them -----


def test_the_newest_attempt_was_warned_whichever_rank_says_so() -> None:
    later = [noted("SIGUSR1", 90, ranks="1"), noted("SIGTERM", -99, ranks="0")]
    attempts = [{"start_time": noted("", n)["time"]} for n in (-200, 0)]
    assert _was_warned({"attempts": attempts, "signals": later})
    assert not _was_warned({"attempts": attempts, "signals": later[1:]})


def test_what_ended_other_ranks_did_not_end_rank_0(base: Path) -> None:
    for rank in (2, 1, 0):
        with open_as(rank, 3, base) as log:
            log.info("here")
    run = base / "log_run"
    ended = {"signals": [noted("SIGTERM", ends=True)], "status": "failed"}
    for rank in (1, 2):
        path = run / f"ranks/rank_{rank:05d}/rank.json"
        put_record(path, json.loads(path.read_text()) | ended)
    (run / "ranks/rank_00000/rank.json").unlink(missing_ok=True)
    meta = LogReader(run).meta
    meta["parallel"] |= {"communicator": True, "hosts": {"n1": "0-2"}}
    for ranks, said in (("1-2", "rank 0 said nothing when the others"), ("0-2", None)):
        told = meta | {"signals": [noted("SIGTERM", ends=True, ranks=ranks)]}
        found = silence.fell_silent(run, told)
        assert (found is None) == (said is None)
        assert said is None or (found or "").startswith(said)
