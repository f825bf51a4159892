"""A real Slurm of our own on this machine: all daemons, several nodes, accounting.

Root, loopback and the Debian packages are all it needs: no systemd, no container, no cgroups. Each
`slurmd` has a host name of its own, so that its jobs see several nodes.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

JOBS = Path(__file__).parent / "programs"  # what the tests' jobs run

NEEDED = (
    *("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "mariadb-install-db"),
    *("sbatch", "srun", "scancel", "sacct", "squeue", "scontrol", "sinfo", "unshare", "setpriv"),
)
ARRAY_TASKS = 200  # that an array may have here
PATIENCE = 60.0  # seconds for a daemon to answer, on a machine that is busy with other things

# Ports, counted from the first of the block.
CONTROLLER, DATABASE_DAEMON, DATABASE, FIRST_NODE = 0, 1, 2, 10

CONFIG = """\
ClusterName=notata
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job has to wait until its old credential is void: by default for 120 s.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
# PMIx keeps its sockets here, which mustn't be shared by the nodes.
TmpFS={folder}/tmp-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
# The nodes have more processors than the machine.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
Epilog={folder}/epilog
# Jobs start as soon as they can.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=2000,bf_interval=1,default_queue_depth=1000,max_array_tasks={array_tasks}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# A node that is gone is missed after a multiple of this.
SlurmdTimeout=10
# On a machine that is busy: a message that is given up may leave ranks waiting for each other in
# MPI_Init for good.
TCPTimeout=30
MessageTimeout=100
ReturnToService=2
KillWait=5
MinJobAge=3600
# Memory that killed MPI jobs leave in /dev/shm is named by their ids: those of no earlier cluster.
FirstJobId={first_job}
MaxArraySize=1001
PropagateResourceLimits=NONE
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database_daemon}
AccountingStoragePass={folder}/munge.socket
{nodes}
PartitionName=main Nodes={steady} Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes={fragile} PriorityTier=10 MaxTime=INFINITE State=UP
PartitionName=fragile Nodes={fragile} PriorityTier=1 MaxTime=INFINITE State=UP
"""

# Elsewhere cgroups see to it that nothing of a job outlives it on its node.
EPILOG = """\
#!/bin/sh
for process in $(grep -slzxF "SLURM_JOB_ID=$SLURM_JOB_ID" /proc/[0-9]*/environ); do
    process=${{process%/environ}}
    [ "${{process#/proc/}}" = $$ ] && continue
    grep -qszxF "SLURM_CONF={folder}/slurm.conf" "$process/environ" &&
        grep -qszxF "SLURMD_NODENAME=$SLURMD_NODENAME" "$process/environ" &&
        kill -9 "${{process#/proc/}}"
done 2>/dev/null
exit 0
"""

DATABASE_DAEMON_CONFIG = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={database_daemon}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""

DATABASE_CONFIG = """\
[mariadbd]
user=root
datadir={folder}/database
socket={folder}/mariadbd.socket
pid-file={folder}/mariadbd.pid
log-error={folder}/mariadbd.log
bind-address=127.0.0.1
port={database}
skip-name-resolve
innodb_buffer_pool_size=64M
innodb_log_file_size=8M
innodb_lock_wait_timeout=900
innodb_flush_log_at_trx_commit=0
innodb_doublewrite=0
"""

DATABASE_SETUP = """\
CREATE DATABASE slurm;
CREATE USER slurm@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON slurm.* TO slurm@'127.0.0.1';
"""


class NoSlurmError(Exception):
    """Slurm can't be started here; the message says why."""


def missing() -> str | None:
    """What keeps Slurm from being started here, or None."""
    if os.geteuid() != 0:
        return "Slurm's daemons run as root here; run `make test-slurm` as root"
    absent = [name for name in NEEDED if shutil.which(name, path=_path()) is None]
    if absent:
        return f"{', '.join(absent)} not found; `make test-slurm` installs what is needed"
    done = subprocess.run(["unshare", "-m", "-u", "true"], capture_output=True, check=False)
    if done.returncode != 0:
        return f"no host name for each node: unshare: {done.stderr.decode().strip()}"
    return None


def give_up(why: str) -> NoReturn:
    """Skip a test; where `make test-slurm` asks for it (`NOTATA_NEED_SLURM`), fail it."""
    import pytest

    (pytest.fail if "NOTATA_NEED_SLURM" in os.environ else pytest.skip)(why)


# Variables that belong to another cluster, another launcher, or the tests themselves.
_OTHERS = ("SLURM", "SBATCH", "SQUEUE", "SACCT", "PMI", "OMPI_", "NOTATA_", "PYTEST", "COV_")


def _path() -> str:
    here = str(Path(sys.executable).parent)  # jobs are to find this Python and its notata
    return f"{here}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Cluster:
    """A cluster of nodes `n1` to `n4`, and `n5`, which may be taken down.

    Partition `main` has the first four, `fragile` the last, and `urgent` too: a job there takes
    the nodes from those of `fragile`.
    """

    steady = ("n1", "n2", "n3", "n4")
    fragile = ("n5",)
    processors = 8  # of each node
    config = CONFIG
    more: Mapping[str, str] = {}  # other files beside slurm.conf, by their names

    def __init__(self, folder: Path) -> None:
        """Prepare; nothing is started yet.

        Args:
            folder: Where it keeps everything: a short path, since sockets have short names.
        """
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._first_port = _free_ports(FIRST_NODE + len(self.nodes))

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.steady + self.fragile

    # ----- starting and stopping -----

    def start(self) -> None:
        """Start all daemons and wait until every node takes jobs.

        Raises:
            NoSlurmError: If one of them doesn't start; the message has the end of its log.
        """
        try:
            self._write_configuration()
            self._start_authentication()
            self._start_accounting()
            self._start("slurmctld", ["slurmctld", "-D", "-f", self._conf], own_host=True)
            self._await("slurmctld", lambda: _listens(self._first_port + CONTROLLER))
            for node in self.nodes:
                self.start_node(node)
            self._await("slurmctld", lambda: self._idle() == set(self.nodes))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all jobs and daemons, and nothing else."""
        controller = self._daemons.get("slurmctld")
        if controller is not None and controller.poll() is None:
            with suppress(subprocess.SubprocessError):
                self.call("scancel", "--user=root", check=False, seconds=10)
                self.wait_until(lambda: not self.call("squeue", "-h", check=False).strip(), 15)
        for name in reversed(list(self._daemons)):
            _end(self._daemons.pop(name))
        self._end_leftovers()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_configuration(self) -> None:
        ports = {
            "controller": self._first_port + CONTROLLER,
            "database_daemon": self._first_port + DATABASE_DAEMON,
            "database": self._first_port + DATABASE,
        }
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 CPUs={self.processors} "
            f"Port={self._first_port + FIRST_NODE + place} RealMemory=4000 State=UNKNOWN"
            for place, node in enumerate(self.nodes)
        )
        facts = {
            "folder": self.folder,
            "host": socket.gethostname().partition(".")[0],
            "password": secrets.token_hex(16),
            "nodes": nodes,
            "steady": ",".join(self.steady),
            "fragile": ",".join(self.fragile),
            "array_tasks": ARRAY_TASKS,
            "first_job": 1000 + secrets.randbelow(900_000),
        }
        texts = {
            "slurm.conf": self.config,
            "epilog": EPILOG,
            "slurmdbd.conf": DATABASE_DAEMON_CONFIG,
            "mariadbd.cnf": DATABASE_CONFIG,
            "setup.sql": DATABASE_SETUP,
            **self.more,
        }
        for name, text in texts.items():
            secret = "{password}" in text
            path = self.folder / name
            path.touch(mode=0o600 if secret else 0o644)
            path.write_text(text.format(**facts, **ports))
        (self.folder / "epilog").chmod(0o755)
        for name in ("state", *(f"{kind}-{n}" for n in self.nodes for kind in ("spool", "tmp"))):
            (self.folder / name).mkdir()
        known = f"127.0.0.1 localhost {facts['host']} {' '.join(self.nodes)}\n"
        (self.folder / "hosts").write_text(known)

    def _start_authentication(self) -> None:
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        os.chmod(self.folder, 0o755)  # munged wants its socket to be within everybody's reach
        sock = self.folder / "munge.socket"
        command = ["munged", "--foreground", f"--socket={sock}", f"--key-file={key}"]
        files = {"seed": "munge.seed", "log": "munged.log", "pid": "munged.pid"}
        command += [f"--{what}-file={self.folder / name}" for what, name in files.items()]
        self._start("munged", command)
        self._await("munged", sock.exists)

    def _start_accounting(self) -> None:
        option = f"--defaults-file={self.folder / 'mariadbd.cnf'}"
        made = subprocess.run(
            ["mariadb-install-db", option, "--skip-test-db", "--user=root"],
            capture_output=True,
            check=False,
        )
        if made.returncode != 0:
            raise NoSlurmError(f"mariadb-install-db: {made.stderr.decode()}{made.stdout.decode()}")
        self._start("mariadbd", ["mariadbd", option, f"--init-file={self.folder / 'setup.sql'}"])
        self._await("mariadbd", lambda: _listens(self._first_port + DATABASE))
        self._start("slurmdbd", ["slurmdbd", "-D"], own_host=True)
        self._await("slurmdbd", lambda: _listens(self._first_port + DATABASE_DAEMON))

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        command = ["slurmd", "-D", "-N", node, "-f", self._conf]
        self._start(f"slurmd-{node}", command, own_host=node, SLURMD_NODENAME=node)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon, as a node that loses its power does; its jobs' processes too."""
        daemon = self._daemons.pop(f"slurmd-{node}")
        daemon.kill()
        daemon.wait()
        self._end_leftovers(node)

    def _start(
        self, name: str, command: Sequence[str], own_host: str | bool = False, **more: str
    ) -> None:
        """Start a daemon that ends with this process, however this process ends."""
        full = ["setpriv", "--pdeathsig=TERM", "--", *command]
        if own_host:
            host = own_host if isinstance(own_host, str) else os.uname().nodename
            setup = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'
            hosts = str(self.folder / "hosts")
            full = ["unshare", "-m", "-u", "sh", "-c", setup, "sh", hosts, host, *full]
        with (self.folder / f"{name}.out").open("wb") as out:
            self._daemons[name] = subprocess.Popen(
                full,
                env=self.environment(**more),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        daemon = self._daemons[name]
        if not self.wait_until(lambda: ready() or daemon.poll() is not None, PATIENCE):
            raise NoSlurmError(f"{name} gave no answer within {PATIENCE:g} s\n{self._said(name)}")
        if daemon.poll() is not None:
            raise NoSlurmError(f"{name} ended with status {daemon.returncode}\n{self._said(name)}")

    def _said(self, name: str) -> str:
        text = ""
        for file in (self.folder / f"{name}.log", self.folder / f"{name}.out"):
            with suppress(FileNotFoundError):
                text += "\n".join(file.read_text(errors="replace").splitlines()[-15:]) + "\n"
        return text

    def _idle(self) -> set[str]:
        told = self.call("sinfo", "--noheader", "--Node", "-o", "%N %t", check=False)
        return {line.split()[0] for line in told.splitlines() if line.endswith(" idle")}

    def _end_leftovers(self, node: str | None = None) -> None:
        """End processes of this cluster's jobs that no daemon is left to end.

        Those that look after a job go first: as where the power fails, nobody tells how it ended.
        """
        marks = {f"SLURM_CONF={self._conf}".encode()}
        if node is not None:
            marks.add(f"SLURMD_NODENAME={node}".encode())
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                own = int(folder.name) == os.getpid()
                if not own and marks <= set((folder / "environ").read_bytes().split(b"\0")):
                    steward = (folder / "comm").read_text().startswith("slurmstepd")
                    found.append((not steward, int(folder.name)))
        for _, process in sorted(found):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    # ----- using it -----

    @property
    def _conf(self) -> str:
        return str(self.folder / "slurm.conf")

    def environment(self, **more: str) -> dict[str, str]:
        """The variables for programs that are to use this cluster, and no other."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_OTHERS)}
        return kept | {"SLURM_CONF": self._conf, "PATH": _path(), "LC_ALL": "C.UTF-8"} | more

    def call(self, *command: str, check: bool = True, seconds: float = 60) -> str:
        """Run a program with this cluster's configuration; gives what it printed."""
        done = subprocess.run(
            command,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def submit(self, *options: str | Path, script: str | None = None, **more: str) -> str:
        """Submit a batch job; gives its id.

        Args:
            *options: Options of `sbatch`; the last may be the path of a script.
            script: What the job runs, if there is no file of it.
            **more: Variables for it.
        """
        text = None if script is None else f"#!/bin/bash\n{script}\n"
        done = subprocess.run(
            ["sbatch", "--parsable", *map(str, options)],
            env=self.environment(**more),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @contextmanager
    def limited(self, array_tasks: int) -> Iterator[None]:
        """Let arrays have only so many tasks meanwhile."""
        conf = Path(self._conf)
        text, told = conf.read_text(), "max_array_tasks="
        try:
            conf.write_text(text.replace(f"{told}{ARRAY_TASKS}", f"{told}{array_tasks}"))
            self.call("scontrol", "reconfigure")
            yield
        finally:
            conf.write_text(text)
            time.sleep(1.1)  # of two changes within a second it would heed the first alone
            self.call("scontrol", "reconfigure")

    def wait(self, *jobs: str, seconds: float = 240) -> None:
        """Wait until no element of these jobs is queued or runs, and the accounting knows it."""
        named = ",".join(jobs)
        since, before = time.monotonic(), ""

        def ended() -> bool:
            nonlocal since, before
            if self.call("squeue", "--noheader", "-j", named, check=False).strip():
                return False
            told = self.call("sacct", "-X", "-D", "-n", "-P", "-o", "JobID,End,State", "-j", named)
            if told != before:  # it hears of elements and of later attempts one after another
                since, before = time.monotonic(), told
            lines = [line.split("|") for line in told.splitlines()]
            over = all(end != "Unknown" for _, end, _ in lines)
            # On a busy machine it may not have heard of any element yet, but of the array alone.
            shown = [self.call("scontrol", "-o", "show", "job", job, check=False) for job in jobs]
            elements = sum(text.count("JobId=") - text.count("ArrayJobId=") for text in shown)
            known = len(lines) >= max(elements, len(jobs))
            return over and known and time.monotonic() - since > 3

        if not self.wait_until(ended, seconds):
            queue = self.call("squeue", check=False)
            told = [file.read_text(errors="replace")[-2000:] for file in Path.cwd().glob("*.out")]
            facts = "\n".join([queue, *told, *self._processes()])
            raise AssertionError(f"jobs {named} haven't ended in {seconds:g} s\n{facts}")

    def _processes(self) -> list[str]:
        """What each process of this cluster's jobs is, and in which call of the kernel."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                variables = (folder / "environ").read_bytes().split(b"\0")
                jobs = [one.decode() for one in variables if one.startswith(b"SLURM_JOB_ID=")]
                if jobs and f"SLURM_CONF={self._conf}".encode() in variables:
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                    where = (folder / "wchan").read_text()
                    used = (folder / "schedstat").read_text().split()[0]
                    found.append(f"{folder.name} {jobs[0]} {state} {where} {used} ns: {command}")
        return found

    @staticmethod
    def wait_until(true: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True


def _free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on, or is about to."""
    for first in range(27000, 32000, 50):
        claim = os.open(
            f"{tempfile.gettempdir()}/notata-slurm-ports-{first}", os.O_RDWR | os.O_CREAT
        )
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends
            taken = False
        except BlockingIOError:
            taken = True
        for port in range(first, first + count):
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    taken = True
        if not taken:
            return first
        os.close(claim)
    raise NoSlurmError("no free block of ports between 27000 and 32000")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
