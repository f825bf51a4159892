"""`python -m notata`: the command line, for where the program `notata` is not on the path."""

from notata.cli import main

if __name__ == "__main__":
    main(prog_name="notata")
