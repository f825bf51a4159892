"""Hears of signals at once, also while the main thread is stuck in a call of C.

Python's own handlers run in the main thread, between two of its instructions. A blocking MPI call
is one instruction, so that they would come too late. The C part of every handler writes the
signal's number into a descriptor at once (`signal.set_wakeup_fd`), and the thread of `vigil` reads
it there.

What was in place before still counts: a handler in Python runs, as ever, in the main thread, one in
C (MPICH and faulthandler have some) in the thread of `vigil`; a signal that is ignored is left
alone; SIGTERM ends a process that has no handler for it, but only once those who listen have
written down what they had to. If the main thread is stuck, the process is ended from beside it.

All this is Python's: where a call of C holds Python's lock, nothing is noted and nothing ends
until it returns. The system's own action can't be put back from there, and to leave it in place
would let a second SIGTERM, which often follows at once, end the process before anything is noted.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from notata.parking import parked
from notata.vigil import Task

WARNINGS = tuple(
    int(number)
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGXCPU,
    )
)
# The other three would end the process as well, but here they are warnings.
_ENDING = (signal.SIGTERM, signal.SIGINT)
_RECORDING = 5.0  # seconds that the main thread gives listeners before it ends the process
_STUCK = 1.0  # seconds that the main thread has to do so, before it is ended from beside
_HANDLED = 128  # stands for "the main thread has come to it", added to a signal's number
_ECHO = 1.0  # seconds in which the same signal may be told of twice


class Listener:
    """Hears of signals until it is stopped.

    Attributes:
        warned: Whether one has come.
    """

    def __init__(self, numbers: Iterable[int], hear: Callable[[int, bool], object]) -> None:
        """Prepare; nothing is installed yet.

        Args:
            numbers: The signals.
            hear: Called with the number, and whether the process ends of it, in another thread
                than the main one. What it raises is nobody's.
        """
        self.numbers = frozenset(numbers)
        self.hear = hear
        self.warned = False

    def start(self) -> None:
        """Install what is needed. Off the main thread nothing is, and nothing is heard of.

        Ranks: independent.
        """
        if self.numbers and threading.current_thread() is threading.main_thread():
            _listeners.append(self)
            _ears.open(self.numbers)

    def settle(self) -> None:
        """Wait until what has come was heard, if anything has.

        Ranks: independent.
        """
        if self.warned and self in _listeners:
            _ears.settle()

    def stop(self) -> None:
        """Undo what the last listener of a signal needs no more.

        Off the main thread, which alone may do so, handlers and descriptor stay until a signal or
        the next run that is closed in the main thread. Until then they hand on to what was there
        before, and what ended the process without them still does.

        Ranks: independent.
        """
        if self in _listeners:
            self.settle()
            _listeners.remove(self)
            _ears.close()


_listeners: list[Listener] = []


class _Ears:
    """The handlers and the descriptor of this process."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}  # the handlers that ours took the place of
        self._task = Task(self._come, None)
        self._wakeup = -1  # our descriptor, while it is in place
        self._others = -1, -1  # the descriptor before it, and which file that is
        self._heard: Counter[int] = Counter()  # told by the C part, not yet by the main thread
        self._last: dict[int, float] = {}
        self._recorded: set[int] = set()  # what the process may end of
        self._closing = False

    def open(self, numbers: Iterable[int]) -> None:
        if self._wakeup < 0:
            self._set_wakeup()
        else:
            self._follow()
        # Each run does so: `_signal` doesn't make enums of all that it takes and gives.
        found = {n: _signal.getsignal(n) for n in numbers}
        missing = {n: b for n, b in found.items() if b not in (signal.SIG_IGN, self._handle)}
        caught = _caught() if missing else 0
        for number, before in missing.items():
            if before is None or (before == signal.SIG_DFL and caught >> (number - 1) & 1):
                before = _Foreign.find(number)
                if before is None:
                    continue
            self._before[number] = before
            _signal.signal(number, self._handle)

    def settle(self) -> None:
        """Let what has come be heard first."""
        self._task.settle(_RECORDING)

    def close(self) -> None:
        if self._closing or threading.current_thread() is not threading.main_thread():
            return  # a signal has come in the middle of it
        self._closing = True
        try:
            wanted = {number for listener in _listeners for number in listener.numbers}
            for number in self._before.keys() - wanted:
                self._put_back(number)
            if not _listeners and self._wakeup >= 0:
                self._unset_wakeup()
                self._task.stop()
        finally:
            self._closing = False

    def _put_back(self, number: int) -> None:
        before = self._before[number]  # known until it is in place: ours may be called once more
        if _signal.getsignal(number) == self._handle:  # else the program has put its own there
            if isinstance(before, _Foreign):
                before.put_back()
            else:
                _signal.signal(number, before)
        del self._before[number]

    def _set_wakeup(self) -> None:
        self._wakeup = self._task.start()
        other = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._others = other, _inode(other)

    def _follow(self) -> None:
        """Have signals go where the thread listens now: the program may have closed its pipe."""
        writing = self._task.start()
        if writing == self._wakeup:
            return
        now = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if now == self._wakeup:
            self._wakeup = writing
        else:
            signal.set_wakeup_fd(now)  # the program has put its own there

    def _unset_wakeup(self) -> None:
        now = signal.set_wakeup_fd(-1)
        if now != self._wakeup:
            signal.set_wakeup_fd(now)  # the program has put its own there
        elif _inode(self._others[0]) == self._others[1]:
            signal.set_wakeup_fd(self._others[0])
        self._wakeup = -1

    # ----- in the main thread -----

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before = self._before.get(number, signal.SIG_DFL)
        wanted = [listener for listener in _listeners if number in listener.numbers]
        for listener in wanted:
            listener.warned = True
        if wanted:  # again, since the program may have put another descriptor there, or closed ours
            self._task.ring(_HANDLED + number)
            self._follow()
        else:
            if self._others[0] >= 0:  # whoever had it hears of this one, too
                self.settle()
            self.close()
        if isinstance(before, _Foreign):
            if not wanted:
                before.run()
        elif callable(before):
            before(number, frame)
        elif number in _ENDING or not wanted:
            self._end(number, bool(wanted))

    def _end(self, number: int, wanted: bool) -> None:
        """End the process as the signal would have done without us."""
        patience = time.monotonic() + _RECORDING
        with parked():
            while wanted and number not in self._recorded and time.monotonic() < patience:
                time.sleep(0.002)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    # ----- beside it -----

    def _come(self, byte: int) -> None:
        number = byte % _HANDLED
        if byte < _HANDLED:
            self._pass_on(byte)
            self._heard[number] += 1
        else:
            told = self._heard.pop(number, 0)
            if told or time.monotonic() - self._last.get(number, -_ECHO) < _ECHO:
                return
        self._last[number] = time.monotonic()
        before = self._before.get(number)
        if isinstance(before, _Foreign):
            before.run()
        # The newest first: that is the run which the program is at, and time may be short.
        wanted = [listener for listener in reversed(_listeners) if number in listener.numbers]
        # If nobody listens any more, the last run was closed off the main thread.
        ends = (number in _ENDING or not wanted) and self._is_fatal(number)
        for listener in wanted:
            listener.warned = True
            with contextlib.suppress(Exception):
                listener.hear(number, ends)
        if ends:
            self._recorded.add(number)
            time.sleep(_STUCK)
            _end_from_beside(number)

    def _is_fatal(self, number: int) -> bool:
        ours = signal.getsignal(number) == self._handle
        return ours and self._before.get(number) == signal.SIG_DFL

    def _pass_on(self, byte: int) -> None:
        """Wake up whoever had a descriptor there before, such as asyncio."""
        other, inode = self._others
        if other >= 0 and _inode(other) == inode:
            with contextlib.suppress(OSError):
                os.write(other, bytes([byte]))

    # ----- forks -----

    def forget(self) -> None:
        """Put everything back in a child that was forked off: it has no open runs of its own."""
        _listeners.clear()
        for number in list(self._before):
            self._put_back(number)
        if self._wakeup >= 0:
            self._unset_wakeup()


class _Foreign:
    """A handler in C that Python knows nothing of, as the system has it."""

    _SIZE, _FLAGS, _WITH_MORE = (
        256,
        136,
        4,
    )  # struct sigaction on 64-bit Linux, with room; SA_SIGINFO

    def __init__(self, number: int) -> None:
        import ctypes

        self._number, self._libc = number, ctypes.CDLL(None)
        self._action = ctypes.create_string_buffer(self._SIZE)
        if self._libc.sigaction(number, None, self._action) != 0:
            raise OSError("no such signal")
        address = ctypes.c_void_p.from_buffer(self._action).value or 0
        flags = ctypes.c_int.from_buffer(self._action, self._FLAGS).value
        if address < _HANDLED or flags & self._WITH_MORE:
            raise OSError("no handler, or one that takes more than the number")
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_int)(address)

    @classmethod
    def find(cls, number: int) -> _Foreign | None:
        """The handler, or None where there is none that could be called and put back."""
        try:
            return cls(number)
        except (ImportError, OSError, AttributeError):
            return None

    def run(self) -> None:
        """Call it."""
        self._call(self._number)

    def put_back(self) -> None:
        """Let it be the handler again."""
        signal.signal(self._number, signal.SIG_DFL)
        self._libc.sigaction(self._number, self._action, None)


def _caught() -> int:
    """The signals that have a handler, whoever put it there, as bits from 1 on; Linux tells."""
    # Each run looks: a file object would ask for the size first.
    with contextlib.suppress(OSError, ValueError, IndexError):
        descriptor = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            told = os.read(descriptor, 1 << 13)
        finally:
            os.close(descriptor)
        return int(told.partition(b"SigCgt:")[2].split(maxsplit=1)[0], 16)
    return 0


def _inode(descriptor: int) -> int:
    if descriptor < 0:
        return -1
    try:
        return os.fstat(descriptor).st_ino
    except (OSError, OverflowError):
        return -1


def _end_from_beside(number: int) -> None:
    """End the process by a signal's default action, which Python lets only its main thread set."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).signal(number, ctypes.c_void_p(None))
        os.kill(os.getpid(), number)
        time.sleep(_STUCK)
    os.kill(os.getpid(), signal.SIGKILL)


_ears = _Ears()
os.register_at_fork(after_in_child=_ears.forget)
