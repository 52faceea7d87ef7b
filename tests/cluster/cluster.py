"""A real SLURM of a few logical nodes on this one machine, as root: for tests. Debian's packages, no systemd.

Each node has its own pid, mount and host name space, so that killing it takes all its jobs along, as a power cut does.
The GPUs are fictional: character devices that nothing opens. Everything lives in one folder and goes with it.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

PACKAGES = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
ACCOUNTING_PACKAGES = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
    "/usr/lib/x86_64-linux-gnu/slurm-wlm/accounting_storage_mysql.so": "slurm-wlm-mysql-plugin",
}
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
GPUS, CPUS = 2, 4  # of each node
# cred_expire is also the wait before a requeued job may start again; below 5 it is refused and 120 is used.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge/socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.own
SlurmdPidFile={root}/run/%n.own
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/%n.log
FirstJobId={first_job}
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=5
MessageTimeout=5
TCPTimeout=2
KillWait=5
CompleteWait=0
MinJobAge=30
MaxJobCount={most_jobs}
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
SlurmctldParameters=preempt_send_user_signal
{accounting}
GresTypes=gpu
NodeName=node[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={first_port}-{last_port} CPUs={cpus} \
RealMemory=64000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=gpu Nodes=ALL Default=YES DefaultTime=60 MaxTime=1-0 State=UP LLN=YES PriorityTier=1 GraceTime=10
PartitionName=high Nodes=ALL DefaultTime=60 MaxTime=1-0 State=UP LLN=YES PriorityTier=10
"""
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none"
ACCOUNTING = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database_daemon_port}
AccountingStoragePass={root}/munge/socket
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux"""
DATABASE_DAEMON = """AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={database_daemon_port}
SlurmUser=root
LogFile={root}/log/slurmdbd.log
PidFile={root}/run/slurmdbd.own
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=x
StorageLoc=slurm
"""
RIGHTS = (
    "create database slurm; create user slurm@'127.0.0.1' identified by 'x'; create user slurm@localhost identified by "
    "'x'; grant all on slurm.* to slurm@'127.0.0.1'; grant all on slurm.* to slurm@localhost"
)


def install(accounting=False):
    """Install Debian's packages where they lack."""
    assert os.geteuid() == 0, "these tests start a real SLURM on this machine, which takes root on Debian"
    wanted = PACKAGES | (ACCOUNTING_PACKAGES if accounting else {})
    lacking = [
        package for what, package in wanted.items() if not (shutil.which(what, path=PATH) or Path(what).is_file())
    ]
    if lacking:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-q"], ["install", "-qy", "--no-install-recommends", *lacking]):
            subprocess.run(["apt-get", *command], env=environment, check=True, stdout=subprocess.DEVNULL)


class Cluster:
    """A running cluster of `nodes` logical nodes. `root`: the folder that all of it lives in."""

    def __init__(self, root, nodes=4, accounting=False, most_jobs=10_000):
        install(accounting)
        self.root, self.nodes = root, [f"node{number}" for number in range(1, nodes + 1)]
        self._processes = {}
        first = _free_ports(nodes + 4)
        self._values = {
            "root": root,
            "host": socket.gethostname().partition(".")[0],
            "controller_port": first,
            "database_daemon_port": first + 1,
            "database_port": first + 2,
            "first_port": first + 4,
            "last_port": first + 3 + nodes,
            "first_job": int(time.time()) % 10_000_000 + 1000,
            "nodes": nodes,
            "gpus": GPUS,
            "cpus": CPUS,
            "most_jobs": most_jobs,
        }
        self.environment = os.environ | {"SLURM_CONF": f"{root}/slurm.conf", "PATH": PATH}
        try:
            self._write(accounting)
            self._start_munge()
            if accounting:
                self._start_database()
            self._start("slurmctld", ["slurmctld", "-D", "-f", f"{root}/slurm.conf"])
            self.until(30, "slurmctld", lambda: self.ask("sinfo", "-h"))
            for node in self.nodes:
                self.start_node(node)
        except BaseException:
            self.stop()
            raise

    def _write(self, accounting):
        for folder in ("state", "spool", "log", "run", "dev", "munge"):
            (self.root / folder).mkdir(parents=True)
        values = self._values
        for number in range(GPUS):  # plain files, or a count alone, give no GPU
            os.mknod(self.root / "dev" / f"gpu{number}", 0o666 | 0o020000, os.makedev(1, 3))
        gpus = f"NodeName=node[1-{len(self.nodes)}] Name=gpu File={self.root}/dev/gpu[0-{GPUS - 1}]\n"
        (self.root / "gres.conf").write_text(gpus)
        account = ACCOUNTING.format(**values) if accounting else NO_ACCOUNTING
        (self.root / "slurm.conf").write_text(CONFIG.format(accounting=account, **values))
        database = self.root / "slurmdbd.conf"
        database.write_text(DATABASE_DAEMON.format(**values))
        database.chmod(0o600)
        hosts = [f"127.0.1.{number} {node}" for number, node in enumerate(self.nodes, 1)]
        (self.root / "hosts").write_text(Path("/etc/hosts").read_text() + "\n".join(hosts) + "\n")

    def _start_munge(self):
        folder = self.root / "munge"
        folder.chmod(0o755)
        (folder / "key").write_bytes(secrets.token_bytes(256))
        (folder / "key").chmod(0o600)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={folder / name}" for option, name in files.items()]
        self._start("munged", ["munged", "--foreground", "--force", *options])
        self.until(10, "munged", lambda: self.ask("munge", "-S", str(folder / "socket"), "-n"))

    def _start_database(self):
        data, port = self.root / "db", self._values["database_port"]
        data.mkdir()
        names = ["--no-defaults", "--user=root", f"--datadir={data}/data"]
        made = ["mariadb-install-db", *names, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(made, env=self.environment, check=True, capture_output=True)
        self._start(
            "mariadbd",
            ["mariadbd", *names, f"--socket={data}/sock", f"--pid-file={data}/pid", "--bind-address=127.0.0.1",
             f"--port={port}", "--innodb-buffer-pool-size=32M", "--innodb-lock-wait-timeout=900",
             "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin"],
        )  # fmt: skip
        client = ["mariadb", "--no-defaults", "-S", f"{data}/sock", "-uroot", "-e"]
        self.until(30, "mariadbd", lambda: self.ask(*client, "select 1"))
        self.tell(*client, RIGHTS)
        self._start("slurmdbd", ["slurmdbd", "-D"])
        self.until(30, "slurmdbd", lambda: self.ask("sacctmgr", "-i", "add", "cluster", "test"))

    def _start(self, name, command):
        with (self.root / "log" / f"{name}.out").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.environment, start_new_session=True
            )

    def start_node(self, node):
        """Start a node, or start it again after a crash, and wait until it takes jobs."""
        inside = (
            'hostname "$1"; mount --bind "$2/hosts" /etc/hosts; slurmd -D -N "$1" -f "$2/slurm.conf" & '
            'echo $! >"$2/run/$1.inside"; wait $!'
        )
        # bash is the first process in there, so it takes in what slurmstepd leaves behind.
        spaces = ["unshare", "--pid", "--fork", "--kill-child=SIGKILL", "--mount", "--mount-proc", "--uts"]
        self._start(node, [*spaces, "bash", "-c", inside, "bash", node, str(self.root)])
        self.until(30, node, lambda: self.state(node) & {"IDLE", "MIXED", "ALLOCATED"})

    def state(self, node):
        """The words of a node's state, such as DOWN and NOT_RESPONDING."""
        found = re.search(r" State=(\S+)", self.ask("scontrol", "-o", "show", "node", node))
        return set() if found is None else set(re.split(r"[+*]", found[1]))

    def crash(self, node):
        """Kill a node with all that runs on it."""
        process = self._processes.pop(node)
        process.kill()
        process.wait()

    def slurmd(self, node):
        """The process of slurmd on a node; jobs are no children of it that a signal to it would reach."""
        children = psutil.Process(self._processes[node].pid).children(recursive=True)
        return next(one for one in children if one.name() == "slurmd")

    def freeze(self, node):
        """Stop slurmd on a node: it is taken for lost, and its jobs go on."""
        self.slurmd(node).send_signal(signal.SIGSTOP)

    def thaw(self, node):
        """Let slurmd go on."""
        self.slurmd(node).send_signal(signal.SIGCONT)

    def ask(self, *command):
        """What a command prints; "" where it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else ""

    def tell(self, *command):
        """Run a command that must not fail, and return what it prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def queue(self):
        """{id: (state, node)} of all jobs in the queue, elements of arrays by themselves."""
        lines = self.tell("squeue", "-h", "-r", "-a", "-o", "%i %T %N").splitlines()
        return {words[0]: (words[1], words[2] if len(words) > 2 else "") for words in map(str.split, lines)}

    def until(self, seconds, what, condition):
        """Wait until `condition()` holds."""
        end_s = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end_s:
                logs = sorted((self.root / "log").iterdir())
                tails = "\n".join(f"{path.name}: {path.read_text(errors='replace')[-600:]}" for path in logs)
                raise AssertionError(f"timed out waiting for {what}\n{tails}")
            time.sleep(0.1)

    def stop(self):
        """Stop everything: the nodes at once, the daemons as they like it."""
        for node in self.nodes:
            if node in self._processes:
                self.crash(node)
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            if (process := self._processes.pop(name, None)) is not None:
                process.terminate()
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _free_ports(count):
    """The first of so many ports in a row that nobody uses."""
    for first in range(16_800, 30_000, count):
        held = [socket.socket() for _ in range(count)]
        try:
            for number, one in enumerate(held):
                one.bind(("127.0.0.1", first + number))
            return first
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise AssertionError("no ports are free")
