"""A lock between the main thread and the one beside it, which a main thread that ends lets go of.

A signal's handler may have interrupted the main thread anywhere, also where it holds a lock. If the
process ends of that signal, the handler never returns: it waits until the thread beside it has
written down what it has to, for which that thread needs the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

_LOOK = 0.1  # seconds between two looks whether the main thread still goes on

_parked = False


class _Held:
    """Holds a lock in a `with` block, or goes on without it once the main thread is parked.

    A class, as each change of a run's metadata takes one: a generator takes twice as long.
    """

    __slots__ = ("_lock", "_owned")

    def __init__(self, lock: threading.RLock) -> None:
        self._lock, self._owned = lock, False

    def __enter__(self) -> None:
        owned = self._lock.acquire(blocking=False)
        while not owned:
            owned = self._lock.acquire(timeout=_LOOK)
            if _parked:
                break
        self._owned = owned

    def __exit__(self, *_: object) -> None:
        if self._owned:
            self._lock.release()


def held(lock: threading.RLock) -> AbstractContextManager[None]:
    """Hold a lock, or go on without it once the main thread is parked.

    Ranks: independent.
    """
    return _Held(lock)


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
