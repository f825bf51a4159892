"""What goes on beside the program: one daemon thread for all runs, there while something needs it.

It wakes at the times that were asked for, and at once for each byte that comes through its pipe:
that is how a signal reaches it while the main thread is stuck in a call of C.

The thread ends before each fork and goes on after it, in the parent alone.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import select
import threading
import time
import weakref
from collections.abc import Callable

_JOIN = 1.0  # seconds that a fork waits for the thread, which may hang in a dead file server
_LONGEST = 3600.0  # seconds; more milliseconds than poll takes are soon reached
_BELL, _END = b"\0", b"\xff"  # no signals


class Task:
    """Something to be done beside the program, until it is stopped.

    The method that does it is not held: a task is over, too, when its object is gone.
    """

    def __init__(self, call: Callable[[int], object], seconds: float | None) -> None:
        self.due = float("inf") if seconds is None else time.monotonic() + seconds
        self._call = weakref.WeakMethod(call)
        self._seconds = seconds

    def run(self, byte: int) -> None:
        """Do it once; what it raises is nobody's."""
        if self._seconds is not None:
            self.due = time.monotonic() + self._seconds
        call = self._call()
        if call is None:
            self.stop()
            return
        with contextlib.suppress(Exception):
            call(byte)

    @property
    def heeds_bytes(self) -> bool:
        """Whether it is done for bytes rather than at times."""
        return self._seconds is None

    def start(self) -> int:
        """Let it be done from now on; gives the descriptor that bytes may be written to.

        Ranks: independent.
        """
        global _thread_now
        with _lock:
            _tasks[id(self)] = self
            if _thread_now is None:
                _thread_now = _Thread()
            else:
                _thread_now.ring()
            return _thread_now.writing

    def stop(self) -> None:
        """Let it be done no more. The thread ends with its last task.

        Ranks: independent.
        """
        with _lock:
            _tasks.pop(id(self), None)
            if not _tasks:
                _end()


class _Thread:
    """The thread.

    It is started without the handshake of `threading.Thread`, for which the program would wait.
    """

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._last = False
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        _thread.start_new_thread(self._run, ())

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self.writing, _BELL)

    def end(self, patience: float) -> None:
        try:
            os.write(self.writing, _END)
        except BlockingIOError:  # full: it will wake anyway, and look
            self._last = True
        if patience:
            self._ended.acquire(timeout=patience)

    def _run(self) -> None:
        try:
            poll = select.poll()
            poll.register(self.reading, select.POLLIN)
            while not self._last:
                due = min((task.due for task in list(_tasks.values())), default=float("inf"))
                wait = min(max(0.0, due - time.monotonic()), _LONGEST)
                data = os.read(self.reading, 4096) if poll.poll(wait * 1000) else b""
                self._last = self._last or _END in data
                self._do(data.translate(None, _BELL + _END))
        finally:
            os.close(self.reading)
            os.close(self.writing)
            self._ended.release()

    def _do(self, data: bytes) -> None:
        for task in list(_tasks.values()):
            if task.heeds_bytes:
                for byte in data:
                    task.run(byte)
            elif task.due <= time.monotonic():
                task.run(0)


_lock = threading.RLock()  # a signal handler that forks may find it held by its own thread
_tasks: dict[int, Task] = {}
_thread_now: _Thread | None = None


def _end(patience: float = 0.0) -> None:
    global _thread_now
    if _thread_now is not None:
        _thread_now.end(patience)
        _thread_now = None


def _before_fork() -> None:
    # Held until after the fork, so that no other thread starts one in between.
    _lock.acquire()
    _end(_JOIN)


def _after_fork_in_parent() -> None:
    global _thread_now
    if _tasks:
        _thread_now = _Thread()
    _lock.release()


def _after_fork_in_child() -> None:
    _tasks.clear()
    _lock.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
