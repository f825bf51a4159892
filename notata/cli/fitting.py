"""Tables as wide as there is room for: columns get narrower, or are left out, in good order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.measure import Measurement
    from rich.table import Column, Table
    from rich.text import Text

_BETWEEN = 3  # blanks between two columns
_WORD = 12  # letters of a word that is not folded
_EASY = 16  # letters of a line that is read with ease
_WITHOUT_END = 1_000_000  # columns of a pipe or a file


class Shortened:
    """Text that loses its middle where it has no room, for what other columns say as well.

    Args:
        text: The text.

    Ranks: independent.
    """

    def __init__(self, text: Text) -> None:
        self._text = text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        width = self._text.cell_len
        return Measurement(min(width, _WORD), width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.cells import set_cell_size

        room, text = options.max_width, self._text
        if text.cell_len > room:
            plain, head = text.plain, room // 2
            first = set_cell_size(plain, head)
            last = set_cell_size(plain[::-1], max(0, room - head - 1))[::-1]
            text = type(text)(f"{first}…{last}")
        yield text


def room(screen: Console) -> int:
    """How many columns there are: those of the terminal, or as many as are wanted in a pipe.

    Args:
        screen: Standard output; `COLUMNS` sets its width everywhere.

    Ranks: independent.
    """
    bounded = screen.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return screen.width if bounded else _WITHOUT_END


def empty() -> Table:
    """A table without columns, in the manner of all tables.

    Ranks: independent.
    """
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")


def lines(table: Table, screen: Console, spare: Sequence[str] = ()) -> Iterator[str]:
    """The lines of a table, in which no column is narrower than its words.

    Args:
        table: The table.
        screen: Standard output, for this table alone.
        spare: Headings of columns that are left out where they have no room, the first one first.

    Ranks: independent.
    """
    options = screen.options.update(width=_WITHOUT_END)
    kept = [(column, *_widths(column, screen, options)) for column in table.columns]
    width = room(screen)
    for heading in spare:
        if _total([max(least, min(most, _EASY)) for _, least, most in kept]) <= width:
            break
        kept = [one for one in kept if str(one[0].header) != heading]
    columns, least, most = zip(*kept, strict=True)
    fitted = _of(columns, _shared(least, most, width))
    screen.width = _WITHOUT_END  # Rich would fold it once more
    with screen.capture() as captured:
        screen.print(fitted)
    for line in captured.get().splitlines():
        yield line if screen.is_terminal else line.rstrip()


def _of(columns: Sequence[Column], widths: Sequence[int]) -> Table:
    table = empty()
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            column.header,
            justify=column.justify,
            overflow=column.overflow,
            no_wrap=column.no_wrap,
            width=width,
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table


def _widths(column: Column, screen: Console, options: ConsoleOptions) -> tuple[int, int]:
    """The least width that a column is readable in, and the one in which it is a line a row."""
    cells = [screen.measure(cell, options=options) for cell in (column.header, *column.cells)]
    most = max(cell.maximum for cell in cells)
    most = min(most, column.max_width or most)
    least = most if column.no_wrap else min(_WORD, max(cell.minimum for cell in cells))
    return min(least, most), most


def _shared(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """Widths that fit together, if they can: the widest column gives way first."""
    widths = list(most)
    while _total(widths) > room:
        able = [at for at, width in enumerate(widths) if width > least[at]]
        if not able:
            break
        widths[max(able, key=lambda at: widths[at])] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _BETWEEN * (len(widths) - 1)
