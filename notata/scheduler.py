"""Which job is this process in: every scheduler's variables as one table.

Nothing here asks a scheduler; it only reads what the scheduler told the process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from notata.ranges import tasks_of


class Scheduler(NamedTuple):
    """The variables by which a scheduler tells a process which job it is in.

    Attributes:
        name: What the metadata calls it.
        job_id: Holds the job's id; the scheduler is this one where it is set.
        facts: What else there is to know, each with its variable; the first one that is set counts.
        array: Bounds, step and number of tasks of the array that the job is a task of, likewise.
        node_file: Names a file that begins each line with a node, where no variable lists them.
        within: A variable without which the others mean something else.
    """

    name: str
    job_id: str
    facts: tuple[tuple[str, str], ...]
    array: tuple[tuple[str, str], ...] = ()
    node_file: str = ""
    within: str = ""


# In order of trust: Flux may run inside an allocation of another scheduler.
SCHEDULERS = (
    Scheduler("flux", "FLUX_JOB_ID", (("array_task_id", "FLUX_JOB_CC"),)),
    Scheduler(
        "slurm",
        "SLURM_JOB_ID",
        (
            ("array_job_id", "SLURM_ARRAY_JOB_ID"),
            ("array_task_id", "SLURM_ARRAY_TASK_ID"),
            ("step_id", "SLURM_STEP_ID"),
            ("restart_count", "SLURM_RESTART_COUNT"),
            ("nodes", "SLURM_JOB_NODELIST"),
            ("partition", "SLURM_JOB_PARTITION"),
            ("account", "SLURM_JOB_ACCOUNT"),
            ("submit_dir", "SLURM_SUBMIT_DIR"),
            ("cluster", "SLURM_CLUSTER_NAME"),
        ),
        (
            ("min", "SLURM_ARRAY_TASK_MIN"),
            ("max", "SLURM_ARRAY_TASK_MAX"),
            ("step", "SLURM_ARRAY_TASK_STEP"),
            ("count", "SLURM_ARRAY_TASK_COUNT"),
        ),
    ),
    Scheduler(
        "pbs",
        "PBS_JOBID",
        (
            ("array_job_id", "PBS_ARRAY_ID"),
            ("array_task_id", "PBS_ARRAY_INDEX"),
            ("array_task_id", "PBS_ARRAYID"),  # Torque
            ("partition", "PBS_QUEUE"),
            ("submit_dir", "PBS_O_WORKDIR"),
        ),
        node_file="PBS_NODEFILE",
    ),
    Scheduler(
        "lsf",
        "LSB_JOBID",
        (
            ("array_task_id", "LSB_JOBINDEX"),
            ("nodes", "LSB_HOSTS"),
            ("partition", "LSB_QUEUE"),
            ("account", "LSB_PROJECT_NAME"),
            ("submit_dir", "LS_SUBCWD"),
        ),
        (("max", "LSB_JOBINDEX_END"), ("step", "LSB_JOBINDEX_STEP")),
    ),
    Scheduler(
        "sge",
        "JOB_ID",
        (
            ("array_task_id", "SGE_TASK_ID"),
            ("restart_count", "RESTARTED"),
            ("partition", "QUEUE"),
            ("account", "SGE_ACCOUNT"),
            ("submit_dir", "SGE_O_WORKDIR"),
        ),
        (("min", "SGE_TASK_FIRST"), ("max", "SGE_TASK_LAST"), ("step", "SGE_TASK_STEPSIZE")),
        node_file="PE_HOSTFILE",
        within="SGE_TASK_ID",  # JOB_ID alone may be anybody's
    ),
)

_NUMBERS = {"array_task_id", "restart_count", "min", "max", "step", "count"}
_LONGEST_NODE_FILE = 1 << 20


def job(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the scheduler told this process of its job.

    Args:
        environ: The environment to read; the process's own by default.

    Returns:
        `name` and `job_id`, and as far as they are known `array_job_id`, `array_task_id`, `array`
        (`min`, `max`, `step`, `count`), `step_id`, `restart_count`, `nodes`, `partition`,
        `account`, `submit_dir` and `cluster`; ids are strings, but a task's is a number. Empty
        outside of jobs.

    Example:
        >>> job({"SLURM_JOB_ID": "4712", "SLURM_ARRAY_JOB_ID": "4711", "SLURM_ARRAY_TASK_ID": "3"})
        {'name': 'slurm', 'job_id': '4712', 'array_job_id': '4711', 'array_task_id': 3}

    Ranks: independent.
    """
    environ = os.environ if environ is None else environ
    for scheduler in SCHEDULERS:
        if environ.get(scheduler.job_id) and environ.get(scheduler.within or scheduler.job_id):
            return _told_by(scheduler, environ)
    return {}


def _told_by(scheduler: Scheduler, environ: Mapping[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": scheduler.name, "job_id": environ[scheduler.job_id]}
    facts |= _read(scheduler.facts, environ)
    if scheduler.name == "lsf" and facts.get("array_task_id") == 0:
        del facts["array_task_id"]  # LSF counts from 1, and says 0 outside of arrays
    if "array_task_id" in facts:
        array = _read(scheduler.array, environ)
        if scheduler.name == "lsf":
            name, task = environ.get("LSB_JOBNAME", ""), facts["array_task_id"]
            array |= _lsf_array(name, task, array.get("max", task))
        if array:
            facts["array"] = array
    if "nodes" not in facts and (file := environ.get(scheduler.node_file)):
        facts["nodes"] = _first_words(file)
    if scheduler.name == "lsf" and "nodes" in facts:
        facts["nodes"] = " ".join(dict.fromkeys(facts["nodes"].split()))  # one for each slot
    return {key: value for key, value in facts.items() if value != ""}


def _lsf_array(name: str, task: int, end: int) -> dict[str, int]:
    """The array of an LSF job by its name, such as `waves[5-10]`: else nobody says where it begins.

    Empty where the name doesn't list the task, or may be that of the task alone.
    """
    listed = re.search(r"\[([\d,:\s-]+)\]", name)
    try:
        tasks = sorted(set(tasks_of(listed[1]))) if listed else []
    except ValueError:
        tasks = []
    if task not in tasks or (len(tasks) == 1 and task != end):
        return {}
    first, last, step = tasks[0], tasks[-1], (tasks[1] - tasks[0] if len(tasks) > 1 else 1)
    plain = tasks == list(range(first, last + 1, step))
    return {"min": first, "max": last, "step": step if plain else 1, "count": len(tasks)}


def _read(table: tuple[tuple[str, str], ...], environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for fact, variable in table:
        text = environ.get(variable, "")
        if fact in found or not text:
            continue
        if fact not in _NUMBERS:
            found[fact] = text
        elif text.lstrip("-").isdecimal():  # SGE says "undefined" outside of arrays
            found[fact] = int(text)
    return found


def _first_words(path: str) -> str:
    """The nodes in a node file, each once."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_LONGEST_NODE_FILE).splitlines()
    except OSError:
        return ""
    return " ".join(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
