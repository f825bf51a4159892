"""The documentation does what it says: each page is followed from top to bottom in an empty folder.

How a page says what is run is in `following.py`.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import click
import pytest
from following import FENCE, Fenced, check_printed, commands, fenced, pattern

from notata.cli import main

ROOT = Path(__file__).parents[1]
BIN = ROOT / ".venv" / "bin"
PAGES = sorted((ROOT / "docs").rglob("*.md"))


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


def check_console(block: Fenced, folder: Path) -> None:
    for command in commands(block):
        printed = run(["bash", "-c", command.text], folder, status=None)
        check_printed(command, printed, f"line {block.line}")


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
        elif block.kind == "needs" and shutil.which(block.about) is None:
            continue
        elif block.kind == "file":
            check_file(block, folder)
        elif block.caption and not block.language.startswith("{"):  # those of a toctree are titles
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


def never_run(page: str) -> list[str]:
    """The programs of a page that no later command of it runs, though it doesn't say why."""
    waiting: list[str] = []
    for block in fenced(page):
        if block.kind == "not run":
            continue
        if block.language == "console":
            typed = "\n".join(command.text for command in commands(block))
            waiting = [name for name in waiting if f"python {name}" not in typed]
        elif block.language == "python" and block.caption:
            waiting.append(block.caption)
    return waiting


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_programs_of_a_page_are_run(page: Path) -> None:
    assert never_run(page.read_text(encoding="utf-8")) == []


def test_programs_that_are_never_run_are_found() -> None:
    program = "```{code-block} python\n:caption: a.py\n\npass\n```\n"
    runs = "```console\n$ mpirun -n 2 python a.py\n```\n"
    assert never_run(program + runs) == []
    assert never_run("% not run: it needs a GPU\n" + program) == []
    assert never_run("```{toctree}\n:caption: How to\n\npage\n```\n") == []
    for page in (program, runs + program, program + "% not run: it takes hours\n" + runs):
        assert never_run(page) == ["a.py"]
    assert never_run(program + "```console\n$ ls\npython a.py\n```\n") == ["a.py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_every_fence_is_seen(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    directives = len(re.findall(r"^```\{(?!code-block)", text, re.MULTILINE))
    seen = sum(not b.language.startswith("{") for b in fenced(text))
    assert len(re.findall(r"^```\S", text, re.MULTILINE)) == seen + directives


def test_installing_is_from_the_clone() -> None:
    """The package index has another library of this name: the published 0.3.0."""
    others = ("README.md", "examples/README.md", "slurm/README.md")
    of_commands = ROOT / "docs" / "reference" / "commands.md"  # whose help says it as errors do
    told = [
        (page.name, what)
        for page in (*PAGES, *map(ROOT.joinpath, others))
        if page != of_commands
        for what in re.findall(r"pip install ([^`\n]+)", page.read_text(encoding="utf-8"))
    ]
    assert len(told) >= 8
    assert [(page, what) for page, what in told if not re.match(r'"?\.', what)] == []


def test_the_page_of_the_commands_is_what_the_commands_say() -> None:
    names: dict[str, object] = {"__file__": str(ROOT / "docs" / "commands.py"), "__name__": "docs"}
    exec((ROOT / "docs" / "commands.py").read_text(encoding="utf-8"), names)
    page = names["page"]
    assert callable(page)
    text = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert text == page(), "run: python docs/commands.py"


# ----- the pages beside examples and scripts, whose tests run what they are about -----


def check_call(words: str) -> None:
    """The command line is one that notata takes; nothing is done."""
    name, *arguments = shlex.split(words, comments=True)
    context = click.Context(main, info_name="notata")
    command = main.get_command(context, name)
    assert command is not None, words
    command.make_context(name, arguments, parent=context)


def test_the_commands_of_the_examples_page_are_there() -> None:
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    calls = re.findall(r"`([^`]+)`", page)
    programs = [
        match for call in calls for match in re.findall(r"(examples/\w+\.py)([^\"]*)", call)
    ]
    there = {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")}
    assert {program for program, _ in programs} == there
    for program, words in programs:
        source = (ROOT / program).read_text(encoding="utf-8")
        for option in re.findall(r"--[\w-]+", words):
            assert f'"{option}"' in source, f"{program} {option}"
    merges = [call.removeprefix("notata ") for call in calls if call.startswith("notata ")]
    assert len(merges) == 3
    for call in merges:
        check_call(call)


def test_the_commands_of_the_slurm_page_are_there() -> None:
    page = (ROOT / "slurm" / "README.md").read_text(encoding="utf-8")
    scripts = set(re.findall(r"\bslurm/([\w.]+)", page)) | set(re.findall(r"\]\(([\w.]+)\)", page))
    assert {path.name for path in (ROOT / "slurm").glob("*.sbatch")} <= scripts
    assert [name for name in scripts if not (ROOT / "slurm" / name).exists()] == []
    shown = "".join(block.text for block in fenced(page) if block.language == "sh")
    calls = re.findall(r"\bnotata ([a-z]+ [^|)#\n]+)", shown)
    assert len(calls) >= 5
    for call in calls:
        check_call(call)


FOR_USERS = [page for page in PAGES if page.parent.name in ("howto", "tutorials")]


@pytest.mark.parametrize("page", FOR_USERS, ids=lambda page: page.stem)
def test_lines_of_prose_are_short(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    free = ("|", "#", "![", "[", "    ")  # what can't be broken
    assert [li for li in prose.splitlines() if len(li) > 120 and not li.startswith(free)] == []
