"""The command `notata plot`."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

import click

from notata.cli.printing import KEEP, json_text, located
from notata.phrases import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HELP = f"""Draw an array of a RUN, or values of the runs of an EXPERIMENT over one another.

An array of one axis is drawn as a line, of two as an image; of more, the last two axes in the
middle of the others, or wherever --region says. It may be merged or not, and larger than the
memory. Without NAME, --x and --y name parameters or metrics of an experiment's runs.

The picture goes to --out (.png, .pdf, .svg), or beside you, named after what is drawn. A name below
outputs/ will do. Needs matplotlib: pip install 'notata[plot]'.

{KEEP}Example:
  notata plot outputs/log_heat T
  notata plot outputs/log_heat T --region '0:4,1' --out T.pdf
  notata plot outputs/sweep --x omega --y runtime_sec --hue status

Exit status: 0, or 2 if there is no such run, array or value, or nothing to draw.
"""


@click.command(help=_HELP)
@click.argument("run", metavar="RUN|EXPERIMENT", type=click.Path())
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--region", metavar="INDEX", help="The part to draw, such as 10:20,:,3 or ...,0.")
@click.option("--x", metavar="VALUE", help="Of an experiment: what lies along the axis.")
@click.option("--y", metavar="VALUE", help="Of an experiment: what goes up.")
@click.option("--hue", metavar="VALUE", help="Of an experiment: what gives the colour.")
@click.option("--log", type=click.Choice(["x", "y", "xy"]), help="Axes with a logarithmic scale.")
@click.option("--where", metavar="CONDITION", help="Only the runs for which it holds.")
@click.option("--out", "-o", metavar="FILE", type=click.Path(dir_okay=False), help="The picture.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def plot(
    run: str, name: str | None, region: str | None, out: str | None, as_json: bool, **options: Any
) -> None:
    """Draw an array of a run, or values of an experiment's runs.

    Ranks: independent; one process is enough.
    """
    path = located(run)
    if name is not None:
        given = [f"--{option}" for option, value in options.items() if value]
        if given:
            raise click.UsageError(f"for an experiment: {', '.join(given)}: leave NAME out")
        figure, told = _array(path, name, region)
    elif options["x"] and options["y"]:
        if region is not None:
            raise click.UsageError("--region is for an array of a run: give its NAME")
        figure, told = _sweep(path, options)
    else:
        raise click.UsageError("give the NAME of an array, or --x and --y for an experiment")
    file = _write(figure, out or _beside(path, _named(name, region, options)))
    if as_json:
        click.echo(json_text({"file": file, **told}, indent=None))
    else:
        left_out = told.get("left_out")
        note = f" ({told['runs']} runs; {left_out} have no such values)" if left_out else ""
        click.echo(f"{printable(file)}{note}")


def _named(name: str | None, region: str | None, options: dict[str, Any]) -> str:
    """What is drawn, so that a picture of something else is another file."""
    if name is not None:
        return name if region is None else f"{name}_{region}"
    by, log = options["hue"], options["log"]
    parts = [f"{options['y']}_over_{options['x']}"]
    parts += [f"by_{by}"] if by else []
    parts += [f"log_{log}"] if log else []
    return "_".join(parts)


def _array(path: str, name: str, region: str | None) -> tuple[Figure, dict[str, Any]]:
    from notata.drawing import picture, view
    from notata.opened import open_array
    from notata.reader import LogReader
    from notata.regions import parse

    reader = LogReader(path)
    opened = open_array(path, name)
    try:
        found = view(opened, None if region is None else parse(region))
    except (ValueError, IndexError) as error:
        from notata.errors import NotataError

        if isinstance(error, NotataError):
            raise
        raise click.BadParameter(str(error), param_hint="--region") from None
    told = {"array": name, "shape": opened.shape, "drawn": found.region}
    part = "" if set(found.region) <= set(":, ") else f"[{found.region}]"
    return picture(found, f"{reader.run_id}: {name}{part}"), told


def _sweep(path: str, options: dict[str, Any]) -> tuple[Figure, dict[str, Any]]:
    from notata import drawing, listing, querying
    from notata.expressions import Expression

    found = querying.lines(listing.find(path), time.time())
    found = [line for line in found if line.entry.kind == "run"]
    if options["where"]:
        found = querying.wanted(found, Expression(options["where"]))
    name = os.path.basename(os.path.abspath(path))
    drawn = drawing.sweep(
        found, options["x"], options["y"], options["hue"], options["log"] or "", name
    )
    return drawn.figure, {"runs": drawn.shown, "left_out": drawn.left_out}


def _beside(path: str, name: str) -> str:
    stem = f"{os.path.basename(os.path.abspath(path))}_{name}"
    return re.sub(r"[^\w.+-]", "_", stem)[:150] + ".png"


def _write(figure: Figure, file: str) -> str:
    from notata import files
    from notata.drawing import encoded

    kind = os.path.splitext(file)[1].removeprefix(".").lower()
    if not kind:
        file, kind = f"{file}.png", "png"
    files.replace_bytes(file, encoded(figure, kind))
    return file
