"""What is synced, and when: counted, for each durability, alone and as ranks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from simulated import open_as

from notata import Experiment, Logbook, LogReader, disk, index, layout, notices
from notata.errors import SettingError

# Each verb, and what durability="node" syncs before it returns: contents, then names.
VERBS: dict[str, tuple[Callable[[Logbook], object], list[str]]] = {
    "info": (lambda log: log.info("x"), []),
    "warning": (lambda log: log.warning("x"), ["log.txt"]),
    "error": (lambda log: log.error("x"), ["log.txt"]),
    "array": (lambda log: log.array("T", np.ones(3)), ["(new)", "data"]),
    "arrays": (lambda log: log.arrays("b", u=np.ones(3)), ["(new)", "data"]),
    "json": (lambda log: log.json("metrics", {"m": 1}), ["(new)", "artifacts"]),
    "text": (lambda log: log.text("t", "x"), ["(new)", "artifacts"]),
    "bytes": (lambda log: log.bytes("b.bin", b"x"), ["(new)", "artifacts"]),
    "pickle": (lambda log: log.pickle("p", 1), ["(new)", "artifacts"]),
    "nested": (lambda log: log.text("a/t", "x"), ["(new)", "a"]),
    "params": (lambda log: log.params(a=1), ["(new)", "log_run"]),
    "params_json": (lambda log: log.params(ext="json", a=2), ["(new)", "log_run"]),
    "meta": (lambda log: log.meta(a=1), ["(new)", "log_run"]),
}


class Syncs(list[str]):
    """The names of what was synced, in order; a file that is yet to be put in place is `(new)`."""

    def taken(self) -> list[str]:
        found = self[:]
        self.clear()
        return found


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    found = Syncs()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        found.append("(new)" if name.startswith(layout.TEMP_PREFIX) else name)

    monkeypatch.setattr(os, "fsync", note)
    return found


def draw(log: Logbook) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    log.plot("p", figure)


def test_process_syncs_nothing(base: Path, syncs: Syncs) -> None:
    with Logbook("run", base, durability="process", params={"a": 1}) as log:
        for verb, _ in VERBS.values():
            verb(log)
    with pytest.raises(ValueError, match="NaN"), Logbook("b", base, durability="process"):
        raise ValueError("NaN")
    for rank in (0, 1):
        log = open_as(rank, 2, base, "p", durability="process")
        log.array("T", np.ones(3))
        log.warning("hot")
        with pytest.raises(ValueError, match="NaN"), log:
            raise ValueError("NaN")
    exp = Experiment("s", base)
    for k in range(3):
        run = exp.add(durability="process", k=k)
        assert run is not None
        run.json("metrics", {f"m{k}": k})  # another column: the table is written anew
        run.mark_failed("two\nlines")
    for run in exp.sweep({"k": [7]}, durability="process"):
        run.mark_complete()
    assert len(exp.rows()) == 4
    assert syncs == []


def test_close_syncs_once_when_the_run_closes(base: Path, syncs: Syncs) -> None:
    log = Logbook("run", base, params={"a": 1})
    assert log.durability == "close"
    for verb, _ in VERBS.values():
        verb(log)
    draw(log)
    assert syncs == []
    log.mark_complete()
    # The metadata before they are put in place; the run's name in its folder, which is new, too.
    folders = ["log_run", "log_run", "runs", base.parent.name]
    files = ["(new)", "log.txt", "params.json"]
    assert Counter(syncs.taken()) == Counter(files + folders)
    with Logbook("again", base):
        pass
    assert Counter(syncs.taken()) == Counter(["(new)", "log.txt", "log_again", "runs"])


def test_close_syncs_the_row_of_the_table(base: Path, syncs: Syncs) -> None:
    exp = Experiment("s", base)
    found = []
    for k in range(2):
        run = exp.add(k=k)
        assert run is not None
        run.json("metrics", {"m": k})
        assert syncs == []
        run.mark_complete()
        found.append(Counter(syncs.taken()))
    run_files = Counter(["(new)", "log.txt", "params.yaml", "runs"])
    # The first makes the table and the folders above.
    table = ["s", *3 * ["index.csv"]]
    above = ["s", "runs", base.parent.name]
    assert found[0] == run_files + Counter(table + above + 2 * ["log_s_k_0"])
    assert found[1] == run_files + Counter(["index.csv", *2 * ["log_s_k_1"]])


def test_what_the_metadata_get_after_the_end_is_synced_as_they_were(
    base: Path, syncs: Syncs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "lock_doubt", lambda mount: "mounted with nolock")
    for durability, synced in (("process", False), ("close", True)):
        run = Experiment(durability, base).add(durability=durability)
        assert run is not None
        run.mark_complete()
        assert "lock" in LogReader(run.path).meta
        run.meta(after="the end")
        assert (syncs[-2:] == ["(new)", run.path.name]) == synced, syncs


@pytest.mark.parametrize("verb", VERBS)
def test_node_syncs_each_file_and_its_folder_before_the_call_returns(
    base: Path, syncs: Syncs, verb: str
) -> None:
    call, expected = VERBS[verb]
    log = Logbook("run", base, durability="node")
    syncs.clear()
    call(log)
    first = syncs.taken()  # folders that are new are synced in the one above, too
    assert Counter(first) >= Counter(expected), first
    assert bool(first) == bool(expected)
    call(log)
    assert syncs.taken() == expected
    log.mark_complete()


def test_node_syncs_that_a_file_went(base: Path, syncs: Syncs) -> None:
    log = Logbook("run", base, durability="node", params={"a": 1})
    syncs.clear()
    log.params(ext="json", a=2)
    assert syncs.taken() == ["(new)", "log_run", "log_run"]  # params.yaml is gone
    log.mark_complete()


def test_node_syncs_plots_and_names_of_new_folders(base: Path, syncs: Syncs) -> None:
    exp = Experiment("s", base)
    assert syncs == []
    run = exp.add(durability="node", k=1)
    assert run is not None
    above = {"s", "runs", base.parent.name}
    assert above | {"(new)", "log_s_k_1"} <= set(syncs.taken())
    draw(run)
    assert syncs.taken() == ["(new)", "plots"]
    run.text("a/b/t", "x")
    assert Counter(syncs.taken()) == Counter(["artifacts", "a", "(new)", "b"])
    run.mark_complete()
    assert "index.csv" in syncs.taken()
    for run in exp.sweep({"k": [2]}, durability="node"):
        assert syncs.taken()[:2] == ["(new)", "s"]  # the grid
        run.mark_complete()


def test_ranks_sync_their_own_files(base: Path, syncs: Syncs) -> None:
    log = open_as(1, 2, base)
    log.array("T", np.ones(3))
    log.info("x")
    assert syncs == []
    with log:
        pass
    files = ["log.txt", "rank.json", "rank_00001"]
    assert Counter(syncs.taken()) == Counter([*files, "ranks", "log_run", "runs", base.parent.name])
    log = open_as(1, 2, base, "n", durability="node")
    log.array("T", np.ones(3))
    first = syncs.taken()
    assert first[-5:] == ["(new)", "data", "rank_00001", "manifest.jsonl", "rank_00001"]
    assert {"ranks", "log_n", "runs", "rank_00001"} <= set(first)
    log.array("U", np.ones(3))
    assert syncs.taken() == ["(new)", "data", "manifest.jsonl"]
    for size in (3, 100_000):
        log.array("T", np.ones(size))  # what it gives way to is known before
        taken = syncs.taken()
        assert taken[-2:] == ["data", "manifest.jsonl"]
        assert sorted(taken[:-2]) == ["(new)", "manifest.jsonl"]
    log.warning("hot")
    assert syncs.taken()[-2:] == ["log.txt", "rank_00001"]
    log.warning("hot")
    assert syncs.taken() == ["log.txt"]
    log.mark_complete()


def test_a_signal_is_a_warning_that_is_synced(base: Path, syncs: Syncs) -> None:
    log = Logbook("run", base, durability="node", signals=())
    syncs.clear()
    session = log._session
    notices.Notices(session.folder, session.metadata, log._log, lambda: 1.0)._note(10, False)
    assert syncs.taken()[:2] == ["log.txt", "log_run"]
    log.mark_complete()


def test_the_variable_chooses_where_the_program_does_not(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTATA_DURABILITY", "node")
    assert Logbook("a", base).durability == "node"
    assert Logbook("b", base, durability="process").durability == "process"
    run = Experiment("s", base).add(k=1)
    assert run is not None
    assert run.durability == "node"
    monkeypatch.setenv("NOTATA_DURABILITY", "")
    assert Logbook("c", base).durability == "close"
    monkeypatch.setenv("NOTATA_DURABILITY", "always")
    with pytest.raises(SettingError, match=r"NOTATA_DURABILITY='always'.*process, close, node"):
        Logbook("d", base)
    assert not (base / "log_d").exists()


@pytest.mark.parametrize("given", ["always", "", "Node", True, 1])
def test_what_is_no_durability_is_refused(base: Path, given: object) -> None:
    with pytest.raises(ValueError, match="give one of 'process', 'close', 'node'"):
        disk.chosen(given)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"durability={given!r}"):
        Logbook("x", base, durability=given)  # type: ignore[arg-type]
    exp = Experiment("s", base)
    with pytest.raises(ValueError, match="durability="):
        exp.add(durability=given, k=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="durability="):
        exp.sweep({"k": [1]}, durability=given)  # type: ignore[arg-type]
    assert list(exp.runs_dir.iterdir()) == []
