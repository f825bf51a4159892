"""The command `notata log`."""

from __future__ import annotations

import os
import re
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from notata.cli.printing import ATTENTION, KEEP, console, json_text, located, painter
from notata.phrases import duration_of, printable
from notata.ranges import compact, ranks_of

if TYPE_CHECKING:
    from notata.folding import Folded
    from notata.messages import Block, Record
    from notata.reader import LogReader

_HELP = f"""Print the messages of all ranks of a RUN as one stream in time order.

The same message from many ranks within a second is one line, as [0-63]. With --follow, messages
are printed as they are written, until the run has ended. RUN may be a name below outputs/.

{KEEP}Example:
  notata log outputs/log_heat
  notata log outputs/log_heat --ranks 0,1-2 --level info --since 10m
  notata log outputs/log_heat --grep 'greetings|residual' --json
  notata log outputs/log_heat --last 20 --follow

Exit status: 0; 1 if --follow saw the run fail or get lost; 2 if there is no such run.
"""

_EVERY = 0.5  # seconds between two looks at the logs
_LONGEST = 28  # characters of the list of ranks
_NARROW = 24  # columns with less than which messages are not wrapped
_STYLES = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}


class _Wish(NamedTuple):
    """Which messages are wanted."""

    ranks: list[int] | None
    level: int
    since: int  # ticks
    pattern: re.Pattern[str] | None

    def admits(self, record: Record) -> bool:
        from notata.messages import ticks
        from notata.streams import level_of

        if self.level > 0 and level_of(record.level) < self.level:
            return False
        if self.since and ticks(record.time.encode()) < self.since:
            return False
        return self.pattern is None or self.pattern.search(record.message) is not None


@click.command(help=_HELP)
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--ranks", metavar="LIST", help="Only these ranks, such as 0,3-7.")
@click.option("--level", default="0", help="The lowest level, by name or number.")
@click.option("--since", metavar="WHEN", help="Only what is newer: 10m, 2h, or 2026-11-23T03:00.")
@click.option("--grep", metavar="REGEX", help="Only messages in which this is found.")
@click.option("--last", "-n", type=click.IntRange(0, 10**9), help="Only the last so many lines.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document a message, unfolded.")
@click.pass_context
def log(ctx: click.Context, /, run: str, follow: bool, **options: Any) -> None:
    """Print the messages of a run.

    Ranks: independent; one process is enough.
    """
    from notata.reader import LogReader

    reader = LogReader(located(run))
    wish = _wish(reader, options)
    tell: _Teller = _Json() if options["as_json"] else _Lines(reader.size)
    if not follow:
        lines = tell.lines(filter(wish.admits, reader.messages(ranks=wish.ranks)))
        _print(_cut(lines, options["last"]))
    elif _follow(reader, wish, tell, options["last"]):
        ctx.exit(ATTENTION)


def _level(text: str) -> int:
    from notata.messages import level_number

    return level_number(int(text) if text.removeprefix("-").isdecimal() else text)


def _wish(reader: LogReader, options: dict[str, Any]) -> _Wish:
    return _Wish(
        _checked("--ranks", options["ranks"], lambda text: ranks_of(text, reader.size)),
        _checked("--level", options["level"], _level),
        _checked("--since", options["since"], lambda text: _since(text, reader)) or 0,
        _checked("--grep", options["grep"], re.compile),
    )


def _checked(option: str, value: Any, make: Callable[[Any], Any]) -> Any:
    try:
        return None if value is None else make(value)
    except (ValueError, OverflowError, re.error) as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _since(text: str, reader: LogReader) -> int:
    """The ticks of a time, or of so long ago, in the local time of where the run ran."""
    from datetime import datetime, timedelta

    from notata import layout
    from notata.messages import abroad, ticks
    from notata.stored import read_json

    meta = read_json(os.path.join(reader.path, layout.METADATA)) or {}
    ahead = timedelta(seconds=abroad(meta))
    try:
        when = datetime.fromisoformat(text)
        when = when.astimezone().replace(tzinfo=None) + ahead if when.tzinfo else when
    except ValueError:
        try:
            when = datetime.fromtimestamp(time.time() - duration_of(text)) + ahead
        except (ValueError, OverflowError, OSError):
            raise ValueError(
                f"{text!r} is neither a time, such as 2026-11-23T03:00, nor a duration, such as 10m"
            ) from None
    return ticks(when.isoformat(timespec="seconds").encode())


# ----- following -----


def _follow(reader: LogReader, wish: _Wish, tell: _Teller, last: int | None) -> bool:
    """Print what comes until the run has ended; whether it ended badly."""
    from notata.pulse import LOST, RUNNING, Clock, state
    from notata.tails import Follower

    follower = Follower(os.fspath(reader.path), wish.ranks)
    _print(_cut([*tell.lines(_admitted(follower.new(), wish)), *tell.rest()], last))
    while True:
        # Asked before the logs are read, so that the last words of a run that ends now are among
        # them.
        status = state(str(reader.meta.get("status")), reader.path, Clock(reader.path))
        for found in _admitted(follower.new(), wish):
            _print(tell.add(found))
        if status != RUNNING:
            _print(tell.lines(_admitted(follower.rest(), wish)))
            return status in ("failed", LOST)
        _print(tell.settled())
        time.sleep(_EVERY)


def _admitted(blocks: Iterable[Block], wish: _Wish) -> Iterator[Record]:
    from notata.messages import record

    return filter(wish.admits, map(record, blocks))


def _cut(lines: Iterable[str], last: int | None) -> Iterable[str]:
    return lines if last is None else deque(lines, last)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


# ----- lines -----


class _Teller(ABC):
    """Makes lines of messages, which may wait for others."""

    def lines(self, records: Iterator[Record]) -> Iterator[str]:
        for record in records:
            yield from self.add(record)
        yield from self.rest()

    @abstractmethod
    def add(self, record: Record) -> Iterator[str]: ...

    def settled(self) -> Iterator[str]:
        return iter(())

    def rest(self) -> Iterator[str]:
        return iter(())


class _Json(_Teller):
    def add(self, record: Record) -> Iterator[str]:
        yield json_text(record._asdict(), indent=None)


class _Lines(_Teller):
    def __init__(self, size: int) -> None:
        from notata.folding import Fold

        self._fold = Fold()
        screen = console()
        self._columns = screen.width if screen.is_terminal else 0
        self._size, self._paint = size, painter()
        self._width = min(len(f"[0-{size - 1}]"), _LONGEST) if size > 1 else 0

    def add(self, record: Record) -> Iterator[str]:
        return map(self._line, self._fold.add(record))

    def settled(self) -> Iterator[str]:
        return map(self._line, self._fold.settled())

    def rest(self) -> Iterator[str]:
        return map(self._line, self._fold.rest())

    def _line(self, folded: Folded) -> str:
        first = folded.first
        stamp = first.time.replace("T", " ")[:23] or "-"
        stamp = stamp.ljust(23 if self._size > 1 else 19)
        level = printable(first.level or "-").ljust(8)
        who = f"{_who(folded.ranks or [0]):{self._width}} " if self._width else ""
        style = _STYLES.get(first.level, "")
        said, *more = map(printable, first.message.split("\n"))
        lines = "\n    ".join([self._wrapped(said, len(f"{stamp} {level} {who}")), *more])
        colour = style if style not in ("", "dim") else ""
        told = self._paint(lines, colour) if colour else lines
        return f"{self._paint(stamp, 'dim')} {self._paint(level, style)} {who}{told}"

    def _wrapped(self, text: str, indent: int) -> str:
        """On a terminal, what has no room stands below the rest of its message."""
        room = self._columns - indent
        if len(text) <= room or room < _NARROW:
            return text
        from textwrap import TextWrapper

        wrapper = TextWrapper(room, break_on_hyphens=False, expand_tabs=False)
        return ("\n" + " " * indent).join(wrapper.wrap(text) or [text])


def _who(ranks: list[int]) -> str:
    told = compact(ranks)
    if len(told) <= _LONGEST - 2:
        return f"[{told}]"
    tail = f",… {len(ranks)} ranks"
    cut = told[: _LONGEST - 2 - len(tail)].rpartition(",")[0]
    return f"[{cut}{tail}]"
