"""Faults of notata 0.3.0 that are not to be here.

Each test runs one program with the published library, to show the fault, and with this one.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from simulated import answer, program, theirs_and_ours, tree

from notata import Experiment


def test_numpy_numbers_arrays_paths_enums_tuples_and_dates_are_stored_plainly(
    tmp_path: Path,
) -> None:
    """0.3.0 crashed on them, or wrote YAML tags that its own reader refuses."""
    code = """
        import datetime, enum, json, pathlib
        import numpy as np
        from notata import Logbook, LogReader

        class Scheme(enum.Enum):
            RK4 = "rk4"

        values = {
            "number": np.float64(0.5), "count": np.int32(3), "flag": np.bool_(True),
            "array": np.arange(3), "path": pathlib.Path("a/b"), "scheme": Scheme.RK4,
            "pair": (1, 2), "day": datetime.date(2026, 11, 23),
        }
        found = {}
        for key, value in values.items():
            for where in ("params", "meta", "json"):
                log = Logbook(f"{key}-{where}", "out")
                try:
                    if where == "params":
                        log.params(**{key: value})
                        read = LogReader(log.path).params[key]
                    elif where == "meta":
                        log.meta(**{key: value})
                        read = LogReader(log.path).meta[key]
                    else:
                        log.json("x", {key: value})
                        read = LogReader(log.path).load_json("x")[key]
                    json.dumps(read)
                except Exception as error:
                    read = type(error).__name__
                found.setdefault(key, []).append(read)
        print(json.dumps(found))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs["number"][0] == "ConstructorError"
    assert theirs["count"][1:] == ["TypeError", "TypeError"]
    assert theirs["pair"][0] == "ConstructorError"
    assert theirs["day"] == ["TypeError", "TypeError", "TypeError"]
    assert ours == {
        "number": [0.5] * 3,
        "count": [3] * 3,
        "flag": [True] * 3,
        "array": [[0, 1, 2]] * 3,
        "path": ["a/b"] * 3,
        "scheme": ["rk4"] * 3,
        "pair": [[1, 2]] * 3,
        "day": ["2026-11-23"] * 3,
    }


def test_an_error_while_encoding_leaves_the_old_file(tmp_path: Path) -> None:
    """0.3.0 opened the file before it encoded, and left half a one."""
    code = """
        import json, pathlib
        from notata import Logbook
        log = Logbook("a", "out", params={"n": 1})
        writers = {
            "params.yaml": lambda bad: log.params(n=2, bad=bad),
            "artifacts/j.json": lambda bad: log.json("j", {"n": 2, "z": bad}),
            "artifacts/p.pkl": lambda bad: log.pickle("p", [2] * 9999 + [bad]),
            "artifacts/t.txt": lambda bad: log.text("t", "new" if bad == 0 else bad),
            "data/x.npz": lambda bad: log.arrays("x", a=[1, 2], b=bad),
        }
        class Bad:
            def __reduce__(self):
                raise ValueError("not to be pickled")
            def __reduce_ex__(self, protocol):
                raise ValueError("not to be pickled")
        kept = {}
        for name, write in writers.items():
            write(0)
            path = log.path / name
            before = path.read_bytes()
            try:
                write(Bad())
                kept[name] = "written"
            except Exception:
                kept[name] = path.read_bytes() == before
        print(json.dumps(kept))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs == dict.fromkeys(ours, False)
    assert ours == dict.fromkeys(theirs, True)
    assert len(ours) == 5
    assert not [name for name in tree(tmp_path / "ours") if ".tmp" in name]


def test_writers_of_one_metadata_file_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    """0.3.0 wrote metadata.tmp: a writer that came in between took the other's file away."""
    code = """
        import json, os
        from notata import Logbook
        first = Logbook("a", "out")
        rename, between = os.replace, []
        def replace(source, target, **kw):
            if str(target).endswith("metadata.json") and not between:
                between.append(os.path.basename(source))
                if os.fork() == 0:
                    first.meta(second=2)
                    os._exit(0)
                between.append(os.wait()[1] == 0)
            rename(source, target, **kw)
        os.replace = replace
        try:
            first.meta(first=1)
            outcome = "written"
        except Exception as error:
            outcome = type(error).__name__
        whole = json.loads((first.path / "metadata.json").read_text())
        print(json.dumps([outcome, between[1:], whole.get("first"), whole["status"]]))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs[0] == "FileNotFoundError"
    assert ours == ["written", [True], 1, "initialized"]


def test_no_call_reads_the_metadata_again(tmp_path: Path) -> None:
    """0.3.0 read metadata.json on each `meta`, `status` and closing."""
    code = """
        import json, sys
        from notata import Logbook
        reads = []
        def hook(event, arguments):
            if event == "open" and str(arguments[0]).endswith("metadata.json"):
                if not arguments[2] & 3:  # os.O_RDONLY
                    reads.append(1)
        sys.addaudithook(hook)
        with Logbook("a", "out") as log:
            for step in range(10):
                log.meta(step=step)
                assert log.status == "initialized"
        count = len(reads)
        print(json.dumps([count, json.loads(log["metadata.json"].read_text())["step"]]))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs[0] >= 20
    assert ours == [0, 9]


def test_runs_of_one_id_in_two_folders_have_a_log_each(tmp_path: Path) -> None:
    """0.3.0 kept loggers by run id: the second run wrote into the first one's log."""
    code = """
        import json
        from notata import Logbook
        one, two = Logbook("a", "here"), Logbook("a", "there")
        one.info("from one")
        two.info("from two")
        one.logger.info("logger one")
        two.logger.info("logger two")
        def told(log):
            text = log.log_path.read_text() if log.log_path.exists() else ""
            return [line.split("INFO ")[1] for line in text.splitlines()]
        print(json.dumps([told(one), told(two)]))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs[1] == []
    assert ours == [
        ["Logbook initialized", "from one", "logger one"],
        ["Logbook initialized", "from two", "logger two"],
    ]


def test_fifty_finished_runs_hold_no_files(tmp_path: Path) -> None:
    """0.3.0 never closed a log."""
    code = """
        import json, os
        from notata import Logbook
        def held():
            found = []
            for fd in os.listdir("/proc/self/fd"):
                try:
                    found.append(os.readlink(f"/proc/self/fd/{fd}"))
                except FileNotFoundError:
                    pass
            return [path for path in found if "/out/" in path]
        runs = []
        for number in range(50):
            with Logbook(number, "out") as log:
                log.info("here")
            runs.append(log)
        print(json.dumps(len(held())))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert (theirs, ours) == (50, 0)


def test_debug_messages_can_be_had(tmp_path: Path) -> None:
    """0.3.0 dropped them, and nothing could be done about it."""
    code = """
        import inspect, json
        from notata import Logbook
        options = {"level": "DEBUG"} if "level" in inspect.signature(Logbook).parameters else {}
        log = Logbook("a", "out", **options)
        log.debug("residual 1e-9")
        print(json.dumps("DEBUG residual 1e-9" in log.log_path.read_text()))
    """
    assert theirs_and_ours(code, tmp_path) == (False, True)


def test_an_experiment_s_runs_log_from_its_level_on(tmp_path: Path) -> None:
    exp = Experiment("exp", tmp_path, level="DEBUG")
    logs = [exp.add(a=1), *exp.sweep({"b": [2]})]
    for log in logs:
        log.debug("residual 1e-9")
        log.mark_complete()
        assert "DEBUG residual 1e-9" in log.log_path.read_text()
    with pytest.raises(ValueError, match="level 'LOUD'"):
        Experiment("exp", tmp_path, level="LOUD")


RUN_IDS = """
    import json
    from notata import Experiment
    exp = Experiment("exp", "out")
    found = []
    for params in {pairs!r}:
        try:
            log = exp.add(skip_existing=True, **params)
            found.append(None if log is None else log.run_id)
        except (OSError, ValueError) as error:
            found.append(type(error).__name__)
    print(json.dumps(found))
"""


def test_runs_with_other_parameters_are_not_skipped(tmp_path: Path) -> None:
    """0.3.0 cut floats to five digits in the id."""
    code = RUN_IDS.format(pairs=[{"dt": 0.123456}, {"dt": 0.1234561}, {"dt": 0.123456}])
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs == ["exp_dt_0.12346", None, None]
    assert len(set(ours[:2])) == 2
    assert ours[2] is None
    assert all(run_id.startswith("exp_dt_0.12346-") for run_id in ours[:2])


def test_long_and_strange_values_make_names_that_a_file_system_takes(tmp_path: Path) -> None:
    """0.3.0 put them into the name as they were."""
    code = RUN_IDS.format(pairs=[{"x": "y" * 300}, {"x": list(range(99))}, {"x": "a\x00b"}])
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs[:2] == ["OSError", "OSError"]
    assert len({run_id for run_id in ours if run_id.startswith("exp_x_")}) == 3
    assert len(list((tmp_path / "ours/out/exp/runs").iterdir())) == 3


def test_values_that_differ_in_a_slash_do_not_collide(tmp_path: Path) -> None:
    """0.3.0 wrote both "a/b" and "a b" as a_b."""
    code = RUN_IDS.format(pairs=[{"x": "a_b"}, {"x": "a/b"}, {"x": "a b"}])
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs == ["exp_x_a_b", None, None]
    assert None not in ours
    assert len(set(ours)) == 3


def test_a_new_parameter_or_metric_does_not_shift_the_columns(tmp_path: Path) -> None:
    """0.3.0 wrote each row under the first row's header."""
    code = """
        import json
        from notata import Experiment, ExperimentReader
        exp = Experiment("exp", "out")
        for params, metrics in (({"b": 1}, {"y": 10}), ({"a": 2, "b": 3}, {"x": 20, "y": 30})):
            with exp.add(**params) as log:
                log.json("metrics", metrics)
        keys = ("a", "b", "status", "x", "y")
        rows = ExperimentReader("out/exp").index()
        print(json.dumps([[row.get(key) or None for key in keys] for row in rows]))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs[1] != [None, "3", "complete", None, "30"]
    assert theirs[1] != ["2", "3", "complete", "20", "30"]
    assert ours == [
        [None, "1", "complete", None, "10"],
        ["2", "3", "complete", "20", "30"],
    ]


def test_two_verdicts_make_one_row(tmp_path: Path) -> None:
    """0.3.0 added a row for each `mark_…`."""
    code = """
        import json
        from notata import Experiment, ExperimentReader
        log = Experiment("exp", "out").add(a=1)
        log.mark_failed("too early")
        log.mark_complete()
        print(json.dumps([row["run_id"] for row in ExperimentReader("out/exp").index()]))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs == ["exp_a_1", "exp_a_1"]
    assert ours == ["exp_a_1"]


def test_a_failed_run_with_metrics_does_not_read_as_complete(tmp_path: Path) -> None:
    """0.3.0 looked at the metrics alone."""
    code = """
        import json
        from notata import Experiment, ExperimentReader
        log = Experiment("exp", "out").add(a=1)
        log.json("metrics", {"e": 1})
        log.mark_failed("diverged")
        print(json.dumps([row["status"] for row in ExperimentReader("out/exp").index()]))
    """
    assert theirs_and_ours(code, tmp_path) == (["complete"], ["failed"])


def test_overwrite_leaves_nothing_of_the_old_run(tmp_path: Path) -> None:
    """0.3.0 kept the old run's files, parameters and reason."""
    code = """
        import json
        from notata import Logbook, LogReader
        old = Logbook("a", "out", params={"old": 1})
        old.array("old", [1, 2])
        old.text("old", "x")
        old.mark_failed("old reason")
        with Logbook("a", "out", params={"new": 2}, overwrite=True) as log:
            log.array("new", [3])
        run = LogReader("out/log_a")
        log_lines = len(log.log_path.read_text().splitlines())
        print(json.dumps([run.arrays, run.artifacts, run.params, run.meta.get("failure_reason"),
                          log_lines]))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs[:4] == [["new", "old"], ["old.txt"], {"old": 1, "new": 2}, "old reason"]
    assert ours == [["new"], [], {"new": 2}, None, 4]
    assert tree(tmp_path / "ours/out") == [
        "log_a/data/new.npy",
        "log_a/log.txt",
        "log_a/metadata.json",
        "log_a/params.yaml",
    ]


def test_no_name_leads_out_of_the_run(tmp_path: Path) -> None:
    """0.3.0 followed "../../x" wherever it led."""
    code = """
        import json, pathlib
        from notata import Logbook
        log = Logbook("a", "out")
        name = "../../../escaped/x"
        for write in (
            lambda: log.array(name, [1]), lambda: log.arrays(name, x=[1]),
            lambda: log.text(name, "x"), lambda: log.json(name, {}),
            lambda: log.pickle(name, 1), lambda: log.bytes(name + ".bin", b""),
            lambda: log["../../escaped/index.txt"].write_text("x"),
            lambda: Logbook("/../../../escaped/run", "out"),
        ):
            try:
                write()
            except ValueError:
                pass
        print(json.dumps(sorted(p.name for p in pathlib.Path("escaped").rglob("*"))))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert {"x.npy", "x.npz", "x.txt", "x.json", "x.pkl", "x.bin", "index.txt"} <= {*theirs}
    assert ours == []
    assert tree(tmp_path / "ours") == ["out/log_a/log.txt", "out/log_a/metadata.json"]


def test_a_run_id_with_log_in_it_is_read_whole(tmp_path: Path) -> None:
    """0.3.0's reader cut "log_" out wherever it stood."""
    code = """
        import json
        from notata import Experiment, ExperimentReader, Logbook, LogReader
        Logbook("catalog_1", "out").mark_complete()
        Experiment("catalog", "out").add(n=1).mark_complete()
        reader = ExperimentReader("out/catalog")
        try:
            found = reader["catalog_n_1"].run_id
        except KeyError:
            found = "KeyError"
        print(json.dumps([LogReader("out/log_catalog_1").run_id, found]))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs == ["cata1", "KeyError"]
    assert ours == ["catalog_1", "catalog_n_1"]


def test_nested_arrays_load_under_the_names_that_are_listed(tmp_path: Path) -> None:
    """0.3.0 listed them by the last part of their name."""
    code = """
        import json
        from notata import Logbook, LogReader
        with Logbook("a", "out") as log:
            log.array("states/T_step100", [1])
            log.arrays("states/traj", x=[2])
        run = LogReader(log.path)
        found = {}
        for name in run.arrays:
            try:
                found[name] = run.load_array(name).tolist()
            except FileNotFoundError:
                found[name] = None
        print(json.dumps(found))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs == {"T_step100": None, "traj:x": None}
    assert ours == {"states/T_step100": [1], "states/traj:x": [2]}


def test_parameters_that_were_saved_last_are_the_ones_that_are_read(tmp_path: Path) -> None:
    """0.3.0 read the YAML as long as there was one."""
    code = """
        import json
        from notata import Logbook, LogReader
        log = Logbook("a", "out", params={"n": 1})
        log.params(ext="json", n=2)
        first = LogReader(log.path).params
        log.params(ext="yaml", n=3)
        print(json.dumps([first, LogReader(log.path).params]))
    """
    theirs, ours = theirs_and_ours(code, tmp_path)
    assert theirs[0] == {"n": 1}
    assert ours == [{"n": 2}, {"n": 3}]


# The same faults, where more than one process or library is at work.


def test_a_table_that_030_shifted_is_made_right_by_the_next_row(tmp_path: Path) -> None:
    """Rows that don't fit their header come back from the runs."""
    write = """
        from notata import Experiment
        exp = Experiment("exp", "out")
        for params in {params!r}:
            with exp.add(**params) as log:
                log.json("metrics", {{"e": 1}})
    """
    done = program(write.format(params=[{"b": 1}, {"a": 2, "b": 3}]), tmp_path, peer=True)
    assert done.returncode == 0, done.stderr
    done = program(write.format(params=[{"a": 4, "b": 5}]), tmp_path)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out/exp/index.csv").open(newline="") as file:
        rows = {row["run_id"]: (row["a"], row["b"], row["e"]) for row in csv.DictReader(file)}
    assert rows == {
        "exp_b_1": ("", "1", "1"),
        "exp_a_2_b_3": ("2", "3", "1"),
        "exp_a_4_b_5": ("4", "5", "1"),
    }


def test_metadata_hammered_by_many_processes_is_always_whole(tmp_path: Path) -> None:
    """Four processes write one run's metadata while a fifth reads it: never half a file."""
    writer = """
        import subprocess, sys, textwrap
        from notata import Logbook, LogReader
        Logbook("a", "out")
        code = textwrap.dedent('''
            import os, sys
            from notata.attempts import Attempt
            from notata.lifecycle import Metadata
            from notata.topology import ALONE
            metadata = Metadata("out/log_a", Attempt("out/log_a", ALONE))
            for step in range(200):
                metadata.update(
                    {"writer": int(sys.argv[1]), "step": step, "filler": "x" * 5000}
                )
        ''')
        workers = [subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(4)]
        reads = 0
        while any(w.poll() is None for w in workers):
            LogReader("out/log_a").meta
            reads += 1
        assert reads > 10, reads
        assert [w.wait() for w in workers] == [0] * 4
        import json
        print(json.dumps(LogReader("out/log_a").meta["step"]))
    """
    assert answer(writer, tmp_path) == 199
    assert tree(tmp_path / "out/log_a") == ["log.txt", "metadata.json"]
