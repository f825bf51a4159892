"""Clocks of several nodes: what is noted of them, and the order that they give."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import put_record, write_as
from test_joining_logs import a_run, as_readers_do, divided, joined, make_tiny
from test_properties import folder, odd_logs

import notata
from notata import LogReader, clocks, corrections, messages, ranges
from notata.merging import logs

AT = "2026-11-23T03:00:00.000000"
LATER = "2026-11-23T04:00:00.000000"
HEAD = "[2026-11-23T03:{:02d}:{:02d}.000000] INFO [rank {}] {}\n"


def note(run: Path, **fields: Any) -> None:
    path = run / "metadata.json"
    meta = json.loads(path.read_text())
    meta["parallel"] |= fields
    put_record(path, meta)


def test_records_are_ordered_by_rank_0_s_clock_and_keep_their_stamps(base: Path) -> None:
    texts = [
        HEAD.format(0, 10, 0, "a") + HEAD.format(0, 30, 0, "c"),
        HEAD.format(5, 20, 1, "b") + HEAD.format(5, 40, 1, "d"),
    ]
    run = a_run(base, [text.encode() for text in texts])
    note(run, hosts={"a": "0", "b": "1"}, clocks={"b": [[AT, 300.0, 0.001]]})
    expected = "abcd"
    assert "".join(m.message for m in LogReader(run).messages()) == expected
    made, data = joined(run)
    assert [line[-1] for line in data.decode().splitlines()] == list(expected)
    assert sorted(data.splitlines()) == sorted("".join(texts).encode().splitlines())
    assert divided(run) == (made, data)
    (run / "log.txt").write_bytes(data)
    assert "".join(m.message for m in LogReader(run).messages()) == expected
    (run / "ranks/rank_00001/log.txt").unlink()
    assert "".join(m.message for m in LogReader(run).messages()) == expected
    assert corrections.of_run(run).largest == 300.0


def test_a_merge_reports_and_records_the_largest_correction(base: Path) -> None:
    run = a_run(base, [HEAD.format(0, 30, 0, "b").encode(), HEAD.format(5, 20, 1, "a").encode()])
    notata.merge(run, unfinished=True)
    assert json.loads((run / "merge.json").read_text())["clocks"] is None
    assert [line[-1] for line in (run / "log.txt").read_text().splitlines()] == ["b", "a"]
    told = {"b": [[AT, 300.0, 0.001]]}
    note(run, hosts={"a": "0", "b": "1"}, clocks=told)
    report = notata.merge(run, unfinished=True)  # the same logs, in another order
    assert report.note == "joined 1 of 1; clocks corrected by up to 300 s"
    assert [line[-1] for line in (run / "log.txt").read_text().splitlines()] == ["a", "b"]
    record = json.loads((run / "merge.json").read_text())["clocks"]
    assert record == {"largest": 300.0, "compared": told}
    again = notata.merge(run, unfinished=True)
    assert (again.nothing_to_do, again.clock_correction) == (True, 300.0)


def test_between_two_comparisons_the_offset_is_interpolated() -> None:
    told = {"b": [[AT, 10.0, 0.1], [LATER, 20.0, 0.1]]}
    shifts = corrections.Corrections(told, {"a": "0", "b": "1-2"})
    for stamp, offset in [
        ("2026-11-23T02:00:00.000000", 10),
        (AT, 10),
        ("2026-11-23T03:30:00.000000", 15),
        (LATER, 20),
        ("2026-11-24T03:00:00.000000", 20),
    ]:
        ticks = messages.ticks(stamp.encode())
        assert shifts.one(ticks, 2) == ticks - 2_000_000 * offset
        assert shifts.many(np.array([ticks]), 2).tolist() == [ticks - 2_000_000 * offset]
        assert shifts.one(ticks, 0) == shifts.one(ticks, None) == ticks
    assert shifts.one(messages.LONG_AGO, 1) == messages.LONG_AGO


def test_each_attempt_has_its_own_offsets() -> None:
    hosts = {"b": "1"}
    before = {"until": LATER, "hosts": hosts, "clocks": {"b": [[AT, 10.0, 0.1]]}}
    plain, nodes = {"until": LATER}, {"clocks": {"b": [["2026-11-23T05:00:00.000000", -6.0, 0.1]]}}

    def offsets(shifts: corrections.Corrections, *times: str) -> list[float]:
        ticks = [messages.ticks(f"2026-11-23T{time}".encode()) for time in times]
        return [(one - shifts.one(one, 1)) / 2e6 for one in ticks]

    times = "02:00:00.000000", "03:59:53.000000", "03:59:54.000000", "06:00:00.000000"
    both = corrections.Corrections(nodes["clocks"], hosts, [before])
    assert offsets(both, *times) == [10, 10, -6, -6]  # its clock was behind when the second began
    assert (both.largest, both.one(7, 0)) == (10.0, 7)
    alone = corrections.Corrections(nodes["clocks"], hosts, [plain])
    assert offsets(alone, *times) == [0, 0, -6, -6]
    assert offsets(corrections.Corrections({}, {}, [before]), *times) == [10, 10, 10, 0]
    three = [before, {"until": "2026-11-23T04:30:00.000000"}]
    late = "04:10:00.000000", "06:00:00.000000"
    assert offsets(corrections.Corrections(nodes["clocks"], hosts, three), *late) == [0, -6]


def test_a_host_that_did_not_answer_has_the_offset_that_it_had_next_in_time() -> None:
    hosts = {"a": "0", "b": "1", "c": "2-3"}
    nodes = {"b": [["2026-11-23T05:00:00.000000", 5.0, 0.1]], "c": []}
    silent = {"until": LATER, "hosts": hosts, "clocks": {"c": [[LATER, 2.0, 0.1]]}}
    at = messages.ticks(AT.encode())
    shifts = corrections.Corrections(nodes, hosts, [silent])
    assert [(at - shifts.one(at, rank)) / 2e6 for rank in range(4)] == [0, 5, 2, 2]
    shifts = corrections.Corrections({}, hosts, [silent])
    late = messages.ticks(b"2026-11-23T06:00:00.000000")
    assert [(late - shifts.one(late, rank)) / 2e6 for rank in range(4)] == [0, 0, 2, 2]
    # What was compared with another node's clock says nothing of it.
    moved = silent | {"hosts": {"d": "0", "b": "1", "c": "2"}}
    shifts = corrections.Corrections(nodes, hosts, [moved])
    assert shifts.one(at, 1) == at


def test_what_is_kept_of_earlier_attempts_does_not_grow_for_ever() -> None:
    hosts = {"a": "0", "b": "1", "c": "2"}
    many = [[AT, 5.0 + n, 0.1] for n in range(9)]
    told: dict[str, Any] = {"hosts": hosts, "clocks": {"b": many, "c": [[AT, 0.01, 0.1]]}}
    for number in range(40):
        told |= clocks.carried(told, str(number))
    assert [entry["until"] for entry in told["earlier"]] == [str(n) for n in range(24, 40)]
    assert told["earlier"][-1]["clocks"] == {"b": [many[0], many[-1]], "c": []}


@pytest.mark.parametrize("parallel", [None, 7, {"hosts": 1, "clocks": 2}, {"clocks": {"b": [1]}}])
def test_clocks_that_make_no_sense_are_not_carried(parallel: Any) -> None:
    (entry,) = clocks.carried(parallel, AT)["earlier"]
    assert (entry["until"], entry["clocks"]) == (AT, {})


# ----- which clocks are compared -----


def nodes_of(sizes: list[int]) -> list[dict[str, str]]:
    """What ranks tell, on nodes that have so many each."""
    return [{"host": f"n{node}"} for node, size in enumerate(sizes) for _ in range(size)]


@given(st.sets(st.integers(0, 2000)))
def test_any_ranks_are_told_with_steps(ranks: set[int]) -> None:
    told = ranges.stepped(ranks)
    assert (ranges.tasks_of(",".join(told)) if told else []) == sorted(ranks)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([48] * 10_000, "48-479952:48"),
        ([1] * 5000, "1-4999"),
        ([64] * 2000 + [48] * 2000 + [5], "64-128000:64,128048-224000:48"),
    ],
)
def test_all_clocks_are_compared_where_nodes_are_alike(sizes: list[int], expected: str) -> None:
    assert clocks.speakers(nodes_of(sizes)) == expected


def test_ranks_that_go_round_the_nodes_are_told_in_short() -> None:
    records = [{"host": f"n{rank % 3000}"} for rank in range(9000)]
    assert clocks.speakers(records) == "1-2999"


def test_where_nodes_follow_no_rule_as_many_are_asked_as_an_answer_takes() -> None:
    sizes = [1 + node**2 % 91 for node in range(3000)]
    told = clocks.speakers(nodes_of(sizes))
    assert 3900 < len(told) <= 4000
    firsts = [sum(sizes[:node]) for node in range(1, 3000)]
    asked = ranges.tasks_of(told)
    assert len(asked) > 500
    assert asked == firsts[: len(asked)]


def test_nodes_whose_clocks_were_not_compared_are_told_by_the_merge(base: Path) -> None:
    run = a_run(base, [HEAD.format(0, n, n, n).encode() for n in range(4)])
    hosts = {"a": "1-2", "b": "0,3"}
    note(run, hosts=hosts, communicator=True, pieces={"0": "0-3"})
    told = "the clock of 1 of 2 nodes was not compared with rank 0's (a)"
    plan = notata.merging.make_plan(os.fspath(run))
    assert plan.notes == (told,)
    assert notata.merge(run).note.endswith(told)
    note(run, clocks={"a": [[AT, 0.0, 0.001]]})
    assert notata.merging.make_plan(os.fspath(run)).notes == ()
    many = {f"n{n}": str(n) for n in range(10)}
    assert clocks.not_compared({"hosts": many}) == (
        "the clocks of 9 of 10 nodes were not compared with rank 0's (n1, n2, n3, n4, n5, …)"
    )
    note(run, hosts=hosts, clocks={}, communicator=False)  # then nobody could compare any
    assert notata.merging.make_plan(os.fspath(run)).notes == ()


@pytest.mark.parametrize("parallel", [{}, {"hosts": 3}, {"hosts": {"a": 0}, "clocks": []}])
def test_hosts_that_make_no_sense_are_not_told(parallel: dict[str, Any]) -> None:
    assert clocks.not_compared(parallel) == ""


def test_an_offset_that_may_be_none_is_none() -> None:
    told = {"b": [[AT, -0.01, 0.02]], "c": [[AT, 0.01, 0.02], [LATER, 0.5, 0.02]]}
    shifts = corrections.Corrections(told, {"a": "0", "b": "1", "c": "2"})
    ticks = messages.ticks(AT.encode())
    assert shifts.one(ticks, 1) == ticks
    assert shifts.one(ticks, 2) == ticks
    assert shifts.one(messages.ticks(LATER.encode()), 2) == messages.ticks(LATER.encode()) - 10**6
    assert shifts.largest == 0.5


@pytest.mark.parametrize(
    "told",
    [1, [], {"b": 1}, {"b": [1]}, {"b": [[AT, "x", 0]]}, {"b": [[1, 9, 0]]}, {"z": [[AT, 9, 0]]},
     {"b": [[AT, float("inf"), 0]]}, {"b": [[AT, float("nan"), 0]]}],
    ids=str,
)  # fmt: skip
def test_what_makes_no_sense_corrects_nothing(base: Path, told: Any) -> None:
    run = write_as(2, base, lambda log: log.info("x"))
    note(run, hosts={"a": "0", "b": "1"}, clocks=told)
    assert not corrections.of_run(run)
    assert len(list(LogReader(run).messages())) > 1


@pytest.mark.parametrize("earlier", [1, [1], [{}], [{"until": 3}]], ids=str)
def test_earlier_attempts_that_make_no_sense_correct_nothing(base: Path, earlier: Any) -> None:
    run = write_as(2, base, lambda log: log.info("x"))
    note(run, hosts={"a": "0", "b": "1"}, clocks={"b": [[AT, 9, 0]]}, earlier=earlier)
    assert not corrections.of_run(run)
    assert len(list(LogReader(run).messages())) > 1


def test_going_on_keeps_what_was_noted_of_clocks(base: Path) -> None:
    run = write_as(2, base, lambda log: log.info("x"))
    note(run, hosts={"a": "0", "b": "1"}, clocks={"b": [[AT, 9, 0]]})
    for number in (2, 3):
        write_as(2, base, lambda log: log.info("y"), launch=f"launch-{number}", resume=True)
    meta = json.loads((run / "metadata.json").read_text())
    starts = [attempt["start_time"] for attempt in meta["attempts"]]
    second = {"until": starts[2], "hosts": meta["parallel"]["hosts"], "clocks": {}}
    first = {"until": starts[1], "hosts": {"a": "0", "b": "1"}, "clocks": {"b": [[AT, 9, 0]]}}
    assert meta["parallel"]["earlier"] == [first, second]
    report = notata.merge(run)
    assert report.clock_correction == 9
    assert notata.merge(run).nothing_to_do
    told = json.loads((run / "merge.json").read_text())["clocks"]
    assert (told["compared"], told["earlier"]) == ({}, meta["parallel"]["earlier"])


@settings(max_examples=150)
@given(
    texts=st.tuples(odd_logs(0), odd_logs(1), odd_logs(2)),
    offsets=st.lists(st.tuples(st.floats(-9, 9), st.floats(0, 1)), min_size=4, max_size=4),
    size=st.integers(1, 90),
    resumed=st.booleans(),
)
def test_readers_and_the_merge_correct_alike(
    texts: tuple[bytes, ...], offsets: list[tuple[float, float]], size: int, resumed: bool
) -> None:
    with folder() as base, pytest.MonkeyPatch.context() as patch:
        run = a_run(base, texts)
        told = [[when, *one] for when, one in zip((AT, LATER) * 2, offsets, strict=True)]
        hosts = {"a": "0", "b": "1", "c": "2-3"}
        if resumed:
            first = {"until": LATER, "hosts": hosts, "clocks": {"b": told[:1], "c": told[2:3]}}
            note(run, hosts=hosts, clocks={"b": told[1:2], "c": told[3:]}, earlier=[first])
        else:
            note(run, hosts=hosts, clocks={"b": told[:2], "c": told[2:]})
        before = list(LogReader(run).messages())
        made, data = joined(run)
        assert data == as_readers_do(run)
        make_tiny(patch, size)
        patch.setattr(logs, "RANGE", 100)
        patch.setattr(logs, "_OF_EACH", 1)
        patch.setattr(logs, "_SAMPLE", 20)
        assert divided(run) == (made, data)
        (run / "log.txt").write_bytes(data)
        assert list(LogReader(run).messages()) == before
        for rank in (1, 2):
            os.unlink(run / f"ranks/rank_{rank:05d}/log.txt")
        after = [(m.rank or 0, m.message) for m in LogReader(run).messages()]
        assert after == [(m.rank or 0, m.message) for m in before]
