"""What file system is this: its type, and the mount options that decide whether locks hold."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

_TABLE = "/proc/self/mountinfo"
_ESCAPE = re.compile(r"\\([0-7]{3})")  # the kernel writes a blank in a path as \040

# File systems of one node: no other node sees their files, so their locks need not reach one.
_LOCAL = frozenset(
    [
        "bcachefs",
        "btrfs",
        "exfat",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "fuse.fuse-overlayfs",
        "fuseblk",
        "jfs",
        "overlay",
        "ramfs",
        "rootfs",
        "tmpfs",
        "vfat",
        "xfs",
        "zfs",
    ]
)
# The kernel keeps the locks of a FUSE mount to itself unless the server asks for them; these do.
_FUSE_WITH_LOCKS = frozenset(
    f"fuse.{name}" for name in ("ceph", "ceph-fuse", "glusterfs", "juicefs", "lizardfs", "mfs")
)


class Mount(NamedTuple):
    """A mounted file system.

    Attributes:
        point: The folder that it is mounted on.
        type: Its type as the kernel names it: `nfs4`, `lustre`, `fuse.sshfs`; `unknown` where
            there is no table of mounts.
        options: Its options, those of the mount and those of the file system; a flag has the
            value `""`.
        source: What is mounted: a device, or a server and its path.
    """

    point: str
    type: str
    options: Mapping[str, str]
    source: str

    @property
    def local(self) -> bool:
        """Whether other nodes can't see these files."""
        return self.type in _LOCAL

    @property
    def close_to_open(self) -> bool:
        """Whether who opens a file sees what another node wrote to it and closed before.

        FUSE file systems answer for a second from what this node remembers: size, bytes and names.
        They also may go on writing a closed file.
        """
        return self.local or not self.type.startswith("fuse.")


UNKNOWN = Mount("/", "unknown", {}, "")


def mount_of(path: str | os.PathLike[str], table: str | None = None) -> Mount:
    """Find the file system that a path lies on, also where nothing has that path yet.

    Args:
        path: A file or folder.
        table: The text of a `mountinfo` table; that of this process by default.

    Returns:
        The mount, or one of type `unknown` where the system has no such table.

    Example:
        >>> table = "30 29 0:27 / /home rw - nfs4 server:/home rw,local_lock=none"
        >>> mount_of("/home/me/outputs", table).type
        'nfs4'

    Ranks: independent.
    """
    if table is None:
        try:
            with open(_TABLE, encoding="utf-8", errors="surrogateescape") as file:
                table = file.read()
        except OSError:
            return UNKNOWN
    real = os.path.join(os.path.realpath(path), "")
    found = UNKNOWN
    for line in table.split("\n"):
        mount = _parsed(line)
        if mount is None or not real.startswith(os.path.join(mount.point, "")):
            continue
        # A later mount on the same folder lies over the earlier one.
        if found is UNKNOWN or len(mount.point) >= len(found.point):
            found = mount
    return found


def _parsed(line: str) -> Mount | None:
    """A line: number, parent, device, root, point, options, any tags, -, type, source, options."""
    left, dash, right = line.partition(" - ")
    before, after = left.split(" "), right.split(" ")
    if not dash or len(before) < 6 or len(after) < 3:
        return None
    options: dict[str, str] = {}
    for item in f"{before[5]},{after[2]}".split(","):
        key, _, value = item.partition("=")
        options[_unescaped(key)] = _unescaped(value)
    return Mount(_unescaped(before[4]), after[0], options, _unescaped(after[1]))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def lock_doubt(mount: Mount) -> str | None:
    """Say why locks on this file system are known not to exclude processes of other nodes.

    Returns:
        A sentence, or None where nothing is known against them: `notata doctor`, started on two
        nodes, is what tries them.

    Example:
        >>> lock_doubt(Mount("/scratch", "lustre", {"rw": "", "localflock": ""}, "mds:/fs"))
        '/scratch is Lustre mounted with localflock: its locks hold within one node only'

    Ranks: independent.
    """
    kind, options = mount.type, mount.options
    if kind in ("nfs", "nfs4"):
        local = options.get("local_lock")
        if local in ("all", "flock") or "nolock" in options:
            how = "nolock" if "nolock" in options else f"local_lock={local}"
            return _within_one_node(mount, f"NFS mounted with {how}")
    elif kind == "lustre":
        if "localflock" in options:
            return _within_one_node(mount, "Lustre mounted with localflock")
        if "flock" not in options:
            return f"{mount.point} is Lustre mounted without flock: it refuses every lock"
    elif kind == "beegfs":
        if not _beegfs_locks_globally(options.get("cfgFile", "")):
            return _within_one_node(mount, "BeeGFS without tuneUseGlobalFileLocks")
    elif kind in ("cifs", "smb3"):
        if "nobrl" in options:
            return _within_one_node(mount, "SMB mounted with nobrl")
    elif kind.startswith("fuse") and not mount.local and kind not in _FUSE_WITH_LOCKS:
        return (
            f"{mount.point} is {kind}, and the locks of a FUSE file system hold within one mount "
            "only, unless its server takes part in them"
        )
    return None


def _within_one_node(mount: Mount, how: str) -> str:
    return f"{mount.point} is {how}: its locks hold within one node only"


def _beegfs_locks_globally(config: str) -> bool:
    """Whether a BeeGFS client was told to lock on its servers; it does not by default."""
    try:
        with open(config, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return False
    return re.search(r"(?m)^\s*tuneUseGlobalFileLocks\s*=\s*(true|1)\s*$", text) is not None
