"""`merge.json`: what was merged into what, so that it can be checked and need not be done again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from notata import checksums, files, layout, mergerecord, messages
from notata.mergerecord import Fingerprint, Fingerprints, Made, MergeRecord, Stamp
from notata.version import __version__


def save(run: str, record: MergeRecord) -> None:
    """Write the record, and make sure that it is on disk.

    Ranks: root only.
    """
    path = os.path.join(run, layout.MERGE_RECORD)
    temporary = layout.merge_temporary()
    with files.replacing(path, durable=True, temporary=temporary) as file:
        file.writelines(lines_of(record))


def lines_of(record: MergeRecord) -> Iterator[bytes]:
    """A record as `merge.json` holds it: a line a file, so that `grep` finds one.

    Thousands of ranks make it long: it is never held as a whole.

    Ranks: independent.
    """
    inputs: dict[str, Stamp] = {}
    for made in record.outputs.values():
        inputs.update(made.inputs)
    told: dict[str, Any] = {
        "format": layout.FORMAT_VERSION,
        "notata": __version__,
        "inputs": inputs,
        "outputs": record.outputs,
        "holes": list(record.holes),
        "clocks": record.clocks,
        "listing": record.listing,
        "pending": sorted(record.pending),
    }
    if record.archive is not None:
        told["archive"] = record.archive._asdict()
    between = "{\n"
    for key, value in told.items():
        yield f"{between}{json.dumps(key)}: ".encode()
        between = ",\n"
        if value and key in ("inputs", "outputs", "holes"):
            yield from _a_line_each(value)
        else:
            yield json.dumps(value).encode()
    yield b"\n}\n"


def _a_line_each(value: Mapping[str, Any] | Sequence[Any]) -> Iterator[bytes]:
    """What `json.dumps` says of a value, with a line for each file or hole in it."""
    between, last = "{}" if isinstance(value, Mapping) else "[]"
    items: Iterable[str] = map(_plain, value)
    if isinstance(value, Mapping):
        items = (f"{json.dumps(name)}: {_plain(value[name])}" for name in sorted(value))
    for item in items:
        yield f"{between}\n  {item}".encode()
        between = ","
    yield f"\n{last}".encode()


def _plain(one: Any) -> str:
    if isinstance(one, Made):
        more = {"left": sorted(one.left)} if one.left else {}
        one = {**one.itself._asdict(), "kind": one.kind, "inputs": sorted(one.inputs), **more}
    return json.dumps(one._asdict() if isinstance(one, Stamp) else one)


def stamp_of(run: str, name: str, checksum: str | None = None) -> Stamp:
    """What a file is like now.

    Args:
        run: Folder of the run.
        name: The file, relative to it.
        checksum: Of what it holds, where that is known already.

    Raises:
        OSError: If there is none, or it can't be read.

    Ranks: independent.
    """
    path = os.path.join(run, name)
    status = os.stat(path)
    return Stamp(status.st_size, status.st_mtime_ns, checksum or checksums.of_file(path))


def own_log_bytes(run: str, record: MergeRecord) -> int:
    """Bytes of the run's log without what a merge put into it: what rank 0 wrote.

    Ranks: independent.
    """
    path = os.path.join(run, layout.LOG)
    made, now = record.outputs.get(layout.LOG), mergerecord.fingerprint(path)
    if made is None or now is None:
        return files.size_of(path)
    if is_same(run, layout.LOG, made.itself, now):
        return max(0, now[0] - sum(stamp.size for stamp in made.inputs.values()))
    # Not what the merge made: copied here again, or edited.
    with open(path, "rb") as lines:
        return sum(len(block.raw) for block in messages.blocks(lines) if not block.rank)


def is_fresh(run: str, file: str, inputs: Fingerprints, record: MergeRecord) -> bool:
    """Whether a merge made a file of these very inputs, and it is still as it was made.

    Where only the time of change differs, as after a copy, what the files hold decides.

    Ranks: independent.
    """
    made = record.outputs.get(file)
    itself = mergerecord.fingerprint(os.path.join(run, file))
    if made is None or itself is None or made.inputs.keys() != inputs.keys():
        return False
    pairs = [(name, made.inputs[name], print_) for name, print_ in inputs.items()]
    pairs.append((file, made.itself, itself))
    if any(stamp.size != print_[0] for _, stamp, print_ in pairs):
        return False
    return all(is_same(run, name, stamp, print_) for name, stamp, print_ in pairs)


def is_same(run: str, name: str, stamp: Stamp, now: Fingerprint) -> bool:
    """Whether a file holds what it held; it is read only if its time of change differs.

    Ranks: independent.
    """
    if stamp.fingerprint == now:
        return True
    path = os.path.join(run, name)
    return stamp.size == now[0] and stamp.checksum == checksums.of_file(path)


def as_made(run: str, record: MergeRecord) -> bool:
    """Whether all that was merged is as the merge left it, by sizes and times alone.

    What rank 0 wrote as the run's own is looked at, too; what lies in ranks' folders is not.

    Ranks: independent.
    """
    return not record.pending and all(
        mergerecord.fingerprint(os.path.join(run, file)) == made.itself.fingerprint
        and all(
            mergerecord.fingerprint(os.path.join(run, name)) == (stamp and stamp.fingerprint)
            for name, stamp in _roots_own(file, made).items()
        )
        for file, made in record.outputs.items()
    )


def _roots_own(file: str, made: Made) -> dict[str, Stamp | None]:
    """Rank 0's part in an output; None for one that was not there, and may be by now."""
    found: dict[str, Stamp | None] = {
        name: stamp for name, stamp in made.inputs.items() if layout.inside_rank(name) is None
    }
    if made.kind == "json":
        found.setdefault(f"{file.removesuffix('.ranks.json')}.json", None)
    return found


def renewed(run: str, made: Made, file: str) -> Made:
    """What was made, with the times of change that its files have now.

    Ranks: independent.
    """
    now = mergerecord.fingerprints(run, made.inputs)
    inputs = {
        name: stamp._replace(mtime_ns=now[name][1]) if name in now else stamp
        for name, stamp in made.inputs.items()
    }
    itself = stamp_of(run, file, made.itself.checksum)
    return made._replace(itself=itself, inputs=inputs)


def holes_allowed(record: MergeRecord, granted: Iterable[str]) -> bool:
    """Whether what was missing at the last merge may be missing now.

    Ranks: independent.
    """
    return all(_granted(hole, frozenset(granted)) for hole in record.holes)


def _granted(hole: Mapping[str, Any], granted: frozenset[str]) -> bool:
    excuses = hole.get("excuses")
    return isinstance(excuses, list) and bool(granted.intersection(excuses))
