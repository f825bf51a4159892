"""`notata export`, and `LogReader.to_xarray`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray
import zarr
from calling import HOSTILE, assert_harmless, notata, run_of
from hypothesis import given
from hypothesis import strategies as st
from richrun import rich

from notata import Logbook, LogReader, exporting, formats, merge
from notata.errors import ExportError, HoleError
from notata.exporting import export

FORMATS = ("hdf5", "zarr", "netcdf")


def load(path: str | Path, to: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays and attributes of a file, read by the format's own library."""
    if to == "zarr":
        root = zarr.open_group(str(path), mode="r")
        members = dict(root.members(max_depth=None))
        arrays = {k: np.asarray(v[...]) for k, v in members.items() if isinstance(v, zarr.Array)}
        return arrays, dict(root.attrs)
    arrays = {}

    def visit(name: str, thing: object) -> None:
        if isinstance(thing, h5py.Dataset) and "_NCProperties" not in name:
            text = h5py.check_string_dtype(thing.dtype)
            value = thing.asstr()[...] if text and text.encoding == "utf-8" else thing[...]
            if thing.attrs.get("notata_name"):
                arrays[name] = np.asarray(value)

    with h5py.File(path) as file:
        file.visititems(visit)
        return arrays, {k: plain(v) for k, v in file.attrs.items()}


def plain(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    return value[0] if isinstance(value, list) and len(value) == 1 else value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("state", ["pieces", "merged", "pruned"])
@pytest.mark.parametrize("to", FORMATS)
def test_all_arrays_with_parameters_and_metadata(base: Path, to: str, state: str) -> None:
    run = rich(base)
    if state != "pieces":
        merge(run, prune=state == "pruned")
    reader = LogReader(run)
    done = export(run, to, f"out{exporting.ENDINGS[to]}")
    assert done.arrays == reader.arrays
    arrays, attributes = load(done.path, to)
    assert set(arrays) == set(reader.arrays)
    for name in reader.arrays:
        whole = reader.load_array(name)
        assert arrays[name].dtype == whole.dtype
        assert np.array_equal(arrays[name], whole)
    assert attributes["kappa"] == 0.1
    assert attributes["notata_status"] == "complete"
    assert json.loads(attributes["notata_metadata"]) == reader.meta
    assert json.loads(attributes["notata_metrics"]) == pytest.approx(
        reader.load_json("metrics"), nan_ok=True
    )
    assert [p.name for p in Path().iterdir()] == [Path(done.path).name]


KINDS: dict[str, Any] = {
    "f2": np.arange(3, dtype="f2"),
    "f8_big": np.arange(3, dtype=">f8"),
    "longdouble": np.arange(3, dtype="longdouble"),
    "u1": np.arange(3, dtype="u1"),
    "bool": np.array([True, False]),
    "c8": np.array([1 + 2j, 3], "c8"),
    "text": np.array(["a", "äöü", ""]),
    "bytes": np.array([b"ab", b"\xff"]),
    "time": np.array(["2026-11-23T03:00", "NaT"], "M8[s]"),
    "span": np.array([5, 7], "m8[ms]"),
    "record": np.array([(1, 2.5), (3, 4.5)], [("id", "i4"), ("x", "f8")]),
    "labelled": np.array([(1, "a")], [("id", "i4"), ("name", "U3")]),
    "number": np.float64(3.5),
    "word": np.array("hello"),
    "empty": np.zeros((0, 3)),
    "flat": np.zeros((3, 0), "i4"),
    "cube_f": np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("to", FORMATS)
def test_every_kind_of_array(base: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "CHUNK", 16)
    with Logbook("x", base) as log:
        for name, value in KINDS.items():
            log.array(name, value)
    arrays, _ = load(export(log.path, to, "out").path, to)
    for name, value in KINDS.items():
        if f"{name}.real" in arrays:
            found = arrays[f"{name}.real"] + 1j * arrays[f"{name}.imag"]
        elif name == "labelled" or (name == "record" and to == "netcdf"):
            for field in value.dtype.names:
                assert arrays[f"{name}.{field}"].tolist() == value[field].tolist()
            continue
        else:
            found = arrays[name]
        if name in ("time", "span"):
            found = found.astype("<i8").astype(value.dtype)
        if name == "bytes" and to != "hdf5":
            assert found.tolist() == ["ab", "\\xff"]
            continue
        assert found.shape == np.shape(value)
        equal_nan = name == "time"
        assert np.array_equal(found, value, equal_nan=equal_nan), name


def test_attributes_are_values_or_json(base: Path) -> None:
    params = {
        "flag": True,
        "n": 3,
        "huge": 10**30,
        "text": "ä",
        "list": [1, 2],
        "mixed": [1, "a"],
        "nested": {"a": [None]},
        "none": None,
        "notata_status": "mine",
        "a/b": 1.5,
    }
    with Logbook("x", base, params=params) as log:
        log.array("T", [1])
    for to in FORMATS:
        _, found = load(export(log.path, to, f"out.{to}").path, to)
        assert found["n"] == 3
        assert found["flag"] in (True, 1)
        assert found["text"] == "ä"
        assert found["list"] == [1, 2]
        assert json.loads(found["mixed"]) == [1, "a"]
        assert json.loads(found["nested"]) == {"a": [None]}
        assert json.loads(found["huge"]) == 10**30
        assert found["params.notata_status"] == "mine"
        assert found["notata_status"] == "complete"
        assert found.get("a/b", found.get("a_b")) == 1.5


@pytest.mark.parametrize("to", FORMATS)
def test_long_attributes(base: Path, to: str) -> None:
    with Logbook("x", base, params={"long": "x" * 300_000}) as log:
        log.array("T", [1])
    assert len(load(export(log.path, to, "out").path, to)[1]["long"]) == 300_000


@pytest.mark.parametrize("to", FORMATS)
def test_an_array_that_is_named_as_a_folder(base: Path, to: str) -> None:
    with Logbook("x", base) as log:
        log.array("states", [1])
        log.array("states/a", [2])
        log.array("states/a/b", [3])
        log.arrays("bundle", u=[4])
    arrays, _ = load(export(log.path, to, "out").path, to)
    assert {name: value.tolist() for name, value in arrays.items()} == {
        "states.array": [1],
        "states/a.array": [2],
        "states/a/b": [3],
        "bundle:u": [4],
    }


def test_nothing_is_read_as_a_whole(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(8, base, lambda log: log.array("T", np.full((16, 64), log.rank)))
    sizes: list[int] = []
    from notata import opened

    original = opened._Pieces.read

    def counting(self: Any, region: Any = None) -> Any:
        found = original(self, region)
        sizes.append(found.nbytes)
        return found

    monkeypatch.setattr(opened._Pieces, "read", counting)
    monkeypatch.setattr(formats, "CHUNK", 4096)
    for to in FORMATS:
        arrays, _ = load(export(run, to, f"out.{to}").path, to)
        assert np.array_equal(arrays["T"], np.repeat(np.arange(8), 16)[:, None] * np.ones(64, int))
    assert sum(sizes) == 3 * 8 * 16 * 64 * 8
    assert max(sizes) <= 4096


# ----- the command -----


@pytest.mark.parametrize(("to", "ending"), [("hdf5", "h5"), ("zarr", "zarr"), ("netcdf", "nc")])
def test_the_command(base: Path, to: str, ending: str) -> None:
    run = run_of(3, base, lambda log: log.array("T", [log.rank]))
    result = notata("export", run, "--to", to)
    assert (result.exit_code, result.stdout) == (0, f"log_heat.{ending}: 1 array, 24 B\n")
    again = notata("export", run, "--to", to)
    assert again.exit_code == 2
    assert again.stderr == (
        f"notata: error: log_heat.{ending} exists: "
        "choose another file, or replace it by overwrite=True (--overwrite)\n"
    )
    told = json.loads(notata("export", run, "--to", to, "--overwrite", "--json").stdout)
    assert told == {"path": f"log_heat.{ending}", "arrays": ["T"], "nbytes": 24}
    assert load(f"log_heat.{ending}", to)[0]["T"].tolist() == [0, 1, 2]
    assert len(list(Path().iterdir())) == 1


def test_only_some_arrays(base: Path) -> None:
    run = rich(base)
    assert (
        notata("export", run, "--to", "hdf5", "--arrays", "T, b:u", "-o", "x/y.h5").exit_code == 0
    )
    assert sorted(load("x/y.h5", "hdf5")[0]) == ["T", "b:u"]
    result = notata("export", run, "--to", "hdf5", "--arrays", "Q")
    assert result.exit_code == 2
    assert "no array 'Q'" in result.stderr


def test_wrong_use(base: Path) -> None:
    base.mkdir()
    assert notata("export", base, "--to", "hdf5").exit_code == 2
    assert notata("export", base / "x", "--to", "hdf5").exit_code == 2
    assert notata("export", base, "--to", "csv").exit_code == 2
    with pytest.raises(ExportError, match="no format 'csv'"):
        export(base, "csv", "x")
    assert not list(Path().iterdir())


@pytest.mark.parametrize("to", FORMATS)
def test_what_fails_leaves_nothing(base: Path, to: str) -> None:
    run = run_of(3, base, lambda log: log.array("T", np.arange(9) + log.rank))
    piece = run / "ranks" / "rank_00002" / "data" / "T.npy"
    piece.write_bytes(piece.read_bytes()[:-8])
    result = notata("export", run, "--to", to)
    assert result.exit_code == 2
    assert "rank 2's piece of 'T' is damaged" in result.stderr
    assert not list(Path().iterdir())


def test_holes_are_told(base: Path) -> None:
    run = run_of(3, base, lambda log: log.array("T", [1], start=0 if log.rank else 1, shape=3))
    with pytest.raises(HoleError, match="overlap"):
        export(run, "hdf5", "x.h5")


@pytest.mark.parametrize(
    ("to", "library", "extra"),
    [("hdf5", "h5py", "hdf5"), ("zarr", "zarr", "zarr"), ("netcdf", "h5netcdf", "netcdf")],
)
def test_without_the_library(
    base: Path, to: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(2, base, lambda log: None)
    monkeypatch.setitem(sys.modules, library, None)
    result = notata("export", run, "--to", to)
    assert result.exit_code == 2
    assert f"this needs {library}: pip install 'notata[{extra}]'" in result.stderr
    assert not list(Path().iterdir())


@pytest.mark.parametrize("to", FORMATS)
def test_hostile_names(base: Path, to: str) -> None:
    name = "[red]x[|red] <b> 'ä' \u2028"
    with Logbook("x", base, params={HOSTILE: HOSTILE}) as log:
        log.array(name, [1])
    result = notata("export", log.path, "--to", to, "-o", "[red]a.b")
    assert result.exit_code == 0, result.stderr
    assert_harmless(result.stdout)
    arrays, attributes = load("[red]a.b", to)
    assert list(arrays) == [name]
    assert HOSTILE in attributes.values()


# ----- what formats can't hold -----


def test_text_with_a_nul(base: Path) -> None:
    params = {"text": "x\0y", "list": ["a\0"], "plain": "x"}
    with Logbook("x", base, params=params) as log:
        log.array("T", [1])
    for to in FORMATS:
        _, found = load(export(log.path, to, f"out.{to}").path, to)
        assert found["plain"] == "x"
        assert json.loads(found["text"]) == "x\0y"
        assert json.loads(found["list"]) == ["a\0"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("to", FORMATS)
def test_an_array_that_is_named_twice_is_exported_once(base: Path, to: str) -> None:
    with Logbook("x", base) as log:
        log.array("s/T", [[1, 2, 3]])
    done = export(log.path, to, "out", names=["s/T", "./s//T", "s/T"])
    assert done.arrays == ["s/T"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("to", FORMATS)
def test_names_that_a_format_needs_itself(base: Path, to: str) -> None:
    params = {"CLASS": 1, "NAME": "me", "a/b": 2, "a_b": 3, "_NCProperties": 4, "_FillValue": 5}
    with Logbook("x", base, params=params) as log:
        for name in ("T_0", "T", "CLASS", "T_1"):
            log.array(name, [[1, 2, 3]])
    arrays, found = load(export(log.path, to, "out").path, to)
    # netCDF tells a variable from an axis of its name so.
    arrays = {name.removeprefix("_nc4_non_coord_"): array for name, array in arrays.items()}
    assert {name: a.tolist() for name, a in arrays.items() if a.shape == (1, 3)} == {
        name: [[1, 2, 3]] for name in ("T_0", "T", "CLASS", "T_1")
    }
    told = {found[k] for k in found if not k.startswith("notata_")}
    assert {1, 2, 3, 4, 5, "me"} <= told


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("to", FORMATS)
def test_no_two_arrays_get_one_name(base: Path, to: str) -> None:
    record = np.array([(1, "a")], [("id", "i4"), ("name", "U3")])
    with Logbook("x", base) as log:
        log.array("T", np.array([1 + 2j]))
        log.array("T.real", [3])
        log.array("T.real_", [4])
        log.array("T.imag/x", [5])
        log.array("R", record)
        log.array("R.id", [6])
        log.array("s", [7])
        log.array("s/a", [8])
        log.array("s.array", [9])
    arrays, _ = load(export(log.path, to, "out").path, to)
    found = {name: value.tolist() for name, value in arrays.items()}
    alike = {"T.real": [3], "T.real_": [4], "T.imag/x": [5], "R.id": [6], "R.id_": [1]}
    alike |= {"R.name": ["a"], "s/a": [8], "s.array": [9], "s.array_": [7]}
    whole = {"T.real__": [1], "T.imag_": [2]} if to == "netcdf" else {"T": [1 + 2j]}
    assert found == alike | whole


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    "key",
    ["/x", "x/", "a//b", ".", "..", "a/../b", "a/./b", "a/.", "/", "a\nb", " ", "a b", "CLASS"],
)
def test_odd_keys_of_bundles_are_stored_or_refused(base: Path, to: str, key: str) -> None:
    with Logbook("x", base) as log:
        log.array("T", [1])
    np.savez(log.path / "data" / "b.npz", **{key: np.arange(3)})  # type: ignore[arg-type]
    (name,) = (name for name in LogReader(log.path).arrays if name != "T")
    result = notata("export", log.path, "--to", to, "--out", "out")
    if result.exit_code:
        assert result.exit_code == 2
        assert f"can't be stored as {to}: " in result.stderr
        assert f"array {name!r}" in result.stderr.replace("\\\\", "\\")
        assert not list(Path().iterdir())
    else:
        found = load("out", to)[0]
        assert sorted(value.tolist() for value in found.values()) == [[0, 1, 2], [1]]


@pytest.mark.parametrize("to", ["hdf5", "netcdf"])
def test_what_can_not_be_stored_is_named(base: Path, to: str) -> None:
    with Logbook("x", base, params={"a\0b": 1, "a": 2}) as log:
        log.array("words", np.array(["a\0b"]))
        log.array("T", [1])
    result = notata("export", log.path, "--to", to)
    assert result.exit_code == 2
    assert f"array 'words' can't be stored as {to}: " in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not list(Path().iterdir())
    found = load(export(log.path, to, "out", names=["T"]).path, to)[1]
    assert (found["a"], found[r"a\0b"]) == (2, 1)


# ----- what is never replaced -----


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("to", FORMATS)
def test_a_folder_is_never_replaced(base: Path, to: str) -> None:
    run = run_of(2, base, lambda log: log.array("T", [log.rank]))
    work = Path("work")
    (work / "deep").mkdir(parents=True)
    (work / "deep" / "thesis.txt").write_text("years")
    Path("link").symlink_to("work")
    before = contents_of(base.parent)
    for out in (run, base, work, "link", ".", "..", "work/."):
        result = notata("export", run, "--to", to, "--overwrite", f"--out={out}")
        assert result.exit_code == 2, out
        assert "is a folder: name a" in result.stderr or "run's own folder" in result.stderr
        assert contents_of(base.parent) == before
    assert Path("link").is_symlink()


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("out", ["new.x", "data/T.npy", "metadata.json", "../log_heat/data/x"])
def test_nothing_goes_into_the_run(base: Path, to: str, out: str) -> None:
    run = run_of(2, base, lambda log: log.array("T", [log.rank]))
    before = contents_of(base)
    Path("alias").symlink_to(run)
    for folder in (run, Path("alias")):
        with pytest.raises(ExportError, match=r"run's own folder|is a file, no Zarr store"):
            export(run, to, folder / out, overwrite=True)
    assert contents_of(base) == before


def test_a_store_that_holds_the_run_is_not_replaced(base: Path) -> None:
    run = run_of(2, base, lambda log: log.array("T", [log.rank]))
    (base / "zarr.json").write_text("{}")
    before = contents_of(base)
    with pytest.raises(ExportError, match="run's own folder"):
        export(run, "zarr", base, overwrite=True)
    assert contents_of(base) == before


def test_a_zarr_store_is_replaced_by_one_alone(base: Path) -> None:
    run = run_of(2, base, lambda log: log.array("T", [log.rank]))
    export(run, "zarr", "x.zarr")
    before = contents_of(Path("x.zarr"))
    for to in ("hdf5", "netcdf"):
        with pytest.raises(ExportError, match="is a folder: name a file in it"):
            export(run, to, "x.zarr", overwrite=True)
    assert contents_of(Path("x.zarr")) == before
    Path("x.zarr/old").touch()
    assert export(run, "zarr", "x.zarr/", overwrite=True).path == "x.zarr"
    assert contents_of(Path("x.zarr")) == before
    export(run, "hdf5", "x.h5")
    with pytest.raises(ExportError, match="is a file, no Zarr store"):
        export(run, "zarr", "x.h5", overwrite=True)
    assert load("x.h5", "hdf5")[0]["T"].tolist() == [0, 1]


@pytest.mark.parametrize("to", ["hdf5", "netcdf"])
def test_a_folder_for_a_file(base: Path, to: str) -> None:
    run = run_of(2, base, lambda log: log.array("T", [log.rank]))
    result = notata("export", run, "--to", to, "--out", "newdir/")
    assert (result.exit_code, result.stderr) == (
        2,
        "notata: error: newdir/ is a folder: name a file in it\n",
    )
    assert notata("export", run, "--to", to, "--out", "a/b/x", "--arrays", "T").exit_code == 0
    (run / "ranks" / "rank_00001" / "data" / "T.npy").write_bytes(b"")
    assert notata("export", run, "--to", to, "--out", "a/c/d/x").exit_code == 2
    assert [str(p) for p in sorted(Path().rglob("*"))] == ["a", "a/b", "a/b/x"]


# ----- xarray -----


@pytest.mark.parametrize("merged", [False, True])
def test_to_xarray(base: Path, merged: bool) -> None:
    run = rich(base)
    if merged:
        merge(run, prune=True)
    reader = LogReader(run)
    found = reader.to_xarray(dims={"T": ("x", "y")})
    assert sorted(found) == reader.arrays
    assert found["T"].dims == ("x", "y")
    assert found["F"].dims == ("F_0", "F_1")
    assert found.attrs["kappa"] == 0.1
    whole = reader.load_array("T")
    assert np.array_equal(found["T"].values, whole)
    part = reader.to_xarray(["T"], {"T": ("x", "y")})["T"]
    assert np.array_equal(part[1:5:2, -1].values, whole[1:5:2, -1])
    assert np.array_equal(part.isel(x=[4, 1]).values, whole[[4, 1]])
    assert float(part.mean()) == whole.mean()


def test_xarray_reads_what_is_used(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from notata import opened

    run = run_of(4, base, lambda log: log.array("T", np.full((2, 3), log.rank)))
    seen: list[Any] = []
    original = opened._Pieces.read

    def noted(self: Any, region: Any = None) -> Any:
        seen.append(region)
        return original(self, region)

    monkeypatch.setattr(opened._Pieces, "read", noted)
    found = LogReader(run).to_xarray()
    assert "T_0" in repr(found)
    assert seen == []
    assert found["T"][3, 1].item() == 1
    assert seen == [(3, 1)]


def test_xarray_of_wrong_names(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = LogReader(run_of(2, base, lambda log: log.array("T", [[1]])))
    with pytest.raises(FileNotFoundError, match="no array 'Q'"):
        run.to_xarray(["Q"])
    with pytest.raises(ExportError, match="array 'T' has 2 axes, not 1"):
        run.to_xarray(dims={"T": ("x",)})
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ExportError, match=r"this needs xarray: pip install 'notata\[xarray\]'"):
        run.to_xarray()


def test_netcdf_is_read_by_xarray(base: Path) -> None:
    with Logbook("x", base, params={"kappa": 0.5}) as log:
        log.array("T", np.arange(6.0).reshape(2, 3))
    with xarray.open_dataset(export(log.path, "netcdf", "x.nc").path, engine="h5netcdf") as found:
        assert found["T"].dims == ("T_0", "T_1")
        assert found["T"].values.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found.attrs["kappa"] == 0.5


@given(st.lists(st.integers(0, 40), max_size=4).map(tuple), st.sampled_from([1, 2, 8, 16]))
def test_a_slab_is_a_chunk(shape: tuple[int, ...], itemsize: int) -> None:
    from notata.opened import slabs

    chunk = formats.chunks(shape, itemsize)
    assert len(chunk) == len(shape)
    assert all(n >= 1 for n in chunk)
    for box in slabs(shape, itemsize, formats.CHUNK):
        assert all(part.start % n == 0 for part, n in zip(box, chunk, strict=True))
