"""What becomes of these tests where there is no Slurm."""

from __future__ import annotations

import pytest
from cluster import give_up


@pytest.mark.parametrize(
    ("asked", "outcome"), [(True, pytest.fail.Exception), (False, pytest.skip.Exception)]
)
def test_they_are_skipped_unless_they_were_asked_for(
    asked: bool, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    if asked:
        monkeypatch.setenv("NOTATA_NEED_SLURM", "1")
    else:
        monkeypatch.delenv("NOTATA_NEED_SLURM", raising=False)
    with pytest.raises(outcome, match="no Slurm: slurmctld is missing"):
        give_up("no Slurm: slurmctld is missing")
