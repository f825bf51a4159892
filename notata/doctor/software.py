"""Which versions are here, and which optional parts are not."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from notata.doctor.findings import Check
from notata.version import __version__

_NEEDED = ("numpy", "filelock")
# Each optional part, what it is for, and what brings it.
_OPTIONAL = (
    ("mpi4py", "ranks that agree on errors and ends", "notata[mpi]"),
    ("matplotlib", "log.plot", "notata[plot]"),
    ("pandas", "to_dataframe", "notata[pandas]"),
    ("xarray", "to_xarray", "notata[xarray]"),
    ("h5py", "export --to hdf5", "notata[hdf5]"),
    ("h5netcdf", "export --to netcdf", "notata[netcdf]"),
    ("zarr", "export --to zarr", "notata[zarr]"),
)


def versions() -> Check:
    """The versions that a report of a fault should name.

    Ranks: independent.
    """
    told = [f"notata {__version__}", f"Python {platform.python_version()}"]
    for package in (*_NEEDED, "mpi4py"):
        found = _version(package)
        told += [f"{package} {found}"] if found else []
    return Check("versions", "ok", f"{', '.join(told)}; Linux {platform.release()}")


def optional_parts() -> Check:
    """Which optional packages are missing, and what for.

    Ranks: independent.
    """
    missing = [part for part in _OPTIONAL if _version(part[0]) is None]
    if not missing:
        return Check("optional parts", "ok", "all are here")
    finding = ", ".join(f"{package} is missing ({use})" for package, use, _ in missing)
    brought = " ".join(f"'{extra}'" for _, _, extra in missing)
    return Check("optional parts", "ok", finding, f"Where it is wanted: pip install {brought}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
