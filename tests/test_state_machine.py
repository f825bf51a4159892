"""Any sequence of verbs, deaths, resumes, overwrites and merges, against a model in memory.

Processes are real, and so is what kills them. By default a few sequences, the same each time;
NOTATA_MACHINE=500 tries so many others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from obeying import Process, obedience

from notata import LogReader
from notata.errors import ArrayNotFoundError, HoleError, KeyNotFoundError, NotARunError
from notata.errors import RunNotFoundError as NoSuchRun

EXAMPLES = int(os.environ.get("NOTATA_MACHINE", "0"))
SETTINGS = settings(
    max_examples=EXAMPLES or 25,
    stateful_step_count=40,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate],
)
ABSENT = "absent"
Key = tuple[Any, ...]
NAMES = ["T", "a/T"]
LABELS = [*NAMES, "b:u", "b:w"]
ARTIFACTS = {
    "json": ("metrics.json", lambda data: json.loads(data)["v"]),
    "text": ("notes.txt", lambda data: _same(data.split(), 300)),
    "bytes": ("raw/x.bin", lambda data: _same(data.split(), 2000)),
}
# A line that was cut off before its text: readers show it below the message before, which is whole.
TORN = re.compile(r"\n\[[^\n]*$")
ENDS = ("complete", "failed")
# Where a process is killed, if it is: at which of its calls, and whether half way.
DEATHS = st.none() | st.tuples(st.integers(1, 6), st.booleans())
LATE_DEATHS = st.none() | st.tuples(st.integers(1, 80), st.booleans())


def _same(values: Any, count: int) -> int:
    assert len(values) == count, len(values)
    (value,) = set(values)
    return int(value)


def dying(death: tuple[int, bool] | None) -> dict[str, Any]:
    return {} if death is None else {"die_at": death[0], "torn": death[1]}


class Part:
    """A process that is a rank of a run, and what is known of it."""

    def __init__(self, process: Process, rank: int, size: int) -> None:
        self.process, self.rank, self.size = process, rank, size
        self.params: dict[str, Any] = {}
        self.open = True
        self.wrote = False  # whether it has a folder of its own
        self.newest = True  # whether it was of the newest launch until the last one


class Model:
    """What a run has to hold: of each thing, the values that it may have."""

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self.attempts, self.begun = 1, 0  # at it, and those that died over their beginning
        self.values: dict[Key, set[Any]] = {}
        self.lines: dict[int, list[str]] = {rank: [] for rank in range(size)}
        self.maybe: set[str] = set()  # lines that a process died over, or that came too late
        self.unsettled: set[Key] = set()  # what a process died over: a piece without its entry

    def put(self, key: Key, value: Any, *, sure: bool) -> None:
        self.values[key] = {value} if sure else self.values.get(key, {ABSENT}) | {value}
        (self.unsettled.discard if sure else self.unsettled.add)(key)


def seen(run: Path, size: int) -> dict[Key, Any]:
    """All that readers tell of a run."""
    reader = LogReader(run)
    meta = reader.meta
    told: dict[Key, Any] = {("status",): meta["status"], ("size",): reader.size}
    told["params",] = json.dumps(reader.params, sort_keys=True)
    told |= {("meta", field): meta.get(field, ABSENT) for field in "xy"}
    entries = meta.get("attempts", [{"status": meta["status"]}])
    told["attempts",] = [entry["status"] for entry in entries]
    told["arrays",] = reader.arrays
    for label in [*LABELS, "energy"]:
        told["whole", label] = _array(reader, label, None if size > 1 else 1)
    for rank in reader.ranks:
        number = rank.rank
        for label in LABELS:
            told["array", number, label] = _array(rank, label, 1)
        for verb, (file, read) in ARTIFACTS.items():
            data = rank._home.read(f"artifacts/{file}")
            told["artifact", number, verb] = ABSENT if data is None else read(data)
        told["lines", number] = [m.message for m in rank.messages()]
        told["record", number] = rank.record.get("status", ABSENT)
    told["all lines",] = sorted(m.message for m in reader.messages())
    return told


def _array(reader: Any, label: str, parts: int | None) -> Any:
    try:
        values = reader.load_array(label)
    except (ArrayNotFoundError, KeyNotFoundError):
        return ABSENT
    except HoleError:
        return "a hole"
    if label == "energy":
        return _same(values.tolist(), 3)
    found = values.reshape(-1, 2)
    assert np.array_equal(found[:, 0], found[:, 1]), found
    return int(found[0, 0]) if parts == 1 else tuple(found[:, 0].tolist())


class Machine(RuleBasedStateMachine):
    """Drives processes that write one run; subclassed with what starts them."""

    start: Callable[[], Process]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="notata-test-"))
        self.run = self.folder / "runs" / "log_run"
        self.model = Model()
        # "none", "there", "perhaps" (a process died over its beginning), or "wreck" (one died while
        # it took away the run before).
        self.state = "none"
        self.parts: list[Part] = []  # the newest launch's
        self.noted: bool | str = False  # whether one of its ranks noted that it failed, or perhaps
        self.stale: list[Part] = []  # processes of launches before it that live
        self.count = 0

    def teardown(self) -> None:
        self.end_all()
        shutil.rmtree(self.folder)

    def fresh(self) -> int:
        self.count += 1
        return self.count

    # ----- beginning -----

    @rule(
        how=st.sampled_from(["fresh", *["resume"] * 4, "overwrite"]),
        size=st.sampled_from([1, 1, 2, 3]),
        reverse=st.booleans(),
        params=st.dictionaries(st.sampled_from("pq"), st.integers(0, 9)),
        spare=st.booleans(),
        death=st.none() | st.tuples(st.integers(1, 30), st.booleans()),
        victim=st.integers(0, 2),
    )
    def launch(
        self,
        how: str,
        size: int,
        reverse: bool,
        params: dict[str, int],
        spare: bool,
        death: tuple[int, bool] | None,
        victim: int,
    ) -> None:
        if self.state == "wreck":
            how = "overwrite"
        if how == "resume" and self.state != "none":
            size = self.model.size if victim or self.state == "perhaps" else size
        refused = self.state == "there" and (
            how == "fresh" or (how == "resume" and (size != self.model.size or self.pruned()))
        )
        for part in self.stale:
            part.newest = False
        if how == "overwrite":  # a process would go on in the new run, by the names of its files
            self.end_all()
        elif not refused:
            self.leave_behind(spare)
        launch = f"launch-{self.fresh()}"
        ranks = range(size)[::-1] if reverse else range(size)
        began: list[Part] = []
        for rank in ranks:
            part = Part(type(self).start(), rank, size)
            environ = {"NOTATA_LAUNCH": launch, "NOTATA_RANK": f"{rank}", "NOTATA_SIZE": f"{size}"}
            answer = part.process.tell(
                "open",
                base=os.fspath(self.run.parent),
                environ=environ if size > 1 else {},
                options={"params": params} | ({} if how == "fresh" else {how: True}),
                **dying(death if rank == victim % size else None),
            )
            if answer is None:
                self.died_over_beginning(how, size, params, refused, began)
                return
            if refused or (self.state == "perhaps" and how == "fresh" and answer["raised"]):
                why = "NotResumableError" if how == "resume" else "RunExistsError"
                assert answer["raised"] == why, answer
                part.process.kill()
                continue
            assert answer["raised"] is None, answer
            part.params = answer["params"]
            began.append(part)
        if len(began) == size:
            self.began(how, size, params, began)
        else:
            for part in began:
                part.process.kill()

    def pruned(self) -> bool:
        return (self.run / "ranks.zip").exists()

    def end_all(self) -> None:
        for part in [*self.parts, *self.stale]:
            part.process.kill()
        self.parts, self.stale = [], []

    def leave_behind(self, spare: bool) -> None:
        for part in self.parts:
            if spare:
                self.stale.append(part)
            else:
                part.process.kill()
        self.parts = []

    def died_over_beginning(
        self, how: str, size: int, params: dict[str, int], refused: bool, began: list[Part]
    ) -> None:
        for part in began:
            part.process.kill()
        if refused:
            return
        for part in [part for part in self.stale if part.newest]:
            self.stale.remove(part)  # whether it is outdated by now, nobody knows
            part.process.kill()
        if how == "overwrite" and self.state != "none":
            self.state = "wreck"
            return
        if self.state == "none":
            self.state, self.model = "perhaps", Model(size)
            self.model.values["params",] = {"{}"}
        model = self.model
        model.begun += 1
        model.put(("status",), "initialized", sure=False)
        for saved in list(model.values["params",]):
            model.put(("params",), self.joined(saved, params), sure=False)
        self.forget_records()

    @staticmethod
    def joined(saved: str, given: dict[str, Any]) -> str:
        return json.dumps(json.loads(saved) | given, sort_keys=True)

    def forget_records(self) -> None:
        for key in [key for key in self.model.values if key[0] == "record"]:
            del self.model.values[key]

    def began(self, how: str, size: int, params: dict[str, int], parts: list[Part]) -> None:
        self.parts, self.noted = sorted(parts, key=lambda part: part.rank), False
        root = self.parts[0]
        if how == "overwrite" or self.state == "none":
            self.model = Model(size)
            self.model.values["params",] = {"{}"}
        elif self.state == "there":
            self.model.attempts += 1
        told = json.dumps(root.params, sort_keys=True)
        assert told in {self.joined(saved, params) for saved in self.model.values["params",]}
        self.model.put(("params",), told, sure=True)
        self.model.put(("status",), "initialized", sure=True)
        self.forget_records()
        self.state = "there"

    # ----- verbs -----

    @precondition(lambda self: self.parts)
    @rule(
        who=st.integers(0, 2),
        verb=st.sampled_from(
            [
                *["line", "array"] * 3,
                *["arrays", "json", "text", "bytes", "whole", "params", "meta"],
            ]
        ),
        name=st.sampled_from(NAMES),
        keys=st.sampled_from(["u", "uw"]),
        level=st.sampled_from([20, 30]),
        more=st.sampled_from(["", "\nmore", "\n[2020-01-01T00:00:00] INFO no record", " é\x00"]),
        death=DEATHS,
    )
    def verb(
        self,
        who: int,
        verb: str,
        name: str,
        keys: str,
        level: int,
        more: str,
        death: tuple[int, bool] | None,
    ) -> None:
        part = self.parts[who % len(self.parts)]
        if verb in ("whole", "params", "meta"):
            part = self.parts[0]
            if part.rank:
                return
        order, effects = self.order(part, verb, name, keys, level, more)
        if death is not None and verb == "line":
            death = 1, death[1]  # it is one call
        answer = part.process.tell(verb, **order, **dying(death))
        sure = answer is not None
        if sure:
            assert answer["raised"] is None, answer
            part.wrote |= part.size > 1 and (part.rank > 0 or verb in ("array", "arrays"))
        else:
            self.parts.remove(part)
        if verb == "line":
            (self.model.lines[part.rank].append if sure else self.model.maybe.add)(order["text"])
        for key, value in effects.items():
            self.model.put(key, value, sure=sure)

    def order(
        self, part: Part, verb: str, name: str, keys: str, level: int, more: str
    ) -> tuple[dict[str, Any], dict[Key, Any]]:
        """What to tell a process, and what follows from it."""
        v, rank = self.fresh(), part.rank
        if verb == "line":
            return {"text": f"said {v}.{more}", "level": level}, {}
        if verb == "array":
            return {"name": name, "v": v}, {("array", rank, name): v}
        if verb == "arrays":
            effects = {("array", rank, f"b:{key}"): v if key in keys else ABSENT for key in "uw"}
            return {"keys": keys, "v": v}, effects
        if verb == "whole":
            return {"v": v}, {("whole", "energy"): v}
        if verb == "params":
            part.params = part.params | {"p": v}
            text = json.dumps(part.params, sort_keys=True)
            return {"params": {"p": v}}, {("params",): text}
        if verb == "meta":
            field = "x" if v % 2 else "y"
            return {"field": field, "v": v}, {("meta", field): v}
        return {"v": v}, {("artifact", rank, verb): v}

    @precondition(lambda self: self.parts)
    @rule(who=st.integers(0, 2), end=st.sampled_from(["complete", "failed"]), death=DEATHS)
    def close(self, who: int, end: str, death: tuple[int, bool] | None) -> None:
        part = self.parts[who % len(self.parts)]
        answer = part.process.tell(end, reason="it diverged", **dying(death))
        if part.wrote and part.open and answer is not None:
            self.model.put(("record", part.rank), end, sure=True)
        if part.open and end == "failed":
            self.note_failure(part, sure=answer is not None)
        part.open = False
        if answer is None:
            self.parts.remove(part)
        else:
            assert answer["raised"] is None, answer
        if part.rank == 0:
            if end == "complete" and self.noted is not False:  # it takes all ranks
                self.model.put(("status",), "failed", sure=answer is not None)
            if end == "failed" or self.noted is not True:
                sure = answer is not None and (end == "failed" or self.noted is False)
                self.model.put(("status",), end, sure=sure)

    def note_failure(self, part: Part, *, sure: bool) -> None:
        """A rank that is not rank 0 leaves a note for it, and puts right what it has said."""
        if part.rank == 0:
            return
        self.noted = sure or self.noted or "perhaps"
        known = self.model.values["status",]
        told = {"failed" if value == "complete" else value for value in known}
        self.model.values["status",] = told if sure else known | told

    @precondition(lambda self: self.parts)
    @rule(who=st.integers(0, 2), how=st.sampled_from(["kill", "exit"]))
    def end(self, who: int, how: str) -> None:
        part = self.parts.pop(who % len(self.parts))
        if how == "kill":
            part.process.kill()
            return
        part.process.exit()
        if part.rank == 0 and part.open:
            self.model.put(("status",), "failed", sure=True)
        elif part.open:
            self.note_failure(part, sure=True)

    # ----- processes whose run is another's now -----

    @precondition(lambda self: self.stale)
    @rule(
        who=st.integers(0, 5),
        verb=st.sampled_from(["array", "arrays", "json", "line", "params", "meta", *ENDS, "exit"]),
    )
    def stale_verb(self, who: int, verb: str) -> None:
        part = self.stale[who % len(self.stale)]
        if verb == "exit":
            self.stale.remove(part)
            part.process.exit()
            return
        order, _ = self.order(part, verb, "T", "u", 20, "") if verb not in ENDS else ({}, {})
        answer = part.process.tell(verb, reason="too old", **order)
        assert answer is not None
        if verb in ("array", "arrays", "json"):
            assert answer["raised"] == "OutdatedError", answer
        else:
            assert answer["raised"] is None, answer
        if verb == "line":  # it looks every ten seconds
            self.model.maybe.add(order["text"])

    # ----- merging -----

    @precondition(lambda self: self.state == "there")
    @rule(prune=st.booleans(), death=LATE_DEATHS)
    def merge(self, prune: bool, death: tuple[int, bool] | None) -> None:
        if any(part.open for part in self.parts):
            return
        if prune:
            self.end_all()
        before = seen(self.run, self.model.size)
        process = type(self).start()
        answer = process.tell("merge", run=os.fspath(self.run), prune=prune, **dying(death))
        if answer is not None:
            process.kill()
            assert answer["raised"] in (None, "MergeError"), answer
        assert seen(self.run, self.model.size) == before

    # ----- what has to hold -----

    @invariant()
    def readers_say_what_was_said(self) -> None:
        if self.state in ("perhaps", "wreck"):
            try:
                told = seen(self.run, self.model.size)
            except (NoSuchRun, NotARunError):
                return
            if self.state == "wreck":
                return
        elif self.state == "none":
            assert not self.run.exists()
            return
        else:
            told = seen(self.run, self.model.size)
        model = self.model
        assert told["size",] == model.size
        attempts = told["attempts",]
        assert model.attempts <= len(attempts) <= model.attempts + model.begun, attempts
        assert attempts[-1] == told["status",]
        began = [text for text in told["lines", 0] if text.startswith("Logbook ")]
        assert len(began) >= model.attempts or self.state == "perhaps", began
        found = {key: value for key, value in told.items() if key in model.values}
        wrong = {k: (v, model.values[k]) for k, v in found.items() if v not in model.values[k]}
        assert not wrong, wrong
        model.values |= {key: {value} for key, value in found.items()}
        for rank, expected in model.lines.items():
            texts = [text for text in told["lines", rank] if text.startswith("said")]
            texts = [text if text in expected else TORN.sub("", text) for text in texts]
            others = [text for text in texts if text not in expected]
            assert [text for text in texts if text in expected] == expected, (rank, texts)
            for text in others:
                cut = re.sub("[ \n\ufffd\udcc3]*$", "", text)  # within an indent, or a letter
                assert any(maybe.startswith(cut) for maybe in model.maybe), (rank, text)
        if model.size > 1:
            self.check_wholes(told)

    def check_wholes(self, told: dict[Key, Any]) -> None:
        for label in LABELS:
            parts = [told["array", rank, label] for rank in range(self.model.size)]
            whole = told["whole", label]
            if self.model.unsettled & {("array", n, label) for n in range(self.model.size)}:
                assert whole in (ABSENT, "a hole", tuple(parts)), (label, whole, parts)
                continue
            if all(part == ABSENT for part in parts):
                assert whole == ABSENT, (label, whole)
            elif ABSENT in parts:
                assert whole == "a hole", (label, whole, parts)
            else:
                assert whole == tuple(parts), (label, whole, parts)


@pytest.mark.slow
@pytest.mark.timeout(36000 if EXAMPLES else 300)
def test_whatever_happens_nothing_is_lost(tmp_path: Path) -> None:
    with obedience(tmp_path) as start:

        class Here(Machine):
            pass

        Here.start = staticmethod(start)
        run_state_machine_as_test(Here, settings=SETTINGS)
