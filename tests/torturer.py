"""A process that takes locks again and again, and looks each time whether another holds one too.

torturer.py FOLDER SLOT SLOTS LOCKS ROUNDS

Every process takes each lock so many times, at the same time as the others. There are two detectors
of an overlap that know nothing of one another: a POSIX lock on a byte of a local file, which the
kernel drops when its process dies, and a word in shared memory. Each holder adds one to a number on
disk, in two steps, so that two at once lose an addition.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import struct
import sys
import time
from pathlib import Path

WORD = struct.Struct("<q")


class Board:
    """Words in shared memory: for each slot its process, progress and troubles; a token a lock."""

    FIELDS = ("pid", "done", "overlaps", "timeouts", "turns")

    def __init__(self, folder: Path, slots: int, locks: int) -> None:
        """Open the board, and make it if need be."""
        self._slots = slots
        size = WORD.size * (slots * len(self.FIELDS) + locks)
        with (folder / "board").open("a+b") as file:
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)

    def _at(self, slot: int, field: str) -> int:
        return WORD.size * (slot * len(self.FIELDS) + self.FIELDS.index(field))

    def get(self, slot: int, field: str) -> int:
        return int(WORD.unpack_from(self._map, self._at(slot, field))[0])

    def put(self, slot: int, field: str, value: int) -> None:
        WORD.pack_into(self._map, self._at(slot, field), value)

    def count(self, slot: int, field: str) -> None:
        self.put(slot, field, self.get(slot, field) + 1)

    def token(self, lock: int) -> int:
        at = WORD.size * (self._slots * len(self.FIELDS) + lock)
        return int(WORD.unpack_from(self._map, at)[0])

    def take_token(self, lock: int, value: int) -> None:
        WORD.pack_into(self._map, WORD.size * (self._slots * len(self.FIELDS) + lock), value)


def torture(folder: Path, slot: int, slots: int, locks: int, rounds: int) -> None:
    from notata.errors import LockTimeoutError
    from notata.lock import TURNS, locked

    board = Board(folder, slots, locks)
    detector = os.open(folder / "detector", os.O_RDWR | os.O_CREAT)
    board.put(slot, "pid", os.getpid())
    while not all(board.get(other, "pid") for other in range(slots)):
        time.sleep(0.0005)  # nobody is done before the last one has begun
    while (done := board.get(slot, "done")) < locks * rounds:
        lock = done // rounds
        while any(board.get(other, "done") // rounds < lock for other in range(slots)):
            time.sleep(0.0005)  # the gate: nobody is ahead of the others by a lock
        try:
            with locked(folder / f"lock{lock}") as held:
                if held.kind == TURNS:
                    board.count(slot, "turns")
                hold(folder, board, detector, slot, lock)
                board.put(slot, "done", done + 1)
        except LockTimeoutError:
            board.count(slot, "timeouts")


def hold(folder: Path, board: Board, detector: int, slot: int, lock: int) -> None:
    """What a holder does: be alone."""
    try:
        fcntl.lockf(detector, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, lock)
    except OSError:
        board.count(slot, "overlaps")
    board.take_token(lock, slot + 1)
    number = os.open(folder / f"number{lock}", os.O_RDWR | os.O_CREAT)
    value = int(os.pread(number, 12, 0) or b"0")
    if random.random() < 0.3:
        time.sleep(random.random() * 0.002)
    if board.token(lock) != slot + 1:
        board.count(slot, "overlaps")
    os.pwrite(number, b"%012d" % (value + 1), 0)
    os.close(number)
    fcntl.lockf(detector, fcntl.LOCK_UN, 1, lock)


if __name__ == "__main__":
    torture(Path(sys.argv[1]), *map(int, sys.argv[2:]))
