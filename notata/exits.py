"""What is left to do when the interpreter ends: one `atexit` hook, there only while needed."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Hashable

Step = Callable[[], object]

_steps: dict[Hashable, tuple[bool, int, Step]] = {}


def add(key: Hashable, step: Step, *, last: bool = False) -> None:
    """Have something done when the interpreter ends.

    Steps are taken the newest first. A process that was forked off takes none of its parent's.

    Args:
        key: What it belongs to; a step takes the place of an earlier one of the same key.
        step: Called once, without arguments. What it raises keeps no other step from its turn.
        last: Whether it comes after all others.

    Example:
        >>> add("goodbye", print)
        >>> remove("goodbye")

    Ranks: independent.
    """
    if not _steps:
        atexit.register(_take)
    _steps.pop(key, None)
    _steps[key] = (last, os.getpid(), step)


def remove(key: Hashable, step: Step | None = None) -> None:
    """Undo `add`; without any step left, the hook is gone as well.

    Args:
        key: What the step belongs to.
        step: The step, where another one may have taken its place, which then stays.

    Ranks: independent.
    """
    if step is None or (key in _steps and _steps[key][2] == step):
        _steps.pop(key, None)
    if not _steps:
        atexit.unregister(_take)


def _take() -> None:
    stopped: BaseException | None = None
    while _steps:  # a step may add another one
        key = next((key for key in reversed(_steps) if not _steps[key][0]), None)
        _, pid, step = _steps.pop(key) if key is not None else _steps.popitem()[1]
        try:
            if pid == os.getpid():
                step()
        except Exception:
            import traceback

            traceback.print_exc()
        except BaseException as error:  # of a signal: the steps that are left end the wait
            stopped = error
    if stopped is not None:
        raise stopped
