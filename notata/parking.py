"""A lock between the main thread and the one beside it, which a main thread that ends lets go of.

A signal's handler may have interrupted the main thread anywhere, also where it holds a lock. If the
process ends of that signal, the handler never returns: it waits until the thread beside it has
written down what it has to, for which that thread needs the lock.

A child that is forked off has the thread that forked it and no other. A lock that another thread of
its parent held then would be held there for ever.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

_LOOK = 0.1  # seconds between two looks whether the main thread still goes on

_parked = False


class Lock:
    """A lock for `held`, which its thread may take again, and which is free in a forked child."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks.add(self)

    def acquire(self, timeout: float) -> bool:
        """Take it, or give up after so many seconds; gives whether it was taken.

        Ranks: independent.
        """
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Give it back.

        Ranks: independent.
        """
        self._lock.release()

    def renew(self) -> None:
        """Be free in a child, unless the thread that forked it holds the lock: that gives it back.

        Ranks: independent.
        """
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lock = threading.RLock()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _renew_all() -> None:
    for lock in list(_locks):
        lock.renew()


os.register_at_fork(after_in_child=_renew_all)


@contextmanager
def held(lock: Lock) -> Iterator[None]:
    """Hold a lock, or go on without it once the main thread is parked.

    Ranks: independent.
    """
    owned = False
    try:
        while not (owned := lock.acquire(timeout=_LOOK)):
            if _parked:
                break
        yield
    finally:
        if owned:
            lock.release()


@contextmanager
def parked() -> Iterator[None]:
    """Let nobody wait for the main thread, which does nothing more.

    Ranks: independent; called in the main thread.
    """
    global _parked
    _parked = True
    try:
        yield
    finally:
        _parked = False
