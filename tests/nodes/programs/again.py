"""Begins a run again that others may have open: again.py BASE RUN."""

import sys

import numpy as np

from notata import Logbook

with Logbook(sys.argv[2], base_dir=sys.argv[1], overwrite=True, params={"age": "new"}) as log:
    log.info("new line")
    log.array("new", np.ones(10))
