"""Logs are read side by side in bounded memory, and long lines in few steps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import forget_logs, write_as

from notata import LogReader, streams, tails

HEAD = b"[2026-11-23T03:00:%02d.000000] INFO [rank %d] "


class Reads:
    """The bytes that each reading of a file asked for, and those that came."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.found: list[int] = []

    def open(self, path: Any, *args: Any, **options: Any) -> Any:
        reads = self
        file = open(path, *args, **options)  # noqa: SIM115

        class File:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

            def read(self, size: int) -> bytes:
                data: bytes = file.read(size)
                reads.asked.append(size)
                reads.found.append(len(data))
                return data

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return File()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    found = Reads()
    for module in (streams, tails):
        monkeypatch.setattr(module, "open", found.open, raising=False)
    return found


def a_run(base: Path, texts: list[bytes]) -> Path:
    run = write_as(len(texts), base, lambda log: log.info("here"))
    for rank, text in enumerate(texts):
        (run / (f"ranks/rank_{rank:05d}/log.txt" if rank else "log.txt")).write_bytes(text)
    forget_logs(run)
    return run


@given(st.lists(st.sampled_from([b"a", b"bc" * 20, b"\n", b"\r", b"\x85\x0c"])), st.integers(1, 9))
def test_lines_are_cut_at_line_breaks_alone(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    data = b"".join(parts)
    path.write_bytes(data)
    expected = [line + b"\n" for line in data.split(b"\n")]
    expected[-1] = expected[-1][:-1]
    assert list(streams._lines(os.fspath(path), size)) == [line for line in expected if line]


def test_the_more_logs_the_less_of_each_is_held(
    base: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [streams._chunk(n) for n in (1, 1024, 4096, 10**6)] == [65536, 65536, 16384, 4096]
    texts = [b"".join(HEAD % (s, rank) + b"x" * 50 + b"\n" for s in range(60)) for rank in range(9)]
    run = a_run(base, texts)
    monkeypatch.setattr(streams, "_ALL", 9 * 512)
    monkeypatch.setattr(streams, "_LEAST", 64)
    stream = streams.blocks_in_order(os.fspath(run))
    first = next(stream)
    assert first.rank == 0
    assert sum(reads.found) <= 9 * 512
    rest = list(stream)
    assert len(rest) == 9 * 60 - 1
    assert max(reads.asked) == 512
    assert sum(reads.found) == sum(map(len, texts))


@pytest.mark.parametrize("follow", [False, True])
def test_a_line_without_a_break_is_read_in_few_steps(
    base: Path, reads: Reads, follow: bool
) -> None:
    """Each byte once; and in parts that double, as the line is held anyway."""
    long = b"y" * 4_000_000
    texts = [HEAD % (1, 0) + b"a\n", HEAD % (2, 1) + long + b"\n" + HEAD % (3, 1) + b"b\n"]
    run = a_run(base, texts)
    if follow:
        messages = [block.raw for block in tails.Follower(os.fspath(run)).new()]
    else:
        messages = [block.raw for block in streams.blocks_in_order(os.fspath(run))]
    assert messages == [texts[0], HEAD % (2, 1) + long + b"\n", HEAD % (3, 1) + b"b\n"]
    assert sum(reads.found) == sum(map(len, texts))
    assert len(reads.asked) < 16
    assert len(list(LogReader(run).messages())) == 3


def test_a_message_of_many_lines_is_followed_in_few_steps(base: Path, reads: Reads) -> None:
    long = HEAD % (2, 1) + b"z\n" + b"    more of it\n" * 200_000
    run = a_run(base, [HEAD % (1, 0) + b"a\n", long + HEAD % (3, 1) + b"b\n"])
    messages = [block.raw for block in tails.Follower(os.fspath(run)).new()]
    assert messages == [HEAD % (1, 0) + b"a\n", long, HEAD % (3, 1) + b"b\n"]
    assert len(reads.asked) < 16
