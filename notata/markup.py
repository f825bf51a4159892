"""What a notebook shows of runs: small HTML tables in which every value is escaped."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from notata.phrases import printable

LONGEST = 240  # characters of a value
MOST = 20  # lines of a list, and rows of a table
_COLOURS = {"complete": "#1a7f37", "failed": "#cf222e", "damaged": "#cf222e", "lost": "#cf222e"}


def escaped(value: Any) -> str:
    """A value as text of HTML on one line, cut off where it is long.

    Example:
        >>> escaped("<b>")
        '&lt;b&gt;'

    Ranks: independent.
    """
    text = printable(str(value))
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return html.escape(text, quote=True)


def card(kind: str, title: str, status: str, rows: Mapping[str, Sequence[Any] | str]) -> str:
    """One run: a line for each thing that is to be said, which are left out where empty.

    Args:
        kind: What it is, such as `LogReader`.
        title: Its name.
        status: What became of it.
        rows: What is said, by its heading: text, or a list with a line each.

    Ranks: independent.
    """
    lines = []
    for heading, told in rows.items():
        items = [told] if isinstance(told, str) else list(told)
        shown = [escaped(item) for item in items[:MOST]]
        if len(items) > MOST:
            shown.append(f"… and {len(items) - MOST} more")
        if shown:
            lines.append(
                '<tr><th style="text-align:left;vertical-align:top">'
                f'{escaped(heading)}</th><td style="text-align:left">{"<br>".join(shown)}</td></tr>'
            )
    return f"<table>{_caption(kind, title, _coloured(status))}{''.join(lines)}</table>"


def grid(kind: str, title: str, rows: Sequence[Mapping[str, Any]], count: int) -> str:
    """Many runs: a row each, a column for each name that any of them has.

    Args:
        kind: What it is, such as `ExperimentReader`.
        title: Its name.
        rows: The runs that are shown.
        count: How many there are.

    Ranks: independent.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escaped(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(_cell(name, row) for name in names)}</tr>" for row in rows)
    rest = f"<tr><td>… and {count - len(rows)} more</td></tr>" if count > len(rows) else ""
    runs = "1 run" if count == 1 else f"{count} runs"
    caption = _caption(kind, title, escaped(runs))
    return f"<table>{caption}<tr>{head}</tr>{body}{rest}</table>"


def _cell(name: str, row: Mapping[str, Any]) -> str:
    if name not in row:
        return "<td></td>"
    return f"<td>{_coloured(row[name]) if name == 'status' else escaped(row[name])}</td>"


def _caption(kind: str, title: str, rest: str) -> str:
    return (
        '<caption style="text-align:left;white-space:nowrap">'
        f"{escaped(kind)} <b>{escaped(title)}</b> {rest}</caption>"
    )


def _coloured(status: Any) -> str:
    colour = _COLOURS.get(str(status))
    return f'<span style="color:{colour}">{escaped(status)}</span>' if colour else escaped(status)


def pairs(values: Mapping[Any, Any]) -> list[str]:
    """Names and values, a line each.

    Ranks: independent.
    """
    return [f"{key} = {value!r}" for key, value in values.items()]


def tried(read: Callable[[], Iterable[str] | str]) -> list[str] | str:
    """What can be read, or why it can't: what a notebook shows never raises.

    Ranks: independent.
    """
    try:
        found = read()
        return found if isinstance(found, str) else list(found)
    except (OSError, ValueError, TypeError, KeyError) as error:
        return [f"({error})"]
