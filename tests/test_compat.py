"""Runs and experiments of notata 0.3.0 read here, and ours read by notata 0.3.0."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from simulated import answer, program, theirs_and_ours, tree

from notata import Experiment, Logbook, LogReader
from notata.errors import DamagedError

OURS = ["run_status", "failure_reason", "start_time", "runtime_sec"]

# Every verb that both libraries have. Arrays have no nested names here, and ids no "log_": there
# 0.3.0 has faults that are tested elsewhere.
WRITE_RUN = """
    import numpy as np
    from notata import Logbook

    class Canvas:
        def savefig(self, target, **options):
            data = b"drawn"
            target.write(data) if hasattr(target, "write") else open(target, "wb").write(data)

    with Logbook("oscillator", "outputs", params={"omega": 2.0, "n": 3, "ok": True},
                 preallocate=True) as log:
        log.params(name="λ = 'x'", sub={"a": [1, 2.5, None]})
        log.meta(operator="ada", tags=["x", "y"])
        log.info("step=1")
        log.debug("not to be seen")
        log.warning("too hot")
        log.error("broken pipe")
        log.note("noted")
        log.array("energy", np.arange(5.0))
        log.array("fortran", np.asfortranarray(np.arange(6).reshape(2, 3)))
        log.arrays("traj", x=np.arange(3), v=np.zeros((2, 2), "f4"))
        log.arrays("raw", compressed=False, z=np.array([1j]))
        log.text("notes/first", "fine")
        log.json("metrics", {"max": 0.92, "list": [1, 2], "sub": {"ü": None}})
        log.pickle("model", {"w": [1, 2]})
        log.bytes("weights.bin", bytes(range(9)))
        log["artifacts/settings/config.ini"].write_text("[x]")
        log.plot("fit", Canvas(), formats=("png", "pdf"))

    hand = Logbook("by_hand", "outputs")
    hand.params(ext="json", k=1)
    hand.mark_failed("diverged")

    try:
        with Logbook("broken", "outputs"):
            raise RuntimeError("hit the ground")
    except RuntimeError:
        pass
"""

READ_RUN = """
    import json
    from notata import LogReader
    found = {}
    for name in ("oscillator", "by_hand", "broken"):
        run = LogReader(f"outputs/log_{name}")
        arrays = {label: run.load_array(label) for label in run.arrays}
        found[name] = {
            "run_id": run.run_id,
            "meta": run.meta,
            "params": run.params,
            "arrays": {k: [str(a.dtype), a.shape, bool(a.flags.f_contiguous), str(a.tolist())]
                       for k, a in arrays.items()},
            "artifacts": run.artifacts,
            "plots": run.plots,
            "metrics": run.load_json("metrics"),
            "metrics.json": run.load_json("metrics.json"),
            "nothing": run.load_json("nothing"),
            "text": str(run),
        }
    print(json.dumps(found))
"""

WRITE_EXPERIMENT = """
    from notata import Experiment
    exp = Experiment("ball", "outputs")
    for dt in (0.01, 0.5):
        log = exp.add(dt=dt, steps=100, skip_existing=True)
        try:
            with log:
                if dt == 0.5:
                    raise RuntimeError("hit the ground")
                log.json("metrics", {"height": 95.25, "speed": 9.81})
        except RuntimeError:
            pass
    assert exp.add(skip_existing=True, dt=0.01, steps=100) is None
"""

READ_EXPERIMENT = """
    import json
    from notata import Experiment, ExperimentReader
    reader = ExperimentReader("outputs/ball")
    exp = Experiment("ball", "outputs")
    frame = exp.to_dataframe()
    columns = ["run_id", "dt", "steps", "status", "height", "speed"]
    print(json.dumps({
        "len": len(reader),
        "ids": [run.run_id for run in reader],
        "rows": [[row[column] for column in columns] for row in reader.index()],
        "params": reader.params,
        "meta": reader.meta,
        "first": reader[0].meta,
        "named": reader["ball_dt_0.5_steps_100"].params,
        "frame": json.loads(frame[columns].to_json()),
        "types": [str(frame[column].dtype) for column in columns],
        "selected": exp.select(dt=0.01)["run_id"].tolist(),
        "none": exp.select(dt=0.01, status="missing")["run_id"].tolist(),
    }))
"""


def write(code: str, folder: Path, *, peer: bool) -> Path:
    folder.mkdir()
    done = program(code, folder, peer=peer)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("by_peer", [True, False], ids=["theirs", "ours"])
def test_a_run_gives_both_readers_the_same_answers(tmp_path: Path, by_peer: bool) -> None:
    folder = write(WRITE_RUN, tmp_path / "x", peer=by_peer)
    theirs, ours = (answer(READ_RUN, folder, peer=peer) for peer in (True, False))
    assert ours == theirs
    # They agree, and on what was written.
    run = ours["oscillator"]
    assert run["run_id"] == "oscillator"
    assert run["params"] == {
        "omega": 2.0,
        "n": 3,
        "ok": True,
        "name": "λ = 'x'",
        "sub": {"a": [1, 2.5, None]},
    }
    assert run["meta"]["status"] == "complete"
    assert run["meta"]["tags"] == ["x", "y"]
    assert sorted(run["arrays"]) == ["energy", "fortran", "raw:z", "traj:v", "traj:x"]
    assert run["arrays"]["fortran"] == ["int64", [2, 3], True, "[[0, 1, 2], [3, 4, 5]]"]
    assert run["artifacts"] == [
        "metrics.json",
        "model.pkl",
        "notes/first.txt",
        "settings/config.ini",
        "weights.bin",
    ]
    assert run["plots"] == ["fit.pdf", "fit.png"]
    assert run["metrics"] == {"max": 0.92, "list": [1, 2], "sub": {"ü": None}}
    assert (ours["by_hand"]["params"], ours["by_hand"]["meta"]["status"]) == ({"k": 1}, "failed")
    assert ours["broken"]["meta"]["failure_reason"] == "hit the ground"


@pytest.mark.parametrize("by_peer", [True, False], ids=["theirs", "ours"])
def test_an_experiment_gives_both_readers_the_same_answers(tmp_path: Path, by_peer: bool) -> None:
    folder = write(WRITE_EXPERIMENT, tmp_path / "x", peer=by_peer)
    theirs, ours = (answer(READ_EXPERIMENT, folder, peer=peer) for peer in (True, False))
    assert ours == theirs
    assert ours["ids"] == ["ball_dt_0.01_steps_100", "ball_dt_0.5_steps_100"]
    assert ours["len"] == 2
    assert ours["rows"][0] == [
        "ball_dt_0.01_steps_100",
        "0.01",
        "100",
        "complete",
        "95.25",
        "9.81",
    ]
    assert ours["rows"][1][:4] == ["ball_dt_0.5_steps_100", "0.5", "100", "missing"]
    assert ours["named"] == {"dt": 0.5, "steps": 100}
    assert ours["selected"] == ["ball_dt_0.01_steps_100"]
    assert ours["none"] == []


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders that 0.3.0 and we leave behind after the same programs."""
    made = []
    for peer in (True, False):
        folder = tmp_path_factory.mktemp("compat") / ("theirs" if peer else "ours")
        write(WRITE_RUN, folder, peer=peer)
        done = program(WRITE_EXPERIMENT, folder, peer=peer)
        assert done.returncode == 0, done.stderr
        made.append(folder)
    return made[0], made[1]


def test_the_same_files_are_written(both: tuple[Path, Path]) -> None:
    theirs, ours = (tree(folder) for folder in both)
    assert len(theirs) > 25
    hidden = {name for name in ours if name.startswith("outputs/ball/.")}
    assert [name for name in ours if name not in hidden] == theirs
    assert hidden <= {"outputs/ball/.index.csv.lock", "outputs/ball/.index.csv.bloom"}


def each(both: tuple[Path, Path], pattern: str) -> list[tuple[Path, Path]]:
    theirs, ours = both
    found = [(path, ours / path.relative_to(theirs)) for path in sorted(theirs.rglob(pattern))]
    assert found
    return found


def metadata(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def test_metadata_has_the_same_keys_and_values(both: tuple[Path, Path]) -> None:
    times = ("start_time", "end_time", "runtime_sec")
    for theirs, ours in each(both, "metadata.json"):
        old, new = metadata(theirs), metadata(ours)
        assert re.fullmatch(r"[0-9a-f]{8}", new.pop("opening"))
        assert isinstance(new.pop("start_epoch"), float)
        assert isinstance(new.pop("host"), str)  # what a later attempt says of this one
        assert new.pop("provenance").keys() >= {"user", "command", "cwd", "python"}
        assert new.keys() == old.keys()
        assert {k: v for k, v in new.items() if k not in times} == {
            k: v for k, v in old.items() if k not in times
        }
        for key in times:
            assert type(new[key]) is type(old[key])
        pattern = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
        for key in times[:2]:
            assert pattern.fullmatch(old[key])
            assert pattern.fullmatch(new[key])


def test_logs_have_the_same_lines(both: tuple[Path, Path]) -> None:
    stamp = re.compile(r"^\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\] ", re.MULTILINE)
    # Ours tell besides where the program broke.
    traced = re.compile(r"^\[[^]]*\] ERROR Traceback .*\n(?: .*\n)+", re.MULTILINE)
    for theirs, ours in each(both, "log.txt"):
        old, new = theirs.read_text(), ours.read_text()
        new, broke = traced.subn("", new)
        assert broke == old.count("INFO Marked failed: hit the ground")
        assert len(stamp.findall(new)) == len(stamp.findall(old)) == old.count("\n")
        assert stamp.sub("", new) == stamp.sub("", old)


def test_parameters_and_json_hold_the_same(both: tuple[Path, Path]) -> None:
    import yaml

    for theirs, ours in each(both, "params.yaml"):
        assert yaml.safe_load(ours.read_bytes()) == yaml.safe_load(theirs.read_bytes())
    for theirs, ours in each(both, "params.json") + each(both, "metrics.json"):
        assert metadata(ours) == metadata(theirs)


@pytest.mark.parametrize("pattern", ["*.npy", "*.txt", "*.bin", "*.pkl", "*.ini", "*.png"])
def test_other_files_hold_the_same_bytes(both: tuple[Path, Path], pattern: str) -> None:
    for theirs, ours in each(both, pattern):
        if theirs.name != "log.txt":
            assert ours.read_bytes() == theirs.read_bytes(), ours


def test_the_table_has_the_same_columns_with_ours_behind(both: tuple[Path, Path]) -> None:
    old, new = (
        list(csv.reader((folder / "outputs/ball/index.csv").read_text().splitlines()))
        for folder in both
    )
    assert old[0] == ["run_id", "dt", "steps", "status", "height", "speed"]
    assert new[0] == [*old[0], *OURS]
    assert new[1][:6] == old[1]
    # 0.3.0 leaves the cells of a run without metrics out; here they are empty.
    assert new[2][:6] == [*old[2], "", ""]
    assert new[2][6:8] == ["failed", "hit the ground"]


# What 0.3.0 takes as parameters and can't read again itself.
WRITE_OBJECTS = """
    import enum
    import pathlib
    import numpy as np
    from notata import Experiment, Logbook

    class Scheme(enum.Enum):
        EULER = "euler"

    Logbook("all", "outputs", params=dict(
        n=np.int32(-3), f=np.float32(0.5), ok=np.bool_(True), big=np.array(7, ">i8")[()],
        shape=(3, (4, 5)), path=pathlib.Path("/data/in"), name=np.str_("hi"),
        grid=np.arange(6.0).reshape(2, 3), flat=np.asfortranarray(np.eye(2, dtype="i2")),
    )).mark_complete()
    exp = Experiment("tagged", "outputs")
    for dt in np.linspace(0.1, 0.3, 3):
        log = exp.add(dt=dt)
        log.json("metrics", {"loss": 1.0})
        try:
            log.mark_complete()
        except Exception as error:
            assert "constructor" in str(error)  # it reads them for its own table
    Logbook("own", "outputs", params={"scheme": Scheme.EULER, "dt": 0.1}).mark_complete()
"""


def test_numbers_that_030_can_not_read_again_itself_are_read(tmp_path: Path) -> None:
    folder = write(WRITE_OBJECTS, tmp_path / "theirs", peer=True)
    told = answer(
        """
        import json
        from notata import Experiment, LogReader

        exp = Experiment("tagged", "outputs")
        count = exp.rebuild_index()
        print(json.dumps([LogReader("outputs/log_all").params, count, exp.rows()]))
        """,
        folder,
    )
    params, count, rows = told
    assert params == {
        "n": -3,
        "f": 0.5,
        "ok": True,
        "big": 7,
        "shape": [3, [4, 5]],
        "path": "/data/in",
        "name": "hi",
        "grid": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        "flat": [[1, 0], [0, 1]],
    }
    assert count == 3
    assert sorted(row["dt"] for row in rows) == pytest.approx([0.1, 0.2, 0.3])
    assert [row["loss"] for row in rows] == [1.0] * 3


def test_an_object_that_030_wrote_is_not_made_and_the_error_says_so(tmp_path: Path) -> None:
    folder = write(WRITE_OBJECTS, tmp_path / "theirs", peer=True)
    run = LogReader(folder / "outputs" / "log_own")
    with pytest.raises(DamagedError, match=r"params\.yaml holds a Python object.*line 2.*scheme"):
        _ = run.params


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system [touch hit]",
        "!!python/object/apply:numpy.dtype {args: ['O'], state: [3, '|']}",
        "!!python/object/apply:numpy._core.multiarray.scalar [3, 4]",
        "!!python/object/apply:pathlib.PosixPath []",
        "!!python/object/new:str [x]",
        "!!python/module:os ''",
    ],
)
def test_what_a_tag_says_is_never_done(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Logbook("a", tmp_path, params={"x": 1}):
        pass
    (tmp_path / "log_a" / "params.yaml").write_text(f"x: {text}\n")
    with pytest.raises(DamagedError, match=r"params\.yaml"):
        _ = LogReader(tmp_path / "log_a").params
    assert not (tmp_path / "hit").exists()


BEGIN_EXPERIMENT = """
    from notata import Experiment

    exp = Experiment("exp", "out")
    for params in [{"dt": 0.123456}, {"dt": 0.1 + 0.2}, {"x": "a b"}, {"n": 3}, {"y": "c/d"}]:
        log = exp.add(**params)
        log.json("metrics", {"loss": 1.0})
        log.mark_complete()
"""


def test_an_experiment_that_030_began_is_gone_on_with(tmp_path: Path) -> None:
    """Its ids are cut; what it has done is not done again, and what it hasn't is not skipped."""
    folder = write(BEGIN_EXPERIMENT, tmp_path / "theirs", peer=True)
    done = [{"dt": 0.123456}, {"dt": 0.1 + 0.2}, {"x": "a b"}, {"n": 3}, {"y": "c/d"}]
    new = [{"dt": 0.12346}, {"dt": 0.3}, {"x": "a_b"}, {"x": "a/b"}, {"n": "3"}, {"y": "c d"}]
    exp = Experiment("exp", folder / "out")
    for params in done:
        assert exp.add(skip_existing=True, **params) is None
        with pytest.raises(FileExistsError):
            exp.add(**params)
    for params in new:
        with exp.add(skip_existing=True, **params) as log:
            log.json("metrics", {"loss": 2.0})
        assert exp.add(skip_existing=True, **params) is None
    assert exp.rebuild_index() == len(done) + len(
        new
    )  # 0.3.0 wrote all under the first row's header
    rows = exp.rows()
    assert len(rows) == len({row["run_id"] for row in rows}) == len(done) + len(new)
    for params, loss in [(one, 1.0) for one in done] + [(one, 2.0) for one in new]:
        ((key, value),) = params.items()
        assert [row["loss"] for row in rows if row[key] == value] == [loss]


def test_programs_that_are_loose_about_names_and_values_run_the_same(tmp_path: Path) -> None:
    code = """
        import array, json, os, pathlib
        import numpy as np
        from notata import Experiment, Logbook, LogReader

        class Drawing:
            def savefig(self, path, dpi, bbox_inches):
                pathlib.Path(path).write_text(f"{dpi} {bbox_inches}")

        class Mute:
            def __str__(self):
                raise ValueError("no words")

        home = os.getcwd()
        with Logbook("a", "out") as log:
            for step in np.arange(2):
                log.array(step, [1.0])
            log.arrays(5, x=[1])
            log.text(0.5, "t")
            log.json("./b//c", {"n": 10**2000})
            log.pickle(pathlib.Path("d/e"), 1)
            log.plot("p//q", Drawing())
            log.bytes("n", np.arange(3))
            log.bytes("raw", array.array("d", [1, 2]))
            log["free//x"].write_text("")
            log["free/../y"].write_text("")
            (log[""] / "z").write_text("")
            assert log["."] == log[""] == log.path
            log.info(Mute())
            os.mkdir("scratch")
            os.chdir("scratch")
            log["artifacts/moved.txt"].write_text("in the same folder, if it is looked for there")
            os.chdir(home)
        exp = Experiment(pathlib.Path("pp"), "out")
        with exp.add(n=1) as log:
            log.json("metrics", {"m": 1})
        run = LogReader("out/log_a")
        print(json.dumps([run.load_json("./b//c"), run.load_array("./0").tolist(), log.run_id]))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert ours == theirs == [{"n": 10**2000}, [1.0], "pp_n_1"]
    left, right = tree(tmp_path / "theirs"), tree(tmp_path / "ours")
    lost = "scratch/out/log_a/artifacts/moved.txt"  # 0.3.0 began another folder there
    assert lost in left
    expected = sorted([*{*left} - {lost}, "out/log_a/artifacts/moved.txt", "scratch/"])
    assert [name for name in right if not Path(name).name.startswith(".")] == expected
    for name in ("artifacts/n", "artifacts/raw", "plots/p/q.png", "data/1.npy"):
        there, here = (tmp_path / side / "out/log_a" / name for side in ("theirs", "ours"))
        assert here.read_bytes() == there.read_bytes()
    assert (
        "a Mute that has no text: ValueError" in (tmp_path / "ours/out/log_a/log.txt").read_text()
    )


def test_a_run_that_changed_its_own_parameters_is_still_that_run(tmp_path: Path) -> None:
    exp = Experiment("exp", tmp_path)
    log = exp.add(dt=0.1)
    log.params(dt=0.1000001)
    log.mark_complete()
    assert exp.add(dt=0.1, skip_existing=True) is None
    assert len(list(exp.runs_dir.iterdir())) == 1
