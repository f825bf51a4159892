"""The program `notata`: one command a module, each loaded when it is called.

Exit statuses: 0 done, 1 something needs attention, 2 wrong use or damaged input.

Click reads the command line and Rich draws the tables.
"""

from __future__ import annotations

import errno
import io
import sys
from importlib import import_module
from typing import Any

import click

from notata.cli.printing import KEEP, WRONG, complain, hint, told
from notata.errors import NotataError, RunNotFoundError
from notata.version import __version__

# Each command, with the function that its module has for it.
_COMMANDS = {
    "diff": "diff",
    "doctor": "doctor",
    "export": "export",
    "failed": "failed",
    "follow": "follow",
    "index": "index",
    "log": "log",
    "ls": "list_runs",
    "merge": "merge",
    "plot": "plot",
    "reconcile": "reconcile",
    "show": "show_run",
    "status": "status",
    "stuck": "stuck",
}

_HELP = f"""Structured filesystem logging for scientific runs, from one process to a cluster.

{KEEP}Example:
  mpirun -n 4 python sim.py
  notata merge outputs/log_heat
  notata ls

Exit status: 0 done, 1 something needs attention, 2 wrong use or damaged input.
"""


class _Commands(click.Group):
    """The commands, with errors told in one line rather than as a stack trace."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(f"notata.cli.{cmd_name}"), _COMMANDS[cmd_name])
        assert isinstance(command, click.Command)
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
            complain(told(error))
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
