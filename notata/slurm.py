"""Asks Slurm what became of jobs, once for all of them.

This room parses and asks; it knows nothing of runs. `sacct` is asked first, since it remembers jobs
that have ended; where there is no accounting `squeue`, which lists jobs that wait or run and those
that ended minutes ago; then `scontrol`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from notata.jobs import FINAL, Answer, End, JobId, Record

_PATIENCE = 60.0  # seconds for an answer
_LONGEST_LIST = 100_000  # characters of job ids in one command; the system takes 131,072


def ask(ids: Iterable[str]) -> Answer:
    """Ask Slurm about jobs, once for all of them.

    Args:
        ids: Ids of jobs, of arrays (for all of their tasks), or of tasks such as `4711_3`.

    Returns:
        What the first program that answered says.

    Ranks: independent; one process is enough.
    """
    return _told(ids, (("sacct", _sacct), *_QUEUES))


def ends(ids: Iterable[JobId]) -> dict[JobId, End]:
    """Whether jobs have ended: proof for taking over what one of them began.

    Accounting takes a job for over while its processes may still write their last, and hears late
    that one was started again. So the queue is asked too, of those that seem to be over. Where it
    can't be, a job that nobody ended but its own script counts as settled.

    Args:
        ids: Jobs, or tasks such as `4711_3`.

    Ranks: independent; one process is enough.
    """
    wanted = list(dict.fromkeys(ids))
    answer = ask(job.name for job in wanted)
    found = {job: _end(job, answer) for job in wanted}
    over = [job for job, end in found.items() if end.over and end.time is not None]
    if answer.source == "sacct" and over:
        queue = _told((job.name for job in over), _QUEUES)
        for job in over:
            there = _end(job, queue)
            if there.over is False:
                found[job] = there
            elif not (there.over or (not queue.queue and _ended_by_itself(job, answer))):
                found[job] = found[job]._replace(settled=False)
    return found


def _end(job: JobId, answer: Answer) -> End:
    known = answer.find({"job_id": job.name, "cluster": job.cluster})
    if known is None:
        return End(answer.lacks(job) or None)
    newest = known.newest
    # Of a node that was lost, nobody has said that its processes have ended.
    settled = newest.over and newest.state != "NODE_FAIL" and newest.cluster == job.cluster != ""
    return End(newest.over if newest.known else None, newest.end, settled)


def _ended_by_itself(job: JobId, answer: Answer) -> bool:
    known = answer.find({"job_id": job.name, "cluster": job.cluster})
    return known is not None and not known.newest.telling


def array_limit() -> tuple[int, int] | None:
    """The largest task id plus one, and the largest number of tasks, that this site's arrays have.

    Returns:
        Both, or None where Slurm can't be asked.

    Ranks: independent.
    """
    config = _config()
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    if size is None:
        return None
    tasks = re.search(r"max_array_tasks=(\d+)", config)
    return int(size[1]), min(int(size[1]), int(tasks[1]) if tasks else int(size[1]))


def _cluster() -> str:
    """The name of the cluster whose queue is listed, or empty where it can't be had."""
    name = re.search(r"^ClusterName\s*=\s*(\S+)", _config(), re.MULTILINE)
    return name[1] if name else ""


def _config() -> str:
    try:
        return _run("scontrol", "show", "config")
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


# ----- asking -----

_Line = tuple[str, str, str, Record]  # name, plain id, step, record
_Asks = tuple[str, Callable[[list[str]], Iterator[_Line]]]  # a program's name, and how it is asked


def _told(ids: Iterable[str], programs: Iterable[_Asks]) -> Answer:
    """What the first of these programs that answers says of jobs."""
    wanted = sorted(set(ids))
    refusals: list[str] = []
    if not wanted:
        return Answer()
    for source, ask_it in programs:
        try:
            lines = list(ask_it(wanted))
            queue = "" if source == "sacct" else _cluster()
            answer = Answer(source, refusals, queue, wanted)
            for name, plain, step, record in lines:
                answer.add(name, plain, step, record._replace(cluster=record.cluster or queue))
            return answer.finish()
        except OSError as error:
            refusals.append(f"{source}: {error.strerror or error}")
        except (ValueError, subprocess.SubprocessError) as error:
            refusals.append(f"{source}: {error}")
    return Answer(None, refusals)


def _run(*command: str) -> str:
    """What a program of Slurm prints.

    Raises:
        OSError: If it is not there.
        ValueError: If it refuses; the message is what it said.
        subprocess.TimeoutExpired: If it gives no answer.
    """
    # What a user has set for their own eyes would change what is printed.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SACCT_", "SQUEUE_"))}
    env |= {"LC_ALL": "C", "SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}
    done = subprocess.run(
        command, env=env, capture_output=True, check=False, timeout=_PATIENCE, errors="replace"
    )
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise ValueError(said or f"ended with status {done.returncode}")
    return done.stdout


def _batches(ids: list[str]) -> Iterator[str]:
    """The ids, joined by commas, in one line as a rule; each fits into a command."""
    batch: list[str] = []
    length = 0
    for name in ids:
        if batch and length + len(name) > _LONGEST_LIST:
            yield ",".join(batch)
            batch, length = [], 0
        batch.append(name)
        length += len(name) + 1
    if batch:
        yield ",".join(batch)


_SACCT_FIELDS = "JobID,JobIDRaw,State,ExitCode,NodeList,Start,End,Cluster"


def _sacct(ids: list[str]) -> Iterator[_Line]:
    for batch in _batches(ids):
        options = ("--duplicates", "--parsable2", "--noheader")
        told = _run("sacct", *options, f"--format={_SACCT_FIELDS}", f"--jobs={batch}")
        yield from map(_sacct_line, told.splitlines())


def _sacct_line(line: str) -> _Line:
    name, plain, state, exit_code, nodes, start, end, cluster = line.split("|")
    name, _, step = name.partition(".")
    word, _, rest = state.partition(" ")
    by = rest.removeprefix("by ") if rest.startswith("by ") else ""
    record = Record(
        word.rstrip("+"), by, exit_code, _nodes(nodes), _seconds(start), _seconds(end), cluster
    )
    return name, plain.partition(".")[0], step, record


def _squeue(ids: list[str]) -> Iterator[_Line]:
    for batch in _batches(ids):
        options = ("--all", "--noheader", "--array", "--states=all", "--format=%i|%A|%T|%N|%S|%e")
        try:
            told = _run("squeue", *options, f"--jobs={batch}")
        except ValueError as error:
            if "Invalid job id" not in str(error):
                raise
            continue  # it knows none of them any more
        for line in told.splitlines():
            name, plain, state, nodes, start, end = line.split("|")
            over = state in FINAL  # of others, the end is the time limit
            times = _seconds(start), _seconds(end) if over else None
            yield name, plain, "", Record(state, "", "", _nodes(nodes), *times)


def _scontrol(ids: list[str]) -> Iterator[_Line]:
    wanted = {name.partition("_")[0] for name in ids}
    for line in _run("scontrol", "--all", "--oneliner", "show", "job").splitlines():
        facts = dict(part.partition("=")[::2] for part in line.split(" ") if "=" in part)
        plain, array = facts.get("JobId", ""), facts.get("ArrayJobId", "")
        if not wanted & {plain, array}:
            continue
        task = facts.get("ArrayTaskId", "")
        name = f"{array}_{task if task.isdecimal() else f'[{task}]'}" if array else plain
        state = facts.get("JobState", "")
        over = state in FINAL
        times = _seconds(facts.get("StartTime", "")), _seconds(facts.get("EndTime", ""))
        record = Record(
            state,
            "",
            facts.get("ExitCode", ""),
            _nodes(facts.get("NodeList", "")),
            times[0],
            times[1] if over else None,
        )
        yield name, plain, "", record


_QUEUES: tuple[_Asks, ...] = (("squeue", _squeue), ("scontrol", _scontrol))


def _nodes(text: str) -> str:
    return "" if text in ("None assigned", "(null)", "N/A") else text


def _seconds(stamp: str) -> float | None:
    try:
        return datetime.fromisoformat(stamp).timestamp()  # of a large array there are many
    except ValueError:
        return None  # Unknown, None, N/A
