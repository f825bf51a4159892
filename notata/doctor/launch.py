"""Which rank, which launcher, and whether MPI agrees with it.

MPI is asked in a child process: a library that doesn't fit its launcher may end the process that
starts it, or hang.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from importlib.util import find_spec
from typing import NamedTuple

from notata import topology
from notata.doctor.children import Child, Told, tell, wait_for_start
from notata.doctor.findings import Check
from notata.errors import LauncherMismatchError

_LIMIT = 60.0  # seconds that MPI has to start
_TOKEN_BYTES = 8


class Launch(NamedTuple):
    """This process among those that were started with it.

    Attributes:
        rank: Its rank.
        size: How many there are.
        token: What they all have in common and no other launch has; None if nothing is known.
        mpi: What MPI told, or an empty mapping where it wasn't asked.
        checks: What is to be said about it.
    """

    rank: int
    size: int
    token: str | None
    mpi: Told
    checks: list[Check]


def find() -> Launch:
    """Find this process's rank, and ask MPI for its own opinion.

    Ranks: collective where MPI connects them.
    """
    try:
        place = topology.find()
    except ValueError as error:
        return Launch(0, 1, None, {}, [Check("ranks", "bad", str(error), "Start it otherwise")])
    mpi = _ask(start=place.launcher is not None) if find_spec("mpi4py") else {}
    rank, size = place.rank, place.size
    if mpi.get("size", 1) > 1:
        rank, size = mpi["rank"], mpi["size"]
    token = mpi.get("token") if size > 1 else None
    if token is None and size > 1 and place.launch is not None:
        token = hashlib.sha256(place.launch.encode()).hexdigest()[: 2 * _TOKEN_BYTES]
    checks = [_ranks(place), judge_mpi(place, mpi)]
    return Launch(rank, size, token, mpi, checks)


def _ask(*, start: bool) -> Told:
    with Child("launch", *(["start"] if start else [])) as child:
        child.begin()
        return child.told(_LIMIT)


def _ranks(place: topology.Topology) -> Check:
    host = topology.hostname()
    if place.launcher is not None:
        told = f"rank {place.rank} of {place.size} on {host}, by {place.source}"
        return Check("ranks", "ok", f"{told} ({place.launcher})")
    finding = f"one process on {host}; no launcher's variables are set"
    if "SLURM_JOB_ID" in os.environ:
        job = os.environ["SLURM_JOB_ID"]
        finding = f"one process on {host}, in Slurm job {job}, not under srun"
    advice = "To try locks between nodes, start it on two: srun -N 2 -n 2 notata doctor DIR"
    return Check("ranks", "ok", finding, advice)


def judge_mpi(place: topology.Topology, told: Told) -> Check:
    """Whether MPI agrees with the launcher.

    Args:
        place: What the launcher's variables say.
        told: What MPI told, or an empty mapping where there is no mpi4py.

    Ranks: independent.
    """
    if not told:
        finding = "mpi4py is not installed"
        if place.size == 1:
            return Check("MPI", "ok", finding + ", which runs of one process don't need")
        return Check(
            "MPI",
            "warn",
            f"{finding}: ranks are known from {place.source}, but can't agree on errors and ends",
            "Load your cluster's MPI and install mpi4py for it: pip install 'notata[mpi]'",
        )
    if "mismatch" in told:
        finding, _, advice = told["mismatch"].partition(" run folder. ")
        return Check("MPI", "bad", f"{finding} run folder", advice[:1].upper() + advice[1:])
    if "error" in told:
        finding = f"MPI doesn't start here: {told['error']}"
        if place.launcher is None:
            advice = "Load the MPI that mpi4py was built for, or uninstall mpi4py"
            return Check("MPI", "warn", finding, advice)
        advice = "Start it with the mpiexec of the MPI that mpi4py was built for"
        if place.source in ("SLURM_PROCID", "PMIX_RANK"):
            advice = (
                "Start it with srun --mpi=pmix (Open MPI) or srun --mpi=pmi2 (MPICH, Intel MPI); "
                "`srun --mpi=list` says what there is"
            )
        return Check("MPI", "bad", finding, advice)
    if "size" not in told:
        return Check("MPI", "ok", f"{told['library']}; not started, as no launcher started this")
    finding = f"{told['library']} agrees: rank {told['rank']} of {told['size']}"
    if told["notes"]:
        advice = "notata goes by MPI; remove variables that an outer job has left behind"
        return Check("MPI", "warn", f"{told['library']}: {told['notes'][0]}", advice)
    return Check("MPI", "ok", finding)


def _speak(*, start: bool) -> Told:
    """What MPI says, in the child."""
    import mpi4py

    mpi4py.rc.initialize = start
    from mpi4py import MPI

    # Open MPI tells on one line who built it, and when.
    library = re.split(r"[,\n\0]", MPI.Get_library_version())[0]
    library = " ".join(library.replace("Version:", "").split())
    if not start:
        return {"library": library}
    try:
        place = topology.find()
    except LauncherMismatchError as error:
        return {"library": library, "mismatch": str(error)}
    token = bytearray(os.urandom(_TOKEN_BYTES))
    MPI.COMM_WORLD.Bcast([token, MPI.BYTE], root=0)
    return {
        "library": library,
        "rank": place.rank,
        "size": place.size,
        "notes": list(place.notes),
        "token": token.hex(),
    }


if __name__ == "__main__":
    wait_for_start()
    try:
        tell(_speak(start="start" in sys.argv))
    except Exception as error:  # whatever a broken MPI raises is the finding
        tell({"error": f"{type(error).__name__}: {error}"})
