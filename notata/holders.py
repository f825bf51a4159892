"""Who holds a lock: named for people, and known to be gone where that can be proven."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from notata import files, scheduler
from notata.topology import hostname

_LENGTH = 1023  # more than names of hosts and jobs take
_ENDED = (b"Z", b"X")  # a thread's state, after all of its files were let go
_EXITING = 0x4  # among a thread's flags: it has begun to end, and does nothing more by itself
_FREE = b"free"  # stands in place of a record's first bytes once its holder let go


class Holder(NamedTuple):
    """A process that holds a lock.

    Attributes:
        host: The name of its node.
        pid: Its number there.
        job: The scheduler's job that it belongs to, or None.
        since: When it got the lock, or asked for it just before, in its local time.
        node: Tells its node, since the last boot, and its container from all others.
        start: When it began, in the kernel's ticks, so that a later process of the same number
            is not taken for it.
        token: Tells this hold from all others.
    """

    host: str
    pid: int
    job: str | None
    since: str
    node: str
    start: int
    token: str

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"

    @property
    def gone(self) -> bool | None:
        """Whether the process is no more; None where it runs on a node that can't be asked."""
        if self.node != _node():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return None  # somebody else's, of which /proc may not even tell that it is there
        try:
            return not lives(self.pid) or _start_of(self.pid) != self.start
        except (FileNotFoundError, ProcessLookupError):
            return True  # it has just gone
        except OSError:
            return None  # no descriptor left, say, which tells nothing about that process


def this_process() -> Holder:
    """This process, holding a lock from now on.

    Ranks: independent.
    """
    pid = os.getpid()
    job = scheduler.job().get("job_id")
    since = time.strftime("%Y-%m-%dT%H:%M:%S")
    return Holder(hostname(), pid, job, since, _node(), _own_start(pid), os.urandom(8).hex())


def record(holder: Holder) -> bytes:
    """The record of a holder, as it stands in a file: all are equally long, to be overwritten.

    Ranks: independent.
    """
    return json.dumps(holder._asdict()).encode().ljust(_LENGTH) + b"\n"


def let_go(descriptor: int) -> None:
    """Mark the record in an open file as that of a holder that let go.

    Ranks: independent.
    """
    os.pwrite(descriptor, _FREE, 0)


def is_free(data: bytes) -> bool:
    """Whether a record's holder let go.

    Ranks: independent.
    """
    return data.startswith(_FREE)


def parse(data: bytes) -> Holder | None:
    """The holder in a record; None where that is free, being written, or cut off.

    Ranks: independent.
    """
    with suppress(ValueError, TypeError):
        return Holder(**json.loads(data))
    return None


@cache
def _node() -> str:
    """This node since its last boot, and the process numbers that this process sees on it."""
    boot = (files.read_bytes("/proc/sys/kernel/random/boot_id") or b"").decode().strip()
    try:
        return f"{hostname()}/{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{hostname()}/{boot}"


@cache  # by number, since a forked child is another process
def _own_start(pid: int) -> int:
    try:
        return _start_of(pid)
    except OSError:
        return 0


def _start_of(pid: int) -> int:
    """When a process of this node began, in ticks since the boot."""
    return int(_fields(f"/proc/{pid}/stat")[19])


def lives(pid: int) -> bool:
    """Whether any thread of a process of this node is left that could still write.

    A killed process shows as a zombie once its first thread is gone, while another may still be in
    the middle of a write.

    Raises:
        OSError: If it is gone, or can't be asked about.

    Ranks: independent.
    """
    return any(fields[0] not in _ENDED for fields in _threads(pid))


def runs_on(pid: int) -> bool:
    """Whether any thread of a process of this node is left that isn't on its way out.

    Raises:
        OSError: If it is gone, or can't be asked about.

    Ranks: independent.
    """
    return any(f[0] not in _ENDED and not int(f[6]) & _EXITING for f in _threads(pid))


def _threads(pid: int) -> Iterator[list[bytes]]:
    """What is said of each thread of a process, its first one first."""
    yield _fields(f"/proc/{pid}/stat")
    for task in os.listdir(f"/proc/{pid}/task"):
        with suppress(FileNotFoundError, ProcessLookupError):
            yield _fields(f"/proc/{pid}/task/{task}/stat")


def _fields(path: str) -> list[bytes]:
    """What a `stat` file says behind the program's name: the state first."""
    with open(path, "rb") as file:
        return file.read().rpartition(b")")[2].split()
