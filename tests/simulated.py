"""Ranks without a launcher, and programs that run with this notata or with the published one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from notata import Logbook, checksums, mergerecord
from notata.sealed import sealed

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".venv/peers/notata-0.3.0"


@contextmanager
def being(rank: int, size: int, launch: str | None = "launch-1") -> Iterator[None]:
    """Let this process be one rank of several for a while, as a launcher's variables would."""
    told = {"NOTATA_RANK": str(rank), "NOTATA_SIZE": str(size), "NOTATA_LAUNCH": launch}
    with _one_at_a_time:
        before = {name: os.environ.get(name) for name in told}
        _set(told)
        try:
            yield
        finally:
            _set(before)


_one_at_a_time = threading.RLock()  # the variables are those of all threads


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def open_as(
    rank: int,
    size: int,
    base: str | os.PathLike[str],
    run_id: str = "run",
    *,
    launch: str | None = "launch-1",
    **options: Any,
) -> Logbook:
    """Open a run as one of its ranks."""
    with being(rank, size, launch):
        return Logbook(run_id, base, **options)


def write_as(
    size: int,
    base: str | os.PathLike[str],
    work: Callable[[Logbook], object],
    run_id: str = "run",
    *,
    order: Iterable[int] | None = None,
    **options: Any,
) -> Path:
    """Let each rank of a run do its work, one after another; gives the run's folder."""
    for rank in range(size) if order is None else order:
        with open_as(rank, size, base, run_id, **options) as log:
            work(log)
    return Path(base, f"log_{run_id}")


def forget_logs(run: Path) -> None:
    """Take out of a closed run what is noted of its logs, so that a test may write others."""
    for path in (run / "metadata.json", *run.glob("ranks/rank_*/rank.json")):
        told = json.loads(path.read_text())
        told.pop("log_bytes", None)
        told.get("parallel", {}).pop("log_bytes", None)
        for noted in (told, told.get("parallel", {})):
            noted.get("files", {}).pop("log.txt", None)
        put_record(path, told)


def put_record(path: Path, told: dict[str, Any]) -> None:
    """Write `metadata.json` or `rank.json` as a run writes it: with its own checksums."""
    if path.name == "rank.json":
        told = sealed(told)
    elif isinstance(told.get("parallel"), dict):
        told = told | {"parallel": sealed(told["parallel"])}
    path.write_text(json.dumps(told))


def merged(run: Path) -> dict[str, Any]:
    """What a merge recorded of each file that it made, and what the files really hold."""
    return {
        file: (
            checksums.of_file(run / file),
            one.itself.checksum,
            {name: stamp.checksum for name, stamp in one.inputs.items()},
        )
        for file, one in mergerecord.read(os.fspath(run)).outputs.items()
    }


def program(
    code: str, cwd: str | os.PathLike[str], *, peer: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a Python program with this notata, or with the published 0.3.0."""
    if peer and not (PEER / "notata").is_dir():
        raise FileNotFoundError(f"notata 0.3.0 is not in {PEER}; `make test` installs it")
    env = {**os.environ, "PYTHONPATH": str(PEER if peer else ROOT)}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def answer(code: str, cwd: str | os.PathLike[str], *, peer: bool = False) -> Any:
    """The value that a program prints as JSON, as its last line."""
    done = program(code, cwd, peer=peer)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def theirs_and_ours(code: str, base: Path) -> tuple[Any, Any]:
    """What a program answers with notata 0.3.0 and with this notata, each in its own folder."""
    answers = []
    for peer in (True, False):
        folder = base / ("theirs" if peer else "ours")
        folder.mkdir()
        answers.append(answer(code, folder, peer=peer))
    return answers[0], answers[1]


def tree(folder: str | os.PathLike[str]) -> list[str]:
    """Every file below a folder, and every empty folder with a slash behind its name."""
    found = []
    for parent, folders, names in os.walk(folder):
        relative = os.path.relpath(parent, folder)
        found += [os.path.normpath(os.path.join(relative, name)) for name in names]
        if not folders and not names and relative != ".":
            found.append(relative + "/")
    return sorted(found)
