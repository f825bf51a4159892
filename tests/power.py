"""A disk whose power can be cut."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from notata import rankfiles

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN of ext4, xfs and f2fs
WITH_JOURNAL, AT_ONCE = 1, 2
# The file system's own guess that a rename means a sync would hide that one is missing.
SYSTEMS = {
    "ext4": (64 << 20, ["mkfs.ext4", "-q", "-F"], "loop,noauto_da_alloc"),
    "xfs": (320 << 20, ["mkfs.xfs", "-q"], "loop,nouuid"),
}


class Power:
    """A disk whose power can be cut."""

    def __init__(self, folder: Path, system: str) -> None:
        size, self._make, self._options = SYSTEMS[system]
        self._image, self.path = folder / "image", folder / "disk"
        with self._image.open("wb") as image:
            image.truncate(size)
        self.path.mkdir()
        try:
            self._run(*self._make, str(self._image))
            self.mount()
        except OSError as error:
            pytest.skip(f"no disk of its own to be had here: {error}")

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")

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
        if not self._works():
            # Somebody has the old one still: a rank that ends, a container or job that began now.
            self.unmount()
            self._image = self._copied()
            self.mount()
            assert self._works()

    def _copied(self) -> Path:
        """What is on the disk, on another one."""
        copy = self._image.with_name(f"image-{time.monotonic_ns()}")
        self._run("cp", "--sparse=always", str(self._image), str(copy))
        self._image.unlink()
        return copy

    def _works(self) -> bool:
        probe = self.path / "probe"
        try:
            probe.touch()
            probe.unlink()
        except OSError:
            return False
        return True

    def unmount(self) -> None:
        rankfiles._opened.cache_clear()  # an archive that was read stays open, and holds the disk
        for _ in range(100):
            if subprocess.run(["umount", str(self.path)], capture_output=True).returncode == 0:
                return
            time.sleep(0.05)
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@contextmanager
def powered(folder: Path, system: str) -> Iterator[Power]:
    """A disk of its own, if one is to be had here."""
    make = SYSTEMS[system][1][0]
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a disk of its own")
    if shutil.which(make) is None:
        pytest.skip(f"needs {make}")
    disk = Power(folder, system)
    try:
        yield disk
    finally:
        disk.unmount()
