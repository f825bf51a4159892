"""What files are called: every file name, run ids, and names kept inside a run.

No other module spells a file name of the format. The functions here make names and check names;
they touch no file.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from notata.errors import UnsafeNameError

FORMAT_VERSION = 1

LOG = "log.txt"
METADATA = "metadata.json"
PARAMS = {"yaml": "params.yaml", "json": "params.json"}
DATA, PLOTS, ARTIFACTS, RANKS = "data", "plots", "artifacts", "ranks"
MANIFEST = "manifest.jsonl"
RANK_RECORD = "rank.json"
RANK_FAILED = f"{RANKS}/failed.json"  # the first rank that failed, where no communicator tells it
STACKS = "stacks.txt"  # where a rank stood that gave no sign of life
MERGE_RECORD = "merge.json"
MERGE_LOCK = ".merge.lock"
_ATTEMPT = ".attempt-"
ARCHIVE = "ranks.zip"  # what a pruning left of the ranks' folders

INDEX = "index.csv"
INDEX_LOCK = ".index.csv.lock"
TURNS = ".turns"  # behind the name of a lock file
INDEX_BLOOM = ".index.csv.bloom"
SWEEP = "sweep.json"
RUNS = "runs"
RECONCILE_LOCK = ".reconcile.lock"
METRICS = "artifacts/metrics.json"

RUN_PREFIX = "log_"
TEMP_PREFIX = ".notata-"
SPEAKER = TEMP_PREFIX + "speaker"  # held by the rank that writes metadata.json in rank 0's place
STACKS_ASIDE = f"{TEMP_PREFIX}stacks"  # the same as stacks.txt, of ranks that can't run Python
STUCK = f"{RANKS}/{TEMP_PREFIX}stuck-"  # and the attempt: claims to look where all are stuck
PRUNED = f"{TEMP_PREFIX}pruned"  # the ranks' folders while a pruning deletes them
NAME_BYTES = 255  # the longest name that ext4, xfs, Lustre, GPFS and NFS take

_RANK_DIR = re.compile(r"rank_(\d{5,})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def run_dir(run_id: str) -> str:
    """Name of the folder of a run.

    Args:
        run_id: The id that the user chose.

    Returns:
        The folder's name, without a path.

    Raises:
        UnsafeNameError: If the id is empty, holds a path, or is longer than a file name can be.

    Example:
        >>> run_dir("oscillator")
        'log_oscillator'

    Ranks: independent.
    """
    name = RUN_PREFIX + run_id
    if not run_id:
        raise UnsafeNameError("the run id is empty; give the run a name")
    if "/" in run_id or _CONTROL.search(run_id):
        why = "it holds a slash or a control character; put the folder into base_dir"
        raise UnsafeNameError(f"run id {run_id!r} can't be a folder name: {why}")
    _check_length(name, f"run id {run_id[:40]!r}…")
    return name


def run_id_of(folder: str) -> str:
    """The run id that a folder's name stands for.

    Example:
        >>> run_id_of("log_catalog_1")
        'catalog_1'

    Ranks: independent.
    """
    return folder.removeprefix(RUN_PREFIX)


def rank_dir(rank: int) -> str:
    """Name of a rank's own folder, relative to the run.

    Example:
        >>> rank_dir(3)
        'ranks/rank_00003'

    Ranks: independent.
    """
    return f"{RANKS}/rank_{rank:05d}"


def inside_rank(file: str) -> tuple[int, str] | None:
    """The rank that a file of the run belongs to, and its name there; None if to none.

    Example:
        >>> inside_rank("ranks/rank_00003/data/T.npy")
        (3, 'data/T.npy')

    Ranks: independent.
    """
    ranks, _, rest = file.partition("/")
    folder, _, name = rest.partition("/")
    rank = rank_of(folder) if ranks == RANKS else None
    return None if rank is None or not name else (rank, name)


def rank_of(folder: str) -> int | None:
    """The rank that a folder under `ranks/` belongs to, or None for anything else.

    Ranks: independent.
    """
    match = _RANK_DIR.fullmatch(folder)
    return int(match[1]) if match else None


def attempt_file(number: int) -> str:
    """Name of the file that claims an attempt at a run; the first one has none.

    Example:
        >>> attempt_file(2)
        '.attempt-2'

    Ranks: independent.
    """
    return f"{_ATTEMPT}{number}"


def attempt_of(name: str) -> int | None:
    """The number of the attempt that a file claims, or None for any other file.

    Ranks: independent.
    """
    number = name.removeprefix(_ATTEMPT)
    return int(number) if number != name and number.isdecimal() else None


def is_hidden(name: str) -> bool:
    """Whether a file in a run's folder is there for notata alone, and is nothing of the run itself.

    Example:
        >>> [is_hidden(name) for name in (".attempt-2", "log.txt", ".merge.lock")]
        [True, False, True]

    Ranks: independent.
    """
    kept = name.startswith((TEMP_PREFIX, MERGE_LOCK))
    return kept or attempt_of(name) is not None


def inside(name: str, suffix: str = "") -> str:
    """Check the name of an array, plot or artifact, in its one spelling.

    Args:
        name: The name, with `/` between nested folders.
        suffix: What the writer appends to it, such as `.npy`.

    Returns:
        The name with its suffix: a relative path that stays inside the folder it is used in.

    Raises:
        UnsafeNameError: If it is absolute, climbs out with `..`, has an empty or too long part,
            or a control character.

    Example:
        >>> inside("states/T_step100", ".npy")
        'states/T_step100.npy'

    Ranks: independent.
    """
    if not isinstance(name, str):
        raise UnsafeNameError(f"a name must be a string, not {type(name).__name__}: {name!r}")
    if name.isidentifier() and (name + suffix).isascii() and len(name + suffix) <= NAME_BYTES:
        return name + suffix  # as most are
    if not name:
        raise UnsafeNameError("name '' is that of the folder: give one such as 'states/T_step100'")
    if _CONTROL.search(name):
        raise UnsafeNameError(f"name {name!r} holds a control character")
    if not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name):
        raise UnsafeNameError(f"name {name!r} holds a character that no file name can")
    parts = name.split("/")
    for part in parts:
        if part in ("", ".", ".."):
            how = "use a relative name without empty parts, '.' or '..', such as 'states/T_step100'"
            raise UnsafeNameError(f"name {name!r} would not stay inside the run: {how}")
        if part.startswith(TEMP_PREFIX):
            raise UnsafeNameError(f"name {name!r}: names that begin with {TEMP_PREFIX!r} are kept")
    for part in (*parts[:-1], parts[-1] + suffix):
        _check_length(part, f"name {name[:40]!r}…")
    return name + suffix


def data_file(name: str, key: str | None) -> str:
    """The file of an array, or of the bundle that holds it, relative to the run or to a rank.

    Example:
        >>> data_file("T", None), data_file("path", "x")
        ('data/T.npy', 'data/path.npz')

    Ranks: independent.
    """
    return f"{DATA}/{inside(name, '.npy' if key is None else '.npz')}"


def _check_length(part: str, what: str) -> None:
    try:
        size = len(os.fsencode(part))
    except UnicodeEncodeError:
        told = f"{ascii(what)[1:-1]} can't be the name of a file in this locale"
        raise UnsafeNameError(f"{told}; set LC_ALL=C.UTF-8, or PYTHONUTF8=1") from None
    if size > NAME_BYTES:
        raise UnsafeNameError(f"{what} is {size} bytes long; a file name can have {NAME_BYTES}")


def temporary() -> str:
    """A file name that no other process can choose.

    Ranks: independent.
    """
    return f"{TEMP_PREFIX}{os.urandom(8).hex()}.tmp"


MERGE_PREFIX = f"{TEMP_PREFIX}merge-"


def merge_temporary() -> str:
    """A file name for what a merge makes; the next merge takes it away if this one dies.

    Ranks: independent.
    """
    return f"{MERGE_PREFIX}{os.urandom(8).hex()}.tmp"


_ID_LENGTH = 150  # leaves room for prefix, hash and what people put around it
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")
_INT = re.compile(r"-?\d+")
_HASHED = re.compile(r".*-[0-9a-f]{12}")


def former_run_id(name: str, params: Mapping[str, object]) -> str:
    """The run id that notata 0.3.0 gave to a set of parameters, and to others.

    Example:
        >>> former_run_id("ball", {"dt": 0.0123456789, "kind": "a b"})
        'ball_dt_0.012346_kind_a_b'

    Ranks: independent.
    """
    words = (f"{key}_{_token(value)}" for key, value in sorted(params.items()))
    return f"{name}_{'_'.join(words)}".replace("/", "_").replace(" ", "_")


def experiment_run_id(
    name: str, params: Mapping[str, object], digest: Callable[[Any], str], *, taken: bool = False
) -> str:
    """The run id of a set of parameters: readable, and never that of another set.

    The id is `name_key_value_…` with sorted keys. Where that can't be read back as exactly these
    parameters (a float of more than five digits, a string with a blank or a slash, a nested value,
    a very long name), a short digest of the exact parameters is added.

    Args:
        name: Name of the experiment.
        params: The parameters, as plain values.
        digest: Makes a hexadecimal digest of them; called where it is needed.
        taken: Whether the id without a digest is another set's, by a rule that is not this one.

    Returns:
        An id that `run_dir` accepts.

    Example:
        >>> experiment_run_id("ball", {"dt": 0.01}, lambda params: "3f2a9c1b77")
        'ball_dt_0.01'
        >>> experiment_run_id("ball", {"dt": 0.0123456789}, lambda params: "3f2a9c1b77e0d4")
        'ball_dt_0.012346-3f2a9c1b77e0'

    Ranks: independent.
    """
    readable = "_".join(f"{key}_{_token(value)}" for key, value in sorted(params.items()))
    safe = _UNSAFE.sub("_", _ascii(readable))
    prefix = _UNSAFE.sub("_", _ascii(name)) if "/" in name else name
    exact = safe == readable and len(safe) <= _ID_LENGTH and _same(_parse(safe), params)
    exact = exact and not taken
    return f"{prefix}_{safe}" if exact else f"{prefix}_{safe[:_ID_LENGTH]}-{digest(params)[:12]}"


def _token(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _ascii(text: str) -> str:
    """Letters without their accents, so that an id has one spelling on every file system."""
    return unicodedata.normalize("NFKD", text)


def _parse(text: str) -> dict[str, object]:
    """Read a readable id back: words up to a number or True/False/None are a key and its value.

    Where no such value follows, the last word is the value. Whatever the rule, an id is used
    without a digest only by the one set of parameters that it is read back as.
    """
    found: dict[str, object] = {}
    words: list[str] = []
    tokens = text.split("_") if text else []
    for position, token in enumerate(tokens):
        value = _value(token)
        last = position == len(tokens) - 1
        if words and (last or not isinstance(value, str)):
            found["_".join(words)] = value
            words = []
        else:
            words.append(token)
    if words:
        return {"": text}  # a key without a value: not an id of ours
    return found


def _value(token: str) -> object:
    if token in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[token]
    if _INT.fullmatch(token) and len(token) < 30:
        return int(token)
    try:
        return float(token)
    except ValueError:
        return token


def _same(left: Mapping[str, object], right: Mapping[str, object]) -> bool:
    if left.keys() != right.keys():
        return False
    return all(
        left[key] == right[key]
        and isinstance(left[key], bool) == isinstance(right[key], bool)
        and not (isinstance(right[key], str) and _HASHED.fullmatch(str(right[key])))
        for key in left
    )
