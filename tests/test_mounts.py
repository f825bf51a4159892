"""Which file system a path lies on, read from tables as kernels and file systems write them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from notata import mounts
from notata.mounts import UNKNOWN, Mount, lock_doubt, mount_of

NFS = "rw,vers={v},rsize=1048576,hard,proto=tcp,timeo=600,sec=sys,{lock},addr=10.0.0.1"
ROOT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard"


def line(point: str, kind: str, options: str = "rw", source: str = "srv:/x", tags: str = "") -> str:
    return f"40 27 0:50 / {point} rw,relatime{tags} - {kind} {source} {options}"


def of(kind: str, options: str = "rw") -> Mount:
    """The mount that a table gives for a folder on such a file system."""
    return mount_of("/scratch/me", f"{ROOT}\n{line('/scratch', kind, options)}\n")


def test_fields_of_a_line() -> None:
    table = f"{ROOT}\n{line('/nfs', 'nfs4', NFS.format(v='4.2', lock='local_lock=none'))}"
    mount = mount_of("/nfs/a/b", table)
    assert (mount.point, mount.type, mount.source) == ("/nfs", "nfs4", "srv:/x")
    expected = {"vers": "4.2", "local_lock": "none", "hard": "", "relatime": ""}
    assert expected.items() <= mount.options.items()


@pytest.mark.parametrize("tags", ["", " shared:7", " shared:7 master:3 propagate_from:2"])
def test_any_number_of_optional_fields(tags: str) -> None:
    assert mount_of("/x/y", line("/x", "gpfs", tags=tags)).type == "gpfs"


def test_the_longest_mount_point_wins_wherever_it_stands() -> None:
    lines = [line("/data/deep", "lustre"), ROOT, line("/data", "nfs4"), line("/dat", "xfs")]
    for table in ("\n".join(lines), "\n".join(reversed(lines))):
        assert mount_of("/data/deep/run", table).type == "lustre"
        assert mount_of("/data/deep", table).type == "lustre"
        assert mount_of("/data/deeper", table).type == "nfs4"
        assert mount_of("/database", table).type == "ext4"


def test_a_later_mount_on_the_same_folder_lies_over_the_earlier_one() -> None:
    table = "\n".join([ROOT, line("/home", "autofs"), line("/home", "nfs4")])
    assert mount_of("/home/me", table).type == "nfs4"


def test_escapes() -> None:
    table = "\n".join([ROOT, line(r"/my\040disk\134\011x", "xfs", source=r"/dev/a\040b")])
    mount = mount_of("/my disk\\\tx/run", table)
    assert (mount.point, mount.type, mount.source) == ("/my disk\\\tx", "xfs", "/dev/a b")


def test_a_link_leads_to_what_it_points_at(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/elsewhere/far")
    table = "\n".join([ROOT, line("/elsewhere", "lustre")])
    assert mount_of(tmp_path / "link" / "run", table).type == "lustre"


def test_lines_that_are_none_are_passed_over() -> None:
    table = f"\nnonsense\n1 2 3 - a b c\n{ROOT}\n40 27 0:50 / /x rw - nfs4\n"
    assert mount_of("/x", table).type == "ext4"


def test_without_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mounts, "_TABLE", str(tmp_path / "none"))
    assert mount_of("/") == UNKNOWN == mount_of("/", "")
    assert lock_doubt(UNKNOWN) is None
    assert not UNKNOWN.local


def test_the_table_of_this_machine() -> None:
    assert mount_of("/proc/self").type == "proc"
    told = subprocess.run(
        ["stat", "-f", "-c", "%T", "/dev/shm"], capture_output=True, text=True, check=True
    )
    assert mount_of("/dev/shm").type == told.stdout.strip()
    assert os.path.ismount(mount_of(__file__).point)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("nfs", NFS.format(v=3, lock="nolock,local_lock=all"), "NFS mounted with nolock"),
        ("nfs", NFS.format(v=3, lock="local_lock=flock"), "NFS mounted with local_lock=flock"),
        ("nfs4", NFS.format(v=4.0, lock="local_lock=all"), "NFS mounted with local_lock=all"),
        ("lustre", "rw,localflock,lazystatfs", "Lustre mounted with localflock"),
        ("lustre", "rw,lazystatfs", "refuses every lock"),
        ("lustre", "rw,noflock", "refuses every lock"),
        ("beegfs", "rw,cfgFile=/nowhere/client.conf", "tuneUseGlobalFileLocks"),
        ("cifs", "rw,vers=3.0,nobrl", "SMB mounted with nobrl"),
        ("fuse.sshfs", "rw,user_id=0", "fuse.sshfs"),
        ("fuse", "rw,user_id=0", "/scratch is fuse,"),
    ],
)
def test_locks_that_do_not_reach_other_nodes(kind: str, options: str, words: str) -> None:
    doubt = lock_doubt(of(kind, options))
    assert doubt is not None
    assert words in doubt
    assert doubt.startswith("/scratch is ")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("nfs", NFS.format(v=3, lock="local_lock=none")),
        ("nfs", NFS.format(v=3, lock="local_lock=posix")),  # flock still goes to the server
        ("nfs4", NFS.format(v=4.2, lock="local_lock=none")),
        ("lustre", "rw,flock,lazystatfs"),
        ("gpfs", "rw,dev=gpfs0"),
        ("ceph", "rw,name=admin,acl"),
        ("fuse.ceph-fuse", "rw"),
        ("fuse.glusterfs", "rw,user_id=0"),
        ("fuse.fuse-overlayfs", "rw"),
        ("fuseblk", "rw"),
        ("cifs", "rw,vers=3.0"),
        ("tmpfs", "rw,size=4k"),
        ("overlay", "rw,lowerdir=/a:/b,upperdir=/c,workdir=/d"),
    ],
)
def test_nothing_known_against_locks(kind: str, options: str) -> None:
    assert lock_doubt(of(kind, options)) is None


@pytest.mark.parametrize(("value", "held"), [("true", True), ("false", False)])
def test_beegfs_says_in_its_configuration(tmp_path: Path, value: str, held: bool) -> None:
    config = tmp_path / "client.conf"
    config.write_text(f"# tuneUseGlobalFileLocks = true\ntuneUseGlobalFileLocks   = {value}\n")
    assert (lock_doubt(of("beegfs", f"rw,cfgFile={config}")) is None) == held


@pytest.mark.parametrize(
    ("kind", "local"),
    [("ext4", True), ("tmpfs", True), ("overlay", True), ("fuseblk", True)]
    + [(kind, False) for kind in ("nfs4", "lustre", "gpfs", "ceph", "beegfs", "fuse.sshfs")],
)
def test_whether_other_nodes_see_the_files(kind: str, local: bool) -> None:
    assert of(kind).local is local


@pytest.mark.parametrize(
    ("kind", "seen"),
    [(kind, True) for kind in ("ext4", "fuse.fuse-overlayfs", "nfs4", "lustre", "gpfs")]
    + [(kind, False) for kind in ("fuse.glusterfs", "fuse.sshfs")],
)
def test_whether_who_opens_a_file_sees_what_was_closed(kind: str, seen: bool) -> None:
    assert of(kind).close_to_open is seen
