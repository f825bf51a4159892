"""Steps in which ranks on several nodes share the work of a merge."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from typing import Any

from starting import LONG, Node, Nodes, talking

NFS_3 = "/mnt/nolock"  # where there is such a mount, it is tried as well


class Merges(Nodes):
    """The steps."""

    def together(self, copies: int) -> dict[str, Any]:
        """Copies of a run merged by ranks on both nodes, all but the first pruned as well.

        Beside them is what one process makes of another copy. Each node looks at all before, and
        remembers what was missing then.
        """
        folders = [self.shared, *([NFS_3] if os.path.isdir(NFS_3) else [])]
        made = {folder: self._several("together", copies + 1, folder) for folder in folders}
        every = [run for runs in made.values() for run in runs]
        alone = [runs[0] for runs in made.values()]
        runs = [run for run in every if run not in alone]
        pruned = [run for run in runs if not run.endswith("log_1")]
        before = self._looks(every)
        status = self._together("plain", *runs, "then", "--prune", *pruned)
        verified = self._merge(self.nodes[1], "--verify", *runs)
        merged = self._merge(self.nodes[0], *alone)
        verified_again = self._merge(self.nodes[0], "--verify", *every)
        return {
            "made": list(made.values()),
            "pruned": pruned,
            "status": [status, merged["status"]],
            "verified": [verified, verified_again],
            "before": before,
            "after": self._looks(every),
        }

    def disturbed(self, deaths: int) -> dict[str, Any]:
        """A merge by ranks on both nodes: one is killed, then another, then others merge at once.

        What is killed is on the node that does not lead, then leads, then is on the node that does.
        """
        first, second = self.nodes
        run, alone = self._several("disturbed", 2)
        before = self._look(second, run)[0]
        killed = []
        for rank in (2, 0, 1)[:deaths]:
            status = self._together(f"die={rank}", run)
            killed.append({"status": status, "left": self._look(second, run)[0]})
        with talking(self._mpiexec(2, 0, "together", "wait", run)) as (ranks,):
            late = self._merge(second, "--timeout", "1", run)
            command = second.command(sys.executable, "-m", "notata", "merge", run)
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
                time.sleep(2)  # by now it waits, or it comes later: it has to say the same
                ranks.say("go on")
                said, _ = waiting.communicate(timeout=LONG)
        self._merge(first, alone)
        return {
            "before": before,
            "killed": killed,
            "late": late,
            "waited": {"status": waiting.returncode, "said": said},
            "after": self._looks([run, alone]),
        }

    def _several(self, name: str, copies: int, folder: str = "") -> list[str]:
        """Let the second node write a run, in several copies."""
        base = f"{folder or self.shared}/{name}"
        base += "_nfs_3" if folder == NFS_3 else ""  # which is the same folder of the server
        self._run(self.nodes[1].python("several", base, copies))
        return [f"{base}/log_{copy}" for copy in range(copies)]

    def _together(self, *args: str) -> int:
        """Merge with two ranks on each node; gives the status."""
        command = self._mpiexec(2, 0, "together", *args)
        return subprocess.run(command, timeout=LONG, check=False).returncode

    def _merge(self, node: Node, *args: str) -> dict[str, Any]:
        """Merge with one process; gives the status, and what it said."""
        command = node.command(sys.executable, "-m", "notata", "merge", *args)
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
        return {"status": done.returncode, "said": done.stdout, "complained": done.stderr}

    def _looks(self, runs: list[str]) -> list[dict[str, Any]]:
        """What runs hold as each of the nodes sees it, by path; messages by a digest."""
        looks = [self._look(node, *runs) for node in self.nodes]
        for look in (look for some in looks for look in some):
            messages = json.dumps(look["messages"]).encode()
            look["messages"] = hashlib.sha256(messages).hexdigest()
        return [dict(zip(runs, some, strict=True)) for some in looks]
