"""Runs and experiments of one process, read back."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from simulated import write_as

from notata import Experiment, ExperimentReader, Logbook, LogReader
from notata.errors import (
    ArrayNotFoundError,
    DamagedError,
    KeyNotFoundError,
    NotARunError,
    RunNotFoundError,
    UnsafeNameError,
)

T = np.arange(24.0).reshape(4, 6)


@pytest.fixture
def run(base: Path) -> LogReader:
    with Logbook("catalog_1", base, params={"omega": 2.0, "name": "x"}, level="DEBUG") as log:
        log.array("T", T)
        log.array("states/T_step100", T + 1)
        log.arrays("out/traj", x=T[0], v=T[1])
        log.json("metrics", {"e": 1.5})
        log.json("config/solver.v2", {"tol": 1e-9})
        log.text("notes", "fine")
        log.bytes("raw.bin", b"\x00")
        log["plots/sub"].mkdir()
        log["plots/sub/a.png"].write_bytes(b"png")
        log.debug("low")
        log.warning("too hot")
    return LogReader(log.path)


# ----- a run -----


def test_id_parameters_and_metadata(run: LogReader) -> None:
    assert run.run_id == "catalog_1"
    assert run.params == {"omega": 2.0, "name": "x"}
    assert run.meta["status"] == "complete"
    assert run.meta["run_id"] == "catalog_1"
    assert run.size == 1


def test_the_id_does_not_depend_on_how_the_path_is_written(
    run: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.path)
    assert LogReader(".").run_id == "catalog_1"
    assert LogReader(f"{run.path}/").run_id == "catalog_1"
    assert LogReader(os.fspath(run.path)).params == run.params


def test_every_array_that_is_listed_loads(run: LogReader) -> None:
    assert run.arrays == ["T", "out/traj:v", "out/traj:x", "states/T_step100"]
    expected = {"T": T, "out/traj:v": T[1], "out/traj:x": T[0], "states/T_step100": T + 1}
    for name in run.arrays:
        np.testing.assert_array_equal(run.load_array(name), expected[name])
        assert type(run.load_array(name)) is np.ndarray


def test_artifacts_and_plots(run: LogReader) -> None:
    assert run.artifacts == ["config/solver.v2.json", "metrics.json", "notes.txt", "raw.bin"]
    assert run.plots == ["sub/a.png"]


def test_json(run: LogReader) -> None:
    assert run.load_json("metrics") == run.load_json("metrics.json") == {"e": 1.5}
    assert run.load_json("config/solver.v2") == {"tol": 1e-9}
    assert run.load_json("nothing") == {}
    with pytest.raises(UnsafeNameError):
        run.load_json("../metadata")


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\xff"])
def test_damaged_json_is_said_to_be_damaged(run: LogReader, content: str) -> None:
    (run.path / "artifacts/metrics.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DamagedError, match=r"artifacts/metrics\.json is damaged"):
        run.load_json("metrics")


@pytest.mark.parametrize("content", ["{", "[1, 2]", "omeg", "!!bool 3", "a: 2026-13-45", "\xff"])
@pytest.mark.parametrize("ext", ["yaml", "json"])
def test_damaged_parameters_are_said_to_be_damaged(run: LogReader, ext: str, content: str) -> None:
    (run.path / "params.yaml").unlink()
    (run.path / f"params.{ext}").write_bytes(content.encode("latin-1"))
    with pytest.raises(DamagedError, match=rf"params\.{ext} is damaged") as caught:
        _ = run.params
    assert "\n" not in str(caught.value)


def test_messages(run: LogReader) -> None:
    everything = list(run.messages())
    assert everything[0].message == "Saved params (yaml) in params.yaml"
    assert everything[-1].message == "Marked complete"
    assert [m.message for m in run.messages("WARNING")] == ["too hot"]
    assert {m.level for m in run.messages(20)} == {"INFO", "WARNING"}
    assert "low" in [m.message for m in run.messages("debug")]
    assert {m.rank for m in everything} == {None}
    assert list(run.messages(ranks=[0])) == everything
    assert list(run.messages(ranks=[1])) == []


def test_a_level_that_does_not_exist(run: LogReader) -> None:
    with pytest.raises(ValueError, match="loud"):
        list(run.messages("loud"))


def test_the_only_rank_is_the_run(run: LogReader) -> None:
    (rank,) = run.ranks
    assert rank.rank == 0
    assert rank.arrays == run.arrays
    np.testing.assert_array_equal(rank.load_array("out/traj:x"), T[0])
    assert [m.message for m in rank.messages("WARNING")] == ["too hot"]
    assert rank.record == {}


def test_ranks_are_made_as_they_are_asked_for(run: LogReader) -> None:
    meta = json.loads((run.path / "metadata.json").read_text())
    many = json.dumps(meta | {"parallel": {"size": 10**12}})
    (run.path / "metadata.json").write_text(many)
    ranks = run.ranks
    assert len(ranks) == 10**12
    assert ranks[3].rank == 3
    assert ranks[-1].rank == 10**12 - 1
    assert [rank.rank for rank in ranks[-4::2]] == [10**12 - 4, 10**12 - 2]
    assert len(ranks[5:][:10]) == 10
    assert [rank.rank for rank in itertools.islice(ranks, 2)] == [0, 1]
    for position in (10**12, -(10**12) - 1):
        with pytest.raises(IndexError, match=f"no rank {position}: there are {10**12}"):
            ranks[position]


@pytest.mark.parametrize("name", ["T", "states/T_step100"])
@pytest.mark.parametrize("region", [np.s_[1:3], np.s_[::-2, 1], np.s_[2, 3], np.s_[..., -1]])
def test_a_region(run: LogReader, name: str, region: object) -> None:
    expected = run.load_array(name)[region]  # type: ignore[index]
    found = run.load_array(name, region=region)
    np.testing.assert_array_equal(found, expected)
    assert np.shape(found) == np.shape(expected)
    assert not isinstance(found, np.memmap)


def test_a_region_of_a_bundle(run: LogReader) -> None:
    np.testing.assert_array_equal(run.load_array("out/traj:x", region=np.s_[1:3]), T[0, 1:3])


def test_a_region_is_a_copy(run: LogReader) -> None:
    part = run.load_array("T", region=np.s_[0])
    part[:] = -1
    np.testing.assert_array_equal(run.load_array("T"), T)


def test_an_array_that_is_not_there(run: LogReader) -> None:
    with pytest.raises(FileNotFoundError, match=r"no array 'U'.*there is: T, out/traj:v") as caught:
        run.load_array("U")
    assert isinstance(caught.value, ArrayNotFoundError)
    with pytest.raises(FileNotFoundError, match="nothing:x"):
        run.load_array("nothing:x")


def test_a_key_that_is_not_there(run: LogReader) -> None:
    with pytest.raises(KeyError, match=r"no key 'a' in bundle .*out/traj\.npz") as caught:
        run.load_array("out/traj:a")
    assert isinstance(caught.value, KeyNotFoundError)
    assert "'\"" not in str(caught.value)


@pytest.mark.parametrize("name", ["../T", "/T", "/:x", "../x:y"])
def test_a_name_that_leaves_the_run(run: LogReader, name: str) -> None:
    with pytest.raises(UnsafeNameError):
        run.load_array(name)


def test_colons_in_names_of_arrays_bundles_and_keys(base: Path) -> None:
    with Logbook("a", base) as log:
        log.arrays("a", x=[1])
        log.arrays("a:b", **{"c:d": [2], "e/f": [3]})
        log.array("a:x:y", [4])
        log.arrays("g/:h", k=[5])
        log.arrays("x" * 200, **{"y" * 200: [6]})
    run = LogReader(log.path)
    found = {name: run.load_array(name).tolist() for name in run.arrays}
    assert found == {
        "a:x": [1],
        "a:b:c:d": [2],
        "a:b:e/f": [3],
        "a:x:y": [4],
        "g/:h:k": [5],
        f"{'x' * 200}:{'y' * 200}": [6],
    }


def test_keys_that_look_like_files(base: Path) -> None:
    with Logbook("a", base) as log:
        log.arrays("b", **{"x": [1], "x.npy": [2], "x.npy.npy": [3]})
        log.array("b.npz", [4])
        log.array("b.npy", [5])
    run = LogReader(log.path)
    found = {name: run.load_array(name).tolist() for name in run.arrays}
    assert found == {"b:x": [1], "b:x.npy": [2], "b:x.npy.npy": [3], "b.npz": [4], "b.npy": [5]}


@pytest.mark.parametrize("damage", ["cut", "header", "empty"])
def test_a_damaged_array_is_said_to_be_damaged(run: LogReader, damage: str) -> None:
    path = run.path / "data/T.npy"
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-8], "header": b"no numpy" + data, "empty": b""}[damage])
    for region in (None, np.s_[0]):
        with pytest.raises(DamagedError, match=r"T\.npy"):
            run.load_array("T", region=region)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_bundle_is_said_to_be_damaged(run: LogReader, damage: str) -> None:
    path = run.path / "data/out/traj.npz"
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    else:
        data[60:100] = bytes(b ^ 0xFF for b in data[60:100])
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"traj\.npz"):
        run.load_array("out/traj:x")
    assert "T" in run.arrays


def test_nothing_is_ever_unpickled(run: LogReader) -> None:
    np.save(run.path / "data/O.npy", np.array([{}]), allow_pickle=True)
    np.savez(run.path / "data/O.npz", o=np.array([{}]))
    for name in ("O", "O:o"):
        with pytest.raises(DamagedError, match=r"O\.np"):
            run.load_array(name)


def test_the_newer_snapshot_of_the_parameters_counts(run: LogReader) -> None:
    (run.path / "params.json").write_text('{"omega": 3}')
    os.utime(run.path / "params.yaml", ns=(0, 10**18))
    os.utime(run.path / "params.json", ns=(0, 2 * 10**18))
    assert run.params == {"omega": 3}
    os.utime(run.path / "params.json", ns=(0, 10**17))
    assert run.params == {"omega": 2.0, "name": "x"}


def test_a_run_without_parameters(base: Path) -> None:
    with Logbook("a", base) as log:
        pass
    run = LogReader(log.path)
    assert (run.params, run.arrays, run.artifacts, run.plots) == ({}, [], [], [])
    assert str(run) == "<LogReader 'a'>\n  params: (missing)\n  meta: status=complete"


def test_what_is_being_written_is_not_listed(run: LogReader) -> None:
    for folder in ("data", "artifacts", "plots"):
        (run.path / folder / ".notata-0123456789abcdef.tmp").touch()
    assert ".notata" not in str(run)
    assert len(run.arrays + run.artifacts + run.plots) == 9


def test_in_words(run: LogReader) -> None:
    assert str(run).splitlines() == [
        "<LogReader 'catalog_1'>",
        "  params: name=x, omega=2.0",
        "  meta: status=complete",
        "  arrays:",
        "    - T",
        "    - out/traj:v",
        "    - out/traj:x",
        "    - states/T_step100",
        "  artifacts:",
        "    - config/solver.v2.json",
        "    - metrics.json",
        "    - notes.txt",
        "    - raw.bin",
        "  plots:",
        "    - sub/a.png",
    ]


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such run") as missing:
        LogReader(tmp_path / "nothing")
    assert isinstance(missing.value, RunNotFoundError)
    with pytest.raises(ValueError, match=r"no metadata\.json") as empty:
        LogReader(tmp_path)
    assert isinstance(empty.value, NotARunError)


# ----- an experiment -----


@pytest.fixture
def sweep(base: Path) -> ExperimentReader:
    exp = Experiment("sweep", base)
    for omega in (2.0, 1.0):
        with exp.add(omega=omega) as log:  # type: ignore[union-attr]
            log.json("metrics", {"energy": omega**2})
            log.array("x", [omega])
    return ExperimentReader(base / "sweep")


def test_runs_in_order(sweep: ExperimentReader) -> None:
    assert [run.run_id for run in sweep] == ["sweep_omega_1", "sweep_omega_2"]
    assert len(sweep) == 2
    assert [path.name for path in sweep.runs] == ["log_sweep_omega_1", "log_sweep_omega_2"]


def test_the_table_of_an_experiment_is_that_of_its_writer(sweep: ExperimentReader) -> None:
    experiment = Experiment("sweep", sweep.path.parent)
    assert len(sweep.rows()) == len(sweep)
    assert sweep.rows() == experiment.rows()
    assert sweep.to_dataframe().equals(experiment.to_dataframe())


def test_runs_by_id_and_position(sweep: ExperimentReader) -> None:
    assert sweep["sweep_omega_2"].params == {"omega": 2.0}
    assert sweep[0].run_id == "sweep_omega_1"
    np.testing.assert_array_equal(sweep[1].load_array("x"), [2.0])
    with pytest.raises(KeyNotFoundError, match="no run 'sweep_omega_3'"):
        sweep["sweep_omega_3"]
    for position in (2, -1):
        with pytest.raises(IndexError):
            sweep[position]
    with pytest.raises(TypeError):
        sweep[1.0]  # type: ignore[index]


def test_a_run_by_its_id_is_looked_for_on_disk(sweep: ExperimentReader) -> None:
    with Logbook("later", sweep.runs_path):
        pass
    assert sweep["later"].meta["status"] == "complete"
    shutil.rmtree(sweep.runs_path / "log_sweep_omega_1")
    for run_id in ("sweep_omega_1", "", "later/../log_later", "x\0", "x" * 300):
        with pytest.raises(KeyNotFoundError, match="no run"):
            sweep[run_id]


def test_what_is_no_run_is_left_out(sweep: ExperimentReader) -> None:
    (sweep.runs_path / ".DS_Store").write_bytes(b"Bud1")
    (sweep.runs_path / "log_notes").write_text("a file")
    (sweep.runs_path / "log_empty").mkdir()
    shutil.copytree(sweep.runs[0], sweep.runs_path / "copy of it")
    assert ExperimentReader(sweep.path).runs == sweep.runs


def test_a_damaged_run_is_told_in_words(sweep: ExperimentReader) -> None:
    (sweep.runs[0] / "metadata.json").write_text("{")
    (sweep.runs[1] / "metadata.json").write_text("{}")
    assert str(sweep).splitlines()[-2:] == ["- sweep_omega_1: damaged", "- sweep_omega_2: unknown"]
    (sweep.runs[1] / "params.yaml").write_text("a: [")
    with pytest.raises(DamagedError, match=r"log_sweep_omega_2/params\.yaml is damaged"):
        _ = sweep.params


def test_parameters_metadata_and_table(sweep: ExperimentReader) -> None:
    assert sweep.params == {"sweep_omega_1": {"omega": 1.0}, "sweep_omega_2": {"omega": 2.0}}
    assert {run_id: meta["status"] for run_id, meta in sweep.meta.items()} == {
        "sweep_omega_1": "complete",
        "sweep_omega_2": "complete",
    }
    rows = list(sweep.index())
    assert [(row["run_id"], row["omega"], row["energy"]) for row in rows] == [
        ("sweep_omega_2", "2.0", "4.0"),
        ("sweep_omega_1", "1.0", "1.0"),
    ]


def test_an_experiment_in_words(sweep: ExperimentReader) -> None:
    assert str(sweep).splitlines() == [
        "<ExperimentReader 'sweep'>",
        "Index file: index.csv with 2 entries",
        "Fields: run_id, omega, status, energy, "
        "run_status, failure_reason, start_time, runtime_sec",
        "Runs directory: runs with 2 runs",
        "- sweep_omega_1: complete",
        "- sweep_omega_2: complete",
    ]


def test_an_experiment_without_runs(base: Path) -> None:
    Experiment("empty", base)
    reader = ExperimentReader(base / "empty")
    assert (len(reader), list(reader.index()), reader.params) == (0, [], {})
    assert "Fields: (missing)" in str(reader)


def test_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="no such experiment"):
        ExperimentReader(tmp_path / "nothing")
    with pytest.raises(NotARunError, match="no experiment"):
        ExperimentReader(tmp_path)


LOOK = """
import sys
seen = []
sys.addaudithook(lambda event, given: event in ("open", "os.listdir") and seen.append(given[0]))
from notata import ExperimentReader
assert ExperimentReader(sys.argv[1])[0].params == {"k": 0}  # loads what is needed
sweep = ExperimentReader(sys.argv[1])
del seen[:]
assert [run.params["k"] for run in sweep if run.meta["status"] == "complete"] == [0, 1, 2]
print(len(seen))
"""


def test_parameters_and_metadata_of_a_run_take_an_open_each(base: Path) -> None:
    exp = Experiment("sweep", base)
    for k in range(3):
        log = exp.add(k=k)
        assert log is not None
        log.mark_complete()
    command = [sys.executable, "-c", LOOK, os.fspath(exp.exp_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) == 1 + 3 * 2  # the folder of all runs, and two files of each


def test_one_rank_is_a_choice_of_ranks(base: Path) -> None:
    path = write_as(3, base, lambda log: log.info(f"rank {log.rank}"))
    run = LogReader(path)
    told = [m.message for m in run.messages(ranks=1) if m.message.startswith("rank")]
    assert told == ["rank 1"]
    assert list(run.messages(ranks=1)) == list(run.messages(ranks=[1]))


def test_readers_and_writers_say_what_they_are_of(base: Path) -> None:
    with Logbook("x", base) as log:
        assert repr(log) == f"<Logbook '{base / 'log_x'}'>"
    run = LogReader(base / "log_x")
    assert repr(run) == f"LogReader('{base / 'log_x'}')"
    assert repr(run.ranks[0]) == f"LogReader('{base / 'log_x'}').ranks[0]"
    Experiment("sweep", base)
    assert repr(ExperimentReader(base / "sweep")) == f"ExperimentReader('{base / 'sweep'}')"


# ----- a program that changes its directory, and an experiment that grows -----


def test_readers_stay_with_what_they_were_given(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = base.parent / "elsewhere"
    elsewhere.mkdir()
    exp = Experiment("s", base)
    for k in range(2):
        with run_of(exp, k=k) as log:
            log.array("T", [k])
            log.json("metrics", {"m": k})
    monkeypatch.chdir(base)
    run, many = LogReader("s/runs/log_s_k_1"), ExperimentReader("s")
    assert (run.path, many.index_path) == (Path("s/runs/log_s_k_1"), Path("s/index.csv"))
    monkeypatch.chdir(elsewhere)
    assert (run.run_id, run.params, run.arrays) == ("s_k_1", {"k": 1}, ["T"])
    assert run.load_array("T").tolist() == run.ranks[0].load_array("T").tolist() == [1]
    assert [m.message for m in run.messages()][-1] == "Marked complete"
    assert run.load_json("metrics") == {"m": 1}
    assert [row["m"] for row in many.rows()] == [0, 1]
    assert len(many) == len(list(many.index())) == 2
    assert many["s_k_0"].params == many[0].params == {"k": 0}
    assert run.path == base / "s/runs/log_s_k_1"
    assert many.runs_path == base / "s/runs"


def test_an_experiment_that_grows_is_read_as_it_is(base: Path) -> None:
    exp = Experiment("s", base)
    run_of(exp, k=0).mark_complete()
    reader = ExperimentReader(base / "s")
    assert len(reader) == 1
    run_of(exp, k=1).mark_complete()
    with pytest.raises(IndexError):
        reader[1]  # a position of the last look
    assert len(reader) == len(list(reader)) == len(reader.params) == 2
    assert reader[1].params == {"k": 1}


def run_of(exp: Experiment, **params: int) -> Logbook:
    log = exp.add(**params)
    assert log is not None
    return log
