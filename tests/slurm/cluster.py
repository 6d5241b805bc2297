"""A real Slurm on this machine, for the tests: one controller, two pretended nodes, munge."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = (
    "slurmctld",
    "slurmd",
    "munged",
    "sbatch",
    "srun",
    "squeue",
    "scontrol",
    "scancel",
    "sinfo",
    "setpriv",
)
NODES = ("node1", "node2")
CONF = """\
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=3600
MailProg=/bin/true
TaskProlog={folder}/prolog.sh
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=8000 "
    "State=UNKNOWN\n"
)


def missing() -> list[str]:
    """The programs that are not installed here."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Cluster:
    """A controller and its nodes, with all their files in one new folder.

    The path is short, and open to all users: munge's socket needs both.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
        self.folder.chmod(0o755)
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start all daemons; returns when every node is idle."""
        folder, host = self.folder, socket.gethostname().split(".")[0]
        (folder / "state").mkdir()
        for name in NODES:
            (folder / "spool" / name).mkdir(parents=True)
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o400)
        # Names of pretended nodes do not resolve, and the first of them is the ranks' MASTER_ADDR.
        (folder / "prolog.sh").write_text("#!/bin/sh\necho export MASTER_ADDR=127.0.0.1\n")
        (folder / "prolog.sh").chmod(0o755)
        ports, user = (
            free_ports(len(NODES) + 1),
            os.environ.get("USER") or subprocess.getoutput("id -un"),
        )
        conf = CONF.format(host=host, ports=ports, user=user, folder=folder)
        nodes = "".join(
            NODE.format(name=n, host=host, port=p) for n, p in zip(NODES, ports[1:], strict=True)
        )
        (folder / "slurm.conf").write_text(conf + nodes)
        files = {name: f"{folder}/munge.{name}" for name in ("socket", "pid", "log", "seed")}
        self.run(
            "munged",
            "--foreground",
            f"--key-file={folder}/munge.key",
            f"--socket={files['socket']}",
            "--force",
            f"--pid-file={files['pid']}",
            f"--log-file={files['log']}",
            f"--seed-file={files['seed']}",
        )
        wait(lambda: Path(files["socket"]).exists(), "munged")
        self.run("slurmctld", "-D", "-c", "-f", f"{folder}/slurm.conf")
        for name in NODES:
            self.run("slurmd", "-D", "-N", name, "-f", f"{folder}/slurm.conf")
        wait(
            lambda: self.ask("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * len(NODES),
            "the nodes",
        )

    def run(self, *command: str) -> None:
        """Start a daemon in its own session; it ends when this process does, even if killed."""
        with (self.folder / f"{command[0]}.out").open("ab") as output:
            daemon = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.daemons.append(daemon)

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        ).stdout

    def ended(self) -> bool:
        """Whether no job waits or runs."""
        return not self.ask("squeue", "--noheader")

    def stop(self) -> None:
        """End all jobs, their leftover processes and the daemons, and remove the folder."""
        if any("slurmctld" in daemon.args for daemon in self.daemons):  # type: ignore[operator]
            self.ask("scancel", "--user", str(os.getuid()))
            wait(self.ended, "the end of all jobs")
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait(timeout=30)
        for pid in leftovers(self.environment["SLURM_CONF"]):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder)


def leftovers(conf: str) -> list[int]:
    """Processes that outlived a cluster's daemons: those with its SLURM_CONF, but for this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        pid = int(path.parent.name)
        try:
            mine = f"SLURM_CONF={conf}".encode() in path.read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile, or is another user's
            continue
        if mine and pid != os.getpid():
            found.append(pid)
    return found


def free_ports(num: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(num)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def wait(condition: Callable[[], bool], what: str, seconds: float = 1800) -> None:
    """Return when a condition holds; fails where it takes for ever."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.2)
