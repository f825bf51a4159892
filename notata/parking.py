"""A lock between the main thread and the one beside it, which a main thread that ends lets go of.

A signal's handler may have interrupted the main thread anywhere, also where it holds a lock. If the
process ends of that signal, the handler never returns: it waits until the thread beside it has
written down what it has to, for which that thread needs the lock.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOOK = 0.1  # seconds between two looks whether the main thread still goes on

_parked = False


@contextmanager
def held(lock: threading.RLock) -> Iterator[None]:
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
