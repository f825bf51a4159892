"""A job that takes more memory than it asked for."""

from __future__ import annotations

import sys

from notata import Experiment


def main(base: str) -> None:
    with Experiment("greedy", base).add(mb=400) as log:
        log.info(f"{len(b'x' * (400 << 20))} bytes, and yet alive")


if __name__ == "__main__":
    main(sys.argv[1])
