"""Write `reference/commands.md` from the commands' own help: `python docs/commands.py`."""

from pathlib import Path

import click

from notata.cli import main

PAGE = Path(__file__).parent / "reference" / "commands.md"
INTRODUCTION = """# Commands

<!-- Made by `python docs/commands.py` from the commands' own help. -->

`notata COMMAND --help` prints what stands here. Exit statuses: 0 done, 1 something needs attention,
2 wrong use, or input too damaged to do it. With `--json`, a command prints one JSON document for
scripts, `log` one a message and `follow` one a change, each on a line; numbers that JSON doesn't
have, NaN and infinite ones, are null there. `NO_COLOR` turns colours off, which are used on a
terminal alone.

Runs and experiments are named by their folders. Where there is no such folder, the one of that name
below `outputs/` is meant, `notata show log_heat`, or the run of that id, here, there or in an
experiment there: `notata show heat`.

To complete commands and options with the tab key, add this to `~/.bashrc` (for zsh, `zsh_source`
and `~/.zshrc`):

% not run: it changes the shell that it is typed in
```console
$ eval "$(_NOTATA_COMPLETE=bash_source notata)"
```
"""


def page() -> str:
    """The page, with the help of each command on lines of 80 characters: the page shows no more."""
    context = click.Context(main, info_name="notata", **main.context_settings)
    parts = [INTRODUCTION]
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        inner = click.Context(
            command, info_name=name, parent=context, terminal_width=80, max_content_width=80
        )
        parts.append(
            f"## notata {name}\n\n% not run: it is a command's help\n```text\n"
            f"{inner.get_help()}\n```\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
