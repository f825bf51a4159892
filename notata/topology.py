"""Who am I: rank, size, node and launch, found without starting MPI.

Every launcher's variables stand in one table. Nothing here writes a file or sends a message.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

from notata.errors import LauncherMismatchError

CommArgument = Any  # an mpi4py communicator, None or "auto"; mpi4py is never imported for the type


class Launcher(NamedTuple):
    """What a launcher tells the processes that it starts."""

    name: str
    rank: str
    size: tuple[str, ...]
    launch: tuple[str, ...] = ()  # together the same on all ranks of one launch, and on no others
    within: str = ""  # a variable without which the others mean something else


# In order of trust. Under mpiexec in a Slurm batch job the variables of Slurm are wrong, as are
# those of PMIx where Open MPI's own are there too, so the more particular launcher comes first.
LAUNCHERS = (
    Launcher("NOTATA_RANK", "NOTATA_RANK", ("NOTATA_SIZE",), ("NOTATA_LAUNCH",)),
    Launcher("Open MPI", "OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",), ("PMIX_NAMESPACE",)),
    Launcher("Cray PALS", "PALS_RANKID", ("PALS_SIZE", "PMI_SIZE"), ("PALS_APID",)),
    Launcher("MVAPICH2", "MV2_COMM_WORLD_RANK", ("MV2_COMM_WORLD_SIZE",), ()),
    Launcher("Flux", "FLUX_TASK_RANK", ("FLUX_JOB_SIZE",), ("FLUX_JOB_ID",)),
    Launcher("MPICH or Intel MPI (PMI)", "PMI_RANK", ("PMI_SIZE",), ("PMI_JOBID",)),
    Launcher("PMIx", "PMIX_RANK", ("SLURM_STEP_NUM_TASKS",), ("PMIX_NAMESPACE",)),
    Launcher(
        "Slurm (srun)",
        "SLURM_PROCID",
        ("SLURM_STEP_NUM_TASKS",),
        ("SLURM_JOB_ID", "SLURM_STEP_ID"),
        within="SLURM_STEP_ID",
    ),
)


class Topology(NamedTuple):
    """A process's place among the processes of its run.

    Attributes:
        rank: This process's number, from 0.
        size: How many ranks the run has.
        source: Where rank and size come from: `communicator`, `mpi4py`, a variable, or `alone`.
        launcher: Name of the launcher whose variables were found, or None.
        launch: What all ranks of this launch share and no other launch has, or None if unknown.
        comm: The communicator, or None where there is none to talk over.
        notes: Disagreements between the sources, as sentences for the log.
    """

    rank: int
    size: int
    source: str
    launcher: str | None = None
    launch: str | None = None
    comm: Any = None
    notes: tuple[str, ...] = ()

    @property
    def is_root(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def parallel(self) -> bool:
        """Whether the run has two ranks or more."""
        return self.size > 1


class _Claim(NamedTuple):
    """What a launcher's variables say."""

    launcher: Launcher
    rank: int
    size: int
    launch: str | None


ALONE = Topology(0, 1, "alone")


def find(comm: CommArgument = "auto", environ: Mapping[str, str] | None = None) -> Topology:
    """Find this process's rank and size.

    A child that was forked off a process that had started MPI is on its own: rank and communicator
    are its parent's.

    Args:
        comm: A communicator; None for a process that is on its own; or `"auto"`: an mpi4py that
            the program has already imported and initialised, else the launcher's variables.
        environ: The environment to read; the process's own by default.

    Returns:
        The place of this process.

    Raises:
        LauncherMismatchError: If the launcher started several processes that MPI can't connect.
        TypeError: If `comm` is none of the above.
        ValueError: If a launcher's variables don't make sense, or the communicator is a parent's.

    Example:
        >>> find(None).size
        1
        >>> find(environ={"NOTATA_RANK": "2", "NOTATA_SIZE": "4"}).rank
        2

    Ranks: independent.
    """
    if comm is None:
        return ALONE
    if isinstance(comm, str):
        if comm != "auto":
            raise TypeError(f"comm={comm!r}: give a communicator, None or 'auto'")
        if mpi_is_the_parents():
            return ALONE
    claim = _launcher_claim(os.environ if environ is None else environ)
    mpi = _initialised_mpi()
    if isinstance(comm, str):
        if mpi is not None:
            return _from_mpi(mpi, mpi.COMM_WORLD, "mpi4py", claim)
        return _from_launcher(claim)
    if not callable(getattr(comm, "Get_rank", None)) or not callable(getattr(comm, "Idup", None)):
        raise TypeError(f"comm={comm!r}: give an mpi4py communicator, None or 'auto'")
    if mpi_is_the_parents():
        raise ValueError(
            "comm is a communicator of the process that forked this one off, which MPI doesn't "
            "know; leave comm out, or pass None, for a run of this process alone"
        )
    if mpi is None:
        raise ValueError("comm is a communicator, but MPI isn't initialised or is finalised")
    if comm == mpi.COMM_NULL:
        raise ValueError(
            "comm is MPI.COMM_NULL: this rank isn't in the communicator and has no run to open"
        )
    if comm.Is_inter():
        raise TypeError("comm is an intercommunicator; merge its two groups with comm.Merge()")
    return _from_mpi(mpi, comm, "communicator", claim)


def _launcher_claim(environ: Mapping[str, str]) -> _Claim | None:
    for launcher in LAUNCHERS:
        text = environ.get(launcher.rank)
        if text is None or (launcher.within and launcher.within not in environ):
            continue
        size_name = next((name for name in launcher.size if name in environ), None)
        if size_name is None:
            if launcher.name == "NOTATA_RANK":
                raise ValueError("NOTATA_RANK is set without NOTATA_SIZE; set both or neither")
            continue
        try:
            rank, size = int(text), int(environ[size_name])
        except ValueError:
            rank = size = -1
        if not 0 <= rank < size:
            raise ValueError(
                f"{launcher.rank}={text!r} and {size_name}={environ[size_name]!r} are no rank of a "
                "run; unset them, or pass comm=None for a process on its own"
            )
        named = [environ[name] for name in launcher.launch if name in environ]
        return _Claim(launcher, rank, size, ".".join(named) or None)
    return None


def _initialised_mpi() -> Any:
    """The mpi4py module if the program has imported and initialised it: never import it here."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or not mpi.Is_initialized() or mpi.Is_finalized():
        return None
    return mpi


def mpi_is_the_parents() -> bool:
    """Whether this process was forked off one that had started MPI, which knows nothing of it.

    Ranks: independent.
    """
    return _forks.from_mpi


class _Forks:
    def __init__(self) -> None:
        self.from_mpi = self._with_mpi = False

    def look(self) -> None:
        """Called in the parent: a child had better not ask an MPI that isn't its own."""
        mpi = sys.modules.get("mpi4py.MPI")
        self._with_mpi = mpi is not None and mpi.Is_initialized()

    def note(self) -> None:
        self.from_mpi = self.from_mpi or self._with_mpi


_forks = _Forks()
os.register_at_fork(before=_forks.look, after_in_child=_forks.note)


def _from_launcher(claim: _Claim | None) -> Topology:
    if claim is None:
        return ALONE
    launcher, rank, size, launch = claim
    return Topology(rank, size, launcher.rank, launcher.name, launch)


def _from_mpi(mpi: Any, comm: Any, source: str, claim: _Claim | None) -> Topology:
    rank, size = comm.Get_rank(), comm.Get_size()
    notes: tuple[str, ...] = ()
    world = mpi.COMM_WORLD
    is_world = mpi.Comm.Compare(comm, world) in (mpi.IDENT, mpi.CONGRUENT)
    if claim is not None and is_world and (rank, size) != (claim.rank, claim.size):
        if size == 1:
            raise LauncherMismatchError(_mismatch(claim, _library(mpi)))
        notes = (
            f"MPI says rank {rank} of {size}, {claim.launcher.rank} says rank {claim.rank} of "
            f"{claim.size}; going by MPI",
        )
    return Topology(
        rank,
        size,
        source,
        claim.launcher.name if claim else None,
        claim.launch if claim else None,
        comm if size > 1 else None,
        notes,
    )


def _library(mpi: Any) -> str:
    return str(mpi.Get_library_version()).replace("\x00", "").strip().splitlines()[0]


def mpi_library(topology: Topology) -> str | None:
    """First line of the MPI library's version, where the run uses MPI.

    Ranks: independent.
    """
    mpi = _initialised_mpi() if topology.comm is not None else None
    return " ".join(_library(mpi).split()) if mpi is not None else None


def _mismatch(claim: _Claim, library: str) -> str:
    open_mpi = "Open MPI" in library
    name = "Open MPI" if open_mpi else "MPICH" if "MPICH" in library else library
    if claim.launcher.name in ("Slurm (srun)", "PMIx"):
        advice = f"Start it with `srun --mpi={'pmix' if open_mpi else 'pmi2'}`"
    else:
        advice = f"Start it with the mpiexec that belongs to {name} (`python -m pip show -f` or "
        advice += "`which -a mpiexec` finds it)"
    return (
        f"{claim.launcher.name} started {claim.size} processes (this one has "
        f"{claim.launcher.rank}={claim.rank}), but mpi4py's {name} sees a single rank: the program "
        f"would run {claim.size} times, each alone, in one run folder. {advice}. Where "
        "each process is meant to have a run of its own, Logbook takes comm=None"
    )


def hostname() -> str:
    """Name of this node.

    Ranks: independent.
    """
    return os.uname().nodename


@cache
def process_start() -> float:
    """When this process began, in seconds since the epoch; of a forked child, its parent's word.

    Ranks: independent.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/uptime", "rb") as file:
            uptime = float(file.read().split()[0])
        return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time() - time.process_time()


Verdict = Literal["ours", "another", "unknown"]
_SLACK = 60.0  # seconds that the openings of two ranks may lie apart
_START_SLACK = 10.0  # the same for the starts of their processes, clocks of two nodes included


def same_launch(
    topology: Topology,
    launch: object,
    started: float | None,
    ended: float | None,
    *,
    same_host: bool = False,
) -> Verdict:
    """Say whether a run folder that is there belongs to this launch or to an earlier one.

    Needed only where ranks can't talk: a rank must not write into an old run of the same name.

    Args:
        topology: This process's place.
        launch: What the folder's record names as its launch, or None.
        started: When that run or rank began, in seconds since the epoch, if it is known.
        ended: When it ended, likewise.
        same_host: Whether it ran on this host, so that clocks can't differ.

    Returns:
        `ours`, `another`, or `unknown` where neither names nor times can tell.

    Ranks: independent.
    """
    if launch is not None and topology.launch is not None:
        return "ours" if launch == topology.launch else "another"
    mine = process_start()
    if ended is not None and ended < mine - (1.0 if same_host else _START_SLACK):
        return "another"
    if started is not None and started < mine - _SLACK:
        return "another"
    return "unknown"
