"""What a rank tells the test that started it."""

import json
import os
import sys
import time
from pathlib import Path

RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "NOTATA_RANK")


def process_rank():
    """This process's number in the job, as the launcher gives it."""
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)


def tell(**facts):
    """Leave facts for the test; those of an earlier call stay."""
    path = Path(os.environ["TELL_DIR"], f"{process_rank()}.json")
    facts = (json.loads(path.read_text()) if path.exists() else {}) | facts
    whole = path.with_suffix(".new")  # the job may be ended at any moment
    whole.write_text(json.dumps(facts))
    whole.replace(path)


def described(error):
    """An error as plain values: the names of all its classes, its message and its notes."""
    return {
        "classes": [cls.__name__ for cls in type(error).__mro__],
        "message": str(error),
        "notes": getattr(error, "__notes__", []),
    }


def attempt(action):
    """Call something; say how long it took and, if it raised, what."""
    began = time.monotonic()
    outcome = {"error": None}
    try:
        action()
    except Exception as error:
        outcome["error"] = described(error)
    outcome["seconds"] = time.monotonic() - began
    return outcome


def main(modes):
    """Run the function that the first argument names, on the arguments behind it."""
    modes[sys.argv[1]](*sys.argv[2:])
