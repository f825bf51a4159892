"""What a run's metadata say of each attempt at it: how it began, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

Entry = dict[str, Any]

_ENDS = ("end_time", "status", "failure_reason")
_OPEN, _FAILED = "initialized", "failed"


def entry(record: Mapping[str, Any], **end: Any) -> Entry:
    """What is said of an attempt.

    Args:
        record: How it began: `start_time`, `host`, `job`.
        end: How it ended, as far as that is known: `end_time`, `status`, `failure_reason`.

    Ranks: independent.
    """
    return {
        "start_time": record.get("start_time"),
        "end_time": end.get("end_time"),
        "status": end.get("status", _OPEN),
        "failure_reason": end.get("failure_reason"),
        "host": record.get("host"),
        "job": record.get("job"),
    }


def before(metadata: Mapping[str, Any], job: str | None) -> list[Entry]:
    """The attempts that the metadata tell of; the first one leaves no trace but the metadata.

    Args:
        metadata: The run's metadata.
        job: The id of the job that they tell of, or None outside of a job.

    Ranks: independent.
    """
    told = metadata.get("attempts")
    if isinstance(told, list) and told and all(isinstance(one, dict) for one in told):
        return list(told)
    end = {key: metadata[key] for key in _ENDS if key in metadata}
    return [entry({**metadata, "job": job}, **end)]


def closed(
    entries: Sequence[Entry], signals: object, sign: float | None, number: int
) -> list[Entry]:
    """The attempts before another one, those too that were killed and did not say how they ended.

    Args:
        entries: What is said of them.
        signals: The signals that the metadata tell of.
        sign: When the newest of them gave its last sign of life, in seconds since the epoch.
        number: The attempt that goes on now.

    Ranks: independent.
    """
    made = []
    for place, one in enumerate(entries, 1):
        if one.get("status") == _OPEN:
            newest = place == len(entries)
            end = sign if newest else None
            stamp = None if end is None else time.strftime(_STAMP, time.localtime(end))
            names = _received(signals, str(one.get("start_time") or "")) if newest else []
            before_that = f"received {', '.join(names)} and " if names else ""
            reason = f"{before_that}did not say how it ended; attempt {place + 1} went on"
            one = one | {"end_time": stamp, "status": _FAILED, "failure_reason": reason}
        made.append(one)
    return made


_STAMP = "%Y-%m-%dT%H:%M:%S"


def _received(signals: object, since: str) -> list[str]:
    """The names of the signals that came since some time, each once."""
    told = [one for one in signals if isinstance(one, dict)] if isinstance(signals, list) else []
    return list(dict.fromkeys(str(o.get("signal")) for o in told if str(o.get("time")) >= since))


def mirrored(metadata: dict[str, Any]) -> dict[str, Any]:
    """A run's metadata, with what they say of its end said of the newest attempt too.

    Example:
        >>> mirrored({"status": "complete", "attempts": [{}, {}]})["attempts"][1]["status"]
        'complete'

    Ranks: independent.
    """
    told = metadata.get("attempts")
    if not isinstance(told, list) or not told:
        return metadata
    end = {key: metadata.get(key) for key in _ENDS}
    return metadata | {"attempts": [*told[:-1], told[-1] | end]}
