"""Where did this run, and what was it: host, job, program, versions; and who its ranks were.

No program is started: an MPI job may not fork, and a run must not wait for its log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from notata import privacy, scheduler, topology
from notata.ranges import compact, expand

_MOST_WORDS, _LONGEST_WORD = 500, 2000  # of a command line


def facts(environment: Sequence[str] = ()) -> dict[str, Any]:
    """What `metadata.json` says of how a run came about.

    Args:
        environment: Names of the variables to keep; those that aren't set are left out. What looks
            like a secret is hidden, here and on the command line.

    Returns:
        `host`, `provenance`, and `scheduler` inside a job. What can't be known is left out.

    Example:
        >>> sorted(facts(["HOME"])["provenance"]["environment"])
        ['HOME']

    Ranks: root only.
    """
    words = [word[:_LONGEST_WORD] for word in sys.orig_argv[:_MOST_WORDS]]
    found = {
        "user": _user(),
        "command": list(_command(*words)),
        "cwd": _cwd(),
        "python": {"version": sys.version.split()[0], "executable": sys.executable},
        "packages": packages(),
        "git": _code_state(),
        "modules": [name for name in os.environ.get("LOADEDMODULES", "").split(":") if name],
        "environment": {
            name: privacy.masked(name, os.environ[name])
            for name in ([environment] if isinstance(environment, str) else environment)
            if name in os.environ
        },
    }
    kept = {key: value for key, value in found.items() if value}
    job = scheduler.job()
    return {"host": topology.hostname(), "provenance": kept} | ({"scheduler": job} if job else {})


@cache
def _command(*words: str) -> tuple[str, ...]:
    return tuple(privacy.masked_command(words))


def _user() -> str | None:
    """The user, from the environment where that says it: a directory service may be slow."""
    return os.environ.get("LOGNAME") or os.environ.get("USER") or _user_of(os.getuid())


@cache
def _user_of(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # in a container
        return f"uid {number}"


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted
        return None


@cache
def _code_state() -> dict[str, Any] | None:
    """The commit of the program's code, as it was when the first run of this process began."""
    from notata import checkout

    main = getattr(sys.modules.get("__main__"), "__file__", None)
    folder = os.path.dirname(os.path.realpath(main)) if main else _cwd()
    return checkout.state(folder) if folder else None


def packages() -> dict[str, str]:
    """The versions of the packages that the program has loaded so far.

    They are read from the names of the `.dist-info` folders, a listing for each folder of packages,
    or else from the module's own `__version__`; so none of their files is opened.

    Returns:
        Versions by the names that one imports.

    Ranks: independent.
    """
    global _looked_at, _found
    looked_at = (len(sys.modules), next(reversed(sys.modules), ""), tuple(sys.path))
    if looked_at != _looked_at:  # something was loaded since
        _looked_at, _found = looked_at, _versions()
    return dict(_found)


_looked_at: tuple[object, ...] = ()
_found: dict[str, str] = {}


def _versions() -> dict[str, str]:
    installed = _installed(tuple(sys.path))
    found: dict[str, str] = {}
    for name, module in list(sys.modules.items()):
        if "." in name or name in sys.stdlib_module_names or name.startswith("_"):
            continue
        # Read without `getattr`, which some modules answer by loading more.
        version = installed.get(name.lower()) or getattr(module, "__dict__", {}).get("__version__")
        if isinstance(version, str):
            found[name] = version
    return dict(sorted(found.items()))


@cache
def _installed(path: tuple[str, ...]) -> dict[str, str]:
    """Versions by the names of distributions, in small letters and with underscores."""
    versions: dict[str, str] = {}
    for name in (name for folder in path for name in _dist_infos(folder)):
        distribution, _, version = name.removesuffix(".dist-info").partition("-")
        versions.setdefault(distribution.lower().replace(".", "_"), version)
    return versions


def _dist_infos(folder: str) -> Iterator[str]:
    try:
        names = os.listdir(folder or ".")
    except OSError:  # a folder that isn't there, or a zip file
        return
    yield from (name for name in names if name.endswith(".dist-info"))


def parallel_facts(place: topology.Topology, hosts: Mapping[int, str]) -> dict[str, Any]:
    """What `metadata.json` says of a run of several ranks.

    Args:
        place: This process's place.
        hosts: The host of each rank, as far as it is known.

    Returns:
        Plain values. Hosts come as ranges of ranks, so that ten thousand ranks on a hundred nodes
        are a hundred short lines.

    Ranks: root only.
    """
    facts: dict[str, Any] = {
        "size": place.size,
        "rank_from": place.source,
        "launcher": place.launcher,
        "launch": place.launch,
        "mpi": topology.mpi_library(place),
        "communicator": place.comm is not None,
        **host_facts(place.size, hosts),
    }
    if place.notes:
        facts["disagreements"] = list(place.notes)
    return facts


def host_facts(size: int, hosts: Mapping[int, str]) -> dict[str, Any]:
    """The host of each rank, and the ranks whose host nobody told.

    Args:
        size: Number of ranks.
        hosts: The host of each rank, as far as it is known.

    Example:
        >>> host_facts(4, {0: "n1", 1: "n1"})
        {'hosts': {'n1': '0-1'}, 'hosts_unknown': '2-3'}

    Ranks: root only.
    """
    unknown = compact(rank for rank in range(size) if rank not in hosts)
    return {"hosts": _grouped(hosts)} | ({"hosts_unknown": unknown} if unknown else {})


def with_hosts(parallel: Mapping[str, Any], told: Mapping[int, str]) -> dict[str, Any]:
    """What the metadata says of the ranks, with the hosts that it did not know.

    Args:
        parallel: What it says, as `parallel_facts` made it.
        told: The host of each rank that told its own.

    Returns:
        The same, with those hosts added; what was known stays.

    Raises:
        ValueError: If `parallel.hosts` is not as `parallel_facts` made it.

    Ranks: root only.
    """
    hosts = parallel.get("hosts", {})
    if not isinstance(hosts, dict):
        raise ValueError(f"parallel.hosts is {hosts!r:.80}, not ranks by their host")
    known = {rank: host for host, ranks in hosts.items() for rank in expand(str(ranks))}
    size = int(parallel["size"])
    rest = {key: value for key, value in parallel.items() if key != "hosts_unknown"}
    return rest | host_facts(size, {**told, **known})


def closing_facts(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `parallel` says of what ranks left, so that a merge can tell what was lost since.

    Args:
        records: What each rank told when all closed the run: `pieces`, `folder`, `lost`.

    Example:
        >>> closing_facts([{"pieces": 0, "folder": False}, {"pieces": 2, "folder": True}])
        {'pieces': {'0': '0', '2': '1'}, 'folders': '1'}

    Ranks: root only.
    """
    lost = [int(record.get("lost", 0)) for record in records]
    return {
        "pieces": piece_facts([int(record["pieces"]) for record in records]),
        "folders": compact(rank for rank, record in enumerate(records) if record["folder"]),
    } | ({"log_lines_lost": piece_facts(lost)} if any(lost) else {})


def piece_facts(counts: Sequence[int]) -> dict[str, str]:
    """How many pieces the ranks wrote: from the count to the ranks that have it.

    Example:
        >>> piece_facts([3, 3, 0, 3])
        {'0': '2', '3': '0-1,3'}

    Ranks: root only.
    """
    return _grouped({rank: f"{count}" for rank, count in enumerate(counts)})


def _grouped(values: Mapping[int, str]) -> dict[str, str]:
    groups: dict[str, list[int]] = {}
    for rank, value in values.items():
        groups.setdefault(value, []).append(rank)
    return {value: compact(groups[value]) for value in sorted(groups)}
