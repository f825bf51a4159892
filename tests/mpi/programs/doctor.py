"""`notata doctor`, as ranks start it. Its arguments are those of the command."""

import sys

from notata.cli import main

main(["doctor", *sys.argv[1:]])
