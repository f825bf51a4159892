"""What goes on beside the program: daemon threads for all runs, there while something needs them.

One may touch files, and so may wait for a file server that gives no answer. What must go on then is
done in the other one, where nothing waits.

A thread stays for a minute longer, so that a sweep of short runs does not start and end it for
each. It wakes at the times that were asked for, and at once for each byte that comes through its
pipe: that is how a signal reaches it while the main thread is stuck in a call of C.

The threads end before each fork and go on after it, in the parent alone.
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

from notata.descriptors import BELLS, out_of_the_way, was_closed

FILES, LOOKS = "files", "looks"  # the thread that may touch files, and the one that may not

_JOIN = 1.0  # seconds that a fork waits for a thread, which may hang in a dead file server
_LONGEST = 60.0  # seconds until a thread looks again whether there is anything to do
_BELL, _SETTLE = 0, 255  # no signals


class Task:
    """Something to be done beside the program, until it is stopped.

    The method that does it is not held: a task is over, too, when its object is gone.
    """

    def __init__(
        self,
        call: Callable[[int], object],
        seconds: float | None,
        lane: str = FILES,
        rest: Callable[[], object] | None = None,
    ) -> None:
        """Prepare.

        Args:
            call: Does it; given 0, or the byte that has come.
            seconds: How often; None for each byte.
            lane: The thread that does it.
            rest: Called before a fork, for what can't go through one; the call comes after it.
        """
        self.due = float("inf") if seconds is None else time.monotonic() + seconds
        self.lane = lane
        self._call = weakref.WeakMethod(call)
        self._rest = None if rest is None else weakref.WeakMethod(rest)
        self._seconds = seconds

    def rest(self) -> None:
        """Have nothing of it left that a fork would break."""
        if self._rest is not None and (rest := self._rest()) is not None:
            rest()

    @property
    def rested(self) -> bool:
        """Whether that took anything away."""
        return self._rest is not None

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
        with _lock:
            _tasks[id(self)] = self
            if self.lane not in _threads:
                _threads[self.lane] = _Thread(self.lane, _pipe())
            elif self.due < _threads[self.lane].wakes:
                self.ring(_BELL, self.lane)
            return _threads[self.lane].writing

    @staticmethod
    def ring(byte: int, lane: str = FILES) -> None:
        """Wake a thread with a byte, if it is there.

        Ranks: independent.
        """
        for _ in range(2):
            thread = _threads.get(lane)
            if thread is None:
                return
            with contextlib.suppress(OSError):
                if thread.ring(byte):
                    return
                thread.give_way()

    def settle(self, patience: float) -> None:
        """Wait until the bytes that have come are dealt with, at most for so many seconds.

        Ranks: independent.
        """
        settled = _thread.allocate_lock()
        settled.acquire()
        _waiting.append(settled)
        self.ring(_SETTLE)
        settled.acquire(timeout=patience)

    def stop(self) -> None:
        """Let it be done no more.

        The thread has begun by then: an interpreter that ends before it has may crash.

        Ranks: independent.
        """
        with _lock:
            _tasks.pop(id(self), None)
            thread = _threads.get(self.lane)
        if thread is not None:
            thread.meet(_JOIN)


class _Thread:
    """A thread.

    It is started without the handshake of `threading.Thread`, for which the program would wait. It
    waits when the thread's last task is stopped.
    """

    def __init__(self, lane: str, pipe: tuple[int, int]) -> None:
        self._lane = lane
        self.reading, self.writing = pipe
        self.wakes = 0.0  # when it looks at its tasks again by itself
        self._paused = self._lost = False
        self._begun, self._ended = _thread.allocate_lock(), _thread.allocate_lock()
        self._begun.acquire()
        self._ended.acquire()
        _thread.start_new_thread(self._run, ())

    def meet(self, patience: float) -> None:
        """Wait until the thread has begun."""
        if self._begun.acquire(timeout=patience):
            self._begun.release()

    def pause(self, patience: float) -> None:
        """Let the thread end, and keep the pipe for the next one."""
        self._paused = True
        self.ring(_BELL)
        self._ended.acquire(timeout=patience)

    def ring(self, byte: int) -> bool:
        """Wake it with a byte; false if its pipe is gone, which the program has closed."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            try:
                os.write(self.writing, bytes([byte]))
            except OSError as error:
                if was_closed(error):
                    return False
                raise
        return True

    def give_way(self) -> None:
        """Let a thread with a new pipe take the place of this one, whose pipe is gone."""
        with _lock:
            self._lost = True
            if _threads.get(self._lane) is self:
                del _threads[self._lane]
                if self.is_needed:
                    _threads[self._lane] = _Thread(self._lane, _pipe())

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do; without that none is started where a program may end."""
        return bool(self._tasks())

    def _run(self) -> None:
        self._begun.release()
        try:
            poll = select.poll()
            poll.register(self.reading, select.POLLIN)
            while not (self._paused or self._lost) and (self._tasks() or not self._retire()):
                now = time.monotonic()
                self.wakes = min([*(task.due for task in self._tasks()), now + _LONGEST])
                ready = poll.poll(max(0.0, self.wakes - now) * 1000)
                if self._lost:
                    break
                data = os.read(self.reading, 4096) if ready else b""
                self._do(data.translate(None, bytes([_BELL, _SETTLE])))
                while _SETTLE in data and _waiting:
                    _waiting.pop().release()
        except OSError:  # of the pipe, as nothing else is asked for here
            self.give_way()
        finally:
            if not (self._paused or self._lost):
                self.close()
            self._ended.release()

    def _retire(self) -> bool:
        """Give up the place, if there is still nothing to do; not while a fork is under way."""
        if not _lock.acquire(blocking=False):
            return False
        try:
            if self._tasks() or _threads.get(self._lane) is not self:
                return False
            del _threads[self._lane]
            return True
        finally:
            _lock.release()

    def close(self) -> None:
        for descriptor in (self.reading, self.writing):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _tasks(self) -> list[Task]:
        return [task for task in list(_tasks.values()) if task.lane == self._lane]

    def _do(self, data: bytes) -> None:
        for task in self._tasks():
            if task.heeds_bytes:
                for byte in data:
                    task.run(byte)
            elif task.due <= time.monotonic():
                task.run(0)


_lock = threading.RLock()  # a signal handler that forks may find it held by its own thread
_tasks: dict[int, Task] = {}
_waiting: list[_thread.LockType] = []
_threads: dict[str, _Thread] = {}


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    return out_of_the_way(reading, BELLS), out_of_the_way(writing, BELLS)


def _before_fork() -> None:
    # Held until after the fork, so that no other thread starts one in between.
    _lock.acquire()
    for thread in list(_threads.values()):
        thread.pause(_JOIN)
    for task in list(_tasks.values()):
        task.rest()


def _after_fork_in_parent() -> None:
    for task in [task for task in list(_tasks.values()) if task.rested]:
        task.run(0)  # here: the program may hold Python's lock before a thread has begun
    for lane, thread in list(_threads.items()):
        if thread.is_needed:
            _threads[lane] = _Thread(lane, (thread.reading, thread.writing))
        else:
            del _threads[lane]
            thread.close()
    _lock.release()


def _after_fork_in_child() -> None:
    _tasks.clear()
    for thread in _threads.values():
        thread.close()
    _threads.clear()
    _lock.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
