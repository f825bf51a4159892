"""The command `notata show`."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import click

from notata.cli.printing import ATTENTION, KEEP, complain, console, json_text, located, status_text
from notata.phrases import counted, duration_text, printable, size_text
from notata.ranges import compact, expand

if TYPE_CHECKING:
    from rich.text import Text

    from notata.contents import ArrayFacts
    from notata.folding import Folded
    from notata.overview import Overview

_HELP = f"""Show what a RUN is, on one screen: status, parameters, ranks, arrays, last messages.

Arrays come with shape and type, merged or not; files of ranks other than 0 with the ranks, as
[1-3], and so do arrays that join="none" keeps apart. What has no room is counted; --json prints all
of it. RUN may be a name below outputs/, or the id of a run.

{KEEP}Example:
  notata show outputs/log_heat
  notata show --json outputs/log_heat

Exit status: 0; 1 if the run failed, is lost, or has damaged files; 2 if there is no such run.
"""

_MESSAGES = 100  # of the last ones, with --json
_SHOWN = 12  # of them on a screen
_LONG = 16  # characters of a list of ranks
_TALL = 40  # lines, where there is no terminal
_REASON = 3  # lines of a reason
_FEWEST = 2  # lines that each part gets, if it has so many
Lines = list["Text"]


@click.command(name="show", help=_HELP)
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def show_run(ctx: click.Context, run: str, as_json: bool) -> None:
    """Show what a run is.

    Ranks: independent; one process is enough.
    """
    from notata import overview

    found = overview.of(located(run), _MESSAGES)
    if as_json:
        click.echo(json_text(_plain(found)))
    else:
        _show(found)
    for sentence in found.damage:
        complain(sentence)
    if found.damage or found.status in ("failed", "lost", "damaged"):
        ctx.exit(ATTENTION)


def _plain(found: Overview) -> dict[str, Any]:
    told = found._asdict()
    told["arrays"] = [
        {**facts._asdict(), "problem": facts.problem or None, "bytes": facts.nbytes}
        for facts in found.arrays
    ]
    told["messages"] = [record._asdict() for record in found.messages]
    return told | {"reason": found.reason or None}


def _show(found: Overview) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from notata.folding import folded

    screen = console()
    height = screen.height if screen.is_terminal else _TALL
    width = screen.width - 4 - 12  # without the frame and the names of the parts
    parts = {
        "": _head(found, width),
        "attempts": [_attempt(number, entry) for number, entry in enumerate(found.attempts, 1)],
        "parameters": _pairs(found.params, width),
        "metrics": _pairs(found.metrics, width),
        "ranks": _ranks(found),
        "arrays": [*_arrays(found.arrays), *_apart(found.apart)],
        "artifacts": _names([*found.artifacts, *_of_ranks(found.rank_artifacts)], width),
        "plots": _names([*found.plots, *_of_ranks(found.rank_plots)], width),
        "messages": _messages(list(folded(found.messages))[-_SHOWN:]),
    }
    parts = {name: lines for name, lines in parts.items() if lines}
    shares = _shares({name: len(lines) for name, lines in parts.items()}, height - 3)
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(min_width=10, style="bold")
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for name, lines in parts.items():
        for number, line in enumerate(_fitted(name, lines, shares[name])):
            grid.add_row(name if number == 0 else "", line)
    title = Text(overflow="ellipsis").append(printable(found.run_id), "bold default")
    title.truncate(max(8, screen.width - 24), overflow="ellipsis")
    title.append("  ").append_text(status_text(found.status))
    screen.print(Panel(grid, title=title, title_align="left", border_style="bright_black"))


def _shares(wanted: Mapping[str, int], lines: int) -> dict[str, int]:
    """How many lines each part gets: all it wants, or the rest is given out in turns."""
    shares = {name: min(count, _FEWEST) for name, count in wanted.items()}
    if "" in wanted:
        shares[""] = wanted[""]
    left = lines - sum(shares.values())
    while left > 0 and shares != wanted:
        for name, count in wanted.items():
            if shares[name] < count and left > 0:
                shares[name] += 1
                left -= 1
    return shares


def _fitted(name: str, lines: Lines, share: int) -> Lines:
    from rich.text import Text

    if len(lines) <= share:
        return lines
    if name == "messages":
        return lines[-share:]  # the last ones say most
    kept = lines[: share - 1]
    return [*kept, Text(f"and {len(lines) - len(kept)} more lines", style="dim")]


# ----- parts -----


def _wrapped(reason: str, width: int) -> Lines:
    """A reason in as many lines as it needs, up to a few."""
    from rich.text import Text

    lines = textwrap.wrap(reason, max(width, 8)) or [reason]
    if len(lines) > _REASON:
        lines = [*lines[: _REASON - 1], " ".join(lines[_REASON - 1 :])]
    return [Text(line, style="red") for line in lines]


def _head(found: Overview, width: int) -> Lines:
    from rich.text import Text

    lines = [Text(printable(found.path), style="dim")]
    if found.started is not None:
        age = duration_text(max(0.0, time.time() - found.started), coarse=True)
        began = printable(str(found.meta.get("start_time"))).replace("T", " ")
        took = ""
        if found.runtime is not None and abs(found.runtime) < 1e12:
            word = "runs for" if found.status == "running" else "took"
            took = f", {word} {duration_text(found.runtime)}"
        lines.append(Text(f"began {began}, {age} ago{took}"))
    if found.reason:
        lines += _wrapped(printable(found.reason), width)
    commit = _commit(found.meta)
    if commit:
        lines.append(Text(commit))
    return lines


def _commit(meta: Mapping[str, Any]) -> str:
    told = meta.get("provenance")
    told = told if isinstance(told, dict) else {}
    git, user = told.get("git"), told.get("user")
    parts = [f"by {user}"] if user else []
    if isinstance(git, dict) and git.get("commit"):
        changed = ", changed" if git.get("dirty") or git.get("modified") else ""
        parts.append(f"code {str(git['commit'])[:12]}{changed}")
    command = told.get("command")
    words = " ".join(map(str, command)) if isinstance(command, list) else ""
    return printable(": ".join(filter(None, (", ".join(parts), words))))


def _attempt(number: int, entry: Mapping[str, Any]) -> Text:
    from rich.text import Text

    line = Text(f"{number}  {printable(str(entry.get('start_time'))).replace('T', ' ')}  ")
    line.append_text(status_text(str(entry.get("status"))))
    for name in ("job", "host", "failure_reason"):
        if entry.get(name):
            line.append(f"  {printable(str(entry[name]))}")
    return line


def _pairs(values: Mapping[str, Any], width: int) -> Lines:
    """Names and values side by side, as many on a line as fit."""
    from rich.text import Text

    lines: Lines = []
    for key, value in values.items():
        told = value if isinstance(value, str) else json.dumps(value, default=str)
        pair = Text(printable(str(key)), style="cyan").append(f" {printable(told)}", "default")
        if lines and len(lines[-1]) + 3 + len(pair) <= width:
            lines[-1].append("   ").append_text(pair)
        else:
            lines.append(Text().append_text(pair))
    return lines


def _names(names: list[str], width: int) -> Lines:
    from rich.text import Text

    lines: Lines = []
    for name in map(printable, names):
        if lines and len(lines[-1]) + 2 + len(name) <= width:
            lines[-1].append(f"  {name}")
        else:
            lines.append(Text(name))
    return lines


def _of_ranks(names: Mapping[str, str]) -> list[str]:
    return [f"{name} {_who(expand(ranks))}" for name, ranks in names.items()]


def _ranks(found: Overview) -> Lines:
    from rich.text import Text

    if found.size is None or (found.size == 1 and not found.hosts):
        return []
    hosts = {h: r for h, r in found.hosts.items() if h != "?"}
    if found.size == 1:
        return [Text(f"1 on {printable(next(iter(hosts)))}")] if hosts else []
    lines = [Text(f"{found.size} on {counted(len(hosts), 'host')}")]
    for host, ranks in found.hosts.items():
        where = "unknown" if host == "?" else host
        lines.append(Text(f"{printable(where)}  {printable(ranks)}{_count(ranks)}"))
    if len(lines) == 2:
        return [lines[0].append(": ").append_text(lines[1])]
    return lines


def _count(ranks: str) -> str:
    try:
        return f"  ({counted(len(expand(ranks)), 'rank')})" if "," in ranks else ""
    except (ValueError, MemoryError):
        return ""


def _arrays(arrays: list[ArrayFacts]) -> Lines:
    from rich.text import Text

    rows = []
    for facts in arrays:
        shape = "?" if facts.shape is None else " × ".join(map(str, facts.shape)) or "number"
        size = "" if facts.nbytes is None else size_text(facts.nbytes)
        note = "damaged" if facts.problem else ""
        if facts.pieces and not note:
            note = counted(facts.pieces, "piece")
        kind = facts.dtype if len(facts.dtype) <= 16 else f"{facts.dtype[:15]}…"
        rows.append((printable(facts.name), shape, kind, size, note))
    wide = [min(max(map(len, column)), 40) for column in zip(*rows, strict=True)]
    lines = []
    for name, shape, kind, size, note in rows:
        line = Text(f"{name:{wide[0]}}  {shape:{wide[1]}}  {kind:{wide[2]}}  {size:>{wide[3]}}")
        line.append(f"  {note}", style="red" if note == "damaged" else "dim")
        lines.append(line)
    return lines


def _apart(ranks: Mapping[str, str]) -> Lines:
    """Arrays that no merge joins, with the ranks that have a piece."""
    from rich.text import Text

    return [
        Text(f"{printable(name)}  {_who(expand(who))}, kept apart") for name, who in ranks.items()
    ]


def _messages(shown: list[Folded]) -> Lines:
    """Time, level, ranks and message, one under the other and no wider than these need."""
    from rich.text import Text

    styles = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}
    rows = [(printable(one.first.level), _who(one.ranks), one.first) for one in shown]
    level_width, who_width = (max((len(row[i]) for row in rows), default=0) for i in (0, 1))
    lines = []
    for level, who, record in rows:
        style = styles.get(record.level, "")
        line = Text().append(f"{record.time[11:19]} ", style="dim")
        line.append(f"{level:{level_width}} ", style=style)
        line.append(f"{who:{who_width}} " if who_width else "")
        lines.append(line.append(printable(_shown(record.message)), style=style))
    return lines


def _shown(message: str) -> str:
    """What a line shows of a message: of a traceback the end, which says what went wrong."""
    first, _, rest = message.partition("\n")
    return rest.rpartition("\n")[2] if rest and first.startswith("Traceback (") else message


def _who(numbers: Collection[int]) -> str:
    ranks = compact(numbers) if numbers else ""
    told = ranks if len(ranks) <= _LONG else counted(len(numbers), "rank")
    return f"[{told}]" if told else ""
