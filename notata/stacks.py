"""Where ranks stand that gave no sign of life: their stacks on disk, written and read."""

from __future__ import annotations

import faulthandler
import os
import re
import threading
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from notata import aside, files, gather, layout
from notata.messages import now, stamp_seconds
from notata.ranges import ranks_text
from notata.stored import read_json


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
        time: When its stacks were written, in its local time; empty where that is not known.
        host: Its node; likewise.
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
_TIMEOUT = re.compile(rb"Timeout \((\d+):(\d\d):(\d\d(?:\.\d+)?)\)!")


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
        f"[{now()}] rank {rank} on {host}, process {os.getpid()}: no sign of life for "
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
    files.append_line(path, aside.going_on())


def last(path: str) -> Stand | None:
    """The newest stacks in a file of them, if there are any.

    Ranks: independent.
    """
    return _last(path, "")


def read(run: str, size: int, ranks: Container[int] | None = None) -> dict[int, Stand]:
    """Where each rank stood last, for those that wrote it down in the newest attempt at the run.

    Args:
        run: The run's folder.
        size: Number of its ranks.
        ranks: Those that are looked at; all of them by default.

    Ranks: independent.
    """
    own = gather.rank_folders(run) if size > 1 else {0: run}
    paths = {rank: os.path.join(folder, layout.STACKS) for rank, folder in own.items()}
    left = aside.left(run, size > 1)
    began = _newest_attempt(run)
    found: dict[int, Stand] = {}
    for rank in sorted(paths.keys() | left.keys()):
        if ranks is not None and rank not in ranks:
            continue
        both = [_last(paths[rank], began)] if rank in paths else []
        both += [_by_timer(left[rank], rank, began)] if rank in left else []
        # A process that ends while it writes its stacks leaves a head without any.
        stands = sorted(filter(None, both), key=lambda one: (one.went_on, not one.frames))
        if stands:
            found[rank] = stands[0]
    return found


def _newest_attempt(run: str) -> str:
    """When the newest attempt at a run began, as a time stamp; empty if there was one only."""
    told = (read_json(os.path.join(run, layout.METADATA)) or {}).get("attempts")
    newest = told[-1] if isinstance(told, list) and told else None
    return str(newest.get("start_time") or "") if isinstance(newest, dict) else ""


def _last(path: str, began: str) -> Stand | None:
    """The newest stacks in a file of them, if they were written since then."""
    below, match = _newest(path, _HEAD)
    if match is None or _text(match[1]) < began:
        return None
    stamp, rank, host, silent, main = match.groups()
    frames = _threads(below).get(int(main, 16), ())
    went_on = any(line.endswith(aside.WENT_ON) for line in below)
    return Stand(int(rank), _text(stamp), _text(host), float(silent), frames, went_on)


def _by_timer(path: str, rank: int, began: str) -> Stand | None:
    """The newest stacks of a rank that held Python's lock all the time; they have no time."""
    below, match = _newest(path, _TIMEOUT)
    if match is None:
        return None
    with suppress(OSError, ValueError, OverflowError):
        if began and os.stat(path).st_mtime < stamp_seconds(began):
            return None
    hours, minutes, seconds = map(float, match.groups())
    frames = list(_threads(below).values())
    went_on = any(line.endswith(aside.WENT_ON) for line in below)
    silent = 3600 * hours + 60 * minutes + seconds
    return Stand(rank, "", "", silent, frames[-1] if frames else (), went_on)  # the first thread


def _newest(path: str, head: re.Pattern[bytes]) -> tuple[list[bytes], re.Match[bytes] | None]:
    """The last head in a file, and the lines below it."""
    lines = (files.read_bytes(path) or b"").split(b"\n")
    for number in range(len(lines) - 1, -1, -1):
        match = head.match(lines[number])
        if match is not None:
            return lines[number + 1 :], match
    return [], None


def _threads(lines: Iterable[bytes]) -> dict[int, tuple[Frame, ...]]:
    """The stacks of a process by thread, as `faulthandler` lists them: the newest thread first."""
    found: dict[int, tuple[Frame, ...]] = {}
    thread = 0
    for line in lines:
        if match := _THREAD.match(line):
            thread = int(match[1], 16)
        elif match := _FRAME.fullmatch(line):
            frame = Frame(_text(match[1]), int(match[2]), _text(match[3]))
            found[thread] = (*found.get(thread, ()), frame)
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


class Survey(NamedTuple):
    """Which ranks of a run stand where.

    Attributes:
        groups: Ranks that stand together, as `groups` gives them.
        went_on: Ranks that gave a sign of life after their stacks were written.
        ended: What ranks say of their end, by rank: `complete`, or `failed` and why.
        silent: Ranks that left nothing to tell.
    """

    groups: list[list[Stand]]
    went_on: list[int]
    ended: dict[int, str]
    silent: list[int]


def survey(run: str, size: int, ranks: Container[int] | None = None) -> Survey:
    """See which ranks of a run stand where.

    Args:
        run: The run's folder.
        size: Number of its ranks.
        ranks: Those that are looked at; all of them by default.

    Ranks: independent.
    """
    asked = range(size) if ranks is None else ranks
    stands = read(run, size, ranks)
    ended: dict[int, str] = {}
    for rank, folder in gather.rank_folders(run).items():
        if rank not in asked:
            continue
        record = read_json(os.path.join(folder, layout.RANK_RECORD)) or {}
        if record.get("status") in ("complete", "failed"):
            why = record.get("failure_reason")
            ended[rank] = f"{record['status']}: {why}" if why else str(record["status"])
    standing = {rank for rank, stand in stands.items() if not stand.went_on}
    went_on = sorted(stands.keys() - standing - ended.keys())
    heard = stands.keys() | ended.keys()
    silent = [rank for rank in range(size) if rank in asked and rank not in heard]
    elsewhere = {rank: told for rank, told in ended.items() if rank not in standing}
    return Survey(groups(stands), went_on, elsewhere, silent)


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
