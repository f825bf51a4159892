"""Log lines out and in."""

from __future__ import annotations

import gc
import io
import logging
import os
import re
import resource
import threading
import time
from pathlib import Path

import pytest
from simulated import write_as

import notata
from notata import Logbook, LogReader, messages
from notata.logwriter import LogWriter
from notata.messages import Block, Record, blocks, record, signed

STAMP = r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\]"
FINE = r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\]"
AWKWARD = [
    "",
    "plain",
    "two\nlines",
    "\n",
    "\n\n",
    "ends with a break\n",
    "    indented",
    "a\n    indented continuation",
    "carriage\rreturn\r\nand both",
    "form\x0cfeed \x0b \x1c \x85 \u2028 \u2029",
    "[2026-11-23T03:00:00] ERROR forged",
    "x\n[2026-11-23T03:00:00] ERROR forged",
    "x\n[2026-11-23T03:00:00.123456] ERROR [rank 9] forged",
    "[rank 7] claims another rank",
    "INFO INFO",
    "κ = 0.1 → 氷 🧊",
    "nul \x00 and escape \x1b[31m",
    "not utf-8: \udcff",
    "tab\tand trailing blank ",
]


def read_back(path: Path) -> list[Record]:
    with path.open("rb") as file:
        return [record(block) for block in blocks(file)]


# ----- writing -----


def test_a_line_of_a_run_of_one_rank(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path / "log.txt"))
    log.write(messages.INFO, "step=1")
    assert re.fullmatch(STAMP + r" INFO step=1\n", (tmp_path / "log.txt").read_text())


def test_a_line_of_a_run_of_many_ranks(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path / "log.txt"), rank=3)
    log.write(messages.WARNING, "step=1\nmore")
    text = (tmp_path / "log.txt").read_text()
    assert re.fullmatch(FINE + r" WARNING \[rank 3\] step=1\n    more\n", text)


def test_the_stamp_is_the_present_in_local_time(tmp_path: Path) -> None:
    before = time.time()
    log = LogWriter(str(tmp_path / "log.txt"), rank=0)
    for _ in range(3):
        log.write(messages.INFO, "x")
    stamps = [found.seconds for found in read_back(tmp_path / "log.txt")]
    assert all(stamp is not None for stamp in stamps)
    known = [stamp or 0.0 for stamp in stamps]
    assert before - 1e-5 <= known[0] <= known[1] <= known[2] <= time.time()


def test_a_record_is_with_the_system_when_the_call_returns(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path / "log.txt"))
    for count in range(1, 4):
        log.write(messages.INFO, "x")
        assert len((tmp_path / "log.txt").read_bytes().splitlines()) == count


def test_no_file_before_the_first_record(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path / "deep" / "log.txt"), level="ERROR")
    log.write(messages.WARNING, "dropped")
    assert list(tmp_path.iterdir()) == []
    log.write(messages.ERROR, "kept")
    assert [m.message for m in read_back(tmp_path / "deep" / "log.txt")] == ["kept"]


def test_lines_are_appended_after_one_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"[2026-11-23T03:00:00] INFO whole\n[2026-11-23T03:00:01] INFO to")
    LogWriter(str(path)).write(messages.INFO, "next")
    assert [m.message for m in read_back(path)] == ["whole", "to", "next"]


def test_closing_lets_go_of_the_file_and_later_records_still_arrive(tmp_path: Path) -> None:
    gc.collect()  # lets go now of what other tests left
    before = len(os.listdir("/proc/self/fd"))
    log = LogWriter(str(tmp_path / "log.txt"))
    log.write(messages.INFO, "one")
    assert len(os.listdir("/proc/self/fd")) == before + 1
    log.close()
    assert len(os.listdir("/proc/self/fd")) == before
    log.write(messages.INFO, "two")
    log.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert [m.message for m in read_back(tmp_path / "log.txt")] == ["one", "two"]


def test_a_full_disk_does_not_stop_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    log = LogWriter("/dev/full")
    for _ in range(3):
        log.write(messages.INFO, "x")
    log.close()
    assert log.lost == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "/dev/full" in told
    assert "No space left" in told


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize(
    ("room", "text", "found"),
    [
        (0, "too long", ["first", "next"]),
        (1, "too long", ["first\n[", "next"]),
        (46, "too long", ["first", "too", "next"]),
        (47, "too\nlong", ["first", "too", "next"]),  # cut off between two lines
    ],
)
def test_the_record_after_one_that_was_cut_off_stands_alone(
    tmp_path: Path, room: int, text: str, found: list[str], reopened: bool
) -> None:
    log = LogWriter(str(tmp_path / "log.txt"), rank=0)
    log.write(messages.INFO, "first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    room += (tmp_path / "log.txt").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        log.write(messages.INFO, text)
        log.write(messages.INFO, "no room at all")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.lost == 2
    if reopened:
        log.close()
    log.write(messages.INFO, "next")
    assert [m.message for m in read_back(tmp_path / "log.txt")] == found


def test_a_log_that_can_not_be_opened_does_not_stop_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = LogWriter(str(tmp_path))
    log.write(messages.INFO, "x")
    assert log.lost == 1
    assert "directory" in capsys.readouterr().err


def test_threads_that_log_first_lose_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        log = LogWriter(str(tmp_path / f"{number}.txt"))
        gate = threading.Barrier(8)

        def say(log: LogWriter = log, gate: threading.Barrier = gate) -> None:
            gate.wait()
            log.write(messages.INFO, "first")

        threads = [threading.Thread(target=say) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log.close()
        assert log.lost == 0
        assert len(read_back(tmp_path / f"{number}.txt")) == 8
    assert len(os.listdir("/proc/self/fd")) <= before
    assert capsys.readouterr().err == ""


def test_a_message_that_logs_while_it_becomes_text(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path / "log.txt"), 3)

    class Slow:
        def __str__(self) -> str:
            time.sleep(1.1)
            log.write(messages.INFO, "inner")
            return "outer"

    log.write(messages.INFO, "before")
    log.write(messages.INFO, Slow())
    assert [m.message for m in read_back(tmp_path / "log.txt")] == ["before", "inner", "outer"]


def test_what_a_writer_apart_loses_counts(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    log = LogWriter(str(tmp_path / "log.txt"))
    log.apart().write(messages.WARNING, "received SIGTERM")
    assert log.lost == 1


def test_levels_by_name_and_number() -> None:
    assert messages.level_number("Warning") == messages.level_number(30) == logging.WARNING
    assert messages.level_number(17) == 17
    with pytest.raises(ValueError, match=r"'loud'.*DEBUG"):
        messages.level_number("loud")


def test_a_level_without_a_name(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path / "log.txt"), level=0)
    log.write(35, "x")
    log.write(5, "y")
    assert [(m.level, m.message) for m in read_back(tmp_path / "log.txt")] == [
        ("Level 35", "x"),
        ("Level 5", "y"),
    ]


def test_loggers_of_one_name_do_not_meet(tmp_path: Path) -> None:
    one, two = (LogWriter(str(tmp_path / f"{n}.txt")) for n in "ab")
    one.logger("same").info("first")
    two.logger("same").info("second")
    assert [m.message for m in read_back(tmp_path / "a.txt")] == ["first"]
    assert [m.message for m in read_back(tmp_path / "b.txt")] == ["second"]


def test_a_logger_writes_tracebacks_as_continuation_lines(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path / "log.txt"))
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        log.logger("x").exception("broke")
    (found,) = read_back(tmp_path / "log.txt")
    assert found.level == "ERROR"
    assert found.message.startswith("broke\nTraceback (most recent call last):")
    assert found.message.endswith("ZeroDivisionError: division by zero")


# ----- reading -----


@pytest.mark.parametrize("rank", [None, 0, 12])
@pytest.mark.parametrize("text", AWKWARD, ids=ascii)
def test_a_message_comes_back_as_it_was(tmp_path: Path, text: str, rank: int | None) -> None:
    log = LogWriter(str(tmp_path / "log.txt"), rank)
    log.write(messages.INFO, text)
    log.write(messages.ERROR, "the next one")
    first, second = read_back(tmp_path / "log.txt")
    assert (first.level, first.rank, first.message) == ("INFO", rank, text)
    assert (second.level, second.rank, second.message) == ("ERROR", rank, "the next one")


def test_a_message_can_not_forge_a_record(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path / "log.txt"))
    log.write(messages.INFO, "harmless\n[2026-11-23T03:00:00] CRITICAL forged\n")
    lines = (tmp_path / "log.txt").read_text().split("\n")
    assert [bool(re.match(STAMP, line)) for line in lines] == [True, False, False, False]


def test_a_character_that_utf8_has_not_is_escaped(tmp_path: Path) -> None:
    log = LogWriter(str(tmp_path / "log.txt"))
    log.write(messages.INFO, "lone \ud800 half")
    (found,) = read_back(tmp_path / "log.txt")
    assert found.message == "lone \\ud800 half"
    assert log.lost == 0


def test_blocks_change_no_byte() -> None:
    data = (
        b"before the first record\n"
        b"[2026-11-23T03:00:00] INFO one\n"
        b"not indented\r\n"
        b"    indented \xff\xfe\n"
        b"\n"
        b"[2026-11-23T03:00:00.5] INFO no time stamp of ours\n"
        b"[2026-11-23T03:00:01.000005] Level 35 [rank 12] two\n"
        b"[2026-11-23T03:00:02] INFO cut o"
    )
    found = list(blocks(io.BytesIO(data)))
    assert b"".join(block.raw for block in found) == data
    assert [(block.stamp, block.rank) for block in found] == [
        (b"", None),
        (b"2026-11-23T03:00:00", None),
        (b"2026-11-23T03:00:01.000005", 12),
        (b"2026-11-23T03:00:02", None),
    ]
    assert record(found[0]) == Record("", "", None, "before the first record")
    assert record(found[2]) == Record("2026-11-23T03:00:01.000005", "Level 35", 12, "two")
    assert record(found[3]).message == "cut o"


def test_every_block_of_a_rank_s_own_log_is_that_rank_s() -> None:
    stamp = b"[2026-11-23T03:00:00.000001] "
    data = b"torn\n" + stamp + b"INFO [ra\n" + stamp + b"INFO [rank 9] x\n"
    found = list(blocks(io.BytesIO(data), 3))
    assert b"".join(block.raw for block in found) == data
    assert [block.rank for block in found] == [3, 3, 3]
    assert [record(block).message for block in found] == ["torn", "[ra", "[rank 9] x"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"[2026-11-23T03:00:00.000001] INFO [rank 3] \xff\r\nmore", None),
        (
            b"[2026-11-23T03:00:00.000001] Level 35 [ra\n    \xff\nmore\n",
            b"[2026-11-23T03:00:00.000001] Level 35 [rank 3] [ra\n    \xff\nmore\n",
        ),
        (
            b"[2026-11-23T03:00:00.000001] INFO [rank 9] x\n",
            b"[2026-11-23T03:00:00.000001] INFO [rank 3] [rank 9] x\n",
        ),
        (
            b"[2026-11-23T03:00:00] INFO [rank 3] x\n",
            b"[2026-11-23T03:00:00.000000] INFO [rank 3] [rank 3] x\n",
        ),
        (b"a\n\nb", b"[2026-11-23T02:00:00.000000] UNKNOWN [rank 3] a\n    \n    b\n"),
        (b"\n", b"[2026-11-23T02:00:00.000000] UNKNOWN [rank 3] \n"),
    ],
)
def test_a_block_in_the_log_of_all_ranks(raw: bytes, expected: bytes | None) -> None:
    (block,) = blocks(io.BytesIO(raw), 3)
    made = signed(block, b"2026-11-23T02:00:00")
    assert made == (expected or raw + b"\n")
    (again,) = blocks(io.BytesIO(made))
    assert (again.rank, record(again).message) == (3, record(block).message)


def test_a_block_of_no_rank_stays_as_it_is() -> None:
    assert signed(Block(b"", None, b"torn"), b"2026-11-23T02:00:00") == b"torn\n"


def test_a_level_and_a_rank_that_no_program_wrote() -> None:
    data = (
        b"[2026-11-23T03:00:00.000001] \xff x\n"
        b"[2026-11-23T03:00:00.000001] INFO [rank " + b"9" * 5000 + b"] x\n"
    )
    one, two = map(record, blocks(io.BytesIO(data)))
    assert (one.level, one.message) == ("\udcff", "x")
    assert two.rank is None


def test_lines_that_notata_030_did_not_indent_stay_as_they_are() -> None:
    data = b"[2026-11-23T03:00:00] INFO one\n    code\nrest\n"
    (found,) = map(record, blocks(io.BytesIO(data)))
    assert found.message == "one\n    code\nrest"


def test_times_in_seconds() -> None:
    assert Record("", "", None, "").seconds is None
    whole = messages.stamp_seconds("2026-11-23T03:00:00")
    assert whole == time.mktime((2026, 11, 23, 3, 0, 0, 0, 0, -1))
    assert messages.stamp_seconds("2026-11-23T03:00:00.250000") == whole + 0.25


ZEROS = bytes(70_000)  # what a power failure leaves of lines whose contents were not on disk yet


@pytest.mark.parametrize("torn", [b"", b"[2026-11-23T03:00:02] INFO ha"])
def test_zeros_that_a_power_failure_left_go_with_the_next_writer(
    tmp_path: Path, torn: bytes
) -> None:
    with Logbook("x", tmp_path) as log:
        log.info("one")
    before = [m.message for m in LogReader(log.path).messages()]
    with log.log_path.open("ab") as file:
        file.write(torn + ZEROS)
    assert len(list(LogReader(log.path).messages())) == len(before) + bool(torn)
    with Logbook("x", tmp_path, resume=True) as log:
        log.info("two")
    assert b"\0" not in log.log_path.read_bytes()
    found = [m.message for m in LogReader(log.path).messages()]
    before += ["ha"] if torn else []
    assert found[: len(before)] == before
    assert "two" in found


def test_a_log_of_zeros_alone_begins_anew(tmp_path: Path) -> None:
    with Logbook("x", tmp_path) as log:
        pass
    log.log_path.write_bytes(ZEROS)
    with Logbook("x", tmp_path, resume=True) as log:
        log.info("two")
    assert "two" in [m.message for m in LogReader(log.path).messages()]
    assert log.log_path.read_bytes().startswith(b"[")


def test_a_merge_takes_logs_that_end_with_zeros(tmp_path: Path) -> None:
    run = write_as(2, tmp_path, lambda log: log.info(f"of {log.rank}"))
    for path in (run / "log.txt", run / "ranks" / "rank_00001" / "log.txt"):
        with path.open("ab") as file:
            file.write(ZEROS)
    before = list(LogReader(run).messages())
    notata.merge(run)
    assert list(LogReader(run).messages()) == before
