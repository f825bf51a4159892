"""The run of one process: every verb, and what it leaves on disk."""

from __future__ import annotations

import array
import copy
import json
import logging
import os
import pickle
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from calls import need_strace, run, strace
from simulated import ROOT, program, tree

from notata import Experiment, Logbook, LogReader
from notata.errors import (
    NotARunError,
    PieceError,
    RunExistsError,
    UnsafeNameError,
    UnsupportedValueError,
)

LINE = re.compile(r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\] [A-Z]+ .*")


def lines(log: Logbook) -> list[str]:
    """The log's lines without their time stamps, which have to be there."""
    found = log.log_path.read_text().splitlines()
    assert all(LINE.fullmatch(line) for line in found), found
    return [line.split("] ", 1)[1] for line in found]


def metadata(log: Logbook) -> dict[str, object]:
    return dict(json.loads((log.path / "metadata.json").read_text()))


# ----- life -----


WHERE = {"start_epoch", "host", "opening", "provenance"}


def test_a_context_manager_marks_the_run_complete(base: Path) -> None:
    with Logbook("a", base) as log:
        assert log.status == "initialized"
        assert metadata(log).keys() == {"run_id", "status", "start_time", *WHERE}
    assert log.status == "complete"
    meta = metadata(log)
    assert meta.keys() == {"run_id", "status", "start_time", "end_time", "runtime_sec", *WHERE}
    assert (meta["run_id"], meta["status"]) == ("a", "complete")
    started = datetime.fromisoformat(str(meta["start_time"]))
    assert int(meta["start_epoch"]) - started.timestamp() in (0, 1)  # a second may end between them
    assert started <= datetime.fromisoformat(str(meta["end_time"]))
    assert started.microsecond == 0
    assert isinstance(meta["runtime_sec"], float)
    assert lines(log) == ["INFO Logbook initialized", "INFO Marked complete"]
    assert tree(log.path) == ["log.txt", "metadata.json"]


def test_an_exception_marks_the_run_failed_and_goes_on(base: Path) -> None:
    with pytest.raises(RuntimeError, match="the ground"), Logbook("a", base) as log:
        raise RuntimeError("hit the ground")
    assert log.status == "failed"
    assert metadata(log)["failure_reason"] == "hit the ground"
    assert metadata(log)["status"] == "failed"
    printed = log.log_path.read_text().splitlines()
    assert printed[1].endswith("] ERROR Traceback (most recent call last):")
    assert printed[-2] == "    RuntimeError: hit the ground"
    assert printed[-1].endswith("] INFO Marked failed: hit the ground")
    assert tree(log.path) == ["log.txt", "metadata.json"]


def test_an_exception_without_a_text_gives_its_name_as_reason(base: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Logbook("a", base) as log:
        raise KeyboardInterrupt
    assert str(metadata(log)["failure_reason"]).startswith("KeyboardInterrupt")


@pytest.mark.parametrize("status", ["complete", "failed"])
def test_life_by_hand(base: Path, status: str) -> None:
    log = Logbook("a", base)
    log.mark_complete() if status == "complete" else log.mark_failed("diverged")
    assert (log.status, metadata(log)["status"]) == (status, status)
    assert metadata(log).get("failure_reason") == (None if status == "complete" else "diverged")


def test_a_run_that_was_marked_inside_its_block_keeps_its_mark(base: Path) -> None:
    with Logbook("a", base) as log:
        log.mark_failed("no convergence")
    assert log.status == "failed"
    assert metadata(log)["failure_reason"] == "no convergence"
    assert lines(log).count("INFO Marked failed: no convergence") == 1
    assert "INFO Marked complete" not in lines(log)


def test_of_two_verdicts_by_hand_the_last_one_counts(base: Path) -> None:
    log = Logbook("a", base)
    log.mark_failed("too early")
    log.mark_complete()
    assert metadata(log)["status"] == log.status == "complete"
    assert "failure_reason" not in metadata(log)


def test_messages_after_the_end_still_arrive(base: Path) -> None:
    with Logbook("a", base) as log:
        pass
    log.info("afterwards")
    assert lines(log)[-1] == "INFO afterwards"


def test_elapsed_grows(base: Path) -> None:
    log = Logbook("a", base)
    first = log.elapsed
    assert 0 <= first <= log.elapsed


def test_fifty_finished_runs_hold_no_open_files(tmp_path: Path) -> None:
    code = """
        import os
        import numpy as np
        from notata import Logbook
        logs, open_after_the_first = [], 0
        for number in range(50):
            with Logbook(number) as log:
                log.info("here")
                log.array("x", np.zeros(3))
            logs.append(log)
            open_after_the_first = open_after_the_first or len(os.listdir("/proc/self/fd"))
        print(len(os.listdir("/proc/self/fd")) - open_after_the_first, open_after_the_first < 9)
    """
    done = program(code, tmp_path)
    assert (done.stdout, done.stderr) == ("0 True\n", "")
    assert len(list((tmp_path / "outputs").iterdir())) == 50


# ----- where -----


def test_folders(base: Path) -> None:
    log = Logbook(7, base)
    assert log.run_id == "7"
    assert log.path == base / "log_7"
    assert log.log_path == log.path / "log.txt"
    assert log.datadir == log.path / "data"
    assert log.plotdir == log.path / "plots"
    assert log.artifactsdir == log.path / "artifacts"
    assert (log.rank, log.size, log.is_root) == (0, 1, True)


def test_the_base_folder_is_outputs_by_default(base: Path) -> None:
    log = Logbook("a")
    assert log.path == Path("outputs/log_a")
    assert (Path.cwd() / "outputs" / "log_a" / "metadata.json").is_file()


def test_preallocate_makes_the_three_folders(base: Path) -> None:
    log = Logbook("a", base, preallocate=True)
    assert tree(log.path) == ["artifacts/", "data/", "log.txt", "metadata.json", "plots/"]


def test_a_run_that_exists_is_refused_and_left_alone(base: Path) -> None:
    with Logbook("a", base) as log:
        log.text("note", "first")
    before = {name: (log.path / name).read_bytes() for name in tree(log.path)}
    with pytest.raises(FileExistsError, match="log_a already exists") as caught:
        Logbook("a", base)
    assert isinstance(caught.value, RunExistsError)
    assert {name: (log.path / name).read_bytes() for name in tree(log.path)} == before


def test_overwrite_begins_anew(base: Path) -> None:
    with Logbook("a", base, params={"old": 1}) as log:
        log.text("old", "x")
        log.mark_failed("broke")
    with Logbook("a", base, overwrite=True) as log:
        log.text("new", "x")
    assert tree(log.path) == ["artifacts/new.txt", "log.txt", "metadata.json"]
    assert "failure_reason" not in metadata(log)
    assert lines(log)[0] == "INFO Logbook initialized"


def test_overwrite_does_not_empty_a_folder_that_is_no_run(base: Path) -> None:
    (base / "log_a").mkdir(parents=True)
    (base / "log_a" / "thesis.tex").write_text("chapter 1")
    with pytest.raises(NotARunError, match="no run"):
        Logbook("a", base, overwrite=True)
    assert tree(base / "log_a") == ["thesis.tex"]


def test_a_file_in_place_of_the_run_folder(base: Path) -> None:
    base.mkdir()
    (base / "log_a").write_text("")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="is a file"):
            Logbook("a", base, overwrite=overwrite)


@pytest.mark.parametrize("run_id", ["", "a/b", "../x", "x" * 300, "a\nb", "a\0b"])
def test_a_run_id_that_no_folder_can_have(base: Path, run_id: str) -> None:
    with pytest.raises(UnsafeNameError, match="run id"):
        Logbook(run_id, base)
    assert not base.exists()


# ----- messages -----


def test_messages_of_every_level(base: Path) -> None:
    log = Logbook("a", base, level="debug")
    log.debug("d")
    log.info("i")
    log.warning("w")
    log.error("e")
    log.note("n")
    log.note("n30", level=logging.WARNING)
    log.note("n50", 50)
    assert lines(log)[1:] == [
        "DEBUG d",
        "INFO i",
        "WARNING w",
        "ERROR e",
        "INFO n",
        "WARNING n30",
        "CRITICAL n50",
    ]


def test_the_level_drops_what_is_below(base: Path) -> None:
    log = Logbook("a", base, level=logging.WARNING)
    log.debug("d")
    log.info("i")
    log.warning("w")
    assert lines(log) == ["WARNING w"]


def test_a_level_that_does_not_exist(base: Path) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        Logbook("a", base, level="LOUD")
    assert not base.exists()


def test_values_that_are_not_text_are_logged_as_text(base: Path) -> None:
    log = Logbook("a", base)
    log.info(42)
    log.info({"x": 1})
    assert lines(log)[1:] == ["INFO 42", "INFO {'x': 1}"]


def test_a_message_without_words_ends_no_program(base: Path) -> None:
    class Mute:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        def __str__(self) -> str:
            raise self.error

    class Number:
        def __str__(self) -> str:
            return 5  # type: ignore[return-value]

    log = Logbook("a", base)
    log.info(Mute(ValueError("no\nwords")))
    log.error(Number())
    log.logger.warning("%s", "in words")
    log.debug(Mute(ValueError()))  # dropped as any other
    assert lines(log)[1:] == [
        "INFO a Mute that has no text: ValueError in its __str__",
        "ERROR a Number that has no text: TypeError in its __str__",
        "WARNING in words",
    ]
    for end in (KeyboardInterrupt, SystemExit):
        with pytest.raises(end):
            log.info(Mute(end()))


def test_the_logger_writes_into_the_run(base: Path) -> None:
    log = Logbook("a", base, level="INFO")
    log.logger.info("step %d of %s", 3, "many")
    log.logger.debug("unseen")
    assert isinstance(log.logger, logging.Logger)
    assert lines(log)[1:] == ["INFO step 3 of many"]


def test_messages_take_values_as_those_of_the_standard_library(base: Path) -> None:
    class Shy:
        def __repr__(self) -> str:
            raise KeyError("nothing to see")

    log = Logbook("a", base, level="INFO")
    log.info("residual %g at step %d", 0.5, 3)
    log.warning("%(what)s grows", {"what": "it"})
    log.error("50 % of", "two")
    log.info("100 %")
    log.info("T %s", np.arange(3))
    log.info("n %d", float("inf"))
    log.info("%d of %s", "one", Shy())
    log.root.info("%s", "from the root")
    assert lines(log)[1:] == [
        "INFO residual 0.5 at step 3",
        "WARNING it grows",
        "ERROR 50 % of 'two'",
        "INFO 100 %",
        "INFO T [0 1 2]",
        "INFO n %d inf",
        "INFO %d of %s 'one' <Shy: KeyError in its __repr__>",
        "INFO from the root",
    ]

    class Unseen:
        def __str__(self) -> str:
            raise AssertionError("what is not logged is not put together")

    log.debug("%s", Unseen())


def test_handlers_of_runs_that_have_ended_cost_nothing(base: Path) -> None:
    solver, formatted = logging.Logger("solver"), []

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            formatted.append(record)
            return super().format(record)

    for k in range(5):
        with Logbook(f"r{k}", base) as log:
            handler = log.handler()
            handler.setFormatter(Formatter())
            solver.addHandler(handler)
            for _ in range(3):
                solver.info("x")
    assert len(formatted) == 15
    wanted = [handler for handler in solver.handlers if handler.level <= logging.CRITICAL]
    assert wanted == [handler]


def test_the_handler_takes_records_of_other_loggers_while_the_run_is_open(base: Path) -> None:
    solver = logging.Logger("solver")
    log = Logbook("x", base_dir=base)
    solver.addHandler(log.handler())
    solver.warning("residual %g", 0.5)
    solver.debug("unseen")
    try:
        raise ArithmeticError("diverged")
    except ArithmeticError:
        solver.exception("broke")
    log.mark_complete()
    solver.error("of the next run")
    log.info("after the end")  # what the program itself says still arrives
    found = [(m.level, m.message) for m in LogReader(log.path).messages()]
    assert ("WARNING", "residual 0.5") in found
    (trace,) = (m for level, m in found if level == "ERROR")
    assert trace.startswith("broke\nTraceback")
    assert trace.endswith("ArithmeticError: diverged")
    assert [m for _, m in found if "unseen" in m or "next run" in m] == []
    assert found[-1] == ("INFO", "after the end")


def test_the_logger_does_not_write_elsewhere(
    base: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Logbook("a", base)
    log.logger.error("only here")
    assert caplog.records == []
    assert capsys.readouterr() == ("", "")


# ----- parameters and metadata -----


def test_params_at_opening_and_later_are_merged(base: Path) -> None:
    log = Logbook("a", base, params={"omega": 2.0, "n": 3})
    log.params(n=4, name="x")
    assert yaml.safe_load((log.path / "params.yaml").read_text()) == {
        "omega": 2.0,
        "n": 4,
        "name": "x",
    }
    assert log.params["omega"] == 2.0
    assert dict(log.params) == {"omega": 2.0, "n": 4, "name": "x"}
    assert len(log.params) == 3
    assert lines(log) == [
        "INFO Saved params (yaml) in params.yaml",
        "INFO Logbook initialized",
        "INFO Saved params (yaml) in params.yaml",
    ]


def test_params_as_json_take_the_place_of_yaml(base: Path) -> None:
    log = Logbook("a", base, params={"omega": 2.0})
    log.params(ext="json", n=3)
    assert tree(log.path) == ["log.txt", "metadata.json", "params.json"]
    assert json.loads((log.path / "params.json").read_text()) == {"omega": 2.0, "n": 3}


def test_params_in_another_format(base: Path) -> None:
    log = Logbook("a", base)
    with pytest.raises(ValueError, match="yaml"):
        log.params(ext="toml", n=3)
    assert dict(log.params) == {}
    assert tree(log.path) == ["log.txt", "metadata.json"]


def test_a_whole_number_of_as_many_digits_as_python_reads(base: Path) -> None:
    numbers = {"a": 10**2000, "most": 10**4300 - 1, "least": 1 - 10**4300}
    exp = Experiment("e", base)
    with exp.add(**numbers) as log:
        log.json("metrics", {f"{key}_m": value for key, value in numbers.items()})
        log.meta(**{f"{key}_f": value for key, value in numbers.items()})
        for more in (10**4300, -(10**4300)):
            with pytest.raises(
                UnsupportedValueError, match=r"json 'b'\.a: .*4300 digits: write it as text"
            ):
                log.json("b", {"a": more})
    run = LogReader(log.path)
    assert run.params == numbers
    assert run.load_json("metrics") == {f"{key}_m": value for key, value in numbers.items()}
    assert {key: run.meta[f"{key}_f"] for key in numbers} == numbers
    (row,) = exp.rows()
    assert {key: (row[key], row[f"{key}_m"]) for key in numbers} == {
        key: (value, value) for key, value in numbers.items()
    }
    log.params(ext="json")
    assert LogReader(log.path).params == numbers


def test_a_refused_parameter_names_its_key_and_changes_nothing(base: Path) -> None:
    log = Logbook("a", base, params={"n": 1})
    before = (log.path / "params.yaml").read_bytes()
    with pytest.raises(UnsupportedValueError, match=r"parameter 'grid'\.z"):
        log.params(n=2, grid={"z": 1j})
    assert log.params["n"] == 1
    assert (log.path / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("value", [np.float32, np.dtype("f4"), dict])
def test_a_class_is_no_parameter(base: Path, value: object) -> None:
    log = Logbook("a", base)
    with pytest.raises(UnsupportedValueError, match=r"net.*dtype"):
        log.params(net={"dtype": value})


def test_a_name_that_the_locale_can_not_spell_says_so(base: Path) -> None:
    script = r"from notata import Logbook; Logbook('a').text('\xfc', 'x')"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=base.parent,
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "UnsafeNameError: name '\\xfc'" in done.stderr
    assert "in this locale; set LC_ALL=C.UTF-8" in done.stderr


def test_a_link_to_nowhere_is_no_file(base: Path) -> None:
    base.mkdir(exist_ok=True)
    (base / "log_a").symlink_to("/scratch/purged")
    with pytest.raises(RunExistsError, match="log_a is a link to /scratch/purged, where no folder"):
        Logbook("a", base)


def test_a_refused_parameter_at_opening_leaves_no_run(base: Path) -> None:
    with pytest.raises(UnsupportedValueError, match="parameter 'z'"):
        Logbook("a", base, params={"z": object()})
    assert not base.exists()


def test_meta_is_merged_into_the_metadata(base: Path) -> None:
    with Logbook("a", base) as log:
        log.meta(operator="ada", grid=(3, 4))
        log.meta(operator="grace")
    assert metadata(log)["operator"] == "grace"
    assert metadata(log)["grid"] == [3, 4]
    assert metadata(log)["status"] == "complete"


@pytest.mark.parametrize("name", ["scheduler", "signals", "run_id", "start_epoch"])
def test_fields_by_which_runs_are_judged_are_refused(base: Path, name: str) -> None:
    log = Logbook("a", base)
    before = (log.path / "metadata.json").read_bytes()
    with pytest.raises(UnsafeNameError, match=f"{name}: notata keeps this field itself; choose"):
        log.meta(**{"lr": 0.1, name: "cosine"})
    assert (log.path / "metadata.json").read_bytes() == before


def test_a_refused_meta_field_names_its_key_and_changes_nothing(base: Path) -> None:
    log = Logbook("a", base)
    before = (log.path / "metadata.json").read_bytes()
    with pytest.raises(UnsupportedValueError, match="meta 'bad'"):
        log.meta(good=1, bad={1, 2})
    assert (log.path / "metadata.json").read_bytes() == before
    log.meta(later=1)
    assert "good" not in metadata(log)


# ----- arrays -----


@pytest.mark.parametrize("verb", ["array", "save_array", "save_numpy"])
def test_array(base: Path, verb: str) -> None:
    log = Logbook("a", base)
    values = np.arange(6.0).reshape(2, 3)
    getattr(log, verb)("states/T_step100", values)
    loaded = np.load(log.path / "data/states/T_step100.npy", allow_pickle=False)
    np.testing.assert_array_equal(loaded, values)
    assert loaded.dtype == values.dtype
    assert lines(log)[-1] == "INFO Saved array states/T_step100 in data/states/T_step100.npy"
    assert tree(log.path) == ["data/states/T_step100.npy", "log.txt", "metadata.json"]


@pytest.mark.parametrize("verb", ["arrays", "save_arrays"])
@pytest.mark.parametrize("compressed", [True, False])
def test_arrays(base: Path, verb: str, compressed: bool) -> None:
    log = Logbook("a", base)
    x, v = np.zeros(10_000), np.arange(3)
    getattr(log, verb)("out/trajectory", compressed, x=x, v=v)
    path = log.path / "data/out/trajectory.npz"
    with np.load(path, allow_pickle=False) as bundle:
        assert sorted(bundle.files) == ["v", "x"]
        np.testing.assert_array_equal(bundle["x"], x)
        np.testing.assert_array_equal(bundle["v"], v)
    assert (path.stat().st_size < x.nbytes) == compressed
    assert lines(log)[-1] == "INFO Saved arrays out/trajectory in data/out/trajectory.npz"


def test_arrays_under_the_names_of_options(base: Path) -> None:
    log = Logbook("a", base)
    given = {name: np.arange(3) + i for i, name in enumerate(("start", "shape", "halo", "join"))}
    log.arrays("b", **given, file=np.ones(2))
    with np.load(log.path / "data/b.npz") as bundle:
        assert sorted(bundle.files) == ["file", "halo", "join", "shape", "start"]
        for key, value in given.items():
            np.testing.assert_array_equal(bundle[key], value)


def test_lists_and_numbers_become_arrays(base: Path) -> None:
    log = Logbook("a", base)
    log.array("list", [1, 2, 3])
    log.array("number", 4.5)
    np.testing.assert_array_equal(np.load(log.path / "data/list.npy"), [1, 2, 3])
    assert np.load(log.path / "data/number.npy").shape == ()


def test_a_piece_that_is_the_whole_loses_its_halo(base: Path) -> None:
    log = Logbook("a", base)
    block = np.arange(30.0).reshape(5, 6)
    log.array("T", block, start=(0, 0), shape=(3, 4), halo=1)
    np.testing.assert_array_equal(np.load(log.path / "data/T.npy"), block[1:-1, 1:-1])


def test_a_piece_that_is_not_the_whole_is_refused_where_there_is_no_other_rank(base: Path) -> None:
    log = Logbook("a", base)
    with pytest.raises(PieceError, match=r"array 'T'.*does not fill"):
        log.array("T", np.zeros((2, 4)), start=(0, 0), shape=(3, 4))
    assert not log.datadir.exists()


def test_stack_of_one_rank_has_a_first_axis(base: Path) -> None:
    log = Logbook("a", base)
    log.array("T", np.arange(3), join="stack")
    np.testing.assert_array_equal(np.load(log.path / "data/T.npy"), [[0, 1, 2]])


@pytest.mark.parametrize(
    "value", [np.array([{}]), [object()], np.ma.masked_equal([1, 2], 2), [[1], [2, 3]]]
)
def test_an_array_that_only_pickle_could_hold_is_refused(base: Path, value: object) -> None:
    log = Logbook("a", base)
    log.array("T", [1])
    with pytest.raises(UnsupportedValueError, match="array 'T'"):
        log.array("T", value)
    np.testing.assert_array_equal(np.load(log.path / "data/T.npy"), [1])
    assert tree(log.path) == ["data/T.npy", "log.txt", "metadata.json"]


def test_a_second_array_of_a_name_replaces_the_first(base: Path) -> None:
    log = Logbook("a", base)
    log.array("T", np.zeros(100))
    log.array("T", np.ones(2))
    np.testing.assert_array_equal(np.load(log.path / "data/T.npy"), [1, 1])


# ----- plots and artifacts -----


@pytest.mark.parametrize("verb", ["plot", "save_plot"])
def test_plot(base: Path, verb: str) -> None:
    from matplotlib.figure import Figure

    log = Logbook("a", base)
    figure = Figure()
    figure.subplots().plot([1, 2, 4])
    getattr(log, verb)("fits/energy", figure, dpi=50, formats=("png", "pdf", "svg"))
    plots = log.plotdir / "fits"
    assert (plots / "energy.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (plots / "energy.pdf").read_bytes().startswith(b"%PDF")
    assert "</svg>" in (plots / "energy.svg").read_text()
    assert tree(log.plotdir) == ["fits/energy.pdf", "fits/energy.png", "fits/energy.svg"]
    assert lines(log)[-1] == "INFO Saved plot fits/energy (png/pdf/svg) in plots"


def test_plot_takes_the_current_figure(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    log = Logbook("a", base)
    figure, axes = plt.subplots()
    axes.plot([3, 1, 2])
    try:
        log.plot("current", formats=iter(["svg"]))
    finally:
        plt.close(figure)
    assert tree(log.plotdir) == ["current.svg"]


def test_plot_of_what_saves_itself_to_paths_alone(base: Path) -> None:
    class Drawing:
        def savefig(self, path: str, dpi: int, bbox_inches: str) -> None:
            Path(path).write_text(f"{Path(path).suffix} {dpi} {bbox_inches}")
            if path.endswith(".pdf"):
                raise ZeroDivisionError

    log = Logbook("a", base)
    log.plot("x/own", Drawing(), dpi=50, formats=("png", "svg"))
    assert tree(log.plotdir) == ["x/own.png", "x/own.svg"]
    assert (log.plotdir / "x/own.svg").read_text() == ".svg 50 tight"
    with pytest.raises(ZeroDivisionError):
        log.plot("x/half", Drawing(), formats=("pdf",))
    assert tree(log.plotdir) == ["x/own.png", "x/own.svg"]


@pytest.mark.parametrize("verb", ["text", "save_text"])
def test_text(base: Path, verb: str) -> None:
    log = Logbook("a", base)
    getattr(log, verb)("notes/run", "κ = 0.1\r\nend")
    assert (log.artifactsdir / "notes/run.txt").read_bytes() == "κ = 0.1\r\nend".encode()
    assert lines(log)[-1] == "INFO Saved text notes/run in artifacts/notes/run.txt"


def test_text_that_is_no_text(base: Path) -> None:
    log = Logbook("a", base)
    with pytest.raises(UnsupportedValueError, match="text 'n'"):
        log.text("n", 3)  # type: ignore[arg-type]
    assert not log.artifactsdir.exists()


@pytest.mark.parametrize("verb", ["json", "save_json"])
def test_json(base: Path, verb: str) -> None:
    log = Logbook("a", base)
    getattr(log, verb)("metrics", {"z": [1, 2.5, None, True], "a": {"ü": "x"}})
    text = (log.artifactsdir / "metrics.json").read_text()
    assert json.loads(text) == {"z": [1, 2.5, None, True], "a": {"ü": "x"}}
    assert text.index('"a"') < text.index('"z"')
    assert lines(log)[-1] == "INFO Saved JSON metrics in artifacts/metrics.json"


@pytest.mark.parametrize("verb", ["pickle", "save_pickle"])
def test_pickle(base: Path, verb: str) -> None:
    log = Logbook("a", base)
    getattr(log, verb)("model", {"weights": {1, 2, 3}}, protocol=2)
    data = (log.artifactsdir / "model.pkl").read_bytes()
    assert pickle.loads(data) == {"weights": {1, 2, 3}}
    assert data[:2] == b"\x80\x02"
    assert lines(log)[-1] == "INFO Saved pickle model in artifacts/model.pkl"


def test_pickle_uses_the_highest_protocol(base: Path) -> None:
    log = Logbook("a", base)
    log.pickle("model", [1])
    assert (log.artifactsdir / "model.pkl").read_bytes()[1] == pickle.HIGHEST_PROTOCOL


@pytest.mark.parametrize("verb", ["bytes", "save_bytes"])
@pytest.mark.parametrize("data", [b"\x00\x01", bytearray(b"ab"), memoryview(b"xyz")])
def test_bytes(base: Path, verb: str, data: bytes) -> None:
    log = Logbook("a", base)
    getattr(log, verb)("weights/w.bin", data)
    assert (log.artifactsdir / "weights/w.bin").read_bytes() == bytes(data)
    assert lines(log)[-1] == "INFO Saved bytes weights/w.bin in artifacts/weights/w.bin"


@pytest.mark.parametrize(
    "data",
    [
        *(np.arange(3), np.arange(6.0).reshape(2, 3), array.array("d", [0.5, 1.5])),
        *(np.zeros((0, 2)), np.array(2.5, ">f8"), np.zeros(2, "i4,f8"), memoryview(b"abcd")[::2]),
        *(np.arange(6).reshape(2, 3).T, np.arange(9)[::3], np.ones(2, [("O2", "f8")])),
    ],
    ids=lambda data: str(getattr(data, "shape", type(data))),
)
def test_bytes_of_anything_that_has_a_buffer(base: Path, data: Any) -> None:
    log = Logbook("a", base)
    log.bytes("n", data)
    assert (log.artifactsdir / "n").read_bytes() == data.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        *("text", 5, None, [1, 2], np.array([None]), np.zeros(2, "M8[s]")),
        np.zeros(2, [("x", "f8"), ("y", "O")]),
    ],
    ids=repr,
)
def test_what_has_no_bytes(base: Path, data: object) -> None:
    log = Logbook("a", base)
    with pytest.raises(UnsupportedValueError, match="bytes 'n': the content "):
        log.bytes("n", data)
    assert not log.artifactsdir.exists()


def test_index_gives_a_path_whose_folder_is_there(base: Path) -> None:
    log = Logbook("a", base)
    path = log["artifacts/settings/config.json"]
    assert path == log.path / "artifacts/settings/config.json"
    path.write_text("{}")
    assert tree(log.path) == ["artifacts/settings/config.json", "log.txt", "metadata.json"]


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "a\x00b", "é" * 200, None, b"x"])
def test_every_verb_refuses_a_name_that_is_none(base: Path, name: str) -> None:
    log = Logbook("a", base)
    before = tree(base)
    for write in (
        lambda: log.array(name, [1]),
        lambda: log.arrays(name, x=[1]),
        lambda: log.plot(name, fig=object()),
        lambda: log.text(name, ""),
        lambda: log.json(name, {}),
        lambda: log.pickle(name, 1),
        lambda: log.bytes(name, b""),
        lambda: log[name],
    ):
        with pytest.raises(UnsafeNameError):
            write()
    assert tree(base) == before


@pytest.mark.parametrize("name", ["", ".", "a/.."])
def test_a_folder_is_no_name_but_of_itself(base: Path, name: str) -> None:
    log = Logbook("a", base)
    before = tree(base)
    for write in (
        lambda: log.array(name, [1]),
        lambda: log.arrays(name, x=[1]),
        lambda: log.plot(name, fig=object()),
        lambda: log.text(name, ""),
        lambda: log.json(name, {}),
        lambda: log.pickle(name, 1),
        lambda: log.bytes(name, b""),
    ):
        with pytest.raises(UnsafeNameError, match="that of the folder"):
            write()
    assert tree(base) == before
    assert log[name] == log.path


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        *(("./x", "x"), ("a//x", "a/x"), ("b/../x", "x"), ("a/x/", "a/x")),
        *((5, "5"), (np.int64(5), "5"), (0.25, "0.25"), (Path("x/y"), "x/y")),
    ],
)
def test_every_verb_takes_other_spellings_of_a_name(
    base: Path, name: str | float | Path, plain: str
) -> None:
    from matplotlib.figure import Figure

    with Logbook("a", base) as log:
        log.array(name, [1])
        log.arrays(name, k=[2])
        log.plot(name, Figure())
        log.text(name, "t")
        log.json(name, {"j": 1})
        log.pickle(name, 1)
        log.bytes(name, b"")
    assert tree(log.path) == sorted(
        [
            *("log.txt", "metadata.json", f"data/{plain}.npy", f"data/{plain}.npz"),
            *(f"artifacts/{plain}{ext}" for ext in ("", ".txt", ".json", ".pkl")),
            f"plots/{plain}.png",
        ]
    )
    saved = [line for line in lines(log) if "Saved" in line]
    assert saved[0] == f"INFO Saved array {plain} in data/{plain}.npy"
    assert saved[3] == f"INFO Saved text {plain} in artifacts/{plain}.txt"
    run = LogReader(log.path)
    assert run.arrays == [plain, f"{plain}:k"]
    assert run.load_array(plain).tolist() == run.load_array(name).tolist() == [1]
    assert run.load_array(f"{plain}:k").tolist() == [2]
    assert run.load_json(plain) == run.load_json(name) == {"j": 1}


def test_a_path_into_the_run_has_one_spelling(base: Path) -> None:
    log = Logbook("a", base)
    for name in ("a//b", "./a/b", "a/c/../b", Path("a/b"), "a/b/"):
        assert log[name] == log.path / "a" / "b"


# ----- callback -----


def test_the_callback_is_called_with_the_run_once_its_outcome_is_set(base: Path) -> None:
    seen: list[tuple[str, str, bool]] = []

    def note(log: Logbook) -> None:
        seen.append((log.run_id, log.status, metadata(log)["status"] == log.status))

    with Logbook("a", base, callback=note) as log:
        assert seen == []
    with pytest.raises(ZeroDivisionError), Logbook("b", base, callback=note):
        _ = 1 / 0
    by_hand = Logbook("c", base, callback=note)
    by_hand.mark_failed("x")
    assert log.callback is note
    assert seen == [("a", "complete", True), ("b", "failed", True), ("c", "failed", True)]


# ----- the root view of a run of one process -----


def test_the_root_view_of_one_process_acts_as_the_run(base: Path) -> None:
    log = Logbook("a", base)
    log.root.info("hello")
    log.root.array("energy", [1.0, 2.0])
    log.root.json("metrics", {"e": 1})
    log.root.params(n=3)
    log.root.meta(who="me")
    assert lines(log)[1] == "INFO hello"
    assert tree(log.path) == [
        "artifacts/metrics.json",
        "data/energy.npy",
        "log.txt",
        "metadata.json",
        "params.yaml",
    ]
    assert dict(log.params) == {"n": 3}
    log.root.mark_failed("told by the root view")
    assert metadata(log)["failure_reason"] == "told by the root view"


def test_a_run_is_not_lost_when_the_program_changes_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    with Logbook("a", params={"n": 1}) as log:
        log.info("before")
        os.chdir("scratch")
        log.info("behind")
        log.array("x", [1.0])
        log.json("metrics", {"e": 1})
        log["artifacts/free/form.txt"]
        log.params(m=2)
    assert os.listdir(tmp_path / "scratch") == []
    run = LogReader(tmp_path / "outputs" / "log_a")
    assert run.meta["status"] == "complete"
    assert run.params == {"n": 1, "m": 2}
    assert run.arrays == ["x"]
    assert [m.message for m in run.messages()][2:4] == ["before", "behind"]


def test_paths_lead_to_the_run_wherever_the_program_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, (scratch, gone) = tmp_path / "outputs/log_a", (tmp_path / "scratch", tmp_path / "gone")
    scratch.mkdir()
    gone.mkdir()
    monkeypatch.chdir(tmp_path)
    log = Logbook("a")

    def paths() -> list[Path]:
        found = [log.path, log.rank_dir, log.log_path, log["artifacts/x.txt"]]
        return [*found, log.datadir, log.plotdir, log.artifactsdir, log.root.datadir]

    shown = paths()
    assert [str(path) for path in shown[:2]] == ["outputs/log_a"] * 2
    for place in (scratch, gone):
        os.chdir(place)
        if place is gone:
            gone.rmdir()
        assert paths() == [tmp_path / path for path in shown]
        log["artifacts/x.txt"].write_text(place.name)
        assert (home / "artifacts/x.txt").read_text() == place.name
    os.chdir(tmp_path)
    assert paths() == shown
    assert os.listdir(scratch) == []


def test_runs_of_an_experiment_stay_together_wherever_the_program_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scratch").mkdir()
    exp = Experiment("e")
    for n in (1, 2):
        with exp.add(n=n) as log:
            log.json("metrics", {"m": n})
            os.chdir(tmp_path / "scratch")
        exp.record(log)
    assert os.listdir(tmp_path / "scratch") == []
    assert [(row["n"], row["m"]) for row in exp.rows()] == [(1, 1), (2, 2)]
    assert sorted(os.listdir(tmp_path / "outputs/e/runs")) == ["log_e_n_1", "log_e_n_2"]


def test_the_logger_is_one_logger(base: Path) -> None:
    log = Logbook("a", base)
    assert log.logger is log.logger
    log.logger.setLevel("ERROR")
    log.logger.info("dropped")
    log.logger.error("kept")
    assert lines(log)[-1] == "ERROR kept"


@pytest.mark.parametrize("field", ["run_id", "parallel"])
def test_metadata_that_readers_rely_on_is_kept(base: Path, field: str) -> None:
    log = Logbook("a", base)
    before = metadata(log)
    with pytest.raises(ValueError, match=f"metadata {field}: notata keeps"):
        log.meta(**{field: "mine", "other": 1})
    assert metadata(log) == before


def test_any_other_name_can_be_a_metadata_field(base: Path) -> None:
    log = Logbook("a", base)
    log.meta(self=1, fields=2, drop="start_time", without="run_id")
    assert {"run_id", "start_time", "self", "drop", "fields", "without"} <= metadata(log).keys()


def test_params_that_are_no_dict_are_refused(base: Path) -> None:
    with pytest.raises(TypeError, match="params must be a dict"):
        Logbook("a", base, params=["dt"])  # type: ignore[arg-type]


def test_a_status_put_into_the_metadata_by_hand_stays(base: Path) -> None:
    with Logbook("a", base) as log:
        log.meta(status="failed", failure_reason="NaN")
        assert log.status == "failed"
    assert (metadata(log)["status"], metadata(log)["failure_reason"]) == ("failed", "NaN")


def test_a_reason_that_is_no_text_still_fails_the_run(base: Path) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    with pytest.raises(OSError, match="read"), Logbook("a", base) as log:
        raise OSError("can't read \udcff.dat")
    assert metadata(log)["failure_reason"] == "can't read \\udcff.dat"
    with pytest.raises(MuteError), Logbook("b", base) as log:
        raise MuteError
    assert (metadata(log)["status"], metadata(log)["failure_reason"]) == ("failed", "MuteError")


@pytest.mark.parametrize("name", ["./artifacts/x.txt", "artifacts/sub/"])
def test_paths_as_people_type_them(base: Path, name: str) -> None:
    log = Logbook("a", base)
    path = log[name]
    assert path == log.path / name
    assert path.parent.is_dir()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (1, 4), (3, 4), (2, 0, 3), (2, 3, 4)])
@pytest.mark.parametrize(
    "dtype", ["<f8", ">f8", "<f4", "<i2", ">u4", "?", "<c16", "<f2", "g", "<U3", "S4", "<M8[ns]"]
)
def test_a_small_array_is_stored_as_numpy_stores_it(
    base: Path, dtype: str, shape: tuple[int, ...], order: str
) -> None:
    values = np.arange(np.prod(shape, dtype=int)).astype(dtype if dtype != "<M8[ns]" else "i8")
    array = np.asarray(values.astype(dtype).reshape(shape), order=order)  # type: ignore[call-overload]
    np.save(base.parent / "x.npy", array)
    with Logbook("r", base) as log:
        log.array("x", array)
        log.array("view", np.repeat(array[..., None], 2, -1)[..., 0])  # with gaps
        path = log.path
    assert (path / "data" / "x.npy").read_bytes() == (base.parent / "x.npy").read_bytes()
    assert np.array_equal(LogReader(path).load_array("view"), array)


def test_a_small_array_is_one_open_one_write_and_one_rename(base: Path) -> None:
    need_strace()
    base.mkdir(parents=True)
    code = (
        "import numpy as np\nfrom notata import Logbook\nlog = Logbook('x', 'here')\n"
        "for name in 'abc':\n    log.array(name, np.arange(100.0))\nlog.mark_complete()"
    )
    trace = base / "trace.txt"
    calls = ["openat", "write", "rename", "lseek", "newfstatat"]
    done = run([*strace(calls, to=trace), sys.executable, "-c", code], base)
    assert done.returncode == 0, done.stderr
    lines = [line for line in trace.read_text().splitlines() if "/here/log_x/data/" in line]
    last = [line.split(maxsplit=1)[1].partition("(")[0] for line in lines[-3:]]
    assert last == ["openat", "write", "rename"]
    assert "c.npy" in lines[-1]
    assert "b.npy" in lines[-4]


def test_a_copy_of_what_holds_a_logbook_shares_it(tmp_path: Path) -> None:
    with Logbook("a", tmp_path) as log:
        held = {"log": log, "root": log.root}
        shared, again = copy.deepcopy(held), copy.copy(log)
        assert (shared["log"], shared["root"], again) == (log, log.root, log)
        shared["log"].info("once")
        with pytest.raises(TypeError, match=r"Logbook can't be pickled.*let workers return"):
            pickle.dumps(log)
    assert [m.message for m in LogReader(log.path).messages()].count("once") == 1


def test_a_format_may_be_given_by_itself(base: Path) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = plt.Figure()
    with Logbook("a", base) as log:
        log.plot("f", figure, formats="pdf")
    assert [path.name for path in (log.path / "plots").iterdir()] == ["f.pdf"]


def test_going_on_with_other_ranks_is_one_error(base: Path) -> None:
    with Logbook("a", base):
        pass
    meta = base / "log_a" / "metadata.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"parallel": {"size": 4}}))
    with pytest.raises(RunExistsError, match="has 4 as its number of ranks, and this") as raised:
        Logbook("a", base, resume=True)
    assert raised.value.__suppress_context__
