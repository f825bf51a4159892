"""The documentation does what it says: each page is followed from top to bottom in an empty folder.

A fenced block is

- `python`: run, with the names of the blocks before it; with `:caption: name.py`, in a
  `{code-block}`, saved under that name instead;
- `pycon`: run as a session, which gives what it says, with the same names;
- `console`: each line after `$ ` is run in bash, and what it prints is what stands below it;
- anything after `% file: PATH`: what that file holds by then;
- anything after `% not run: REASON`: not run.

In what is printed, `...` stands for any text, and on a line of its own for any lines.
"""

from __future__ import annotations

import doctest
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
BIN = ROOT / ".venv" / "bin"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(
    r"^(?:% (file|not run): ([^\n]*)\n)?```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


class Fenced(NamedTuple):
    """A fenced block: the comment before it, its language, its caption and its text."""

    kind: str
    about: str
    language: str
    caption: str
    text: str
    line: int


def fenced(page: str) -> Iterator[Fenced]:
    for kind, about, opening, text, line in (
        (*match.groups(), page[: match.start()].count("\n") + 1) for match in FENCE.finditer(page)
    ):
        language = opening.removeprefix("{code-block} ")
        options = re.match(r"((?::\w+:.*\n)*)\n?", text)
        assert options is not None
        caption = re.search(r":caption: (\S+)", options[1])
        body = text[options.end() :] if options[1] else text
        yield Fenced(kind or "", about or "", language, caption[1] if caption else "", body, line)


def run(command: list[str], folder: Path, *, status: int | None = 0) -> str:
    """Run in a session of its own, for two minutes at most; give all that it printed."""
    home = str(folder.parent / "home")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("NOTATA_", "SLURM_", "PMI_"))}
    env |= {"PATH": f"{BIN}{os.pathsep}{env['PATH']}", "COLUMNS": "100", "HOME": home}
    env |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=120)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    assert status is None or process.returncode == status, printed
    return printed


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


def check_console(block: Fenced, folder: Path) -> None:
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = part.split("\n")
        count = 1
        while lines[count - 1].endswith("\\"):
            count += 1
        command, expected = "\n".join(lines[:count]), "\n".join(lines[count:]).strip("\n")
        printed = run(["bash", "-c", command], folder, status=None)
        tidy = re.sub(r"[ \t]+$", "", printed, flags=re.MULTILINE).strip("\n") + "\n"
        told = f"line {block.line}: {command}\nprints\n{printed}\nand the page says\n{expected}"
        assert pattern(expected or "\n").fullmatch(tidy if expected else printed or "\n"), told


def check_file(block: Fenced, folder: Path) -> None:
    text = (folder / block.about).read_text(encoding="utf-8").rstrip("\n") + "\n"
    told = f"line {block.line}: {block.about} holds\n{text}"
    assert pattern(block.text).fullmatch(text), told


def check_session(block: Fenced, names: dict[str, object], page: str) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, names, page, page, block.line)
    told: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(optionflags=flags).run(test, out=told.append, clear_globs=False)
    names.update(test.globs)
    assert not told, "".join(told)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_a_page_does_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "page"}
    for block in fenced(page.read_text(encoding="utf-8")):
        where = f"{page.name}, line {block.line}"
        if block.kind == "not run":
            assert block.about.strip(), f"{where}: why is it not run?"
        elif block.kind == "file":
            check_file(block, folder)
        elif block.caption:
            (folder / block.caption).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, where, "exec"), names)
        elif block.language == "pycon":
            check_session(block, names, page.name)
        elif block.language == "console":
            check_console(block, folder)
        elif not block.language.startswith("{"):
            pytest.fail(
                f"{where}: a {block.language or 'nameless'} block that nothing runs: put "
                "`% file: PATH` or `% not run: REASON` before it"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_every_fence_is_seen(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    directives = len(re.findall(r"^```\{(?!code-block)", text, re.MULTILINE))
    seen = sum(not b.language.startswith("{") for b in fenced(text))
    assert len(re.findall(r"^```\S", text, re.MULTILINE)) == seen + directives


def test_the_page_of_the_commands_is_what_the_commands_say() -> None:
    names: dict[str, object] = {"__file__": str(ROOT / "docs" / "commands.py"), "__name__": "docs"}
    exec((ROOT / "docs" / "commands.py").read_text(encoding="utf-8"), names)
    page = names["page"]
    assert callable(page)
    text = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert text == page(), "run: python docs/commands.py"
