"""A Slurm of two virtual nodes on this machine, for tests: real daemons, as root, without systemd.

with slurm(folder) as cluster:
    cluster.call("sinfo")
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")


def is_installed() -> bool:
    """Whether Debian's packages slurm-wlm and munge are there, and this is root."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in NEEDED)


class Slurm:
    """A running Slurm.

    Args:
        folder: folder of its configuration, state and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def call(self, *command: str) -> str:
        """Run a command of Slurm, and return what it prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a daemon."""
        with (self.folder / f"{Path(command[0]).name}{len(self.daemons)}.out").open("ab") as log:
            daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self.daemons.append(daemon)
        return daemon

    def kill(self, node: str) -> None:
        """Kill all processes of a node, as a power failure would."""
        self.nodes[node].kill()
        self.nodes[node].wait()
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("SLURMD_NODENAME") == node:
                process.kill()

    def restart(self, node: str) -> None:
        """Start a node that was killed."""
        self.nodes[node] = self.start("slurmd", "-D", "-N", node)
        self.call("scontrol", "update", f"NodeName={node}", "State=IDLE")
        wait_until(lambda: self.call("sinfo", "--noheader", "--format=%D %T") == "2 idle\n")


def configuration(folder: Path) -> str:
    """Return slurm.conf, with ports that are free now."""
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        ports = []
        for each in (first, second, third):
            each.bind(("127.0.0.1", 0))
            ports.append(each.getsockname()[1])
    host = socket.gethostname().partition(".")[0]
    nodes = "\n".join(
        f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=2000 State=UNKNOWN"
        for number, port in enumerate(ports[1:], 1)
    )
    return f"""ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmctldLogFile={folder}/slurmctld.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=1
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=5
MinJobAge=120
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Start munge, the controller and both nodes; end them all."""
    cluster = Slurm(folder)
    for name in ("state", "spool.n1", "spool.n2"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    (folder / "slurm.conf").write_text(configuration(folder))
    own = [
        f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("socket", "key-file", "pid-file", "log-file")
    ]
    own += [f"--seed-file={folder}/munge.seed"]
    cluster.start("munged", "--foreground", "--force", *own)
    try:
        wait_until(lambda: (folder / "munge.socket").exists())
        cluster.start("slurmctld", "-D", "-i")
        for node in ("n1", "n2"):
            cluster.nodes[node] = cluster.start("slurmd", "-D", "-N", node)
        wait_until(lambda: cluster.call("sinfo", "--noheader", "--format=%D %T") == "2 idle\n")
        yield cluster
    finally:
        for daemon in reversed(cluster.daemons):
            daemon.terminate()
        for daemon in cluster.daemons:
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()


def wait_until(condition, *, within_s: float = 60) -> None:
    """Wait until something holds; what fails meanwhile does not hold yet."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            if condition():
                return
        except AssertionError:
            pass
        assert time.monotonic() < deadline, "Slurm did not start"
        time.sleep(0.2)
