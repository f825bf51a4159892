"""`flock` that may never answer: a server of locks that is down keeps the call in the kernel.

No signal ends such a call in a way that leaves the program's own signals alone. So where a file
system has a server, a thread makes the call and is left behind if no answer comes in time.
"""

from __future__ import annotations

import _thread
import os
from io import FileIO

from notata.errors import LockTimeoutError
from notata.mounts import mount_of

# A server that is well but busy gets so long, whatever is left of the caller's time.
_SHORTEST = 1.0

# Whether the kernel alone answers, by device: that needs the table of mounts, once.
_answered_here: dict[int, bool] = {}
# Lock files whose call has not come back, by process. Another call would wait behind it.
_unanswered: set[tuple[int, int, int]] = set()


def try_flock(file: FileIO, path: str, seconds: float) -> bool:
    """Ask for an exclusive `flock` that nobody waits for.

    Args:
        file: The open lock file. If there is no answer, it is closed here, or once there is one.
        path: Its name.
        seconds: How long to wait for an answer, which is not how long to wait for the lock.

    Returns:
        Whether this process has the lock now.

    Raises:
        LockTimeoutError: If there is no answer.
        OSError: If it can't be asked for.

    Ranks: independent.
    """
    from filelock import lock_descriptor

    told = os.fstat(file.fileno())
    if _kernel_answers(told.st_dev, path):
        return lock_descriptor(file.fileno(), blocking=False)
    which = os.getpid(), told.st_dev, told.st_ino
    if which in _unanswered:
        file.close()
        raise LockTimeoutError(f"{path} can't be locked: an earlier flock has not come back")
    call = _Call(file, which)
    try:
        _thread.start_new_thread(call.make, ())
    except RuntimeError:  # no more threads, or Python is about to end
        call.make()
    return call.answer(path, max(seconds, _SHORTEST))


def _kernel_answers(device: int, path: str) -> bool:
    if device not in _answered_here:
        _answered_here[device] = mount_of(path).local
    return _answered_here[device]


class _Call:
    """One call, made by a thread."""

    def __init__(self, file: FileIO, which: tuple[int, int, int]) -> None:
        self._file, self._which = file, which
        self._had: bool | None = None
        self._error: OSError | None = None
        self._pending = _thread.allocate_lock()  # held until there is an answer
        self._pending.acquire()
        self._choice = _thread.allocate_lock()  # an answer is either used or given back
        self._given_up = False

    def make(self) -> None:
        from filelock import lock_descriptor

        try:
            self._had = lock_descriptor(self._file.fileno(), blocking=False)
        except OSError as error:
            self._error = error
        with self._choice:
            self._pending.release()
            if self._given_up:
                _unanswered.discard(self._which)
                self._file.close()  # lets go of the lock, too

    def answer(self, path: str, seconds: float) -> bool:
        if not self._pending.acquire(timeout=seconds):
            with self._choice:
                self._given_up = self._pending.locked()
                if self._given_up:
                    _unanswered.add(self._which)
                    raise LockTimeoutError(
                        f"{path} can't be locked: flock gave no answer in {seconds:.3g} s, as "
                        "where a server of locks is down; notata doctor tries a folder's locks"
                    )
        if self._error is not None:
            raise self._error
        return bool(self._had)
