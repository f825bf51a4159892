"""Somebody who has never seen notata does what the README and the first two tutorials say.

In a copy of the tree, with an empty home and an environment that holds a PATH and nothing else but
where pip finds packages, each command is typed as it is printed, one after another into one shell,
and has to print what the page says (`following.py` tells by which rules). What is not run says why.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from following import Command, Fenced, check_printed, commands, fenced, pattern

ROOT = Path(__file__).parents[1]
HERE = "tests/test_newcomer.py runs it"  # what test_pages.py leaves to this test
TREE = ("LICENSE", "Makefile", "README.md", "examples", "notata", "pyproject.toml")
# Where packages come from, and through what, is this machine's affair.
PIP = re.compile(r"PIP_\w+|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)", re.IGNORECASE)
PAGES = ("README.md", "docs/tutorials/first-run.md", "docs/tutorials/first-mpi-run.md")

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(900)]


class Shell:
    """A shell into which commands are typed one after another."""

    _END = "== that command ended with"

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[str, int]:
        """Type a command; gives what it printed, and its exit status."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        ask = f"{{ {command}\n}} </dev/null\nprintf '\\n{self._END} %s\\n' $?\n"
        self._bash.stdin.write(ask)
        self._bash.stdin.flush()
        printed = ""
        for line in self._bash.stdout:
            if line.startswith(self._END):
                return printed.removesuffix("\n"), int(line.removeprefix(self._END))
            printed += line
        pytest.fail(f"the shell ended with {command}, which printed\n{printed}")

    def end(self) -> None:
        if self._bash.poll() is None:
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The tree as a clone has it."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in TREE:
        if (ROOT / name).is_dir():
            kept = shutil.ignore_patterns("__pycache__", "outputs")
            shutil.copytree(ROOT / name, clone / name, ignore=kept)
        else:
            shutil.copy(ROOT / name, clone / name)
    return clone


@pytest.fixture
def shell(clone: Path, tmp_path: Path) -> Iterator[Shell]:
    home = tmp_path / "home"
    home.mkdir()
    python = tmp_path / "bin"  # the Python that runs the tests, before it had an environment
    python.mkdir()
    (python / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
    env = {name: value for name, value in os.environ.items() if PIP.fullmatch(name)}
    settings = Path("~/.config/pip/pip.conf").expanduser()
    if settings.exists():
        env.setdefault("PIP_CONFIG_FILE", str(settings))
    env |= {"HOME": str(home), "PATH": f"{python}:/usr/local/bin:/usr/bin:/bin"}
    shell = Shell(clone, env)
    try:
        yield shell
    finally:
        shell.end()


def follow(page: str, shell: Shell, clone: Path) -> int:
    """Do what a page says, beginning in the clone; gives the number of commands and sessions."""
    shell.run(f"cd '{clone}'")
    done = 0
    for block in fenced((ROOT / page).read_text(encoding="utf-8")):
        where = f"{page}, line {block.line}"
        folder = Path(shell.run("pwd")[0].strip())
        if block.kind == "not run" and not block.about.startswith(HERE):
            continue
        if block.kind == "file":
            text = (folder / block.about).read_text(encoding="utf-8").rstrip("\n") + "\n"
            assert pattern(block.text).fullmatch(text), f"{where}: {block.about} holds\n{text}"
        elif block.caption:
            (folder / block.caption).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            for command in commands(block):
                check_printed(command, shell.run(command.text)[0], where)
                done += 1
        elif block.language == "pycon":
            check_session(block, shell, folder, where)
            done += 1
        elif block.language == "sh" and "notata " in block.text:
            done += check_list(block, shell, where)
    return done


def check_session(block: Fenced, shell: Shell, folder: Path, where: str) -> None:
    session = folder / "session.txt"
    session.write_text(block.text, encoding="utf-8")
    options = "-o ELLIPSIS -o NORMALIZE_WHITESPACE"
    printed, status = shell.run(f"python -m doctest {options} session.txt")
    assert status == 0, f"{where}:\n{printed}"
    session.unlink()


def check_list(block: Fenced, shell: Shell, where: str) -> int:
    """A list of commands, whose output is not shown: all are done, or at most find fault."""
    lines = block.text.splitlines()
    for line in lines:
        printed, status = shell.run(line)
        found_fault = status == 1 and line.startswith("notata doctor")  # of this machine
        assert status == 0 or found_fault, f"{where}: {line}\n{printed}"
        assert printed.strip(), f"{where}: {line} printed nothing"
    return len(lines)


def test_a_newcomer_follows_the_readme_and_the_first_two_tutorials(
    shell: Shell, clone: Path, tmp_path: Path
) -> None:
    done = {page: follow(page, shell, clone) for page in PAGES}
    assert done == dict(zip(PAGES, (26, 13, 11), strict=True))  # none was passed over in silence
    home = tmp_path / "home"
    installed, _ = shell.run("python -c 'import notata; print(notata.__file__)'")
    assert installed.startswith(str(home / "notata-env"))
    assert (home / "heat" / "sweep_error_over_dt.png").stat().st_size > 10_000


def test_a_newcomer_makes_the_demo(shell: Shell, clone: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = next(block for block in fenced(text) if block.language == "sh")
    demo = next(line for line in first.text.splitlines() if line.startswith("make demo"))
    printed, status = shell.run(demo)
    assert status == 0, printed
    assert "joined" in printed
    made = clone / "outputs" / "demo" / "log_hillslope"
    assert list(made.rglob("*.png")), printed
    assert (made / "merge.json").exists()


@pytest.mark.parametrize("printed", ["", "7\n", "8\n7\n", "7\n\n7\n"])
def test_what_is_printed_besides_what_the_page_says_is_seen(printed: str) -> None:
    with pytest.raises(AssertionError, match="and the page says"):
        check_printed(Command("echo 8", "8"), printed, "a page")
    check_printed(Command("echo 8", "8"), "8 \n", "a page")
