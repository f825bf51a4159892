"""The power goes: what each durability promised is on disk, and the next attempt goes on.

On a file system of its own, which is shut down without writing what it still has in memory, as it
would lose it; once with its journal written, once without.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from calls import (
    CHANGES,
    STRIDE,
    Point,
    each,
    kill_at,
    need_strace,
    points_in,
    python,
    run,
    strace,
)
from promises import (
    LINES,
    acknowledged,
    check_goes_on,
    lines,
    newest,
    prepare,
    run_in,
    versions,
)

from notata import Experiment, LogReader

VICTIM = Path(__file__).parent / "allverbs.py"
_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN of ext4, xfs and f2fs
_WITH_JOURNAL, _AT_ONCE = 1, 2
# The file system's own guess that a rename means a sync would hide that one is missing.
SYSTEMS = {
    "ext4": (64 << 20, ["mkfs.ext4", "-q", "-F"], "loop,noauto_da_alloc"),
    "xfs": (320 << 20, ["mkfs.xfs", "-q"], "loop"),
}


class Power:
    """A disk whose power can be cut."""

    def __init__(self, folder: Path, system: str) -> None:
        size, self._make, self._options = SYSTEMS[system]
        self._image, self.path = folder / "image", folder / "disk"
        with self._image.open("wb") as image:
            image.truncate(size)
        self.path.mkdir()
        self._run(*self._make, str(self._image))
        self.mount()

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"no disk of its own to be had here: {done.stderr.strip()}")

    def mount(self) -> None:
        self._run("mount", "-o", self._options, str(self._image), str(self.path))

    def settle(self) -> None:
        """Have all that is there on disk, so that only what comes now can be lost."""
        descriptor = os.open(self.path, os.O_RDONLY)
        assert ctypes.CDLL(None).syncfs(descriptor) == 0
        os.close(descriptor)

    def cut(self, how: int) -> None:
        """Lose what is not on disk, and start again."""
        descriptor = os.open(self.path, os.O_RDONLY)
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", how))
        os.close(descriptor)
        self.unmount()
        self.mount()

    def unmount(self) -> None:
        for _ in range(100):
            if subprocess.run(["umount", str(self.path)], capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@pytest.fixture(params=list(SYSTEMS))
def power(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Power]:
    make = SYSTEMS[request.param][1][0]
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a disk of its own")
    if shutil.which(make) is None:
        pytest.skip(f"needs {make}")
    disk = Power(tmp_path, request.param)
    yield disk
    disk.unmount()


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTATA_HEARTBEAT", "0")


def check_promises(base: Path, told: Path, durability: str) -> None:
    """What is promised of a run whose power was cut."""
    said = acknowledged(Path(f"{told}.0"))
    got, run_folder = newest(said), run_in(base)
    expected = []
    if durability == "node":
        found = versions(run_folder, 0, 1) if "open" in got else {}
        for verb in found.keys() & got.keys() | {v for v in got if v in found or _is_file(v)}:
            assert got[verb] <= found[verb] <= 2, (verb, got[verb], found)
        kept = [a for a in said if a.get("verb") in LINES]
        warnings = [n for n, a in enumerate(kept) if a["verb"] != "info"]
        expected = kept[: warnings[-1] + 1] if warnings else []
    if durability != "process" and "close" in got:
        reader = LogReader(run_folder)
        assert reader.meta["status"] == "complete"
        assert reader.meta["note"] == 2
        assert reader.params == {"k": 1, "p": 2}
        assert [(row["p"], row["m"]) for row in Experiment("s", base).rows()] == [(2, 2)]
        expected = [a for a in said if a.get("verb") in LINES]
    if expected:
        there = lines(run_folder, 0, 1)
        for answer in expected:
            assert LINES[answer["verb"]].format(answer["version"]) in there, answer


def _is_file(verb: str) -> bool:
    return verb not in (*LINES, "path", "open", "close")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", [_AT_ONCE, _WITH_JOURNAL])
@pytest.mark.parametrize("durability", ["process", "close", "node"])
def test_what_was_promised_outlives_the_power(
    power: Power, tmp_path: Path, durability: str, how: int
) -> None:
    need_strace()
    base, told = prepare(power.path / "undisturbed", "first")
    log = tmp_path / "calls"
    done = run(
        [*strace(CHANGES, to=log), *python(VICTIM, "first", base, told, durability)], tmp_path
    )
    assert done.stdout == "done\n", done.stderr
    points = points_in(log, base)
    assert len(points) > 100
    stride = 1 if STRIDE == 1 else 5 * STRIDE
    tried = len(points[how % stride :: stride])
    print(f"{durability}, {how}: {len(points)} points, of which {tried} are tried")

    def kill(point: Point) -> tuple[Path, Path]:
        name = f"{point.call}-{point.number}"
        base, _ = prepare(power.path / name, "first")
        power.settle()
        told = tmp_path / f"told-{name}"  # this disk keeps its power
        command = python(VICTIM, "first", base, told, durability)
        done = run([*strace([point.call]), *kill_at(point), *command], tmp_path)
        assert done.returncode in (-9, 137), done.stdout
        power.cut(how)
        return base, told

    def look(point: Point, found: tuple[Path, Path]) -> None:
        base, told = found
        check_promises(base, told, durability)
        check_goes_on(base, told)
        shutil.rmtree(base.parent)

    each(points, how, kill, look, workers=0, stride=stride)


@pytest.mark.parametrize("how", [_AT_ONCE, _WITH_JOURNAL])
@pytest.mark.parametrize("until", ["halfway", "end"])
@pytest.mark.parametrize("durability", ["close", "node"])
def test_without_the_syncs_it_would_be_lost(
    power: Power, tmp_path: Path, durability: str, until: str, how: int
) -> None:
    """The test above would notice if the syncs were left out: here they are."""
    outcomes = []
    for sync in ("synced", "unsynced"):
        base, _ = prepare(power.path / sync, "first")
        power.settle()
        told = tmp_path / f"told-{sync}"
        run(python(VICTIM, "first", base, told, durability, until, sync), tmp_path)
        assert ("close" in newest(acknowledged(Path(f"{told}.0")))) == (until == "end")
        power.cut(how)
        try:
            check_promises(base, told, durability)
        except Exception as error:  # whatever a run that is in pieces leads to
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("kept")
    promised = durability == "node" or until == "end"
    assert outcomes[0] == "kept"
    assert (outcomes[1] != "kept") == promised, outcomes
