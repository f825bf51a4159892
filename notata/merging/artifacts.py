"""JSON that several ranks wrote under one name: one document keyed by rank, and a table of numbers.

`artifacts/metrics.json` of the run is rank 0's own and stays. The document of all ranks stands
beside it as `metrics.ranks.json`, the table, of the keys whose values are numbers, as
`metrics.ranks.csv`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from notata import files, folders, layout
from notata.asleft import Left
from notata.errors import DamagedError
from notata.mergerecord import Fingerprints, MergeRecord, fingerprint
from notata.merging import record
from notata.merging.output import MISSING, Output, Problem
from notata.merging.survey import Survey
from notata.ranges import ranks_text

_JSON = ".json"


class Gathered(NamedTuple):
    """The outputs of one name, what is wrong with what they are made of, and what else is odd."""

    outputs: tuple[Output, ...]
    problems: tuple[Problem, ...]
    note: str = ""


def gathered(found: Survey, merged: MergeRecord) -> Iterator[Gathered]:
    """What is to be made of the JSON that several ranks wrote under one name.

    Args:
        found: What the ranks left.
        merged: What an earlier merge made.

    Ranks: independent.
    """
    own = f"{layout.ARTIFACTS}/"
    names: dict[str, dict[int, str]] = {}
    for file in found.files:
        place = layout.inside_rank(file)
        named = place and place[1].startswith(own) and folders.is_json(os.path.basename(file))
        if place and place[0] and named:
            names.setdefault(place[1], {})[place[0]] = file
    for name, ranked in sorted(names.items()):
        if (root := fingerprint(os.path.join(found.run, name))) is not None:
            ranked = {0: name, **ranked}
        if len(ranked) > 1:
            inputs: Fingerprints = {
                file: found.files[file] if rank else root or (0, 0) for rank, file in ranked.items()
            }
            yield _of(found, name, ranked, inputs, merged)


def _of(
    found: Survey, name: str, ranked: Mapping[int, str], inputs: Fingerprints, merged: MergeRecord
) -> Gathered:
    run = found.run
    stem = name.removesuffix(_JSON)
    document, table = f"{stem}.ranks.json", f"{stem}.ranks.csv"
    made = merged.outputs.get(document)
    left = made.left if made else frozenset[str]()
    ranks = tuple(ranked)
    if made and not left and record.is_fresh(run, document, inputs, merged):
        outputs = [Output(document, (), inputs, True, {}, "json", left, ranks)]
        if table not in merged.outputs:
            return Gathered(tuple(outputs), ())
        if record.is_fresh(run, table, inputs, merged):
            outputs.append(Output(table, (), inputs, True, {}, "table", left, ranks))
            return Gathered(tuple(outputs), ())
    note = _edited(found, name) if 0 in ranked else ""
    bad, sizes, others = _read_all(found, ranked, edited=bool(note))
    if len(bad) == len(ranked):
        note = f"{name} of {ranks_text(ranks)} is no JSON, whatever its name says, and stays there"
        return Gathered((), (), note)
    problems = tuple(
        Problem(f"rank {rank}'s {text}", MISSING, (rank,), name) for rank, text in bad.items()
    )
    left = frozenset(ranked[rank] for rank in bad)
    outputs = [Output(document, (), inputs, False, {}, "json", left, ranks, sizes[0])]
    if sizes[1]:
        note = "; ".join(filter(None, [note, _left_out(document, table, others)]))
        outputs.append(Output(table, (), inputs, False, {}, "table", left, ranks, sizes[1]))
    outputs = [
        out._replace(
            fresh=record.is_fresh(run, out.file, inputs, merged)
            and merged.outputs[out.file].left == left
        )
        for out in outputs
    ]
    return Gathered(tuple(outputs), problems, note)


def _edited(found: Survey, name: str) -> str:
    """What is to be said of JSON of the run that was written anew once rank 0 had closed it.

    It is the run's own: people correct it, and programs add to it. Who does leaves another time
    of change, which damage on a disk does not.
    """
    left, now = found.left.get(name), fingerprint(os.path.join(found.run, name))
    if left is None or left.mtime_ns is None or now is None or now[1] == left.mtime_ns:
        return ""
    try:
        load(found.run, name)
    except DamagedError:
        return ""
    if left.is_in(files.read_bytes(os.path.join(found.run, name)) or b""):
        return ""
    return f"{name} of rank 0 was changed after the end of the run, and is joined as it is now"


def _read_all(
    found: Survey, ranked: Mapping[int, str], *, edited: bool
) -> tuple[dict[int, str], tuple[int, int], list[str]]:
    """The ranks whose files can't be used, with why; the bytes of document and table; other keys.

    There is no table where no rank has a number.
    """
    bad: dict[int, str] = {}
    rows: dict[int, Mapping[str, float]] = {}
    others: dict[str, None] = {}
    size = len(END)
    for rank, file in ranked.items():
        try:
            left = None if edited and rank == 0 else found.left.get(file)
            text, value = load(found.run, file, left)
        except DamagedError as error:
            bad[rank] = str(error)
            continue
        size += len(entry(rank, text, first=False))
        rows[rank] = numbers_of(value)
        others |= dict.fromkeys(value.keys() - rows[rank].keys() if isinstance(value, dict) else ())
    return bad, (size, len(table_bytes(rows)) if any(rows.values()) else 0), sorted(others)


_NAMED = 5  # keys that are named at most


def _left_out(document: str, table: str, keys: Sequence[str]) -> str:
    """What is to be said of values that a table has no place for."""
    if not keys:
        return ""
    named = ", ".join(map(repr, keys[:_NAMED]))
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"{table} has numbers alone: values of {named}{more} that are none are in {document}"


END = b"\n}\n"  # of a document


def entry(rank: int, text: str, *, first: bool) -> bytes:
    """What a document has of one rank: its own text, as it was written.

    Ranks: independent.
    """
    return f'{"{" if first else ","}\n"{rank}": {text}'.encode("utf-8", "surrogatepass")


def table_bytes(rows: Mapping[int, Mapping[str, float]]) -> bytes:
    """The table of some metrics.

    Args:
        rows: What each rank measured.

    Example:
        >>> table_bytes({0: {"solve": 1.5}, 3: {"solve": 2}}).split()
        [b'rank,solve', b'0,1.5', b'3,2']

    Ranks: independent.
    """
    keys = keys_of(rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", *(f"metrics.{key}" if key == "rank" else key for key in keys)])
    for rank, row in rows.items():
        writer.writerow([rank, *(row.get(key, "") for key in keys)])
    return text.getvalue().encode("utf-8", "surrogatepass")


def load(run: str, file: str, left: Left | None = None) -> tuple[str, Any]:
    """The text of a JSON file, and its value.

    Args:
        run: Folder of the run.
        file: The file, relative to it.
        left: What its rank noted of it.

    Raises:
        DamagedError: If it holds no JSON, is gone, or is not as its rank left it.

    Ranks: independent.
    """
    path = os.path.join(run, file)
    try:
        data = files.read_bytes(path) or b""
        text = data.decode(json.detect_encoding(data), "surrogatepass")
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from None
    if left is not None and not left.is_in(data):
        raise DamagedError(f"{path} is damaged: it is not as that rank left it")
    return text.strip(), value


def numbers_of(value: Any) -> dict[str, float]:
    """What of a value has a place in a table: the numbers of an object, but for those deeper in it.

    Example:
        >>> numbers_of({"solve": 1.5, "s": "cg", "ok": True, "io": {"read": 2}})
        {'solve': 1.5}

    Ranks: independent.
    """
    found = value.items() if isinstance(value, dict) else ()
    return {key: one for key, one in found if _is_number(one)}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Metric(NamedTuple):
    """One number across ranks.

    Attributes:
        name: Name of the artifact.
        key: Name of the number.
        ranks: How many ranks have it.
        min: The least.
        mean: The mean.
        max: The largest.
        imbalance: The largest over the mean, or None where the mean is not above zero.
    """

    name: str
    key: str
    ranks: int
    min: float
    mean: float
    max: float
    imbalance: float | None


def summed_up(name: str, rows: Mapping[int, Mapping[str, float]]) -> list[Metric]:
    """Each number of some metrics across ranks.

    Args:
        name: Name of the metrics.
        rows: What each rank measured.

    Example:
        >>> summed_up("times", {0: {"solve": 1.0}, 1: {"solve": 3.0}})[0].imbalance
        1.5

    Ranks: independent.
    """
    found = []
    for key in keys_of(rows):
        values = [_float(row[key]) for row in rows.values() if key in row]
        mean = _mean(values) if all(map(math.isfinite, values)) else math.nan
        largest = max(values) if mean == mean else math.nan
        least = min(values) if mean == mean else math.nan
        ratio = largest / mean if mean > 0 else None
        found.append(Metric(name, key, len(values), least, mean, largest, ratio))
    return found


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON's whole numbers have no limit
        return math.inf if value > 0 else -math.inf


def _mean(values: Sequence[float]) -> float:
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        from fractions import Fraction

        return float(sum(map(Fraction, values)) / len(values))


def keys_of(rows: Mapping[int, Mapping[str, float]]) -> Sequence[str]:
    """The names of all numbers, in the order in which ranks wrote them first.

    Ranks: independent.
    """
    return list(dict.fromkeys(key for row in rows.values() for key in row))
