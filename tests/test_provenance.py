"""What the metadata says of a run's host, job, program and code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulated import program

from notata import Logbook, checkout, provenance, scheduler


def metadata(base: Path, run: str = "run") -> dict[str, Any]:
    return dict(json.loads((base / f"log_{run}" / "metadata.json").read_text()))


# ----- schedulers -----

JOBS = {
    "slurm": (
        {
            "SLURM_JOB_ID": "4712",
            "SLURM_ARRAY_JOB_ID": "4711",
            "SLURM_ARRAY_TASK_ID": "3",
            "SLURM_ARRAY_TASK_MIN": "1",
            "SLURM_ARRAY_TASK_MAX": "200",
            "SLURM_ARRAY_TASK_STEP": "1",
            "SLURM_ARRAY_TASK_COUNT": "200",
            "SLURM_STEP_ID": "0",
            "SLURM_RESTART_COUNT": "2",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_JOB_PARTITION": "main",
            "SLURM_JOB_ACCOUNT": "physics",
            "SLURM_SUBMIT_DIR": "/home/ada",
            "SLURM_CLUSTER_NAME": "fermi",
        },
        {
            "job_id": "4712",
            "array_job_id": "4711",
            "array_task_id": 3,
            "array": {"min": 1, "max": 200, "step": 1, "count": 200},
            "step_id": "0",
            "restart_count": 2,
            "nodes": "n[1-2]",
            "partition": "main",
            "account": "physics",
            "submit_dir": "/home/ada",
            "cluster": "fermi",
        },
    ),
    "pbs": (
        {
            "PBS_JOBID": "12[7].server",
            "PBS_ARRAY_ID": "12[].server",
            "PBS_ARRAY_INDEX": "7",
            "PBS_QUEUE": "long",
            "PBS_O_WORKDIR": "/home/ada",
            "PBS_NODEFILE": "nodes",
        },
        {
            "job_id": "12[7].server",
            "array_job_id": "12[].server",
            "array_task_id": 7,
            "partition": "long",
            "submit_dir": "/home/ada",
            "nodes": "n1 n2",
        },
    ),
    "lsf": (
        {
            "LSB_JOBID": "99",
            "LSB_JOBINDEX": "4",
            "LSB_JOBINDEX_END": "10",
            "LSB_JOBINDEX_STEP": "1",
            "LSB_HOSTS": "n1 n1 n2 n2",
            "LSB_QUEUE": "normal",
            "LS_SUBCWD": "/home/ada",
        },
        {
            "job_id": "99",
            "array_task_id": 4,
            "array": {"max": 10, "step": 1},
            "nodes": "n1 n2",
            "partition": "normal",
            "submit_dir": "/home/ada",
        },
    ),
    "sge": (
        {
            "JOB_ID": "5",
            "SGE_TASK_ID": "11",
            "SGE_TASK_FIRST": "1",
            "SGE_TASK_LAST": "21",
            "SGE_TASK_STEPSIZE": "10",
            "RESTARTED": "0",
            "QUEUE": "all.q",
            "PE_HOSTFILE": "nodes",
        },
        {
            "job_id": "5",
            "array_task_id": 11,
            "array": {"min": 1, "max": 21, "step": 10},
            "restart_count": 0,
            "partition": "all.q",
            "nodes": "n1 n2",
        },
    ),
    "flux": (
        {"FLUX_JOB_ID": "ƒ2dHN", "FLUX_JOB_CC": "5", "SLURM_JOB_ID": "1"},
        {"job_id": "ƒ2dHN", "array_task_id": 5},
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_known_by_its_variables(
    name: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, facts = JOBS[name]
    Path("nodes").write_text("n1 2 q\nn1 2 q\nn2 2 q\n")  # in the working directory of the test
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with Logbook("run", base):
        pass
    assert metadata(base)["scheduler"] == {"name": name, **facts}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"JOB_ID": "5"},
        {"SLURM_JOB_ID": ""},
        {"SLURM_ARRAY_TASK_ID": "3"},
    ],
)
def test_outside_of_jobs_there_is_no_scheduler(variables: dict[str, str]) -> None:
    assert scheduler.job(variables) == {}


@pytest.mark.parametrize(
    "variables",
    [
        {"LSB_JOBID": "1", "LSB_JOBINDEX": "0"},
        {"JOB_ID": "1", "SGE_TASK_ID": "undefined"},
        {"SLURM_JOB_ID": "1"},
        {"PBS_JOBID": "1.server", "PBS_NODEFILE": "/nowhere"},
    ],
)
def test_a_job_outside_of_an_array_has_no_task(variables: dict[str, str]) -> None:
    assert scheduler.job(variables).keys() == {"name", "job_id"}


# ----- the process -----


def test_a_run_knows_where_it_ran(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setenv("LOADEDMODULES", "gcc/12.2:hdf5/1.14")
    with Logbook("run", base):
        pass
    found = metadata(base)["provenance"]
    assert metadata(base)["host"] == os.uname().nodename
    assert found["user"] == "ada"
    assert found["cwd"] == os.getcwd()
    assert found["python"] == {"version": sys.version.split()[0], "executable": sys.executable}
    assert found["command"][0] == sys.orig_argv[0]
    assert found["modules"] == ["gcc/12.2", "hdf5/1.14"]
    assert "environment" not in found


def test_packages_have_the_versions_that_their_metadata_says() -> None:
    from importlib.metadata import version

    import numpy  # noqa: F401
    import yaml

    found = provenance.packages()
    assert found["numpy"] == version("numpy")
    assert found["yaml"] == version("PyYAML") == yaml.__version__
    assert found["pytest"] == version("pytest")
    assert not found.keys() & {"os", "sys", "__main__", "json"}


def test_looking_for_packages_loads_none(tmp_path: Path) -> None:
    done = program(
        """
        import sys
        from notata import provenance
        provenance.facts()
        before = set(sys.modules)
        provenance.facts()
        assert set(sys.modules) == before
        assert not {"numpy", "importlib.metadata", "subprocess"} & before, before
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr


def test_no_program_is_started(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((subprocess, "Popen"), (os, "fork"), (os, "posix_spawn"), (os, "system")):
        monkeypatch.setattr(module, name, lambda *a, **k: pytest.fail("a program was started"))
    provenance._code_state.cache_clear()
    with Logbook("run", base):
        pass
    assert metadata(base)["status"] == "complete"


def test_a_deleted_working_directory_is_left_out(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = program(
        f"""
        import os
        from notata import Logbook
        os.rmdir({str(gone)!r})
        with Logbook("run", {str(tmp_path)!r}): pass
        """,
        gone,
    )
    assert done.returncode == 0, done.stderr
    assert "cwd" not in metadata(tmp_path)["provenance"]


# ----- the code's commit, against git itself -----

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    more = ("-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main")
    done = subprocess.run(
        ["git", *identity, *more, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A work tree with a few commits."""
    top = tmp_path / "code"
    (top / "sub").mkdir(parents=True)
    git(top, "init", "-q")
    for number in range(3):
        (top / "sim.py").write_text(f"print({number})\n")
        (top / "sub" / f"m{number}.py").write_text("x = 1\n")
        (top / "link").unlink(missing_ok=True)
        (top / "link").symlink_to("sim.py")
        git(top, "add", ".")
        git(top, "commit", "-qm", f"commit {number}")
    return top


def agrees(folder: Path, *, dirty: bool) -> dict[str, Any]:
    """What is read there, once git agrees on commit, branch and whether it is dirty."""
    found = checkout.state(str(folder))
    assert found is not None
    assert "unknown" not in found, found
    assert found["commit"] == git(folder, "rev-parse", "HEAD")
    assert found["branch"] == (git(folder, "branch", "--show-current") or None)
    assert found["folder"] == git(folder, "rev-parse", "--show-toplevel")
    told = git(folder, "status", "--porcelain", "--untracked-files=no")
    assert (found["dirty"], bool(told)) == (dirty, dirty), told
    return found


def same_time(path: Path) -> None:
    """Change a byte of a file, and nothing else that one sees from outside."""
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"1", b"7").replace(b"2", b"8"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, tuple[bool, Callable[[Path], object]]] = {
    "nothing": (False, lambda top: None),
    "an untracked file": (False, lambda top: (top / "new.py").write_text("")),
    "touched": (False, lambda top: os.utime(top / "sim.py", (1, 1))),
    "longer": (True, lambda top: (top / "sim.py").write_text("print(2222)\n")),
    "of the same size": (True, lambda top: (top / "sim.py").write_text("print(7)\n")),
    "missing": (True, lambda top: (top / "sub" / "m1.py").unlink()),
    "its folder is gone": (True, lambda top: shutil.rmtree(top / "sub")),
    "executable": (True, lambda top: (top / "sim.py").chmod(0o755)),
    "another link": (True, lambda top: (top / "link").unlink() or (top / "link").symlink_to("x")),
    "no link any more": (
        True,
        lambda top: (top / "link").unlink() or (top / "link").write_text("sim.py"),
    ),
    "added": (True, lambda top: (top / "a.py").write_text("") or git(top, "add", "a.py")),
    "announced": (True, lambda top: (top / "a.py").write_text("") or git(top, "add", "-N", "a.py")),
    "removed": (True, lambda top: git(top, "rm", "-q", "--cached", "sim.py")),
    "staged": (True, lambda top: (top / "sim.py").write_text("9\n") or git(top, "add", ".")),
    "back at an older tree": (True, lambda top: git(top, "reset", "-q", "--soft", "HEAD~1")),
    "another commit": (False, lambda top: git(top, "checkout", "-q", "HEAD~1")),
    "a branch": (False, lambda top: git(top, "checkout", "-q", "-b", "new/ideas")),
    "packed": (False, lambda top: git(top, "gc", "-q", "--prune=now")),
    "index version 4": (False, lambda top: git(top, "update-index", "--index-version=4")),
    "index version 4, changed": (
        True,
        lambda top: git(top, "update-index", "--index-version=4") + str((top / "link").unlink()),
    ),
}


@needs_git
@pytest.mark.parametrize("change", CHANGES)
def test_a_work_tree_is_read_as_git_reads_it(repository: Path, change: str) -> None:
    dirty, make = CHANGES[change]
    make(repository)
    agrees(repository, dirty=dirty)
    agrees(repository / "sub", dirty=dirty) if (repository / "sub").exists() else None


@needs_git
def test_a_change_within_the_tick_of_the_index_is_seen(repository: Path) -> None:
    (repository / "sim.py").write_text("print(1)\n")
    git(repository, "commit", "-qam", "one")
    index = repository / ".git" / "index"
    stamp = (repository / "sim.py").stat().st_mtime_ns
    same_time(repository / "sim.py")
    os.utime(index, ns=(stamp, stamp))
    agrees(repository, dirty=True)


@needs_git
def test_a_clone_and_a_copy_are_clean(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(repository), "clone")
    agrees(tmp_path / "clone", dirty=False)
    git(tmp_path, "clone", "-q", "--shared", str(repository), "borrowed")
    agrees(tmp_path / "borrowed", dirty=False)
    time.sleep(0.02)
    shutil.copytree(repository, tmp_path / "copy", symlinks=True, copy_function=shutil.copyfile)
    found = checkout.state(str(tmp_path / "copy"))
    assert found is not None
    assert found["dirty"] is False


@needs_git
def test_other_work_trees_and_submodules_are_read(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    assert agrees(tmp_path / "side", dirty=False)["branch"] == "side"
    (tmp_path / "side" / "sim.py").write_text("")
    agrees(tmp_path / "side", dirty=True)
    agrees(repository, dirty=False)
    git(tmp_path, "init", "-q", "outer")
    git(tmp_path / "outer", "submodule", "--quiet", "add", str(repository), "inner")
    git(tmp_path / "outer", "commit", "-qm", "inner")
    agrees(tmp_path / "outer", dirty=False)
    agrees(tmp_path / "outer" / "inner", dirty=False)
    (tmp_path / "outer" / "inner" / "sim.py").write_text("")
    agrees(tmp_path / "outer" / "inner", dirty=True)


@needs_git
def test_what_cannot_be_known_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(repository, "update-index", "--split-index")
    found = checkout.state(str(repository))
    assert found is not None
    assert (found["commit"], found["dirty"]) == (git(repository, "rev-parse", "HEAD"), None)
    assert found["unknown"] == "its index is split, which is not read here"
    git(repository, "update-index", "--no-split-index")
    monkeypatch.setattr(checkout, "MOST_FILES", 3)
    found = checkout.state(str(repository))
    assert found is not None
    assert found["dirty"] is None
    assert found["unknown"] == "it has 5 files; up to 3 are looked at"


@needs_git
@pytest.mark.parametrize("damage", [b"", b"DIRC", b"DIRC\0\0\0\2\0\0\0\5", b"x" * 100])
def test_a_damaged_repository_fails_no_run(repository: Path, damage: bytes) -> None:
    (repository / ".git" / "index").write_bytes(damage)
    found = checkout.state(str(repository))
    assert found is not None
    assert found["commit"] == git(repository, "rev-parse", "HEAD")
    assert found["dirty"] is None
    assert found["unknown"]


@needs_git
def test_a_repository_without_a_commit_has_none(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "new")
    (tmp_path / "new" / "a").write_text("")
    git(tmp_path / "new", "add", "a")
    found = checkout.state(str(tmp_path / "new"))
    assert found == {
        "folder": str(tmp_path / "new"),
        "commit": None,
        "branch": "main",
        "dirty": True,
    }


def test_outside_of_work_trees_there_is_no_commit(tmp_path: Path) -> None:
    assert checkout.state(str(tmp_path)) is None


@needs_git
def test_the_commit_is_that_of_the_program(repository: Path, tmp_path: Path) -> None:
    code = "from notata import Logbook\nwith Logbook('run'): pass\n"
    (repository / "sim.py").write_text(code)
    git(repository, "commit", "-qam", "a run")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = program(
        f"""
        import subprocess, sys
        subprocess.run([sys.executable, {str(repository / "sim.py")!r}], check=True)
        """,
        elsewhere,
    )
    assert done.returncode == 0, done.stderr
    found = metadata(elsewhere / "outputs")["provenance"]["git"]
    head = git(repository, "rev-parse", "HEAD")
    expected = {"folder": str(repository), "commit": head, "branch": "main", "dirty": False}
    assert found == expected
