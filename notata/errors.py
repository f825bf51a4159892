"""What can go wrong.

Every error of this package is a `NotataError` and, besides, the builtin exception that a caller
would expect (and that notata 0.3.0 raises)::

    NotataError
    ├── RunExistsError          FileExistsError     the run id is taken
    │   └── NotResumableError                       the run can't be gone on with
    ├── RunNotFoundError        FileNotFoundError   no such folder
    ├── NotARunError            ValueError          a folder, but not of a run
    ├── UnsafeNameError         ValueError          a name that leaves its run, or that no file has
    ├── UnsupportedValueError   TypeError           a value that plain files can't hold
    ├── PieceError              ValueError          a piece and its place don't fit
    ├── ArrayNotFoundError      FileNotFoundError   no array of this name
    ├── KeyNotFoundError        KeyError            no such key, no such run
    ├── DamagedError            ValueError          a file that isn't what it says
    ├── HoleError               ValueError          pieces that don't make a whole
    ├── MergeError              ValueError          a run that can't be merged; lists every problem
    ├── OutdatedError           RuntimeError        a newer attempt goes on in this run
    ├── LockTimeoutError        TimeoutError        a lock wasn't to be had in time
    ├── RanksMissingError       TimeoutError        some ranks didn't come to open or close a run
    ├── RanksDisagreeError      ValueError          the ranks opened different runs
    ├── NoCommunicatorError     RuntimeError        ranks can't be asked, and would have to be
    ├── LauncherMismatchError   RuntimeError        N programs of one rank instead of one of N
    ├── QueryError              ValueError          a condition on runs that makes no sense
    ├── DrawingError            ValueError          what can't be drawn
    ├── ExportError             ValueError          what can't be written into another format
    ├── SettingError            ValueError          a variable NOTATA_… that makes no sense
    └── RankFailed              RuntimeError        another rank of this run failed
"""

from __future__ import annotations

import builtins
import errno
from collections.abc import Iterable, Sequence
from typing import cast

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, or a limit that is as good


class NotataError(Exception):
    """Base of every error that notata raises by itself."""


class RunExistsError(NotataError, FileExistsError):
    """The folder of this run id exists already."""


class NotResumableError(RunExistsError):
    """The run can't be gone on with: it has another number of ranks, or was pruned."""


class RunNotFoundError(NotataError, FileNotFoundError):
    """There is no such run or experiment folder."""


class NotARunError(NotataError, ValueError):
    """The folder exists, but no run was written there."""


class UnsafeNameError(NotataError, ValueError):
    """A name, run id or path that would leave its run, or that no file system takes."""


class UnsupportedValueError(NotataError, TypeError):
    """A value that plain YAML, JSON or `.npy` can't hold; the message names its key."""


class PieceError(NotataError, ValueError):
    """A piece whose start, shape, halo or join don't fit together."""


class ArrayNotFoundError(NotataError, FileNotFoundError):
    """No array of this name was written."""


class KeyNotFoundError(NotataError, KeyError):
    """No such key in a bundle, or no such run in an experiment."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which would put the sentence in quotes.
        return str(self.args[0]) if self.args else ""


class DamagedError(NotataError, ValueError):
    """A file is cut off, or does not hold what its name or manifest says."""


class HoleError(NotataError, ValueError):
    """The pieces that are there don't cover what was asked for."""


class MergeError(NotataError, ValueError):
    """A run that can't be merged as it is; nothing was written.

    Attributes:
        problems: One sentence for each thing that is wrong, with ranks and names.
        ways_out: Options of `notata merge` with which it would go on; none if nothing helps.
    """

    def __init__(
        self, message: str, problems: Sequence[str] = (), ways_out: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.problems, self.ways_out = list(problems), list(ways_out)


class OutdatedError(NotataError, RuntimeError):
    """A newer attempt goes on in this run, so that this process may not write there any more."""


class LockTimeoutError(NotataError, TimeoutError):
    """A lock was not to be had within the time limit."""


class RanksMissingError(NotataError, TimeoutError):
    """Some ranks of the communicator did not come to open or close the run."""


class RanksDisagreeError(NotataError, ValueError):
    """The ranks of one communicator opened different runs."""


class NoCommunicatorError(NotataError, RuntimeError):
    """Other ranks would have to be asked, and there is no communicator to ask them over."""


class LauncherMismatchError(NotataError, RuntimeError):
    """The launcher started several processes, but MPI sees each of them alone."""


class QueryError(NotataError, ValueError):
    """A condition on runs that can't be read, or that names what no run has."""


class DrawingError(NotataError, ValueError):
    """Something that can't be drawn: text, an empty part, a value that no run has."""


class ExportError(NotataError, ValueError):
    """Something that can't be written into another format, or a library for it that is missing."""


class SettingError(NotataError, ValueError):
    """A variable of the environment that sets something, and has no value that it can have."""


class RankFailed(NotataError, RuntimeError):  # noqa: N818
    """Another rank of this run failed, so this rank's part of it can't be complete either."""


_BY_NAME: dict[str, type[Exception]] = {
    cls.__name__: cls
    for cls in (
        TypeError,
        ValueError,
        DamagedError,
        RunExistsError,
        NotResumableError,
        RunNotFoundError,
        NotARunError,
        UnsafeNameError,
        UnsupportedValueError,
        OutdatedError,
        RanksMissingError,
        RanksDisagreeError,
        SettingError,
        RankFailed,
    )
}


def note(error: BaseException, before: Iterable[BaseException]) -> None:
    """Add to an error what went wrong before it, and is not raised for its sake.

    Ranks: independent.
    """
    for other in before:
        error.add_note(f"notata: besides, {type(other).__name__}: {other}")


def describe(error: BaseException) -> dict[str, object]:
    """Put an error into plain values, so that it can travel to other ranks.

    Args:
        error: Any exception.

    Returns:
        Its class name, message and notes and, for an `OSError`, number and file name.

    Ranks: independent.
    """
    told: dict[str, object] = {"kind": type(error).__name__, "message": str(error)}
    if notes := getattr(error, "__notes__", None):
        told["notes"] = [str(note) for note in notes]
    if isinstance(error, OSError) and error.errno is not None:
        told |= {
            "errno": error.errno,
            "strerror": error.strerror,
            "filename": error.filename and str(error.filename),
        }
    return told


def revive(told: dict[str, object]) -> Exception:
    """Make the error that `describe` described.

    An `OSError` comes back as the subclass that belongs to its number, a plain `ValueError`,
    `TypeError`, `KeyError` or `RuntimeError` as itself, any other as a `RuntimeError` naming it.

    Ranks: independent.
    """
    error = _revived(told)
    notes = told.get("notes")
    for note in notes if isinstance(notes, list) else []:
        error.add_note(str(note))
    return error


def _revived(told: dict[str, object]) -> Exception:
    kind, message = str(told["kind"]), str(told["message"])
    if kind in _BY_NAME:
        return _BY_NAME[kind](message)
    if "errno" in told:
        number = told["errno"]
        assert isinstance(number, int)
        return OSError(number, told["strerror"], told["filename"])
    builtin = getattr(builtins, kind, None)
    if builtin in (ValueError, TypeError, KeyError, RuntimeError):
        return cast("Exception", builtin(message))
    return RuntimeError(f"{kind} on another rank: {message}")
