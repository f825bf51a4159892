"""What the file system is, how it behaves, and what it costs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from notata.doctor.findings import WITHOUT_LOCKS, Check
from notata.mounts import Mount, lock_doubt, mount_of
from notata.phrases import duration_text, size_text

# Options that decide what people may rely on, of all that a mount has.
_TELLING = [
    "ro",
    "vers",
    "flock",
    "noflock",
    "localflock",
    "nolock",
    "local_lock",
    "noac",
    "actimeo",
    "acregmax",
    "acdirmax",
    "soft",
    "softerr",
    "hard",
    "sync",
    "nobrl",
]
_MEMORY = ("tmpfs", "ramfs")
_TIMES = 20  # how often each operation is timed
_LITTLE_SPACE, _NO_SPACE = 10**9, 10**8
_FEW_INODES, _NO_INODES = 10_000, 1_000
OFF_A_LITTLE, OFF_A_LOT = 1.0, 10.0  # seconds between two clocks

# By the beginning of a file system's type: what makes its locks hold, and what tells the quota.
_LOCK_REMEDIES = {
    "nfs": "Ask for a mount without nolock and local_lock: NFS 4, or NFS 3 with lockd and statd",
    "lustre": "Ask for the mount option flock",
    "beegfs": "Ask for tuneUseGlobalFileLocks = true in the client's configuration",
    "fuse": "Start the FUSE server with its locks on (often -o flock or a similar option)",
    "cifs": "Ask for a mount without nobrl",
    "smb3": "Ask for a mount without nobrl",
}
_QUOTAS = {
    "lustre": "lfs quota",
    "gpfs": "mmlsquota",
    "beegfs": "beegfs-ctl --getquota",
    "ceph": "getfattr -n ceph.quota.max_bytes",
    "nfs": "quota -s",
}


def lock_remedy(mount: Mount) -> str:
    """What would make locks hold on such a file system, or an empty text.

    Ranks: independent.
    """
    return _by_type(_LOCK_REMEDIES, mount)


def _by_type(table: dict[str, str], mount: Mount) -> str:
    return next((text for kind, text in table.items() if mount.type.startswith(kind)), "")


def kind(folder: str, *, held: bool = False) -> Check:
    """The type of the file system, and its options that matter.

    Args:
        folder: A folder on it.
        held: Whether its locks were seen to hold between nodes, whatever is known against them.

    Ranks: independent.
    """
    mount = mount_of(folder)
    if mount.type == "unknown":
        advice = "Compare what follows with what your cluster says of this file system"
        return Check("file system", "warn", "its type isn't known: there is no /proc", advice)
    finding = described(mount)
    doubt = lock_doubt(mount)
    soft = mount.type.startswith("nfs") and bool({"soft", "softerr"} & mount.options.keys())
    hard = "Ask for the mount option hard: a soft mount loses data when its server is slow"
    if doubt and not held:
        remedy = [lock_remedy(mount), WITHOUT_LOCKS, hard if soft else ""]
        return Check("file system", "bad", f"{finding}. {doubt}", ". ".join(filter(None, remedy)))
    if soft:
        return Check("file system", "bad", finding, hard)
    if doubt:
        advice = "None needed: the locks were tried between these nodes, and held"
        return Check("file system", "warn", f"{finding}. {doubt}", advice)
    if mount.type in _MEMORY:
        advice = "Use it for trials only: it is memory, and gone when the node restarts"
        return Check("file system", "warn", finding, advice)
    if mount.local:
        finding += "; a disk of this node, which other nodes don't see"
    return Check("file system", "ok", finding)


def described(mount: Mount) -> str:
    """A mount in a few words: `nfs4 on /home (vers=4.2, local_lock=none)`.

    Ranks: independent.
    """
    told = [
        f"{key}={mount.options[key]}" if mount.options[key] else key
        for key in _TELLING
        if key in mount.options
    ]
    return f"{mount.type} on {mount.point}" + (f" ({', '.join(told)})" if told else "")


def space(folder: str) -> Check:
    """Free bytes and inodes.

    Ranks: independent.
    """
    told = os.statvfs(folder)
    free, inodes = told.f_bavail * told.f_frsize, told.f_favail
    counted = told.f_files > 0  # btrfs and others have no fixed number
    finding = f"{size_text(free)} free"
    finding += f", {inodes:,} inodes free" if counted else ", inodes without a limit"
    command = _by_type(_QUOTAS, mount_of(folder))
    if command:
        finding += f"; your quota is not in these numbers: `{command}` tells it"
    if free < _NO_SPACE or (counted and inodes < _NO_INODES):
        return Check("space", "bad", finding, "Make room: runs will soon fail to write")
    if free < _LITTLE_SPACE or (counted and inodes < _FEW_INODES):
        return Check("space", "warn", finding, "Make room before a large run")
    return Check("space", "ok", finding)


def rename(folder: str) -> Check:
    """Whether a rename puts a whole file in the place of another one.

    Ranks: independent.
    """
    old, new = os.path.join(folder, "old"), os.path.join(folder, "new")
    _write(old, b"old")
    _write(new, b"new")
    with open(old, "rb") as opened:
        os.replace(new, old)
        before = opened.read()
    wrong = []
    if _read(old) != b"new":
        wrong.append("the file that was replaced still has its old content")
    if "new" in os.listdir(folder):
        wrong.append("the name that was renamed is still there")
    if before != b"old":
        wrong.append("a reader that had the old file open lost it")
    if wrong:
        advice = "Use another file system: notata makes every file whole by a rename"
        return Check("rename", "bad", "; ".join(wrong), advice)
    return Check("rename", "ok", "puts a whole file in place; an open reader keeps the old one")


class _Cost(NamedTuple):
    name: str
    slow: float  # seconds


def costs(folder: str) -> Check:
    """Medians of what notata does most: append, create, rename, fsync.

    Ranks: independent.
    """
    descriptor = os.open(os.path.join(folder, "costs"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def path(what: str, number: int) -> str:
        return os.path.join(folder, f"{what}{number}")

    def fsync(number: int) -> None:
        os.write(descriptor, b"a line of a log\n")
        os.fsync(descriptor)

    try:
        medians = {
            _Cost("append", 0.01): _median(lambda _: os.write(descriptor, b"a line of a log\n")),
            _Cost("create", 0.05): _median(lambda n: _write(path("create", n), b"")),
            _Cost("rename", 0.05): _median(lambda n: os.replace(path("create", n), path("re", n))),
            _Cost("fsync", 0.1): _median(fsync),
        }
    finally:
        os.close(descriptor)
    finding = ", ".join(f"{cost.name} {_brief(seconds)}" for cost, seconds in medians.items())
    slow = [cost.name for cost, seconds in medians.items() if seconds > cost.slow]
    finding += f" (medians of {_TIMES})"
    if slow:
        advice = (
            f"Slow: {', '.join(slow)}. Put many small values into one array or arrays() call, and "
            "log less often"
        )
        return Check("costs", "warn", finding, advice)
    return Check("costs", "ok", finding)


def _median(call: Callable[[int], object]) -> float:
    taken = []
    for number in range(_TIMES):
        began = time.perf_counter()
        call(number)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _brief(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.001 else f"{seconds * 1e3:.1f} ms"


def clock(folder: str) -> Check:
    """This node's clock against the one that stamps files.

    Ranks: independent.
    """
    path = os.path.join(folder, "clock")
    before = time.time()
    _write(path, b"tick")
    after, stamped = time.time(), os.stat(path).st_mtime
    off = before - stamped if stamped < before else min(0.0, after - stamped)
    return judge_clock("clock", off, "the file system's")


def judge_clock(name: str, off: float, other: str) -> Check:
    """What it means that a clock is so many seconds ahead of another one.

    Ranks: independent.
    """
    size = abs(off)
    if size < OFF_A_LITTLE:
        return Check(name, "ok", f"within {OFF_A_LITTLE:g} s of {other}")
    finding = f"{duration_text(size)} {'ahead of' if off > 0 else 'behind'} {other}"
    advice = "Have the nodes' clocks set by NTP (chrony). notata orders messages by corrected time"
    if size < OFF_A_LOT:
        return Check(name, "warn", finding, advice)
    advice += (
        ", but ranks without MPI may take their run for an earlier one, and ages of runs are wrong"
    )
    return Check(name, "bad", finding, advice)


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
