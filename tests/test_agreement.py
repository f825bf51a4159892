"""What ranks tell each other: frames of a fixed size, into which every error fits."""

from __future__ import annotations

import json

import pytest

from notata.agreement import _frame, _unframe
from notata.errors import describe, revive


@pytest.mark.parametrize("size", [1024, 8192])
@pytest.mark.parametrize("notes", [["é" * 5000], ["n" * 40] * 500, ["short", "x" * 9000]])
def test_an_error_with_long_notes_fits_and_stays_that_error(size: int, notes: list[str]) -> None:
    error = OSError(28, "No space left on device", "/scratch/" + "a" * 2000)
    for note in notes:
        error.add_note(note)
    told = _unframe(_frame({"error": describe(error)}, size))["error"]
    found = revive(told)
    assert isinstance(found, OSError)
    assert found.errno == 28
    assert all(note[:8] == whole[:8] for note, whole in zip(told["notes"], notes, strict=False))


def test_a_record_that_fits_is_sent_as_it_is() -> None:
    record = {"error": describe(ValueError("x")), "notes": ["kept"], "ranks": list(range(100))}
    frame = _frame(record, 1024)
    assert len(frame) == 1024
    assert json.loads(bytes(frame)) == record
