"""What `notata merge` prints: sentences and tables, or one JSON document."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from notata import layout
from notata.cli.printing import cell, complain, json_text, new_table, show
from notata.phrases import printable, size_text
from notata.ranges import ranks_text

if TYPE_CHECKING:
    from notata.merging import Report, Row
    from notata.merging.artifacts import Metric


class Outcome(NamedTuple):
    """What became of a run.

    Attributes:
        run: Its folder.
        status: The exit status that it asks for.
        report: What a merge did, if one was done.
        note: What was found, if one was not done.
        rows: The lines of a plan.
        problems: What is wrong.
        holes: What is missing, though the merge would go on.
        hint: What to do about the problems.
        left_out: Why it was left out, if it was.
        named: Whether the problems name the run themselves.
    """

    run: str
    status: int
    report: Report | None = None
    note: str = ""
    rows: tuple[Row, ...] = ()
    problems: tuple[str, ...] = ()
    holes: tuple[str, ...] = ()
    hint: str = ""
    left_out: str = ""
    named: bool = False

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return self.report is not None and self.report.nothing_to_do and not self.report.holes

    def told(self) -> dict[str, Any]:
        """The same as plain values."""
        known: dict[str, Any] = {"run": self.run, "status": self.status}
        if self.report is not None:
            known |= {
                "note": self.report.note,
                "nothing_to_do": self.report.nothing_to_do,
                "outputs": [row._asdict() for row in self.report.rows],
                "holes": list(self.report.holes),
                "metrics": [metric._asdict() for metric in self.report.metrics],
                "pruned": self.report.pruned,
                "clock_correction": self.report.clock_correction,
            }
        else:
            known |= {
                "note": self.note or (f"left out: {self.left_out}" if self.left_out else ""),
                "outputs": [row._asdict() for row in self.rows],
                "holes": list(self.holes),
            }
        return known | {"problems": list(self.problems)}


class Shown:
    """Shows each outcome as it comes, or all of them at the end as JSON.

    Attributes:
        worst: The highest status so far.
    """

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.worst = 0
        self._silent, self._as_json = quiet or as_json, as_json
        self._idle = Counter[str]()
        self._runs: list[dict[str, Any]] = []
        self._tables: list[dict[str, Any]] = []

    def add(self, outcome: Outcome, *, many: bool = False) -> None:
        """Show what became of a run.

        Args:
            outcome: That.
            many: Whether it is one of many, of which those with nothing to do are only counted.
        """
        self.worst = max(self.worst, outcome.status)
        self._runs.append(outcome.told())
        if many and outcome.idle and outcome.report is not None:
            self._idle[outcome.report.note] += 1
        elif not self._silent:
            _show(outcome)
        for problem in _folded(outcome.problems):
            complain(problem if outcome.named else f"{outcome.run}: {problem}")
        if outcome.left_out:
            click.echo(f"notata: left out {printable(outcome.run)}: {outcome.left_out}", err=True)
        if outcome.hint:
            click.echo(f"notata: {outcome.hint}", err=True)

    def indexed(self, experiment: str, rows: int) -> None:
        """Say that a table was made again."""
        self._tables.append({"experiment": experiment, "rows": rows})
        self._say(f"{experiment}: index.csv made again, {rows} row{'' if rows == 1 else 's'}")

    def empty(self, experiment: str) -> None:
        """Say that an experiment has no runs."""
        self._say(f"{experiment}: no runs: nothing to merge")

    def end(self, named: str) -> None:
        """Say how many runs of a folder had nothing to do."""
        for note, count in self._idle.items():
            self._say(f"{named}: {count} run{'' if count == 1 else 's'}: {note}")
        self._idle.clear()

    def _say(self, text: str) -> None:
        if not self._silent:
            click.echo(printable(text))

    def finish(self) -> None:
        """Print the JSON document, if one was asked for."""
        if self._as_json:
            document = {"status": self.worst, "runs": self._runs, "tables": self._tables}
            click.echo(json_text(document))


_OF_A_RANK = re.compile(r"rank (\d+)\b")
_MANY = 8  # ranks of which the same is said line by line at most


def _folded(texts: Sequence[str]) -> list[str]:
    """What is said, the same of many ranks once: a job of thousands may have lost most of them."""
    same: dict[str, list[tuple[int, str]]] = {}  # of ranks, by what does not name them
    for text in texts:
        of = _OF_A_RANK.match(text)
        rank = int(of[1]) if of else -1
        key = text[of.end() :].replace(layout.rank_dir(rank), "") if of else text
        same.setdefault(key, []).append((rank, text))
    told = []
    for found in same.values():
        if len(found) <= _MANY or found[0][0] < 0:
            told += [text for _, text in found]
        else:
            others = ranks_text(rank for rank, _ in found[1:])
            told.append(f"{found[0][1]} (the same of {others})")
    return told


def _show(outcome: Outcome) -> None:
    report = outcome.report
    if report is None:
        if outcome.note:
            click.echo(f"{printable(outcome.run)}: {printable(outcome.note)}")
        if outcome.rows:
            _plan(outcome.rows)
        _holes(outcome.holes)
        return
    click.echo(f"{printable(report.run)}: {printable(report.note)}")
    joined = [row for row in report.rows if row.action == "joined"]
    if joined:
        table = new_table("name")
        for heading in ("pieces", "shape", "size"):
            table.add_column(heading, justify="right", overflow="fold")
        for row in joined:
            table.add_row(cell(row.name), str(row.pieces), _shape(row), size_text(row.bytes))
        show(table)
    _metrics(report.metrics)
    _holes(report.holes)


def _shape(row: Row) -> str:
    return "" if row.shape is None else " × ".join(map(str, row.shape)) or "one number"


def _plan(rows: Sequence[Row]) -> None:
    table = new_table("name")
    table.add_column("kind", no_wrap=True)
    table.add_column("ranks", overflow="fold")
    for heading in ("shape", "size"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("plan", no_wrap=True)
    for row in rows:
        size = size_text(row.bytes)
        table.add_row(cell(row.name), row.kind, _ranks(row), _shape(row), size, row.action)
    show(table, ("kind", "ranks"))


_SHORT = 24  # letters of ranks that stand in one line
_LONGEST = 100  # and that a cell names at most, over several lines


def _ranks(row: Row) -> str:
    """Which ranks, so that a cell folds between them; of very many the first, and how many."""
    if len(row.ranks) <= _SHORT:
        return row.ranks
    text = row.ranks.replace(",", ", ")
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST].rpartition(',')[0]}, … ({row.pieces} in all)"
    return text


def _metrics(metrics: Sequence[Metric]) -> None:
    if not metrics:
        return
    table = new_table("across ranks")
    for heading in ("ranks", "min", "mean", "max", "max/mean"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric in metrics:
        numbers = [f"{value:.4g}" for value in (metric.min, metric.mean, metric.max)]
        ratio = "-" if metric.imbalance is None else f"{metric.imbalance:.2f}"
        name = cell(f"{metric.name}: {metric.key}")
        table.add_row(name, str(metric.ranks), *numbers, ratio)
    show(table, ("min", "ranks"))


def _holes(holes: Sequence[str]) -> None:
    for hole in _folded(holes):
        click.echo(f"hole: {printable(hole)}")
