"""What `notata doctor --json` says, where the clock is AHEAD seconds ahead: examine.py DIR."""

import os
import sys
import time

clock, ahead = time.time, float(os.environ.get("AHEAD", 0))
time.time = lambda: clock() + ahead

from notata.cli import main  # noqa: E402

sys.argv = ["notata", "doctor", "--json", sys.argv[1]]
main()
