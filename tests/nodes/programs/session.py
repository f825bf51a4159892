"""What is played on two nodes, step after step; each tells a JSON line of what came of it.

session.py TOLD NODES SHARED MPIEXEC STEP…: TOLD is the file of the lines; NODES has the name, the
process that holds it, the address and the interface to a node in each line; SHARED is where both
see the same folder. This runs on the machine that holds the nodes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from merges import Merges
from starting import LONG, Talk, talking

MUTE_AFTER = 10  # seconds, after which a process that only logs has noticed a newer attempt
AHEAD = 5  # seconds, by which a node's clock is ahead of that of the one before


class Session(Merges):
    """The steps."""

    def _rows(self, shared: str) -> list[list[str]]:
        """What makes, on each node, its part of twelve processes' forty runs each."""
        count = len(self.nodes)
        return [
            node.python("rows", shared, place, count, 12, 40, NOTATA_LOCK_TIMEOUT=LONG)
            for place, node in enumerate(self.nodes)
        ]

    def table(self, trials: int) -> dict[str, Any]:
        """Many processes on both nodes, one table."""
        with talking(*self._rows(self.shared)) as nodes:
            return {"trials": [_trial(nodes, f"table{trial}") for trial in range(trials)]}

    def race(self, points: int) -> dict[str, Any]:
        """Many processes on both nodes that all add the same points."""
        with talking(*self._rows(self.shared)) as nodes:
            for node in nodes:
                node.say("race", "race", points)
            told = [node.hear() for node in nodes]
            return {"told": told, "rows": nodes[1].ask("rows", "race", points)}

    def nolock(self) -> dict[str, Any]:
        """The same where a lock excludes within a node only, and the table made anew."""
        with talking(*self._rows("/mnt/nolock")) as nodes:
            trial = _trial(nodes, "nolock")
            trial["rebuild"] = nodes[1].ask("rebuild", "nolock")
            trial["after"] = nodes[0].ask("check", "nolock", 12 * 40)
        return {"trials": [trial]}

    def holder(self) -> dict[str, Any]:
        """A process that holds the table's lock, and is killed, while another node adds runs."""
        commands = [
            node.python("holder", self.shared, NOTATA_LOCK_TIMEOUT=10) for node in self.nodes
        ]
        with talking(*commands) as (first, second):
            second.ask("add", "held", 1)
            held = first.ask("hold", "held")
            late = second.ask("add", "held", 2)
            first.kill()
            return {
                "held": held,
                "late": late["warnings"],
                "then": second.ask("add", "held", 3)["warnings"],
                "rows": second.ask("rows", "held"),
            }

    # ----- runs of several ranks -----

    def parallel(self) -> dict[str, Any]:
        """Four MPI ranks on two nodes, merged, beside the same program on one."""
        self._run(self._mpiexec(2, AHEAD, "field", self.shared, "parallel", "mpi"))
        return self._beside_serial("parallel")

    def ranks(self) -> dict[str, Any]:
        """The same without a communicator."""
        started = []
        for rank in range(4):
            node = self.nodes[rank // 2]
            place = {"NOTATA_RANK": rank, "NOTATA_SIZE": 4, "AHEAD": AHEAD * (rank // 2)}
            command = node.python("field", self.shared, "ranks", **place)
            started.append(subprocess.Popen(command))
        statuses = [process.wait(LONG) for process in started]
        return {"statuses": statuses} | self._beside_serial("ranks")

    def _beside_serial(self, run: str) -> dict[str, Any]:
        """Merge a run on the second node, and look at it from there with a serial one's."""
        first, second = self.nodes
        self._run(first.python("field", self.shared, f"{run}_serial"))
        path = f"{self.shared}/log_{run}"
        before = self._look(first, path)[0]
        self._run(second.command(sys.executable, "-m", "notata", "merge", path))
        merged, serial = self._look(first, path, f"{path}_serial")
        return {"before": before, "merged": merged, "serial": serial}

    # ----- what goes wrong -----

    def overwrite(self) -> dict[str, Any]:
        """A run begun again while another node, or the same one, still writes the old one."""
        result = {}
        for holder in self.nodes:
            run = f"again_{holder.name}"
            path = f"{self.shared}/log_{run}"
            with talking(holder.python("hold", self.shared, run)) as (old,):
                self._run(self.nodes[0].python("again", self.shared, run))
                new = self._look(self.nodes[1], path)[0]
                wrote = old.ask("write", 3)
                meanwhile = self._look(self.nodes[0], path)[0]
                closed = old.ask("close")
            result[holder.name] = {
                "new": new,
                "wrote": wrote,
                "meanwhile": meanwhile,
                "closed": closed,
                "after": self._look(self.nodes[1], path)[0],
            }
        return result

    def resumed(self) -> dict[str, Any]:
        """Runs gone on with by one node, while the other still writes them.

        In one the old process saves arrays until it is told that it is outdated; in the other it
        logs only, and both log at once.
        """
        first, second = self.nodes
        saves, logs = f"{self.shared}/log_saves", f"{self.shared}/log_logs"
        with talking(
            second.python("hold", self.shared, "saves"), second.python("hold", self.shared, "logs")
        ) as (saver, logger):
            newer = Talk(first.python("hold", self.shared, "logs", "resume"))
            newer.hear()
            for talk in (logger, newer):
                talk.say("say", MUTE_AFTER + 4)
            new = Talk(first.python("hold", self.shared, "saves", "resume"))
            while not new.has_spoken():  # the old one has just looked, and found no other
                saver.ask("write", 1)
            new.hear()
            before = self._look(first, saves)[0]
            raised = [saver.ask(*words)["raised"] for words in (("write", 1), ("json",))]
            meanwhile = self._look(second, saves)[0]
            said = {"old": logger.hear(), "new": newer.hear()}
            closed = [talk.ask("close")["raised"] for talk in (saver, logger, new, newer)]
            for talk in (new, newer):
                talk.end()
        return {
            "before": before,
            "raised": raised,
            "meanwhile": meanwhile,
            "said": said,
            "closed": closed,
            "after": [self._look(node, saves, logs) for node in self.nodes],
        }

    def full(self) -> dict[str, Any]:
        """A disk of the server that is full, as a node sees it."""
        return dict(json.loads(self._run(self.nodes[0].python("full", "/mnt/full"))))

    def away(self) -> dict[str, Any]:
        """A server that is away for four seconds, while both nodes write."""
        steady = [
            node.python("steady", self.shared, "steady", place)
            for place, node in enumerate(self.nodes)
        ]
        threads = Path("/proc/fs/nfsd/threads")
        with talking(*steady) as runs:
            time.sleep(1)
            threads.write_text("0\n")
            time.sleep(4)
            threads.write_text("8\n")
            time.sleep(12)  # it serves nobody new before its grace period of 10 s is over
            for run in runs:
                run.say("enough")
            ended = [run.hear() for run in runs]
        paths = [f"{self.shared}/steady/runs/log_{run['run_id']}" for run in ended]
        return {"ended": ended, "runs": self._look(self.nodes[0], *paths)}

    def doctor(self) -> dict[str, Any]:
        """What is found by `notata doctor`, started on both nodes at once."""
        return {
            "shared": self._examine(self.shared, 0),
            "ahead": self._examine(self.shared, 90),
        }

    def doctor_nolock(self) -> dict[str, Any]:
        """The same where locks exclude within a node only."""
        return self._examine("/mnt/nolock", 0)

    def _examine(self, folder: str, ahead: int) -> dict[str, Any]:
        """Examine a folder, with the second node's clock ahead by some seconds."""
        command = self._mpiexec(1, ahead, "examine", folder)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LONG, check=False)
        return {"status": done.returncode, **json.loads(done.stdout)}


def _trial(nodes: list[Talk], name: str) -> dict[str, Any]:
    for node in nodes:
        node.say("add", name)
    failed = sum(node.hear()["failed"] for node in nodes)
    warnings = nodes[0].ask("warnings", name)
    return {"failed": failed, "warnings": warnings} | nodes[1].ask("check", name, 12 * 40)


def main(told: str, nodes: str, shared: str, mpiexec: str, *steps: str) -> None:
    session = Session(nodes, shared, mpiexec)
    for step in steps:
        name, _, number = step.partition("=")
        began = time.monotonic()
        try:
            result = getattr(session, name)(*map(int, filter(None, [number])))
        except Exception:
            result = {"error": traceback.format_exc()}
        took = round(time.monotonic() - began, 1)
        print(f"session: {step} took {took} s", flush=True)
        with open(told, "a") as file:
            print(json.dumps({"step": name, "seconds": took, **result}), file=file)


if __name__ == "__main__":
    main(*sys.argv[1:])
