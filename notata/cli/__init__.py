"""The program `notata`: one command a module, each loaded when it is called.

Exit statuses: 0 done, 1 something needs attention, 2 wrong use, or input too damaged to do it.

Click reads the command line and Rich draws the tables.
"""

from __future__ import annotations

import errno
import io
import sys
from importlib import import_module
from typing import Any

import click

from notata.cli.printing import KEEP, WRONG, complain, hint
from notata.errors import NotataError, RunNotFoundError
from notata.phrases import error_text
from notata.version import __version__

# Each command, with what it does in a few words.
_COMMANDS = {
    "diff": "Say what differs between two runs.",
    "doctor": "Say what a file system and a cluster do to runs.",
    "export": "Write arrays as HDF5, Zarr or netCDF.",
    "failed": "List the runs that failed or are lost.",
    "follow": "Follow an experiment until its runs have ended.",
    "index": "Make the table of an experiment anew.",
    "log": "Print the messages of all ranks as one stream.",
    "ls": "List runs and experiments.",
    "merge": "Make of a run's ranks what one would have written.",
    "plot": "Draw an array, or values of many runs.",
    "reconcile": "Mark runs as failed that never said so.",
    "show": "Show what a run is, on one screen.",
    "status": "Say what became of the runs of an experiment.",
    "stuck": "Show where ranks stand that are stuck.",
}
_FUNCTIONS = {"ls": "list_runs", "show": "show_run"}  # that aren't called as their command is

_HELP = f"""Structured filesystem logging for scientific runs, from one process to a cluster.

{KEEP}Example:
  mpirun -n 4 python sim.py
  notata merge outputs/log_heat
  notata ls

Exit status: 0 done, 1 something needs attention, 2 wrong use, or input too
damaged to do it.
"""


class _Commands(click.Group):
    """The commands, with errors told in one line rather than as a stack trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"notata.cli.{cmd_name}")
        command = getattr(module, _FUNCTIONS.get(cmd_name, cmd_name))
        assert isinstance(command, click.Command)
        command.short_help = _COMMANDS[cmd_name]
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RunNotFoundError as error:
            complain(f"{error}{hint()}")
        except NotataError as error:
            complain(str(error))
        except OSError as error:
            if error.errno == errno.EPIPE:  # `notata ls | head`: Click ends quietly
                raise
            complain(error_text(error))
        ctx.exit(WRONG)


@click.group(
    cls=_Commands,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="notata", message="%(prog)s %(version)s")
def main() -> None:
    """The program `notata`.

    Ranks: independent.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the locale can't print
