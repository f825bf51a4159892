"""Where ranks stand that gave no sign of life: their stacks on disk, written and read."""

from __future__ import annotations

import faulthandler
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from notata import files, gather, layout
from notata.ranges import ranks_text


class Frame(NamedTuple):
    """A line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function} ({os.path.basename(self.file)}:{self.line})"


class Stand(NamedTuple):
    """Where a rank stood when it had given no sign of life for some time.

    Attributes:
        rank: The rank.
        time: When its stacks were written, in its local time.
        host: Its node.
        silent: For how many seconds it had given no sign then.
        frames: What its main thread did, the innermost first.
        went_on: Whether it gave a sign after that.
    """

    rank: int
    time: str
    host: str
    silent: float
    frames: tuple[Frame, ...]
    went_on: bool

    @property
    def own(self) -> tuple[Frame, ...]:
        """The frames without those of this package."""
        return tuple(frame for frame in self.frames if not _ours(frame)) or self.frames

    @property
    def place(self) -> str:
        """The innermost line that is not of this package, in few words."""
        if not self.own:
            return "an unknown place"
        closes = any(_ours(frame) and frame.function == "_close" for frame in self.frames)
        waits = ", waiting for the other ranks to close the run" if closes else ""
        return f"{self.own[0]}{waits}"


def _ours(frame: Frame) -> bool:
    return os.path.basename(os.path.dirname(frame.file)) == __package__


_HEAD = re.compile(
    rb"\[(\S+)\] rank (\d+) on (\S*), process \d+: no sign of life for ([\d.]+) s; "
    rb"main thread 0x([0-9a-f]+)"
)
_THREAD = re.compile(rb"(?:Current thread|Thread) 0x([0-9a-f]+)")
_FRAME = re.compile(rb'  File "(.*)", line (\d+) in (.*)')
_WENT_ON = b"went on"


def write(path: str, rank: int, host: str, silent: float) -> None:
    """Append the stacks of all threads of this process.

    Args:
        path: The file.
        rank: This process's rank.
        host: Its node.
        silent: For how many seconds the program gave no sign of life.

    Ranks: independent.
    """
    main = threading.main_thread().ident or 0
    head = (
        f"[{_now()}] rank {rank} on {host}, process {os.getpid()}: no sign of life for "
        f"{silent:.1f} s; main thread 0x{main:016x}\n"
    )
    descriptor = files.open_append(path)
    try:
        files.write_all(descriptor, head.encode())
        faulthandler.dump_traceback(descriptor)
    finally:
        os.close(descriptor)


def note_going_on(path: str) -> None:
    """Append that the program gave a sign of life again.

    Ranks: independent.
    """
    files.append_line(path, b"[%b] %b\n" % (_now().encode(), _WENT_ON))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def read(run: str, size: int) -> dict[int, Stand]:
    """Where each rank stood last, for those that wrote it down.

    Args:
        run: The run's folder.
        size: Number of its ranks.

    Ranks: independent.
    """
    folders = gather.rank_folders(run) if size > 1 else {0: run}
    found = {rank: _last(os.path.join(path, layout.STACKS)) for rank, path in folders.items()}
    return {rank: stand for rank, stand in found.items() if stand is not None}


def _last(path: str) -> Stand | None:
    lines = (files.read_bytes(path) or b"").split(b"\n")
    starts = [number for number, line in enumerate(lines) if _HEAD.match(line)]
    if not starts:
        return None
    head = _HEAD.match(lines[starts[-1]])
    assert head is not None
    stamp, rank, host, silent, main = head.groups()
    frames: list[Frame] = []
    thread, went_on = b"", False
    for line in lines[starts[-1] + 1 :]:
        if match := _THREAD.match(line):
            thread = match[1]
        elif (match := _FRAME.fullmatch(line)) and int(thread or b"0", 16) == int(main, 16):
            frames.append(Frame(_text(match[1]), int(match[2]), _text(match[3])))
        elif line.endswith(_WENT_ON):
            went_on = True
    return Stand(int(rank), _text(stamp), _text(host), float(silent), tuple(frames), went_on)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def groups(stands: Mapping[int, Stand]) -> list[list[Stand]]:
    """Ranks that still stand at the same place, the fewest together first.

    The many that wait for one another stand together; the one that they wait for is elsewhere.

    Ranks: independent.
    """
    found: dict[tuple[Frame, ...], list[Stand]] = {}
    for rank in sorted(stands):
        if not stands[rank].went_on:
            found.setdefault(stands[rank].own, []).append(stands[rank])
    return sorted(found.values(), key=len)


def told(stands: Iterable[list[Stand]]) -> str:
    """Groups of ranks and their places in a sentence.

    Ranks: independent.
    """
    return "; ".join(
        f"{ranks_text(stand.rank for stand in group)} in {group[0].place}" for group in stands
    )
