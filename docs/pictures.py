"""Make the pictures of terminals, and of a merged field: `python docs/pictures.py`.

Each is a real command on real runs of the examples, at 80 and at 140 columns, in `docs/pictures/`.
It needs mpiexec, mpi4py and matplotlib: `pip install -e ".[mpich,plot]"`.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
BIN = Path(sys.executable).parent
WIDTHS = (80, 140)
COMMANDS = {
    "ls": "notata ls outputs/lorenz --where 'lyapunov > 0.5' --sort -lyapunov",
    "show": "notata show outputs/log_hillslope",
    "log": "notata log outputs/log_hillslope --last 16",
    "status": "notata status outputs/falling_ball",
    "doctor": "notata doctor outputs",
}
RUNS = (
    "mpiexec -n 4 python examples/hillslope.py --steps 40 --every 20",
    "notata merge --quiet outputs/log_hillslope",
    # The first row is the north, which belongs at the top.
    "notata plot outputs/log_hillslope states/z_step0040 --region '::-1' --out field.png",
    "python examples/lorenz_sweep.py --points 9 --steps 12000",
    "python examples/falling_ball.py",
)

# A command is told the names of another machine: put in afterwards, they would not fit the lines.
AS_NODE1 = """
import platform
from notata import topology
from notata.cli import main
topology.hostname = lambda: "node1"
platform.release = lambda: "6.1.0"
main(prog_name="notata")
"""


def environment(width: int = 80) -> dict[str, str]:
    """Where commands run: nothing of this machine may get into a picture."""
    return {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": "/tmp",
        "USER": "ada",
        "LOGNAME": "ada",
        "TERM": "xterm-256color",
        "FORCE_COLOR": "1",
        "COLUMNS": str(width),
        "LINES": "30",
        "OMP_NUM_THREADS": "1",
    }


def run(command: str, folder: Path, width: int = 80) -> str:
    """What a command prints on a terminal of so many columns."""
    done = subprocess.run(
        ["bash", "-c", command.replace("notata ", f"python -c {shlex.quote(AS_NODE1)} ", 1)],
        cwd=folder,
        env=environment(width),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


def rename_host(folder: Path) -> None:
    """The runs are said to be of `node1`, whatever this machine is called."""
    host = socket.gethostname()
    for path in folder.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(f'"{host}"', '"node1"'), encoding="utf-8")


def svg(command: str, printed: str, width: int) -> str:
    """A terminal with a command and what it printed, in any monospaced font that is there."""
    console = Console(record=True, width=width, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    prompt = Text("$ ", style="bold green").append(command, style="bold")
    console.print(prompt)
    console.print(Text.from_ansi(printed.rstrip("\n")))
    console.print()  # else what lies below the last line's letters is cut off
    name = command.split()[1]
    made = console.export_svg(
        title=f"notata {name}", theme=DIMMED_MONOKAI, unique_id=f"notata-{name}"
    )
    console.file.close()
    made = re.sub(r"@font-face \{.*?\}\n?", "", made, flags=re.DOTALL)
    made = _LEADING.sub(_moved, made.replace("Fira Code,", ""))
    return re.sub(r"[ \t]+$", "", made, flags=re.MULTILINE)


_LEADING = re.compile(r'x="([\d.]+)"( y="[\d.]+") textLength="([\d.]+)"([^>]*>)((?:&#160;)+)')
_CHARACTER = 12.2  # Rich's width of a character


def _moved(found: re.Match[str]) -> str:
    """Text that begins with blanks begins behind them: not every viewer keeps them."""
    x, y, length, rest, blanks = found.groups()
    by = _CHARACTER * blanks.count(";")
    return f'x="{float(x) + by:.1f}"{y} textLength="{float(length) - by:.1f}"{rest}'


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "examples", folder / "examples")
        for command in RUNS:
            run(command, folder)
        rename_host(folder / "outputs")
        shutil.copy(folder / "field.png", PICTURES)
        for name, command in COMMANDS.items():
            for width in WIDTHS:
                printed = run(command, folder, width)
                (PICTURES / f"{name}-{width}.svg").write_text(
                    svg(command, printed, width), encoding="utf-8"
                )
                print(PICTURES / f"{name}-{width}.svg")


if __name__ == "__main__":
    main()
