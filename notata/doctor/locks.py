"""Do locks, appends and exclusive creates hold between processes: tried by real ones.

Each process takes the lock again and again, and two detectors, which know nothing of each other,
say whether another one was in there: a file that is made exclusively, and a journal in which every
turn writes a line as it begins and one as it ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from notata.doctor.children import Child, Told, tell, wait_for_start
from notata.doctor.findings import WITHOUT_LOCKS, Check
from notata.lock import locked

TURNS = 60  # of all processes together
LIMIT = 30.0  # seconds after which a process is given up
_PATIENCE = 15.0  # seconds in which a process has to get its turns
_HOLD, _PAUSE = 0.02, 0.01  # seconds in the lock and between two turns
_NAMES = 20  # names that all processes try to make
_JOURNAL = "journal"
_BUSY = "Run notata doctor again, on nodes that are less busy"


def contend(folder: str, me: int, turns: int) -> Told:
    """Take the lock so many times, and say what was seen; runs in a process of its own.

    Ranks: independent.
    """
    told: Told = {"me": me, "turns": 0, "overlaps": 0, "won": [], "flock": _flock_error(folder, me)}
    deadline = time.monotonic() + _PATIENCE
    try:
        while told["turns"] < turns:
            left = max(0.1, deadline - time.monotonic())
            with locked(os.path.join(folder, "lock"), timeout=left):
                told["overlaps"] += _turn(folder, f"{me} {told['turns']}")
            told["turns"] += 1
            time.sleep(_PAUSE)
    except (OSError, NotImplementedError, RuntimeError) as error:
        told |= {"refused": _told_error(error), "late": isinstance(error, TimeoutError)}
    for number in range(_NAMES):
        with suppress(FileExistsError):
            _claim(os.path.join(folder, f"claim{number}"), folder=number % 2 == 0)
            told["won"].append(number)
    return told


def _told_error(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"it wasn't to be had within {_PATIENCE:g} s"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def _flock_error(folder: str, me: int) -> str | None:
    """What the system says to a plain `flock` on a file of one's own."""
    descriptor = os.open(os.path.join(folder, f"own{me}"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    finally:
        os.close(descriptor)
    return None


def _turn(folder: str, turn: str) -> bool:
    """One turn in the lock; says whether the first detector saw another process."""
    inside, journal = os.path.join(folder, "inside"), os.path.join(folder, _JOURNAL)
    try:
        _claim(inside)
        alone = True
    except FileExistsError:
        alone = False
    _append(journal, f"{turn} in {_lines(journal)}\n")
    time.sleep(_HOLD)
    _append(journal, f"{turn} out 0\n")
    if alone:
        os.unlink(inside)
    return not alone


def _claim(path: str, *, folder: bool = False) -> None:
    if folder:
        os.mkdir(path)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def _append(path: str, line: str) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        descriptor = os.open(path, flags, 0o666)
    except FileExistsError:  # some file systems say so where two nodes make a file at once
        descriptor = os.open(path, flags, 0o666)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _lines(path: str) -> int:
    try:
        with open(path, "rb") as file:
            return file.read().count(b"\n")
    except FileNotFoundError:
        return 0


def read_journal(folder: str, told: Sequence[Told], patience: float = 0.0) -> str:
    """The journal, once it has all lines, or as it is after so many seconds.

    Ranks: independent.
    """
    wanted = 2 * sum(one.get("turns", 0) for one in told)
    until = time.monotonic() + patience
    while True:
        try:
            with open(os.path.join(folder, _JOURNAL), encoding="utf-8", errors="replace") as file:
                text = file.read()
        except FileNotFoundError:
            text = ""
        if text.count("\n") >= wanted or time.monotonic() > until:
            return text
        time.sleep(0.2)


def judge(told: Sequence[Told], journal: str, where: str, remedy: str = "") -> list[Check]:
    """What the processes' accounts and their journal say.

    Args:
        told: What each process told.
        journal: The text of the journal.
        where: Ends the names of the rows: `on this node`, `between nodes`.
        remedy: What to do where the lock doesn't hold.

    Ranks: independent.
    """
    remedy = f"{remedy}. {WITHOUT_LOCKS}" if remedy else WITHOUT_LOCKS
    lost = [one["error"] for one in told if "error" in one]
    if lost:
        told_so = f"a process that took locks gave up: {lost[0]}"
        return [Check(f"locks {where}", "bad", told_so, remedy)]
    return [
        _judge_locks(told, journal, f"locks {where}", remedy),
        _judge_appends(told, journal, f"appends {where}", remedy),
        _judge_claims(told, f"exclusive create {where}"),
    ]


def _judge_locks(told: Sequence[Told], journal: str, name: str, remedy: str) -> Check:
    turns = sum(one["turns"] for one in told)
    seen, entered = sum(one["overlaps"] for one in told), _entered(journal)
    if seen or entered:
        finding = (
            f"two processes held the lock at once, in {seen} of {turns} turns by exclusive create "
            f"and in {entered} by journal"
        )
        return Check(name, "bad", finding, remedy)
    refused = next((one["refused"] for one in told if "refused" in one), None)
    if refused is not None:
        busy = all(one["turns"] and ("refused" not in one or one.get("late")) for one in told)
        if busy:  # all have had it, and it excluded: the next turn only took too long
            return Check(name, "warn", f"the lock is slow: {refused}", _BUSY)
        return Check(name, "bad", f"the lock fails: {refused}", remedy)
    hands = _hands(journal)
    if hands < len(told):
        finding = f"the {len(told)} processes took turns one after the other and never met"
        return Check(name, "warn", finding, _BUSY)
    finding = (
        f"{turns} turns of {len(told)} processes, never two at once; the lock changed hands "
        f"{hands} times"
    )
    error = next((one["flock"] for one in told if one["flock"]), None)
    if error:
        finding += f"; flock is refused ({error}), and a lock file takes its place"
        advice = (
            "Ask for a mount with flock: a lock file that a killed process leaves behind makes the "
            "next one wait"
        )
        return Check(name, "warn", finding, advice)
    return Check(name, "ok", finding)


def _entered(journal: str) -> int:
    """How often a turn began while another process's was on."""
    count, inside = 0, set[str]()
    for line in journal.split("\n")[:-1]:
        words = line.split()
        if len(words) != 4:
            continue
        if words[2] == "in":
            count += bool(inside - {words[0]})
            inside.add(words[0])
        else:
            inside.discard(words[0])
    return count


def _hands(journal: str) -> int:
    """How often a turn was that of another process than the one before."""
    owners = [line.split()[0] for line in journal.split("\n") if " in " in line]
    return sum(one != other for one, other in pairwise(owners))


def _judge_appends(told: Sequence[Told], journal: str, name: str, remedy: str) -> Check:
    wanted = {
        f"{one['me']} {turn} {what}"
        for one in told
        for turn in range(one["turns"])
        for what in ("in", "out")
    }
    if not wanted:
        return Check(name, "warn", "not tried, since the lock fails")
    lines = journal.split("\n")[:-1]
    missing = len(wanted - {line.rpartition(" ")[0] for line in lines})
    if missing:
        finding = f"{missing} of {len(wanted)} lines appended in the lock are lost"
        return Check(name, "bad", finding, remedy)
    words = [line.split() for line in lines]
    stale = sum(w[2] == "in" and w[3] != str(place) for place, w in enumerate(words))
    if stale:
        finding = f"all {len(wanted)} lines are there, but {stale} reads in the lock were stale"
        return Check(
            name,
            "warn",
            finding,
            "A table that is read while other nodes write may lack its newest rows; read it again",
        )
    return Check(name, "ok", f"all {len(wanted)} lines are there, each read by the next in turn")


def _judge_claims(told: Sequence[Told], name: str) -> Check:
    won = [number for one in told for number in one["won"]]
    if sorted(won) == list(range(_NAMES)):
        finding = f"{_NAMES} names, each made by exactly one of {len(told)} processes"
        return Check(name, "ok", finding)
    finding = f"{len(won)} processes made {_NAMES} names, which just one each should have"
    advice = "Use another file system: here two ranks may take the same folder for their own"
    return Check(name, "bad", finding, advice)


def on_this_node(folder: str, remedy: str = "") -> list[Check]:
    """Let two processes of this node contend in a folder.

    Ranks: independent.
    """
    with Child("locks", folder, 0, TURNS // 2) as one, Child("locks", folder, 1, TURNS // 2) as two:
        started = [child.ready(LIMIT) for child in (one, two)]
        for child in (one, two):
            child.begin()
        told = [child.told(LIMIT if all(started) else 1.0) for child in (one, two)]
    return judge(told, read_journal(folder, told), "on this node", remedy)


if __name__ == "__main__":
    wait_for_start()
    tell(contend(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
