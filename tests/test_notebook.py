"""What a notebook shows: small tables in which every value is text and nothing else."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from calling import HOSTILE, OBEYED, run_of
from hypothesis import given
from hypothesis import strategies as st
from simulated import open_as

from notata import Experiment, ExperimentReader, Logbook, LogReader, markup, merge
from notata.phrases import printable

OURS = {"table", "caption", "tr", "th", "td", "b", "span", "br"}


class Parsed(HTMLParser):
    """All text of a page, and its tags, which must be ours and be closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in OURS
        assert all(name == "style" for name, _ in attrs)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        pytest.fail(f"a comment: {data}")


def shown(thing: object) -> list[str]:
    page = thing._repr_html_()  # type: ignore[attr-defined]
    for character in OBEYED:
        assert character not in page
    return Parsed(page).texts


def work(log: Logbook) -> None:
    log.array("T", np.zeros((2, 3)), start=(2 * log.rank, 0), shape=(2 * log.size, 3))
    log.root.text("notes", "x")


def test_a_logbook(base: Path) -> None:
    log = Logbook("x", base, params={"omega": 2.0})
    assert shown(log) == [
        *("Logbook ", "x", " initialized", "path", str(base / "log_x")),
        *("parameters", "omega = 2.0"),
    ]
    log.mark_complete()
    assert "complete" in shown(log)


def test_a_rank(base: Path) -> None:
    log = open_as(1, 2, base)
    assert shown(log)[-2:] == ["rank", "1 of 2"]
    assert not (base / "log_run" / "ranks").exists()  # looking leaves nothing


@pytest.mark.parametrize("merged", [False, True])
def test_a_run(base: Path, merged: bool) -> None:
    run = run_of(3, base, work, params={"kappa": 0.1, "name": "a<b"})
    if merged:
        merge(run, prune=True)
    assert shown(LogReader(run)) == [
        *("LogReader ", "heat", " ", "complete", "path", str(run)),
        *("parameters", "kappa = 0.1", "name = 'a<b'", "ranks", "3"),
        *("arrays", "T: 6 × 3 float64", "artifacts", "notes.txt"),
    ]


def test_an_experiment(base: Path) -> None:
    exp = Experiment("sweep", base)
    for omega in (1, 2):
        log = exp.add(omega=omega)
        assert log is not None
        log.mark_complete() if omega == 1 else log.mark_failed("NaN")
    assert shown(ExperimentReader(base / "sweep")) == [
        *("ExperimentReader ", "sweep", " 2 runs", "run", "status", "omega"),
        *("sweep_omega_1", "complete", "1", "sweep_omega_2", "failed", "2"),
    ]


def test_a_parameter_does_not_stand_for_the_status(base: Path) -> None:
    log = Experiment("sweep", base).add(run=4, status="ok")
    assert log is not None
    log.mark_failed("NaN")
    told = shown(ExperimentReader(base / "sweep"))
    assert told[3:7] == ["run", "status", "params.run", "params.status"]
    assert told[8:] == ["failed", "4", "ok"]


def test_many_are_counted(base: Path) -> None:
    exp = Experiment("sweep", base)
    for k in range(23):
        log = exp.add(k=k)
        assert log is not None
        log.mark_complete()
    with Logbook("x", base, params={f"p{k}": k for k in range(50)}):
        pass
    assert "… and 3 more" in shown(ExperimentReader(base / "sweep"))
    assert "… and 30 more" in shown(LogReader(base / "log_x"))


def test_hostile_values_are_text(base: Path) -> None:
    name = HOSTILE.replace("/", "|").translate({7: None, 27: None})
    exp = Experiment("sweep", base)
    log = exp.add(**{HOSTILE: HOSTILE, "</td>": "<!-- -->"})
    assert log is not None
    log.array("<img src=x onerror=alert(1)>", [1])
    log.text("&lt;b&gt; '\"", "x")
    assert any(printable(HOSTILE)[:20] in text for text in shown(log))
    log.mark_complete()
    folder = log.path.rename(log.path.parent / f"log_{name}")
    metadata = folder / "metadata.json"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"status": HOSTILE}))
    texts = shown(LogReader(folder))
    assert "<img src=x onerror=alert(1)>: 1 int64" in texts
    assert "&lt;b&gt; '\".txt" in texts
    texts = shown(ExperimentReader(base / "sweep"))
    assert "<!-- -->" in texts
    assert printable(HOSTILE) in texts


@given(st.text(), st.text(), st.text())
def test_any_text_is_text(one: str, two: str, three: str) -> None:
    page = markup.card(one, two, three, {one: [two, three], two: three})
    said = "".join(Parsed(page).texts)
    for text in (one, two, three):
        told = printable(text)
        assert (told if len(told) <= markup.LONGEST else told[: markup.LONGEST - 1]) in said
    Parsed(markup.grid(one, two, [{one: two}, {"status": three}], 2))


def test_damaged_runs_are_shown(base: Path) -> None:
    run = run_of(2, base, work)
    (run / "params.yaml").write_text("[")
    (run / "ranks" / "rank_00001" / "manifest.jsonl").write_text('{"a": 1}\n')
    assert any("manifest.jsonl, line 1" in text for text in shown(LogReader(run)))
    (run / "metadata.json").write_text("{")
    texts = shown(LogReader(run))
    assert "damaged" in texts
    assert any("params.yaml is damaged" in text for text in texts)


def test_a_run_that_is_open_right_now(base: Path) -> None:
    log = Logbook("x", base)
    assert " running" in shown(LogReader(log.path))
    log.mark_complete()
