"""Do nodes see each other's files, locks and appends: tried by one rank of each node.

Ranks meet in the folder that is examined, by files alone, so that it works under `srun` without
MPI as well. Each message is a file that one rank makes under a name that nobody has looked up
before, since NFS remembers for half a minute that a name wasn't there.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from notata import files, layout, topology
from notata.agreement import grace_seconds
from notata.doctor import filesystem, locks
from notata.doctor.children import Child, Told
from notata.doctor.findings import WITHOUT_LOCKS, Check
from notata.doctor.launch import Launch
from notata.mounts import lock_doubt, mount_of
from notata.ranges import compact

_MOST_RANKS = 64  # ranks that take part in finding the nodes
_MOST_NODES = 8  # nodes that contend for the lock
_LONGEST_PAUSE = 0.2
_ONE_EACH = "Start one rank a node: srun -N 2 -n 2 --ntasks-per-node=1 notata doctor DIR"


class _Meeting:
    """Messages between ranks, by files in a folder of their own."""

    def __init__(self, folder: str, rank: int) -> None:
        self.folder = folder
        self.rank = rank
        self.leave_alone = False  # others still need the folder

    def say(self, what: str, told: Told | None = None) -> None:
        files.replace_bytes(os.path.join(self.folder, what), json.dumps(told or {}).encode())

    def hear(self, names: Iterable[str], seconds: float) -> dict[str, Told]:
        """What was said under these names, as far as it was said within so many seconds."""
        wanted, heard = set(names), dict[str, Told]()
        until = time.monotonic() + seconds
        pause = 0.01
        while True:
            for name in wanted & self._names():
                data = files.read_bytes(os.path.join(self.folder, name))
                if data is not None:  # else rank 0 is taking everything away
                    heard[name] = json.loads(data)
                    wanted.discard(name)
            if not wanted or time.monotonic() > until:
                return heard
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _names(self) -> set[str]:
        """What is in the folder now: a change of our own voids a listing that is in a cache."""
        mine = os.path.join(self.folder, f"look.{self.rank}")
        os.close(os.open(mine, os.O_WRONLY | os.O_CREAT, 0o666))
        os.unlink(mine)
        names = set(os.listdir(self.folder))
        if f"hello.{self.rank}" not in names:
            raise FileNotFoundError(errno.ENOENT, "another rank ended, and took the files away")
        return names


@contextmanager
def _meeting(base: str, launch: Launch) -> Iterator[_Meeting]:
    folder = os.path.join(base, f"{layout.TEMP_PREFIX}{launch.token}.tmp")
    meeting = _Meeting(folder, launch.rank)
    try:
        os.makedirs(folder, exist_ok=True)
        yield meeting
    finally:
        # Whoever is last takes all of it away; on a folder that isn't shared each node has its own.
        if not meeting.leave_alone:
            with suppress(OSError):  # rmtree may raise where another rank was faster
                shutil.rmtree(folder, ignore_errors=True)


def examine(base: str, launch: Launch) -> list[Check]:
    """Try what two or more nodes see of each other.

    Args:
        base: The folder that is examined.
        launch: The place of this process.

    Returns:
        What rank 0 found; nothing on other ranks.

    Ranks: collective by files; nobody waits without a bound.
    """
    if launch.size == 1:
        return []
    if launch.token is None:
        return [
            Check(
                "nodes",
                "warn",
                "not tried: the ranks know nothing that they have in common",
                "Install mpi4py for your MPI, or start it with srun",
            )
        ]
    if launch.rank >= _MOST_RANKS:
        return []
    try:
        with _meeting(base, launch) as meeting:
            mount = mount_of(base)
            hello = {"host": topology.hostname(), "mount": filesystem.described(mount)}
            meeting.say(f"hello.{launch.rank}", hello | {"doubt": lock_doubt(mount)})
            if launch.rank == 0:
                size = min(launch.size, _MOST_RANKS)
                return _lead(meeting, size, filesystem.lock_remedy(mount))
            _follow(meeting)
    except OSError as error:  # also where rank 0 is done, and has taken the folder away
        told = f"the ranks could not meet in {base}: {error.strerror or error}"
        advice = "Choose a folder that all nodes share and may write to"
        return [Check("nodes", "bad", told, advice)]
    return []


def _lead(meeting: _Meeting, size: int, remedy: str) -> list[Check]:
    patience = grace_seconds(None)
    hellos = meeting.hear((f"hello.{rank}" for rank in range(size)), patience)
    missing = [rank for rank in range(size) if f"hello.{rank}" not in hellos]
    hosts: dict[str, int] = {}
    for rank in range(size):
        if rank not in missing:
            hosts.setdefault(hellos[f"hello.{rank}"]["host"], rank)
    chosen = sorted(hosts.values())[:_MOST_NODES]
    if len(chosen) < 2:
        chosen = []
    asked = time.time()
    meeting.say("plan", {"ranks": chosen})
    checks = [_judge_nodes(hellos, hosts, missing, patience)]
    if chosen:
        seen = meeting.hear((f"seen.{rank}" for rank in chosen if rank), patience)
        took = time.time() - asked
        checks.append(_judge_files(seen, chosen, took, patience))
        checks.append(_judge_clocks(hellos, seen, asked))
        checks += _contend(meeting, chosen, remedy, patience)
    meeting.say("end")
    return checks


def _contend(meeting: _Meeting, chosen: list[int], remedy: str, patience: float) -> list[Check]:
    """Let the chosen ranks contend for a lock, all at the same time."""
    with _contender(meeting, chosen) as child:
        meeting.hear((f"ready.{rank}" for rank in chosen if rank), patience)
        meeting.say("go")
        child.begin()
        mine = child.told(locks.LIMIT)
    wanted = {rank: f"result.{rank}" for rank in chosen if rank}
    results = meeting.hear(wanted.values(), locks.LIMIT)
    told = [mine]
    for rank, name in wanted.items():
        told.append(results.get(name, {"error": f"rank {rank} is silent"}))
    return locks.judge(told, locks.read_journal(meeting.folder, told, 3.0), "between nodes", remedy)


def _contender(meeting: _Meeting, chosen: list[int]) -> Child:
    return Child("locks", meeting.folder, meeting.rank, max(8, locks.TURNS // len(chosen)))


def _follow(meeting: _Meeting) -> None:
    """The part of every rank but 0."""
    patience, rank = 2 * grace_seconds(None), meeting.rank
    plan = meeting.hear(["plan"], patience).get("plan")
    if plan is None:
        return
    if rank not in plan["ranks"]:
        meeting.leave_alone = True
        return
    meeting.say(f"seen.{rank}", {"time": time.time()})
    with _contender(meeting, plan["ranks"]) as child:
        child.ready(patience)
        meeting.say(f"ready.{rank}")
        if not meeting.hear(["go"], patience):
            return
        child.begin()
        meeting.say(f"result.{rank}", child.told(locks.LIMIT))
    meeting.hear(["end"], patience + locks.LIMIT)


def _judge_nodes(
    hellos: dict[str, Told], hosts: dict[str, int], missing: list[int], patience: float
) -> Check:
    named = ", ".join(list(hosts)[:_MOST_NODES]) + (", …" if len(hosts) > _MOST_NODES else "")
    if missing:
        return Check(
            "nodes",
            "bad",
            f"of {len(hellos) + len(missing)} ranks, {compact(missing)} left no file here within "
            f"{patience:g} s; those that did are on {named}",
            "Use a folder that all nodes share, such as one on the cluster's scratch. If it is "
            "shared, the ranks came late: raise NOTATA_GRACE",
        )
    if len(hosts) < 2:
        finding = f"all {len(hellos)} ranks that were asked are on {named}; nothing was tried"
        return Check("nodes", "ok", finding, _ONE_EACH)
    doubts = {
        hello["host"]: hello["doubt"] for hello in hellos.values() if hello["doubt"] is not None
    }
    if doubts:
        host, doubt = next(iter(doubts.items()))
        finding = f"{len(hosts)} nodes ({named}); on {len(doubts)} of them ({host}, …): {doubt}"
        return Check("nodes", "warn", finding, f"See `locks between nodes`. {WITHOUT_LOCKS}")
    mounts = {hello["mount"] for hello in hellos.values()}
    finding = f"{len(hosts)} nodes share it: {named}"
    if len(mounts) > 1:
        told = "; ".join(sorted(mounts))
        advice = "Ask why the nodes mount it in different ways"
        return Check("nodes", "warn", f"{finding}, mounted differently: {told}", advice)
    return Check("nodes", "ok", finding)


def _judge_files(seen: dict[str, Told], chosen: list[int], took: float, patience: float) -> Check:
    name = "fresh files between nodes"
    silent = [rank for rank in chosen if rank and f"seen.{rank}" not in seen]
    if silent:
        finding = f"ranks {compact(silent)} saw no file that rank 0 made, for {patience:g} s"
        advice = (
            "Read and merge runs only some minutes after they have ended, or on the node itself"
        )
        return Check(name, "bad", finding, advice)
    return Check(
        name, "ok", f"{len(seen)} of {len(seen)} other nodes saw and answered within {took:.1f} s"
    )


def _judge_clocks(hellos: dict[str, Told], seen: dict[str, Told], asked: float) -> Check:
    """By how much a clock is off at least: it was read between our question and the answer."""
    name = "clocks between nodes"
    heard = time.time()
    worst, other = 0.0, "the other nodes'"
    for key, told in seen.items():
        off = min(0.0, told["time"] - asked) or max(0.0, told["time"] - heard)
        if abs(off) > abs(worst):
            host = hellos[f"hello.{key.removeprefix('seen.')}"]["host"]
            worst, other = off, f"that of {host}"
    return filesystem.judge_clock(name, -worst, other)
