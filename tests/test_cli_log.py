"""The command `notata log`: one stream, folding, following."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from calling import HOSTILE, ROOT, assert_harmless, notata, program, run_of
from hypothesis import given
from hypothesis import strategies as st
from simulated import open_as

from notata import Logbook, merge, messages
from notata.folding import Fold, folded
from notata.messages import Record
from notata.tails import Follower, last


def lockstep(base: Path, size: int = 4, steps: int = 3) -> Path:
    """A run whose ranks say the same, one step after the other."""
    logs = [open_as(rank, size, base, "heat") for rank in range(size)]
    for step in range(steps):
        for log in logs:
            log.info(f"step {step}")
        logs[step % size].warning(f"hot in {step}\nvery hot")
    for log in reversed(logs):
        log.mark_complete()
    return logs[0].path


def told(printed: str) -> list[str]:
    """The lines without their times."""
    return [line[24:] for line in printed.splitlines()]


def test_all_ranks_are_one_stream(base: Path) -> None:
    result = notata("log", lockstep(base))
    assert (result.exit_code, result.stderr) == (0, "")
    assert told(result.stdout) == [
        "INFO     [0]   Logbook initialized",
        "INFO     [0-3] step 0",
        "WARNING  [0]   hot in 0",
        "",
        "INFO     [0-3] step 1",
        "WARNING  [1]   hot in 1",
        "",
        "INFO     [0-3] step 2",
        "WARNING  [2]   hot in 2",
        "",
        "INFO     [0]   Marked complete",
    ]
    assert result.stdout.splitlines()[3] == "    very hot"


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Kathmandu", "UTC"])
def test_since_means_the_same_in_another_time_zone(tmp_path: Path, zone: str) -> None:
    from datetime import UTC, datetime, timedelta

    script = "from notata import Logbook\nwith Logbook('a') as log: log.info('x')"
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "TZ": zone, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    run, now = tmp_path / "outputs/log_a", datetime.now(UTC)
    for since, count in (
        ("10m", 3),
        ((now - timedelta(minutes=10)).isoformat(), 3),
        ((now + timedelta(minutes=10)).isoformat(), 0),
    ):
        lines = notata("log", run, "--since", since, "--json").stdout.splitlines()
        assert len(lines) == count, (zone, since)


@pytest.mark.parametrize("prune", [False, True])
def test_the_same_once_it_is_merged(base: Path, prune: bool) -> None:
    run = lockstep(base)
    before = notata("log", run).stdout
    merge(run, prune=prune)
    assert notata("log", run).stdout == before
    assert notata("log", "--follow", run).stdout == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--ranks", "1,3"],
            ["[1,3] step 0", "[1,3] step 1", "[1]   hot in 1", "", "[1,3] step 2"],
        ),
        (
            ["--level", "warning"],
            ["[0]   hot in 0", "", "[1]   hot in 1", "", "[2]   hot in 2", ""],
        ),
        (
            ["--ranks", "0,2-3", "--grep", "step|hot"],
            [
                *("[0,2-3] step 0", "[0]   hot in 0", "", "[0,2-3] step 1"),
                *("[0,2-3] step 2", "[2]   hot in 2", ""),
            ],
        ),
        (["--level", "30", "--ranks", "2"], ["[2]   hot in 2", ""]),
        (["--grep", "step [12]"], ["[0-3] step 1", "[0-3] step 2"]),
        (["--grep", "very", "--ranks", "0"], ["[0]   hot in 0", ""]),
        (["--last", "1"], ["[0]   Marked complete"]),
        (["-n", "0"], []),
        (["--since", "1h", "--grep", "step 0"], ["[0-3] step 0"]),
        (["--since", "2100-01-01"], []),
        (["--since", "2020-01-01T00:00:00+00:00", "--grep", "step 0"], ["[0-3] step 0"]),
    ],
)
@pytest.mark.parametrize("follow", [False, True])
def test_what_is_wanted(base: Path, options: list[str], expected: list[str], follow: bool) -> None:
    run = lockstep(base)
    result = notata("log", run, *options, *(["--follow"] if follow else []))
    assert result.exit_code == 0
    assert [line[9:] for line in told(result.stdout)] == expected


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--ranks", "0-4"], "there is no rank 0-4 in 4"),
        (["--ranks", "3-1"], "there is no rank 3-1"),
        (["--ranks", "0-999999999999"], "there is no rank"),
        (["--ranks", "a"], "is no list of ranks; one looks like '0,3-7'"),
        (["--ranks", ""], "is no list of ranks"),
        (["--level", "loud"], "give one of DEBUG"),
        (["--since", "yesterday"], "neither a time"),
        (["--since", "999999999999d"], "neither a time"),
        (["--grep", "("], "unterminated"),
        (["--last", "-1"], "-1 is not in the range"),
        (["--last", "9" * 23], "is not in the range"),
        (["--level", "--5"], "give one of DEBUG"),
    ],
)
def test_wrong_use(base: Path, options: list[str], why: str) -> None:
    result = notata("log", lockstep(base, steps=0), *options)
    assert result.exit_code == 2
    assert why in " ".join(result.stderr.split())
    assert not result.stdout


def test_no_such_run(base: Path) -> None:
    base.mkdir()
    assert notata("log", base).exit_code == 2
    assert notata("log", base / "x").stderr == f"notata: error: no such run: {base / 'x'}\n"


def test_json_lines(base: Path) -> None:
    lines = notata("log", lockstep(base), "--json", "--grep", "step 1").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [(m["rank"], m["level"], m["message"]) for m in found] == [
        (rank, "INFO", "step 1") for rank in range(4)
    ]
    assert found[0]["time"] <= found[3]["time"]


def test_one_rank_has_no_column_of_ranks(base: Path) -> None:
    with Logbook("alone", base) as log:
        log.info("hello")
    lines = notata("log", log.path).stdout.splitlines()
    assert lines[1][19:] == " INFO     hello"


def test_ranks_that_are_many_and_scattered(base: Path) -> None:
    run = run_of(60, base, lambda log: log.info("odd") if log.rank % 2 else None)
    lines = notata("log", run, "--grep", "odd").stdout.splitlines()
    assert sum("… " in line for line in lines) == 1
    assert "[1,3,5,7,9,11,… 30 ranks] odd" in " ".join(lines[0].split())


def test_hostile_messages_are_only_printed(base: Path) -> None:
    with Logbook("x", base) as log:
        log.error(HOSTILE)
        log.info("a\r\x1b[2Jb\n[2026-11-23T03:00:00] ERROR forged")
    with open(log.path / "log.txt", "ab") as file:
        file.write(b"[2026-11-23T03:00:00] \x1b[1m bad \xff\n\x1b[31m")
    result = notata("log", log.path)
    assert_harmless(result.stdout)
    assert "[bold red]x[/] \\x1b[31m" in result.stdout
    assert "\n    [2026-11-23T03:00:00] ERROR forged\n" in result.stdout
    assert "\\udcff" in result.stdout


def test_512_ranks(base: Path) -> None:
    run = run_of(512, base, lambda log: log.info("ready"))
    result = notata("log", run, "--grep", "ready", "--json")
    assert [json.loads(line)["rank"] for line in result.stdout.splitlines()] == list(range(512))


@pytest.mark.parametrize("term", ["xterm", "xterm-256color", "dumb"])
@pytest.mark.parametrize("depth", ["", "truecolor"])
def test_colours_of_every_kind_of_terminal(base: Path, term: str, depth: str) -> None:
    with Logbook("x", base) as log:
        log.warning("hot")
    env = {"FORCE_COLOR": "1", "TERM": term, "COLORTERM": depth}
    printed = program("log", log.path, "--level", "warning", env=env)
    assert printed.returncode == 0, printed.stderr
    assert ("\x1b[33mhot\x1b[0m" in printed.stdout) == (term != "dumb")
    plain = program("log", log.path, "--level", "warning", env=env | {"NO_COLOR": "1"})
    assert "\x1b" not in plain.stdout


def test_long_messages_are_wrapped_on_a_terminal_alone(base: Path) -> None:
    with Logbook("x", base) as log:
        log.info("residual " * 12 + "end\nsecond")
    env = {"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "80"}
    printed = program("log", log.path, "--grep", "residual", env=env).stdout.splitlines()
    assert len(printed) == 4
    assert all(len(line) <= 80 for line in printed)
    assert [line.index("residual") for line in printed[:3]] == [29, 29, 29]
    assert printed[3] == "    second"
    for more in ({"FORCE_COLOR": ""}, {"COLUMNS": "40"}):  # no terminal; one with too little room
        raw = program("log", log.path, "--grep", "residual", env=env | more).stdout
        assert "residual " * 12 + "end\n    second\n" in raw


# ----- folding -----


def record(seconds: float, rank: int | None, message: str) -> Record:
    minutes, rest = divmod(round(seconds * 1e6), 60_000_000)
    stamp = f"2026-11-23T03:{minutes:02d}:{rest // 1_000_000:02d}.{rest % 1_000_000:06d}"
    return Record(stamp, "INFO", rank, message)


def test_the_same_message_later_is_another() -> None:
    given_ = [record(0, 0, "a"), record(0.9, 1, "a"), record(2.5, 2, "a")]
    assert [found.ranks for found in folded(given_)] == [[0, 1], [2]]


def test_a_rank_that_repeats_itself_is_heard_twice() -> None:
    given_ = [record(0, 0, "a"), record(0.1, 0, "a"), record(0.2, 1, "a"), record(0.3, 1, "a")]
    assert [found.ranks for found in folded(given_)] == [[0], [0, 1], [1]]


def test_no_rank_is_never_folded() -> None:
    assert len(list(folded([record(0, None, "a"), record(0, None, "a")]))) == 2


RECORDS = st.lists(
    st.tuples(st.floats(0, 5), st.integers(0, 4), st.sampled_from("abc")), max_size=60
).map(lambda rows: [record(*row) for row in sorted(rows)])


@given(RECORDS)
def test_folding_keeps_each_ranks_order_and_loses_nothing(records: list[Record]) -> None:
    found = list(folded(records))
    for rank in range(5):
        own = [record.message for record in records if record.rank == rank]
        assert [f.first.message for f in found if rank in f.ranks] == own
    assert sum(len(f.ranks) for f in found) == len(records)
    starts = [messages.ticks(f.first.time.encode()) for f in found]
    assert starts == sorted(starts)


@given(RECORDS, st.integers(1, 7))
def test_a_stream_that_stands_still_gives_what_it_has(records: list[Record], every: int) -> None:
    fold, given_ = Fold(), []
    for number, one in enumerate(records):
        given_ += fold.add(one)
        if number % every == 0:
            given_ += fold.settled()
    given_ += [*fold.settled(), *fold.settled()]
    assert not list(fold.rest())
    assert sum(len(f.ranks) for f in given_) == len(records)


# ----- following -----

PROGRAM = """
import sys, time
from notata import Logbook
log = Logbook("live", sys.argv[1])
for step in range(3):
    log.info(f"step {step}\\n  and more")
    sys.stdin.readline()
log.mark_failed("enough") if sys.argv[2] == "failed" else log.mark_complete()
"""


@pytest.mark.parametrize(("end", "status"), [("complete", 0), ("failed", 1)])
def test_following_a_run_until_it_ends(base: Path, end: str, status: int) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, base, end], stdin=subprocess.PIPE, env=env, text=True
    )
    while not (base / "log_live" / "metadata.json").exists():
        time.sleep(0.02)
    reading = subprocess.Popen(
        [sys.executable, "-m", "notata", "log", "-f", base / "log_live", "--grep", "step"],
        stdout=subprocess.PIPE,
        env=env,
        text=True,
    )
    assert run.stdin is not None
    assert reading.stdout is not None
    for step in range(3):  # each line is printed while the run waits for us
        assert reading.stdout.readline().endswith(f"INFO     step {step}\n")
        assert reading.stdout.readline() == "      and more\n"
        run.stdin.write("\n")
        run.stdin.flush()
    run.stdin.close()
    assert run.wait(30) == 0
    assert reading.wait(30) == status
    assert reading.stdout.read() == ""
    reading.stdout.close()


@pytest.fixture
def logs(base: Path) -> Iterator[list[Logbook]]:
    found = [open_as(rank, 3, base) for rank in range(3)]
    yield found
    for log in reversed(found):
        log.mark_complete()


def test_following_many_ranks_while_they_write(logs: list[Logbook]) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "notata", "log", "-f", logs[0].path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as reading:
        stuck = threading.Timer(60, reading.kill)  # a pipe from which nothing comes would wait on
        stuck.start()
        assert reading.stdout is not None
        lines = map(str.rstrip, reading.stdout)
        assert next(lines)[24:] == "INFO     [0]   Logbook initialized"
        for log in logs:
            log.info("step 0")
        assert next(lines)[24:] == "INFO     [0-2] step 0"
        logs[1].warning("hot")
        assert next(lines)[24:] == "WARNING  [1]   hot"
        for rank in (2, 0, 1):  # in one look at three logs, the time says which comes first
            logs[rank].info(f"{rank} is at work")
        assert [next(lines)[24:] for _ in range(3)] == [
            f"INFO     [{rank}]   {rank} is at work" for rank in (2, 0, 1)
        ]
        for log in reversed(logs):
            log.mark_complete()
        assert [line[24:] for line in lines] == ["INFO     [0]   Marked complete"]
        assert reading.wait() == 0
        stuck.cancel()


def texts(follower: Follower) -> list[str]:
    return [messages.record(block).message for block in follower.new()]


def test_a_follower_gives_each_message_once(logs: list[Logbook]) -> None:
    follower = Follower(str(logs[0].path))
    assert texts(follower) == ["Logbook initialized"]
    for number in range(5):
        for log in logs:
            log.info(f"{number} of {log.rank}")
        assert texts(follower) == [f"{number} of {rank}" for rank in range(3)]
    assert texts(follower) == []


def test_a_torn_line_waits_for_its_end(logs: list[Logbook]) -> None:
    follower = Follower(str(logs[0].path), [1])
    logs[1].info("whole")
    path = logs[1].path / "ranks" / "rank_00001" / "log.txt"
    with path.open("ab") as file:
        file.write(b"[2026-11-23T03:00:00.000000] INFO [rank 1] to")
    assert texts(follower) == ["whole"]
    with path.open("ab") as file:
        file.write(b"rn\n")
    assert texts(follower) == ["torn"]
    with path.open("ab") as file:
        file.write(b"[2026-11-23T03:00:00.000000] INFO [rank 1] cut o")
    assert texts(follower) == []
    assert [messages.record(block).message for block in follower.rest()] == ["cut o"]


def test_a_merge_meanwhile_repeats_nothing(base: Path) -> None:
    run = lockstep(base)
    follower = Follower(str(run))
    count = len(texts(follower))
    merge(run)
    assert texts(follower) == []
    assert count == len(texts(Follower(str(run))))


def test_more_than_a_chunk_at_once(logs: list[Logbook]) -> None:
    follower = Follower(str(logs[0].path), [2])
    long = [f"{number} {'x' * 3000}\nand {'y' * 3000}" for number in range(100)]
    for text in long:
        logs[2].info(text)
    assert texts(follower) == long


def test_a_run_that_is_written_again(base: Path) -> None:
    with Logbook("run", base) as log:
        log.info("x" * 1000)
    follower = Follower(str(log.path))
    assert len(texts(follower)) == 3
    with Logbook("run", base, overwrite=True) as log:
        log.info("new")
    assert texts(follower) == ["Logbook initialized", "new", "Marked complete"]


# ----- the last messages -----


def test_the_last_messages_are_those_of_the_whole_stream(base: Path) -> None:
    run = lockstep(base, steps=5)
    stream = [record.message for record in messages_of(run)]
    for count in (0, 1, 4, 1000):
        assert [r.message for r in last(str(run), count)] == (stream[-count:] if count else [])


def messages_of(run: Path) -> Iterator[Record]:
    from notata import LogReader

    return LogReader(run).messages()


def test_the_last_messages_of_a_long_log(base: Path) -> None:
    with Logbook("long", base) as log:
        for number in range(5000):
            log.info(f"{number} {'é' * 50}")
    assert [r.message.split()[0] for r in last(str(log.path), 2)] == ["4999", "Marked"]
