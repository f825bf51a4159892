"""`merge.json`: what was merged into what, so that it can be checked and need not be done again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
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
    files.replace_bytes(path, to_bytes(record), durable=True, temporary=temporary)


def to_bytes(record: MergeRecord) -> bytes:
    """A record as `merge.json` holds it: a line a file, so that `grep` finds one.

    Ranks: independent.
    """
    made_of = (made.inputs.items() for made in record.outputs.values())
    inputs = {name: _plain(stamp) for items in made_of for name, stamp in items}
    outputs = {
        file: {
            **_plain(made.itself),
            "kind": made.kind,
            "inputs": sorted(made.inputs),
            **({"left": sorted(made.left)} if made.left else {}),
        }
        for file, made in record.outputs.items()
    }
    told: dict[str, Any] = {
        "format": layout.FORMAT_VERSION,
        "notata": __version__,
        "inputs": inputs,
        "outputs": outputs,
        "holes": list(record.holes),
        "clocks": record.clocks,
        "listing": record.listing,
        "pending": sorted(record.pending),
    }
    if record.archive is not None:
        told["archive"] = _plain(record.archive)
    body = ",\n".join(f"{json.dumps(key)}: {_lines(value)}" for key, value in told.items())
    return f"{{\n{body}\n}}\n".encode()


def _lines(value: Any) -> str:
    if isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
        items = (f"  {json.dumps(k)}: {json.dumps(value[k])}" for k in sorted(value))
        return "{\n" + ",\n".join(items) + "\n}"
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        return "[\n" + ",\n".join(f"  {json.dumps(v)}" for v in value) + "\n]"
    return json.dumps(value)


def _plain(stamp: Stamp) -> dict[str, object]:
    return stamp._asdict()


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
