"""What an examination finds: a row for each thing that was tried."""

from __future__ import annotations

from typing import Literal, NamedTuple

Verdict = Literal["ok", "warn", "bad"]

# What becomes of an experiment's table where its lock does not hold, and how to get it back.
WITHOUT_LOCKS = (
    "notata still writes each run whole; rows of an experiment's index.csv may get lost where "
    "several processes end runs at once. Call rebuild_index() of the experiment after the runs"
)


class Check(NamedTuple):
    """One thing that was tried.

    Attributes:
        name: What was tried.
        verdict: `ok`; `warn` for what is slow, risky or missing; `bad` for what could lose data.
        finding: What was seen.
        remedy: What to do about it, or an empty text.
    """

    name: str
    verdict: Verdict
    finding: str
    remedy: str = ""
