"""Joining logs: in bulk, as readers read them record by record."""

from __future__ import annotations

import os
import resource
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import forget_logs, write_as
from test_properties import folder, odd_logs

from notata import LogReader, checksums, corrections, messages, streams
from notata.errors import DamagedError
from notata.merging import anyheads, heads, logcuts, logparts, logs, windows
from notata.merging.heads import BEFORE, BEHIND, find_heads
from notata.merging.tasks import Made, Task, carry_out


def a_run(base: Path, texts: Sequence[bytes | None]) -> Path:
    """A run whose ranks' logs hold these bytes; None where a rank has no log of its own."""
    run = write_as(max(2, len(texts)), base, lambda log: log.rank and log.info("x"))
    for rank, text in enumerate(texts):
        path = run / (f"ranks/rank_{rank:05d}/log.txt" if rank else "log.txt")
        if text is None:
            path.unlink()
        else:
            path.write_bytes(text)
    forget_logs(run)
    return run


def as_readers_do(run: Path) -> bytes:
    """The joined log, made record by record."""
    blocks = list(streams.blocks_in_order(os.fspath(run)))
    start = next((b.stamp for b in blocks if b.stamp), b"1970-01-01T00:00:00")
    return b"".join(messages.signed(block, start) for block in blocks)


def joined(run: Path) -> tuple[Made, bytes]:
    told: list[int] = []
    path = run / "joined.tmp"
    try:
        made = logs.join_logs(os.fspath(run), os.fspath(path), told.append)
        data = path.read_bytes()
    finally:
        path.unlink(missing_ok=True)
    assert made.checksum == checksums.of_bytes(data)
    own = {os.fspath(p.relative_to(run)): p for p in run.glob("ranks/*/log.txt")}
    assert made.inputs == {name: checksums.of_file(p) for name, p in own.items()}
    assert sum(told) == sum(p.stat().st_size for p in own.values())
    return made, data


def make_tiny(patch: pytest.MonkeyPatch, size: int) -> None:
    """Look at a few bytes of each log at a time."""
    patch.setattr(windows, "WINDOW", size)
    patch.setattr(windows, "_LEAST", size)
    patch.setattr(windows, "LEAST", max(size, 150))  # a record's head is never parted
    patch.setattr(logparts, "_PART", max(size, 150))
    patch.setattr(heads, "_BLOCK", 50)


@settings(max_examples=300)
@given(texts=st.tuples(odd_logs(0), odd_logs(1), odd_logs(2), odd_logs(3)), size=st.integers(1, 90))
def test_any_logs_are_joined_as_readers_read_them(texts: tuple[bytes, ...], size: int) -> None:
    with folder() as base, pytest.MonkeyPatch.context() as patch:
        run = a_run(base, texts)
        expected = as_readers_do(run)
        assert joined(run)[1] == expected
        make_tiny(patch, size)
        assert joined(run)[1] == expected


RECORDS = st.lists(
    st.tuples(
        st.integers(0, 3_000_000),  # microseconds after the hour
        st.sampled_from(["INFO", "ERROR", "WARNING", "DEBUG", "CRITICAL", "Level 35", "NOTE"]),
        st.sampled_from(["", "x", "two\n    lines", "κ" * 40, "[rank 9] x", "\n    ", "y" * 300]),
    ),
    max_size=30,
)


@settings(max_examples=150)
@given(written=st.lists(RECORDS, min_size=2, max_size=5), size=st.integers(30, 900))
def test_random_logs_against_a_stable_sort(
    written: list[list[tuple[int, str, str]]], size: int
) -> None:
    keyed: list[tuple[int, int, str]] = []
    texts = []
    for rank, records in enumerate(written):
        latest, lines = -1, []
        for micros, level, text in records:
            stamp = f"2026-11-23T03:00:{micros // 1_000_000:02d}.{micros % 1_000_000:06d}"
            lines.append(f"[{stamp}] {level} [rank {rank}] {text}\n")
            latest = max(latest, micros)  # a clock that steps back changes no order
            keyed.append((latest, rank, lines[-1]))
        texts.append("".join(lines).encode())
    expected = "".join(line for _, _, line in sorted(keyed, key=lambda item: item[:2]))
    with folder() as base, pytest.MonkeyPatch.context() as patch:
        run = a_run(base, texts)
        make_tiny(patch, size)
        assert joined(run)[1].decode() == expected


def test_a_joined_log_is_joined_again_with_what_is_left(base: Path) -> None:
    stamp = "[2026-11-23T03:00:{:02d}.000000] INFO [rank {}] {}\n"
    mine = ["".join(stamp.format(3 * n + r, r, f"{n}") for n in range(9)) for r in range(4)]
    run = a_run(base, [text.encode() for text in mine])
    _, data = joined(run)
    assert data.decode().splitlines(True) == sorted("".join(mine).splitlines(True))
    (run / "log.txt").write_bytes(data)
    assert joined(run)[1] == data  # the ranks' own records are not taken twice
    (run / "ranks/rank_00002/log.txt").unlink()
    assert joined(run)[1] == data  # those of a rank without a log are taken from there


def test_what_was_given_stays_as_it_is_while_the_next_is_read(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread is still at work on it, also where parts of a log have nothing to give."""
    stamp = "[2026-11-23T03:{:02d}:{:02d}.000000] INFO [rank {}] {}\n"
    lines = [stamp.format(*divmod(n, 60), rank, n) for n in range(3600) for rank in (1, 2, 3)]
    texts = ["".join(line for line in lines if f"[rank {r}]" in line) for r in range(4)]
    run = a_run(base, [text.encode() or None for text in texts])
    mine = [stamp.format(*divmod(n, 60), 0, "mine") for n in range(0, 3600, 300)]
    (run / "log.txt").write_text("".join(sorted(lines + mine, key=lambda line: line[:28])))
    monkeypatch.setattr(windows, "WINDOW", 1 << 16)
    given = [
        logparts.Log(str(run), span, corrections.of_run(run)) for span in logs.spans_of(str(run))
    ]
    before: tuple[windows.Batch, bytes] | None = None
    count = 0
    for batch in windows._batches(given):
        if before is not None:
            assert bytes(before[0].data) == before[1]
        before = batch, bytes(batch.data)
        count += 1
    assert count > 10
    assert joined(run)[1].decode() == "".join(
        sorted(lines + mine, key=lambda line: (line[:28], "[rank 0]" not in line, line[36:44]))
    )


LINES = st.sampled_from(
    [
        b"[2026-11-23T03:00:00.123456] INFO [rank 3] x",
        b"[2026-11-23T03:00:00.123456] WARNING [rank 12345] x",
        b"[2026-11-23T03:00:00.123456] CRITICAL [rank 123456789] x",
        b"[2026-11-23T03:00:00.123456] INFO [rank 1234567890] x",
        b"[2026-11-23T03:00:00.123456] INFO [rank ] x",
        b"[2026-11-23T03:00:00.123456] INFO [rank 1]x",
        b"[2026-11-23T03:00:00.123456] INFO [rank 007] x",
        b"[2026-11-23T03:00:59] ERROR [rank 3] x",
        b"[2026-11-23T03:00:59] DEBUG",
        b"[9999-99-99T99:99:99.999999] DEBUG [rank 0] ",
        b"[0000-00-00T00:00:00.000000] Level -3 [rank 0] y",
        b"[2026-11-23T03:00:00.12345] INFO x",
        b"[2026-11-23T03:00:00.1234567] INFO x",
        b"[2026-11-23T03:00:0:.123456] INFO x",
        b"[2026-11-23T03:00:00.12345/] INFO x",
        b"[2026-11-23T03:00:00.123456]INFO x",
        b"[2026-11-23 03:00:00.123456] INFO x",
        b"[2026-11-23T03:00:00.123456]  INFO x",
        b"[2026-11-23T03:00:00.123456] INFOS x",
        b"[2026-11-23T03:00:00.123456] INFO\tx",
        b"    [2026-11-23T03:00:00.123456] INFO x",
        b"[",
        b"",
    ]
)


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A line, of which one byte may be another."""
    line = bytearray(draw(LINES))
    if line and draw(st.booleans()):
        line[draw(st.integers(0, len(line) - 1))] = draw(
            st.integers(0, 255).filter(lambda b: b != 10)
        )
    return bytes(line) + b"\n"


@settings(max_examples=600)
@given(lines=st.lists(bent(), max_size=12), block=st.integers(1, 300))
def test_heads_in_bulk_are_those_that_are_found_line_by_line(
    lines: list[bytes], block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "_BLOCK", block)
        found = find_heads(b"\n" * BEFORE + b"".join(lines) + bytes(BEHIND))
    expected = []
    at = BEFORE
    for line in lines:
        (one,) = messages.blocks([line])
        if one.stamp:
            rank = -1 if one.rank is None else one.rank
            expected.append((at, messages.ticks(one.stamp), rank))
        at += len(line)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected


@st.composite
def alike(draw: st.DrawFn) -> bytes:
    """A line that is nearly the one above, of which one byte may be another."""
    second, level, rank = (
        draw(st.sampled_from(some))
        for some in (["09.999999", "10.000000", "10.000001"], ["INFO", "DEBUG"], [3, 33])
    )
    line = bytearray(f"[2026-11-23T03:00:{second}] {level} [rank {rank}] x".encode())
    if draw(st.integers(0, 5)) == 0:
        line[draw(st.integers(0, len(line) - 1))] = draw(st.sampled_from(b"./:05 ]ix[\xb0"))
    return bytes(line) + b"\n"


@settings(max_examples=600)
@given(
    texts=st.lists(st.lists(alike(), max_size=8), min_size=1, max_size=4),
    ranks=st.tuples(*[st.sampled_from([3, 33, 1234567890])] * 4),
    between=st.tuples(*[st.sampled_from([b"", b"\n"])] * 4),
    few=st.integers(1, 9),
)
def test_heads_that_are_nearly_those_of_the_line_above(
    texts: list[list[bytes]], ranks: tuple[int, ...], between: tuple[bytes, ...], few: int
) -> None:
    data, ends, expected = b"\n" * BEFORE, [], []
    for number, lines in enumerate(texts):
        data += between[number] if number else b""
        for line in lines:
            (one,) = messages.blocks([line])
            if one.stamp:
                rank = -1 if one.rank is None else one.rank
                expected.append((len(data), messages.ticks(one.stamp), rank))
            data += line
        ends.append(len(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "_AT_ONCE", few)
        patch.setattr(anyheads, "_FEW", few)
        found = find_heads(data + bytes(BEHIND), ends, ranks[: len(ends)])
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected


@given(one=st.datetimes(), other=st.datetimes(), fine=st.tuples(st.booleans(), st.booleans()))
def test_ticks_order_as_stamps_do(one: object, other: object, fine: tuple[bool, bool]) -> None:
    stamps = [
        f"{time:%Y-%m-%dT%H:%M:%S}".rjust(19, "0").encode() + (f".{time:%f}".encode() if f else b"")
        for time, f in zip((one, other), fine, strict=True)
    ]
    ticks = [messages.ticks(stamp) for stamp in stamps]
    assert (ticks[0] < ticks[1]) == (stamps[0] < stamps[1])
    assert (ticks[0] == ticks[1]) == (stamps[0] == stamps[1])


def test_many_logs_need_few_open_files(base: Path) -> None:
    head = b"[2026-11-23T03:00:00.%06d] INFO [rank %d] x\n"
    run = a_run(base, [head % (rank % 7, rank) * 3 for rank in range(300)])
    expected = as_readers_do(run)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 64, before[1]))
    try:
        assert joined(run)[1] == expected
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_log_that_is_far_longer_than_the_others_is_read_in_large_parts(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = "[2026-11-23T03:{:02d}:{:02d}.000000] INFO [rank {}] {}\n"
    texts = [
        "".join(
            stamp.format(*divmod(step % 3600 if rank else step // 12, 60), rank, step)
            for step in steps
        )
        for rank, steps in enumerate([range(40_000), *[range(0, 3600, 40)] * 40])
    ]
    run = a_run(base, [text.encode() for text in texts])
    expected = sorted(
        ((line[:28], rank, number), line)
        for rank, text in enumerate(texts)
        for number, line in enumerate(text.splitlines(keepends=True))
    )
    monkeypatch.setattr(windows, "WINDOW", 1 << 18)
    reads: list[int] = []
    read = logparts.Log.read

    def counted(self: logparts.Log, buffer: bytearray, at: int, room: int) -> int:
        reads.append(self.span.rank or 0)
        return read(self, buffer, at, room)

    monkeypatch.setattr(logparts.Log, "read", counted)
    assert joined(run)[1].decode() == "".join(line for _, line in expected)
    assert len(texts[0]) // (1 << 13) > 200  # so many parts of the usual share
    assert reads.count(0) < 50
    assert all(reads.count(rank) == 1 for rank in range(1, 41))


def test_logs_of_different_times_are_not_all_looked_at_for_each_part_of_one(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where ranks write by turns, what a part costs must not grow with the number of ranks."""
    count, steps = 120, 600
    stamp = "[2026-11-23T03:{:02d}:{:02d}.{:06d}] INFO [rank {}] step {}\n"
    texts = [
        "".join(stamp.format(*divmod(20 * r, 60), n, r, n) for n in range(steps))
        for r in range(count)
    ]
    run = a_run(base, [text.encode() for text in texts])
    monkeypatch.setattr(windows, "WINDOW", count * windows._LEAST // 2)  # no more than is held
    calls = {"read": 0, "until": 0}

    def counted(kind: type, name: str) -> None:
        call = getattr(kind, name)

        def counting(self: object, *args: object) -> object:
            calls[name] += 1
            return call(self, *args)

        monkeypatch.setattr(kind, name, counting)

    counted(logparts.Log, "read")
    counted(windows._Held, "until")
    assert joined(run)[1].decode() == "".join(texts)
    assert len(texts[1]) > 7 * windows._LEAST  # so many parts, unless they grow
    assert calls["read"] <= 5 * count
    assert calls["until"] <= 2 * calls["read"]


@pytest.mark.parametrize("torn", [False, True])
def test_a_line_that_is_longer_than_a_window_is_not_held_whole(
    base: Path, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    long = b"x" * 10_000_000
    head = b"[2026-11-23T03:00:%02d.000000] INFO [rank %d] "
    above = b"lines above the first record" + long + b"\nand more\n" if torn else b""
    texts = [
        head % (1, 0) + b"a\n" + head % (5, 0) + b"b\n",
        head % (2, 1) + long + b"\n    and more\n" + head % (6, 1) + long,
        above + head % (3, 2) + b"y\n" + head % (4, 0) + b"not its own" + long,
    ]
    run = a_run(base, texts)
    monkeypatch.setattr(windows, "WINDOW", 1 << 20)
    monkeypatch.setattr(windows, "_MOST", 1 << 18)
    monkeypatch.setattr(streams, "_CHUNK", 1 << 24)
    path = run / "joined.tmp"
    tracemalloc.start()
    try:
        made = logs.join_logs(os.fspath(run), os.fspath(path))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    data = path.read_bytes()
    path.unlink()
    assert data == as_readers_do(run)
    assert made.checksum == checksums.of_bytes(data)
    assert torn or most < 8_000_000  # what stands above all records is given the first one's time


def test_a_log_that_becomes_shorter_is_an_error(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(base, [b"x\n", b"[2026-11-23T03:00:00.000000] INFO [rank 1] x\n" * 3])
    spans = logs.spans_of(os.fspath(run))
    os.truncate(run / "ranks/rank_00001/log.txt", 20)
    monkeypatch.setattr(logs, "spans_of", lambda run: spans)
    with pytest.raises(DamagedError, match=r"rank_00001/log\.txt became shorter"):
        joined(run)


def test_a_run_without_messages_of_rank_0(base: Path) -> None:
    run = a_run(base, [None, b"[2026-11-23T03:00:00.000000] INFO [rank 1] x\n"])
    assert joined(run)[1] == as_readers_do(run)
    assert [m.message for m in LogReader(run).messages()] == ["x"]


def divided(run: Path) -> tuple[Made, bytes]:
    """The joined log, made in ranges of time by two threads."""
    path = run / "joined.tmp"
    size = sum(p.stat().st_size for p in run.glob("ranks/*/log.txt"))
    told: list[int] = []
    try:
        with ThreadPoolExecutor(2) as executor:
            steps = logs.divided(os.fspath(run), size, os.fspath(path))
            made = carry_out([steps], executor, told.append)["log.txt"]
        assert sum(told) == size
        return made, path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


@settings(max_examples=150)
@given(
    texts=st.tuples(odd_logs(0), odd_logs(1), odd_logs(2), odd_logs(3)),
    size=st.integers(1, 90),
    length=st.integers(1, 150),
)
def test_ranges_of_time_make_the_same_log(texts: tuple[bytes, ...], size: int, length: int) -> None:
    with folder() as base, pytest.MonkeyPatch.context() as patch:
        run = a_run(base, texts)
        expected = joined(run)
        make_tiny(patch, size)
        patch.setattr(logs, "RANGE", length)
        patch.setattr(logs, "_OF_EACH", 1)
        patch.setattr(logs, "_SAMPLE", 20)
        patch.setattr(logs, "_BATCH", 60)
        patch.setattr(logcuts, "_NEAR", 2 * size)
        patch.setattr(logcuts, "_FEW", size)
        assert divided(run) == expected


def test_a_log_is_divided_where_its_time_allows(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = b"[2026-11-23T03:%02d:00.000000] INFO [rank %d] x\n"
    run = a_run(base, [b"".join(stamp % (m, rank) for m in range(60)) for rank in range(4)])
    expected = joined(run)
    monkeypatch.setattr(logs, "RANGE", 1500)
    monkeypatch.setattr(logs, "_OF_EACH", 1)
    monkeypatch.setattr(logs, "_SAMPLE", 200)
    path = run / "backwards.tmp"
    steps = logs.divided(os.fspath(run), 0, os.fspath(path))
    cuts = next(steps)
    ranges = steps.send([task.function(*task.args) for task in cuts])
    assert len(ranges) > 5
    assert path.stat().st_size == len(
        expected[1]
    )  # else NFS clients write zeros over others' parts
    assert divided(run) == expected
    for task in reversed(ranges):  # whoever comes first
        task.function(*task.args)
    assert path.read_bytes() == expected[1]


@pytest.fixture
def short_ranges(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Ranges of few records, and logs in which few bytes are looked at together."""
    for name, size in {"RANGE": 1500, "_OF_EACH": 1, "_SAMPLE": 200, "_BATCH": 5000}.items():
        monkeypatch.setattr(logs, name, size)
    for name, size in {"_NEAR": 1000, "_FEW": 200}.items():
        monkeypatch.setattr(logcuts, name, size)
    return monkeypatch


def steps_of(run: Path) -> tuple[list[list[Task]], Made]:
    """The tasks of each step of a division, done one after another, and what they made."""
    steps = logs.divided(os.fspath(run), 0, os.fspath(run / "joined.tmp"))
    done: list[list[Task]] = []
    results: list[object] | None = None
    try:
        while True:
            done.append([*(steps.send(results) if results is not None else next(steps))])
            results = [task.function(*task.args) for task in done[-1]]
    except StopIteration as end:
        made: Made = end.value["log.txt"]
        return done, made
    finally:
        (run / "joined.tmp").unlink(missing_ok=True)


def names(steps: list[list[Task]]) -> list[str]:
    return [step[-1].function.__name__ for step in steps]


ONCE = ["find_cuts", "join_range", "hash_logs"]
AGAIN = ["find_cuts", "join_range", *ONCE]
EVEN = [(minute, f"x{minute}") for minute in range(60)]


def lines_of(rank: int, said: Sequence[tuple[int, str]]) -> bytes:
    stamp = "[2026-11-23T03:{:02d}:00.000000] INFO [rank {}] {}\n"
    return "".join(stamp.format(minute, rank, text) for minute, text in said).encode()


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        pytest.param(lines_of(2, EVEN), ONCE, id="even"),
        pytest.param(lines_of(2, [(m - m % 20, f"{m}") for m in range(60)]), ONCE, id="equal"),
        pytest.param(lines_of(2, [(30, f"{n}") for n in range(60)]), ONCE, id="all-equal"),
        pytest.param(lines_of(2, EVEN[:20]), ONCE, id="ends-before"),
        pytest.param(lines_of(2, EVEN[40:]), ONCE, id="begins-late"),
        pytest.param(lines_of(2, [(5, "x" * 3000), (50, "y")]), ONCE, id="long-lines"),
        pytest.param(lines_of(2, [(m, "a\n    [b") for m in range(60)]), ONCE, id="indented"),
        pytest.param(lines_of(2, [(m, "a\n[b]\n[c") for m in range(60)]), ONCE, id="brackets"),
        pytest.param(lines_of(2, EVEN)[:-1], ONCE, id="torn"),
        pytest.param(lines_of(2, EVEN[:20])[:-1], ONCE, id="torn-before-the-last-range"),
        pytest.param(b"", ONCE, id="empty"),
        pytest.param(b"no stamp\n" * 200, ONCE, id="no-stamps"),
        pytest.param(b"no stamp", ONCE, id="no-line"),
        pytest.param(b"above\n" + lines_of(2, EVEN), ONCE, id="preamble"),
        # The last says that its clock steps back in a range, not from one to another.
        pytest.param(lines_of(2, [*EVEN[:30], (29, "back"), *EVEN[30:]]), None, id="a-little-back"),
        pytest.param(lines_of(2, [*EVEN[:30], *EVEN[:30]]), AGAIN, id="back-to-the-first"),
        pytest.param(lines_of(2, [*EVEN[:50], *EVEN[10:]]), AGAIN, id="back"),
        pytest.param(lines_of(2, [(59, "first"), *EVEN]), AGAIN, id="back-over-all"),
        pytest.param(lines_of(2, EVEN[::-1]), AGAIN, id="backwards"),
        pytest.param(
            lines_of(2, EVEN[:30]) + lines_of(9, [(30, "of another")]) + lines_of(2, EVEN[30:]),
            AGAIN,
            id="rewritten",
        ),
    ],
)
def test_logs_are_searched_and_read_only_where_that_was_in_vain(
    base: Path, short_ranges: pytest.MonkeyPatch, odd: bytes, expected: list[str] | None
) -> None:
    run = a_run(base, [lines_of(rank, EVEN) if rank != 2 else odd for rank in range(4)])
    _, data = joined(run)
    assert data == as_readers_do(run)
    steps, _ = steps_of(run)
    assert len(steps[1]) > 4
    assert expected in (None, names(steps))
    assert divided(run) == joined(run)
    read = [task.args[3] for step in steps for task in step if task.function is logs.find_cuts]
    in_vain = frozenset([os.fspath(run / "ranks/rank_00002/log.txt")])
    assert {*read} <= {frozenset(), in_vain}


def test_several_logs_that_were_searched_in_vain_are_joined_twice_at_most(
    base: Path, short_ranges: pytest.MonkeyPatch
) -> None:
    back = [[*EVEN[: 20 + rank], *EVEN[5 * rank :]] for rank in range(6)]
    run = a_run(base, [lines_of(rank, said) for rank, said in enumerate(back)])
    steps, made = steps_of(run)
    assert names(steps) == AGAIN
    assert joined(run)[0] == made
    assert sum(task.bytes for task in steps[3]) == 0  # progress has told of them


def test_the_runs_log_with_records_of_other_ranks_is_read(
    base: Path, short_ranges: pytest.MonkeyPatch
) -> None:
    run = a_run(base, [lines_of(rank, EVEN) for rank in range(4)])
    _, data = joined(run)
    (run / "log.txt").write_bytes(data)
    steps, made = steps_of(run)
    assert names(steps) == ONCE  # a few bytes tell that it holds them
    assert made == joined(run)[0]
    few = lines_of(0, EVEN[:31]) + lines_of(1, [(30, "x30")]) + lines_of(0, EVEN[31:])
    (run / "log.txt").write_bytes(few)
    steps, made = steps_of(run)
    assert names(steps) in (ONCE, AGAIN)
    assert joined(run) == (made, data)


def test_a_log_grows_while_it_is_joined(base: Path, short_ranges: pytest.MonkeyPatch) -> None:
    run = a_run(base, [lines_of(rank, EVEN) for rank in range(4)])
    made, _ = joined(run)
    spans = logs.spans_of(os.fspath(run))
    for path in run.glob("ranks/*/log.txt"):
        path.write_bytes(path.read_bytes() + lines_of(1, [(59, "later")]))
    short_ranges.setattr(logs, "spans_of", lambda run: spans)
    _, again = steps_of(run)
    assert again == made
    for path in run.glob("ranks/*/log.txt"):
        os.truncate(path, 100)
    with pytest.raises(DamagedError, match=r"log\.txt became shorter"):
        steps_of(run)
