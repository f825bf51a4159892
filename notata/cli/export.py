"""The command `notata export`."""

from __future__ import annotations

import os

import click

from notata.cli.printing import KEEP, json_text, located
from notata.cli.progress import Progress
from notata.phrases import counted, printable, size_text

_HELP = f"""Write the arrays of a RUN into one HDF5, Zarr or netCDF file.

They are streamed from the run's files, or straight from the pieces where it is not merged.
Parameters are attributes by their names, metadata are notata_status, notata_metadata (JSON) and so
on. RUN may be a name below outputs/.

Needs a library each: pip install 'notata[hdf5]', 'notata[zarr]', 'notata[netcdf]'.

{KEEP}Example:
  notata export outputs/log_heat --to hdf5
  notata export outputs/log_heat --to zarr --out T.zarr --arrays T
  notata export outputs/log_heat --to netcdf --overwrite

Exit status: 0, or 2 if there is no such run or array, or it can't be exported.
"""


@click.command(help=_HELP)
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--to", required=True, type=click.Choice(["hdf5", "zarr", "netcdf"]), help="Format.")
@click.option("--out", "-o", metavar="FILE", type=click.Path(), help="The file to make.")
@click.option("--arrays", metavar="NAMES", help="Only these arrays, such as T,bundle:x.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def export(
    run: str, to: str, out: str | None, arrays: str | None, overwrite: bool, as_json: bool
) -> None:
    """Write the arrays of a run into one file of another format.

    Ranks: independent; one process is enough.
    """
    from notata.exporting import ENDINGS
    from notata.exporting import export as write

    path = located(run)
    target = out or os.path.basename(os.path.abspath(path)) + ENDINGS[to]
    names = None if arrays is None else [name.strip() for name in arrays.split(",")]
    with Progress(path, quiet=as_json) as progress:
        done = write(path, to, target, names=names, overwrite=overwrite, tell=progress)
    if as_json:
        click.echo(json_text(done._asdict(), indent=None))
    else:
        told = f"{counted(len(done.arrays), 'array')}, {size_text(done.nbytes)}"
        click.echo(f"{printable(done.path)}: {told}")
