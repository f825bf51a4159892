"""How opening, closing and merging a run grow with its ranks, here and on a file server.

Usage: python benchmarks/ranks.py [--full] [--repeat 3] [--folder DIR]

Times: MPICH starts up to 16 ranks (32 with --full), which is more than there are cores; all open a
run of one communicator, write what they have to say, and close it. Beyond, up to 128 ranks, one
process is each rank in turn (`NOTATA_RANK`), so that no rank ever waits for another; merges are of
such runs. A rank is silent, or writes an array of 800 bytes and a log line.

Calls: the system calls of each of these that can reach a file server, counted by strace: those that
name a path in the run's folder or use a file in it, but for `lseek`, the size of what was just
opened, the end of what was just read, and the close of what was not written. A client answers some
more from memory, so that this is an upper bound. From how they grow with the ranks a model is
fitted: constant + slope * ranks. A call is then taken to cost 1 ms or 5 ms, and a server to answer
20,000 a second. That is assumed: no server was asked. The times for 10,000 ranks follow from it;
the merge is that of one process, which makes one call after another.

Memory: what the first Logbook of a process adds, and each further one; what a rank's process holds.

No bounds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import ROOT, arguments, best, folder, picture, report

from notata import merge

MPI = """
import sys, time
from mpi4py import MPI
from notata import Logbook
import numpy as np
comm, what, base = MPI.COMM_WORLD, sys.argv[1], sys.argv[2]
comm.barrier()
began, worked = time.perf_counter(), time.process_time()
log = Logbook(f"r{comm.size}", base, params={"k": 1}, comm=comm)
opened = time.perf_counter() - began
if what == "writing":
    log.info("here")
    log.array("T", np.zeros(100), start=100 * comm.rank, shape=100 * comm.size)
comm.barrier()
again = time.perf_counter()
log.mark_complete()
closed = time.perf_counter() - again
told = comm.gather((opened, closed, time.process_time() - worked))
if comm.rank == 0:
    print(*(max(one) for one in list(zip(*told))[:2]), sum(cpu for *_, cpu in told) / comm.size)
"""

ALONE = """
import os, sys, time
import numpy as np
from notata import Logbook
what, base, size, ranks = sys.argv[1], sys.argv[2], sys.argv[3], map(int, sys.argv[4].split(","))
worked = []
for rank in ranks:
    os.environ |= {"NOTATA_RANK": str(rank), "NOTATA_SIZE": size, "NOTATA_LAUNCH": "bench"}
    log = Logbook(f"r{size}", base, params={"k": 1}, comm=None if size == "1" else "auto")
    if what == "writing":
        log.info("here")
        log.array("T", np.zeros(100), start=100 * rank, shape=100 * int(size))
    log.mark_complete()
    worked.append(time.process_time())
print((worked[-1] - worked[0]) / max(1, len(worked) - 1))  # without the imports
"""

MEMORY = """
import os, resource, sys
def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024
bare = held()
import numpy
with_numpy = held()
from notata import Logbook
loaded = held()
logs = [Logbook("first", sys.argv[1], comm=None)]
logs[0].info("here")
logs[0].array("T", numpy.zeros(100))
first = held()
for k in range(200):
    logs.append(Logbook(f"k{k}", sys.argv[1], comm=None))
    logs[-1].info("here")
print(bare, with_numpy - bare, loaded - with_numpy, first - loaded, (held() - first) / 200)
"""


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NOTATA_", "PMI", "SLURM"))}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


# ----- times -----


def by_mpi(parent: Path, what: str, ranks: int) -> tuple[float, float, float]:
    """Milliseconds until the last rank has opened, has closed; milliseconds of work a rank."""
    mpiexec = Path(sys.executable).parent / "mpiexec"
    with folder(os.fspath(parent)) as base:
        command = [str(mpiexec), "-n", str(ranks), sys.executable, "-c", MPI, what, str(base)]
        environ = environment(NOTATA_HEARTBEAT="0")
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    opened, closed, work = (1000 * float(told) for told in done.stdout.split())
    return opened, closed, work


def in_turn(base: Path, what: str, ranks: int) -> float:
    """Milliseconds of work a rank but the first, of a process that is each rank in turn."""
    told = ",".join(map(str, range(ranks)))
    command = [sys.executable, "-c", ALONE, what, str(base), str(ranks), told]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    return 1000 * float(done.stdout)


def merging(base: Path, ranks: int) -> tuple[float, float]:
    """Milliseconds, and milliseconds of work, of a merge."""
    began, worked = time.perf_counter(), time.process_time()
    merge(base / f"log_r{ranks}")
    return 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - worked)


# ----- calls -----

_CALL = re.compile(r"^\d+ +(\w+)\((.*)$")
_FREE = ("lseek", "fcntl", "ioctl", "mmap", "dup", "fadvise64")
_KNOWN = re.compile(
    r'^\w+\(\d+<[^>]*>, ""|/\* 0 entries|^p?read\w*\(.*= 0$'
)  # told by the call before


def calls(command: Sequence[str], base: Path, environ: dict[str, str]) -> int:
    """How many system calls of a command reach the server of a folder."""
    trace = base.parent / "trace.txt"
    names = "trace=%file,%desc"
    strace = ["strace", "-f", "-qq", "-y", "-s", "4096", "-e", names, "-o", str(trace)]
    subprocess.run([*strace, *command], check=True, env=environ, stdout=subprocess.DEVNULL)
    count, written = 0, set()
    for line in trace.read_text(errors="replace").splitlines():
        found = _CALL.match(line)
        if found is None or f"{base}/" not in line or found[1] in ("execve", *_FREE):
            continue
        if _KNOWN.search(line.split(maxsplit=1)[1]):
            continue
        if found[1] in ("write", "pwrite64"):
            written.add(found[2].partition("<")[2].partition(">")[0])
        elif found[1] == "close" and found[2].partition("<")[2].partition(">")[0] not in written:
            continue
        count += 1
    trace.unlink()
    return count


def counted(parent: Path, what: str, ranks: int) -> tuple[int, int, int]:
    """Calls of rank 0, of the last rank, and of the merge."""
    base = parent / "counted" / "run"
    shutil.rmtree(base.parent, ignore_errors=True)
    base.mkdir(parents=True)
    environ = environment(NOTATA_HEARTBEAT="0")
    program = [sys.executable, "-c", ALONE, what, str(base), str(ranks)]
    first = calls([*program, "0"], base, environ)
    if ranks > 2:
        between = ",".join(map(str, range(1, ranks - 1)))
        subprocess.run([*program, between], check=True, env=environ, stdout=subprocess.DEVNULL)
    last = calls([*program, str(ranks - 1)], base, environ) if ranks > 1 else first
    command = [sys.executable, "-m", "notata", "merge", "--quiet", "--jobs", "1"]
    return first, last, calls([*command, str(base / f"log_r{ranks}")], base, environ)


def fitted(ranks: Sequence[int], found: Sequence[int]) -> tuple[float, float]:
    """Constant and slope of a straight line."""
    slope, constant = np.polyfit(ranks, found, 1)
    return float(constant), max(0.0, float(slope))


RATE = 20_000.0  # calls a second that a server is taken to answer
FAR = 10_000


def model(what: str, ranks: Sequence[int], told: Sequence[tuple[int, int, int]]) -> list[list]:
    """Seconds at 10,000 ranks, from how counts grow up to those that were counted."""
    root, rank, joined = (fitted(ranks, one) for one in zip(*told, strict=True))
    rows = []
    of_root, of_rank, of_merge = (a + b * FAR for a, b in (root, rank, joined))
    for latency in (0.001, 0.005):
        # Ranks work side by side: the slowest counts, unless the server has too much to answer.
        alone = max(of_root, of_rank) * latency
        busy = (of_root + of_rank * (FAR - 1)) / RATE
        opening = f"{alone:.2f} to {max(alone, busy):.2f}"
        line = [f"{a:.0f} + {b:.2f} n" for a, b in (root, rank, joined)]
        rows.append([what, *line, f"{1000 * latency:.0f}", opening, f"{of_merge * latency:.1f}"])
    return rows


def main() -> None:
    args = arguments(__doc__.splitlines()[0])
    launched = (1, 2, 4, 8, 16, 32) if args.full else (1, 2, 4, 8, 16)
    turns = (1, 2, 4, 8, 16, 32, 64, 128)
    times, lines, joined, modelled, counts = [], {}, {}, [], []
    with folder(args.folder) as parent:
        for what in ("silent", "writing"):
            for ranks in launched:
                ((opened, closed, work),) = best(
                    args.repeat, lambda w=what, n=ranks: by_mpi(parent, w, n)
                )
                told = [f"{opened:.1f}", f"{closed:.1f}", f"{work:.2f}"]
                times.append([what, "MPICH", ranks, *told, "", ""])
                lines.setdefault(what, []).append((opened, closed))
            for ranks in turns:
                with folder(os.fspath(parent)) as base:
                    work = in_turn(base, what, ranks)
                    took, worked = merging(base, ranks)
                joined.setdefault(what, []).append(took)
                told = ["", "", f"{work:.2f}" if ranks > 1 else "", f"{took:.1f}", f"{worked:.1f}"]
                times.append([what, "in turn", ranks, *told])
            if shutil.which("strace"):
                found = [counted(parent, what, ranks) for ranks in turns]
                counts += [[what, n, *told] for n, told in zip(turns, found, strict=True)]
                modelled += model(what, turns[1:], found[1:])
        with folder(os.fspath(parent)) as base:
            command = [sys.executable, "-c", MEMORY, str(base)]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env=environment()
            )
    header = ["ranks are", "started by", "ranks", "open ms", "close ms", "CPU ms a rank"]
    report("ranks", [*header, "merge ms", "merge CPU ms"], times)
    missing = [] if counts else ["strace is missing: no calls were counted"]
    report("calls", ["ranks are", "ranks", "of rank 0", "of the last rank", "of the merge"], counts)
    header = [
        "ranks are",
        "rank 0",
        "any rank",
        "merge",
        "ms a call",
        "open and close s",
        "merge s",
    ]
    report("model", header, modelled, notes=[f"at {FAR} ranks, n of them", *missing])
    kilobytes = [f"{float(told):.0f}" for told in done.stdout.split()]
    header = ["Python KB", "numpy KB", "notata KB", "the first Logbook KB", "each further one KB"]
    report("memory", header, [kilobytes])

    def draw(axes) -> None:
        for number, (what, found) in enumerate(lines.items()):
            for style, at, verb in (("-", 0, "open"), (":", 1, "close")):
                ms = [one[at] for one in found]
                label = f"{verb}, {what} ranks (MPICH)"
                axes.plot(launched, ms, style, marker="o", color=f"C{number}", label=label)
        label = "merge, writing ranks (in turn)"
        axes.plot(turns[1:], joined["writing"][1:], marker="s", color="0.5", label=label)
        axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="ms")
        axes.set_xticks(turns, turns)
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=7)

    picture("ranks", draw)


if __name__ == "__main__":
    main()
