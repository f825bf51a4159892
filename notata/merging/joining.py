"""Joining: the files of a plan, made under temporary names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import NamedTuple

from notata import checksums, layout
from notata.errors import NO_ROOM
from notata.merging.arrays import join_array, join_bundle
from notata.merging.logs import join_logs
from notata.merging.plan import Output


class Made(NamedTuple):
    """A file that was joined, under its temporary name still.

    Attributes:
        checksum: Of the file.
        inputs: Checksums of the files that it was made of, by their path relative to the run.
    """

    checksum: str
    inputs: Mapping[str, str]


def join(
    run: str,
    temporaries: Sequence[tuple[Output, str]],
    executor: Executor | None,
    progress: Callable[[int], None],
) -> dict[str, Made]:
    """Make files of the pieces.

    Args:
        run: Folder of the run.
        temporaries: The files to make, each with the path to make it under.
        executor: Shares the work, slab by slab; None for this process alone. Whoever does it, the
            files hold the same bytes.
        progress: Called with the number of bytes joined since it was called last.

    Returns:
        What was made, by the name of the output.

    Raises:
        DamagedError: If a piece is not what its manifest says.
        OSError: If a file can't be written, such as on a disk that has no room for all of it.

    Ranks: independent.
    """
    made: dict[str, Made] = {}
    for output, temporary in temporaries:
        with _naming(os.path.join(run, output.file), output):
            _join(run, output, temporary)
        progress(output.bytes)
        inputs = {name: checksums.of_file(os.path.join(run, name)) for name in output.inputs}
        made[output.file] = Made(checksums.of_file(temporary), inputs)
    return made


def _join(run: str, output: Output, temporary: str) -> None:
    if output.file == layout.LOG:
        join_logs(run, temporary)
    elif output.wholes[0].key is None:
        join_array(run, output.wholes[0], temporary)
    else:
        join_bundle(run, output.wholes, temporary)


@contextmanager
def _naming(target: str, output: Output) -> Iterator[None]:
    """Let an error of a full disk say what there was no room for."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        told = f"{error.strerror} for {output.bytes} bytes"
        raise OSError(error.errno, told, target) from error
