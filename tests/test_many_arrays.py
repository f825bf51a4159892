"""More arrays than a process may have files open; and keys of bundles, of which a part is read."""

from __future__ import annotations

import os
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import write_as

from notata import Logbook, LogReader, formats, manifests, members, merge, npy
from notata.errors import DamagedError
from notata.exporting import export
from notata.opened import _FEW, Arrays, open_array

MANY = 150


def many(log: Logbook) -> None:
    for number in range(MANY):
        log.array(f"x{number}", [[log.rank, number]])
    log.arrays("b", **{f"k{number}": [log.rank, number] for number in range(MANY)})


@contextmanager
def few_files(count: int) -> Iterator[None]:
    """Let this process open so many files beside those that are open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def arrays_of(path: str) -> dict[str, list[Any]]:
    import h5py

    found = {}

    def visit(name: str, thing: object) -> None:
        if isinstance(thing, h5py.Dataset):
            found[name] = thing[...].tolist()

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


@pytest.mark.parametrize("merged", [False, True])
def test_more_arrays_than_files_may_be_open_are_exported(base: Path, merged: bool) -> None:
    run = write_as(2, base, many)
    if merged:
        merge(run)
    with few_files(60):
        done = export(run, "hdf5", "out.h5")
    assert len(done.arrays) == 2 * MANY
    found = arrays_of(done.path)
    assert len(found) == 2 * MANY
    for number in range(MANY):
        assert found[f"x{number}"] == [[0, number], [1, number]]
        assert found[f"b:k{number}"] == [0, number, 1, number]


@pytest.mark.parametrize("merged", [False, True])
def test_more_arrays_than_files_may_be_open_are_in_a_dataset(base: Path, merged: bool) -> None:
    run = write_as(2, base, many)
    if merged:
        merge(run)
    with few_files(60):
        data = LogReader(run).to_xarray()
        assert len(data) == 2 * MANY
        for _ in range(2):
            for number in range(MANY):
                assert data[f"x{number}"][1].values.tolist() == [1, number]
                assert data[f"b:k{number}"][1:3].values.tolist() == [number, 1]


def test_few_files_stay_open(base: Path) -> None:
    run = write_as(2, base, many)
    merge(run, prune=True)
    before = len(os.listdir("/proc/self/fd"))
    arrays = Arrays(run)
    opened = [arrays.open(f"{name}{number}") for name in ("x", "b:k") for number in range(MANY)]
    assert all(array.read().size == 4 for array in opened)
    assert len(os.listdir("/proc/self/fd")) <= before + _FEW
    del arrays, opened
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_export_reads_each_manifest_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_as(3, base, lambda log: [log.array(f"x{n}", [log.rank]) for n in range(20)])
    read, told = manifests.read_all, []
    monkeypatch.setattr(manifests, "read_all", lambda run: [told.append(run), read(run)][1])
    export(run, "hdf5", "out.h5")
    assert len(told) == 2  # which arrays there are, and what they are made of


def test_a_file_that_is_another_one_by_now_is_told(base: Path) -> None:
    run = write_as(2, base, many)
    merge(run, prune=True)
    arrays = Arrays(run)
    array = arrays.open("x0")
    other = np.zeros((3, 3))
    np.save(Path(run, "data/new.npy"), other)
    os.replace(Path(run, "data/new.npy"), Path(run, "data/x0.npy"))
    assert array.read().tolist() == [[0, 0], [1, 0]]  # what was opened is there still
    for number in range(1, _FEW + 1):
        arrays.open(f"x{number}").read()
    with pytest.raises(DamagedError, match="'x0' was replaced since it was opened"):
        array.read()


# ----- keys of bundles -----


def wide(log: Logbook) -> None:
    rows = np.arange(64 * 64, dtype=float).reshape(64, 64) + log.rank
    log.arrays("b", compressed=False, u=rows, v=rows[:2])
    log.arrays("z", compressed=True, u=rows, v=rows[:2])


@pytest.mark.parametrize("merged", [False, True])
def test_a_key_of_a_bundle_is_read_slab_by_slab(
    base: Path, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    run = write_as(2, base, wide)
    if merged:
        merge(run)
    whole: list[str] = []
    load = npy.load_member
    monkeypatch.setattr(npy, "load_member", lambda p, key: [whole.append(f"{p}"), load(p, key)][1])
    monkeypatch.setattr(formats, "CHUNK", 4096)
    found = arrays_of(export(run, "hdf5", "out.h5").path)
    rows = np.arange(64 * 64, dtype=float).reshape(64, 64)
    for name in "bz":
        assert np.array_equal(found[f"{name}:u"], np.vstack([rows, rows + 1]))
        assert np.array_equal(found[f"{name}:v"], np.vstack([rows[:2], rows[:2] + 1]))
    assert whole
    assert {os.path.basename(path) for path in whole} == {"z.npz"}  # compressed ones are read whole
    assert len(whole) == (2 if merged else 4)  # each piece once, though it is in many slabs


def test_a_bundles_bytes_are_compared_with_its_checksum_once(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zlib

    run = write_as(2, base, wide)
    merge(run)
    counted: list[int] = []
    crc32 = zlib.crc32

    def crc(data: Any, value: int = 0) -> int:
        counted.append(len(data))
        return crc32(data, value)

    monkeypatch.setattr(zlib, "crc32", crc)
    for _ in range(3):
        array = open_array(run, "b:u")
        for box in array.slabs(4096):
            array.read(box)
    assert sum(counted) == 128 * 64 * 8 + 128


@pytest.mark.parametrize("name", ["b", "z"])
@pytest.mark.parametrize("merged", [False, True])
def test_a_byte_of_a_bundle_that_flipped_is_told(base: Path, name: str, merged: bool) -> None:
    run = write_as(2, base, wide)
    if merged:
        merge(run, prune=True)
    path = run / "data" / f"{name}.npz" if merged else run / f"ranks/rank_00001/data/{name}.npz"
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("u.npy")
    data = bytearray(path.read_bytes())
    data[info.header_offset + info.compress_size // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedError):
        LogReader(run).load_array(f"{name}:u")
    with pytest.raises(DamagedError):
        open_array(run, f"{name}:u").read()
    with pytest.raises(DamagedError):
        export(run, "hdf5", "out.h5")
    assert not Path("out.h5").exists()
    assert np.array_equal(open_array(run, f"{name}:v").read()[0], np.arange(64.0))


VALUES = {
    "x": np.arange(6.0).reshape(2, 3),
    "x.npy": np.asfortranarray(np.arange(6).reshape(3, 2)),
    "number": np.float32(2.5),
    "empty": np.zeros((0, 3)),
    "text": np.array(["a", "bcd"]),
    "record": np.array([(1, 2.0)], dtype=[("a", "i1"), ("b", "f8")]),
    "big": np.arange(3, dtype=">i4"),
    "µ/k": np.array([True, False]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_mapped_key_is_what_is_loaded(tmp_path: Path, save: Any) -> None:
    path = os.fspath(tmp_path / "b.npz")
    save(path, **VALUES)
    with open(path, "rb") as file:  # as it is in an archive with something before it
        data = b"before" + file.read()
    moved = os.fspath(tmp_path / "moved.npz")
    Path(moved).write_bytes(data)
    for source in (path, moved):
        for key, value in VALUES.items():
            head, plain = members.head(source, key)
            found, mapped = members.load(source, key), members.mapped(source, key)
            whole = npy.load_member(source, key)
            assert (head.shape, head.dtype) == (whole.shape, whole.dtype)
            assert (found.shape, found.dtype) == (whole.shape, whole.dtype)
            assert np.array_equal(found, whole)
            assert np.array_equal(found, value)
            assert (mapped is not None) == plain == (save is np.savez and key != "empty")
        with pytest.raises(KeyError):
            members.head(source, "other")
    with pytest.raises(FileNotFoundError):
        members.head(f"{path}x", "x")


@pytest.mark.parametrize(
    ("room", "name"), [(zipfile, "ZipFile"), (members, "_go_to"), (members, "_crc")]
)
def test_a_bundle_that_is_replaced_meanwhile_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: Any, name: str
) -> None:
    """What was found of the older one, whole as it was, says nothing of the newer."""
    path, newer = os.fspath(tmp_path / "b.npz"), os.fspath(tmp_path / "newer.npz")
    np.savez(path, x=np.arange(5.0))
    np.savez(newer, x=np.arange(5.0), y=np.arange(3.0))
    data = bytearray(Path(newer).read_bytes())
    at = data.index(np.arange(5.0).tobytes())
    data[at] ^= 1
    Path(newer).write_bytes(data)
    step = getattr(room, name)

    def replaced(*given: Any, **named: Any) -> Any:
        if os.path.exists(newer):
            os.replace(newer, path)
        return step(*given, **named)

    monkeypatch.setattr(room, name, replaced)
    found = members.mapped(path, "x")
    assert found is not None
    assert found.tolist() == [0, 1, 2, 3, 4]
    assert not os.path.exists(newer)
    with pytest.raises(DamagedError, match="Bad CRC-32"):
        members.mapped(path, "x")
    found = members.mapped(path, "y")
    assert found is not None
    assert found.tolist() == [0, 1, 2]


def test_a_bundle_that_is_cut_off_anywhere_is_told(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "b.npz")
    np.savez(path, x=np.arange(5.0), y=np.arange(3))
    data = Path(path).read_bytes()
    for end in range(0, len(data), 7):
        Path(path).write_bytes(data[:end])
        with pytest.raises(DamagedError, match=r"not a whole \.npz file"):
            members.load(path, "x")
    for at in range(0, len(data), 3):
        Path(path).write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        try:
            found = members.load(path, "x")
        except (DamagedError, KeyError):
            continue
        assert np.array_equal(found, np.arange(5.0)), at
