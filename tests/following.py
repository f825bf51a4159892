"""What a page has to run, and whether a command prints what the page says.

A fenced block is

- `python`: run, with the names of the blocks before it; with `:caption: name.py`, in a
  `{code-block}`, or below a line that ends with ``as `name.py`:``, saved under that name instead,
  for a later `console` block to run;
- `pycon`: run as a session, which gives what it says, with the same names;
- `console`: each line after `$ ` is run in bash, and what it prints is what stands below it;
- anything after `% file: PATH`: what that file holds by then;
- anything after `% needs: PROGRAM`: only where that is installed, as it is in CI;
- anything after `% not run: REASON`: not run.

In what is printed, `...` stands for any text, and on a line of its own for any lines: for times,
durations, sizes and paths that differ from one machine to the next. Columns of tables may lie
further apart than printed, and blanks at the end of a line don't count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

FENCE = re.compile(
    r"^(?:% (file|needs|not run): ([^\n]*)\n)?```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_SAVED_AS = re.compile(r"as `(\S+\.py)`:\n\n\Z")


class Fenced(NamedTuple):
    """A fenced block: the comment before it, its language, its caption and its text."""

    kind: str
    about: str
    language: str
    caption: str
    text: str
    line: int


class Command(NamedTuple):
    """A command as it is typed, and what the page says that it prints."""

    text: str
    expected: str


def fenced(page: str) -> Iterator[Fenced]:
    for match in FENCE.finditer(page):
        kind, about, opening, text = match.groups()
        line = page[: match.start()].count("\n") + 1
        language = opening.removeprefix("{code-block} ")
        options = re.match(r"((?::\w+:.*\n)*)\n?", text)
        assert options is not None
        named = re.search(r":caption: (\S+)", options[1]) or _SAVED_AS.search(page[: match.start()])
        body = text[options.end() :] if options[1] else text
        yield Fenced(kind or "", about or "", language, named[1] if named else "", body, line)


def commands(block: Fenced) -> Iterator[Command]:
    """The commands of a `console` block."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.split("\n")
        count = 1
        while lines[count - 1].endswith("\\"):
            count += 1
        yield Command("\n".join(lines[:count]), "\n".join(lines[count:]).strip("\n"))


def pattern(expected: str) -> re.Pattern[str]:
    lines = expected.rstrip().split("\n")
    parts = [
        r"(?:.*\n)*?" if line.strip() == "..." else _any_dots(line.rstrip()) + r"[ ]*\n"
        for line in lines
    ]
    return re.compile("".join(parts))


def _any_dots(line: str) -> str:
    """A line in which `...` is any text, and columns may lie further apart than printed."""
    words = (re.escape(part).replace(r"\ ", " ") for part in line.split("..."))
    return re.sub(r" {2,}", "[ ]{2,}", ".*?".join(words))


def check_printed(command: Command, printed: str, where: str) -> None:
    """Fail if a command printed something else than the page says."""
    tidy = re.sub(r"[ \t]+$", "", printed, flags=re.MULTILINE).strip("\n") + "\n"
    told = f"{where}: {command.text}\nprints\n{printed}\nand the page says\n{command.expected}"
    given = tidy if command.expected else printed or "\n"
    assert pattern(command.expected or "\n").fullmatch(given), told
