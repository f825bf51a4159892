"""What a rank that breaks leaves behind, before any other rank hears of it."""

from __future__ import annotations

import sys
import time
from typing import Any

from notata import messages, privacy
from notata.agreement import Record
from notata.logwriter import LogWriter
from notata.messages import now
from notata.rankfolder import RankFolder

NEVER_CLOSED = "the program ended without closing the run"
_POLICIES = ("grace", "abort", "raise")


def policy(on_failure: Any) -> str:
    """What becomes of ranks that don't come to the end of a run in which this one failed.

    Raises:
        ValueError: If it is none of `grace`, `abort` and `raise`.

    Ranks: independent.
    """
    if on_failure not in _POLICIES:
        raise ValueError(f"on_failure={on_failure!r}: give one of {', '.join(_POLICIES)}")
    return str(on_failure)


def verdict(error: BaseException) -> Record:
    """What a rank says of a run that it leaves by an exception.

    Example:
        >>> verdict(SystemExit(3))["reason"]
        'sys.exit(3)'

    Ranks: independent.
    """
    return {"status": "failed", "reason": _reason(error), "raised": True, "at": time.time()}


def _reason(error: BaseException) -> str:
    try:
        if isinstance(error, SystemExit):
            return storable(f"sys.exit({error.code!r})")
        text, kind = storable(str(error)), type(error).__name__
        if isinstance(error, KeyError) and error.args and text == storable(repr(error.args[0])):
            return f"{kind}: {text}"  # a key by itself says nothing
        return text or kind
    except Exception:  # an error that can't even say what it is must not hide that there was one
        return type(error).__name__


def uncaught() -> BaseException | None:
    """The exception that ended the program, if one did.

    Ranks: independent.
    """
    interactive = hasattr(sys, "ps1")  # there, errors come and go
    return None if interactive else getattr(sys, "last_value", None)


def told(reason: object) -> str:
    """A reason as text that any file takes; of an object that has none, its type.

    Ranks: independent.
    """
    try:
        return storable(str(reason))
    except Exception:
        return type(reason).__name__


def storable(text: str) -> str:
    """Text that any file takes: a name that is not UTF-8 comes as escapes, a password as stars.

    Ranks: independent.
    """
    return privacy.masked_text(text.encode("utf-8", "backslashreplace").decode())


def write_down(
    error: BaseException, folder: RankFolder | None, log: LogWriter
) -> tuple[str, list[Exception]]:
    """Have the traceback on disk: in the rank's record, with host and time, and in its log.

    Both are synced, so that they survive whatever becomes of the node, unless the run's durability
    is `process`.

    Args:
        error: The exception that leaves the run.
        folder: The folder that this rank alone writes to; None where there is one rank.
        log: The log that this rank writes.

    Returns:
        The traceback, and what went wrong while it was written down.

    Ranks: independent.
    """
    import traceback

    text = storable("".join(traceback.format_exception(error)).rstrip())
    troubles: list[Exception] = []
    try:
        if folder is not None:
            folder.note(error=type(error).__name__, traceback=text, failed_at=now())
            folder.sync()
    except Exception as trouble:
        troubles.append(trouble)
    log.write(messages.ERROR, text)
    try:
        if folder is not None and folder.disk.at_close:
            log.sync()
    except OSError as trouble:
        troubles.append(trouble)
    return text, troubles
