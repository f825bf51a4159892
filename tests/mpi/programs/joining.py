"""Join what a run's ranks wrote, with the ranks of this job."""

from __future__ import annotations

import os
import sys

from tell import tell

from notata import checksums
from notata.errors import DamagedError
from notata.merging import arrays, joining, logs
from notata.merging.crew import crew
from notata.merging.plan import make_plan

run = sys.argv[1]
joining._LARGE, arrays._TASK = 20_000, 1
logs.RANGE, logs._OF_EACH, logs._SAMPLE = 20_000, 1, 2_000

found: dict[str, object] = {}
with crew() as workers:
    found |= {"leads": workers.leads, "size": workers.size}
    if workers.leads:
        outputs = make_plan(run).outputs
        pairs = [(out, os.path.join(run, f"made-{n}.tmp")) for n, out in enumerate(outputs)]
        if "damage" in sys.argv:
            os.truncate(os.path.join(run, "ranks/rank_00001/data/large.npy"), 10_000)
        try:
            made = joining.join(run, pairs, workers.executor, lambda count: None)
            for out, path in pairs:
                assert made[out.file].checksum == checksums.of_file(path)
            found["made"] = {file: one.checksum for file, one in made.items()}
        except DamagedError as error:
            found["error"] = str(error)
        finally:
            for _, path in pairs:
                if os.path.exists(path):
                    os.unlink(path)
tell(**found)
