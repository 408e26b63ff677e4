"""A Galera cluster of three MariaDB servers for a lab, each on a host of its own, started and broken by us.

Owns their files, their order of starting (the first founds the cluster, the others copy it), and which of them answers
a question about the whole. Runs as the user mysql, because the copying script refuses root. Needs Debian's galera-4.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from omni.testing.hosts import Host, Hosts
from omni.testing.mariadb import NoServer, find
from tests.cluster.database import NAME, PASSWORD, PORT, USER

_PROVIDERS = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so")
# A dead server is left out after about two seconds instead of fifteen.
_GROUP = (
    "evs.keepalive_period=PT0.3S;evs.suspect_timeout=PT1.2S;evs.inactive_timeout=PT2.5S;"
    "evs.inactive_check_period=PT0.3S"
)
_START_S = 90.0
_CLIENTS = "SELECT host FROM information_schema.processlist"


def provider() -> str:
    """The library of Galera. Raises NoServer."""
    for path in _PROVIDERS:
        if Path(path).exists():
            return path
    raise NoServer("Galera is needed and was not found. As root on Debian: apt-get install galera-4 rsync")


@dataclass
class GaleraNode:
    """One server."""

    host: Host
    folder: Path
    others: list[str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return str(self.folder / "s.sock")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self, *, found: bool = False) -> None:
        """Root enters the namespace, mysql runs the server. `found`: the first one of a new cluster."""
        addresses = "" if found else ",".join([self.host.address, *self.others])
        address = self.host.address
        command = [
            "setpriv", "--reuid", "mysql", "--regid", "mysql", "--clear-groups", "--pdeathsig", "KILL",
            find().server, "--no-defaults", f"--datadir={self.folder / 'data'}", f"--socket={self.socket}",
            f"--pid-file={self.folder / 'pid'}", f"--tmpdir={self.folder}", f"--bind-address={address}",
            f"--port={PORT}", "--skip-name-resolve", "--performance-schema=OFF", "--innodb-buffer-pool-size=64M",
            "--character-set-server=utf8mb4", "--collation-server=utf8mb4_unicode_ci", "--max-connections=300",
            "--wsrep-on=ON", f"--wsrep-provider={provider()}", f"--wsrep-cluster-address=gcomm://{addresses}",
            "--wsrep-cluster-name=lab", f"--wsrep-node-address={address}", f"--wsrep-node-name={self.host.name}",
            "--wsrep-sst-method=rsync", "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2",
            "--innodb-flush-log-at-trx-commit=1", "--default-storage-engine=InnoDB",
            f"--wsrep-provider-options={_GROUP};gmcast.listen_addr=tcp://{address}:4567;gcache.size=64M",
        ]  # fmt: skip
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
        with (self.folder / "log").open("ab") as out:
            self.process = self.host.popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                env={**os.environ, "PATH": path, "HOME": str(self.folder), "TMPDIR": str(self.folder)},
            )  # fmt: skip

    def query(self, statement: str, database: str = "", timeout_s: float = 30.0) -> list[list[str]]:
        command = [find().client, "--no-defaults", f"--socket={self.socket}", "-uroot", "-N", "-B", "--raw"]
        command += [database] if database else []
        done = subprocess.run(
            [*command, "-e", statement], capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return [line.split("\t") for line in done.stdout.splitlines()]

    @property
    def synced(self) -> bool:
        """In the primary component, and up to date."""
        if self.process is None or self.process.poll() is not None:
            return False
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            return self.query("SHOW STATUS LIKE 'wsrep_local_state_comment'", timeout_s=3)[0][1] == "Synced"
        return False

    def send(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def end(self, number: int = signal.SIGTERM) -> None:
        self.send(number)
        if self.process is not None:
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None


@dataclass
class GaleraCluster:
    """Stands where a lab's single database stands."""

    hosts: list[Host]
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="olg-")))
    nodes: list[GaleraNode] = field(default_factory=list)

    def __enter__(self) -> GaleraCluster:
        account = pwd.getpwnam("mysql")
        self.folder.chmod(0o755)
        for host in self.hosts:
            folder = self.folder / host.name
            (folder / "data").mkdir(parents=True)
            self.nodes.append(GaleraNode(host, folder, [one.address for one in self.hosts if one is not host]))
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chown(path, account.pw_uid, account.pw_gid)
        self._install(self.nodes[0])
        for number, node in enumerate(self.nodes):
            node.start(found=number == 0)
            self._wait(node)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.remove()

    @classmethod
    def of_lab(cls, members: int) -> Callable[[Hosts], GaleraCluster]:
        """For `Lab(shape, database=...)`: on the three hosts behind those of the members and the broker."""
        return lambda hosts: cls(hosts.hosts[members + 1 : members + 4])

    @property
    def addresses(self) -> list[str]:
        return [host.address for host in self.hosts]

    @property
    def url_of_lab(self) -> str:
        places = ",".join(f"{host.address}:{PORT}" for host in self.hosts)
        return f"mysql://{USER}:{PASSWORD}@{places}/{NAME}"

    @property
    def pids(self) -> list[int]:
        return [node.process.pid for node in self.nodes if node.process is not None]

    def prepare(self) -> None:
        node = self.nodes[0]
        node.query(f"CREATE DATABASE IF NOT EXISTS {NAME} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
        node.query(f"CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{PASSWORD}'")
        node.query(f"GRANT ALL ON {NAME}.* TO {USER}@'%'")

    def rows(self, statement: str) -> list[list[str]]:
        """From a server that belongs to the majority, after everything that was committed before."""
        node = next(one for one in self.nodes if one.synced)
        return node.query(f"SET SESSION wsrep_sync_wait = 1; {statement}", NAME, 60)

    def server_of(self, address: str) -> GaleraNode | None:
        """The server that a client on `address` is connected to for its writes."""
        for node in self.nodes:
            if node.synced and any(row[0].startswith(f"{address}:") for row in node.query(_CLIENTS)):
                return node
        return None

    def stop(self, *, kill: bool = False) -> None:
        """The first server that lives."""
        node = next(one for one in self.nodes if one.process is not None)
        node.end(signal.SIGKILL if kill else signal.SIGTERM)

    def freeze(self) -> None:
        next(one for one in self.nodes if one.process is not None).send(signal.SIGSTOP)

    def thaw(self) -> None:
        for node in self.nodes:
            node.send(signal.SIGCONT)

    def heal(self) -> None:
        """All three, up to date."""
        self.thaw()
        for node in self.nodes:
            if node.process is None or node.process.poll() is not None:
                node.start(found=not any(other.synced for other in self.nodes))
            self._wait(node)

    def remove(self) -> None:
        self.thaw()
        for node in reversed(self.nodes):
            node.end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _install(self, node: GaleraNode) -> None:
        command = [find().install, "--no-defaults", f"--datadir={node.folder / 'data'}", "--skip-test-db"]
        command += ["--auth-root-authentication-method=normal", "--user=mysql"]
        environment = {**os.environ, "TMPDIR": str(node.folder)}  # that of a test run is not for its user to write in
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
        if done.returncode:
            raise NoServer(f"MariaDB cannot make its data directory: {done.stdout[-500:]}{done.stderr[-500:]}")

    def _wait(self, node: GaleraNode) -> None:
        deadline = time.monotonic() + _START_S
        while not node.synced:
            if time.monotonic() > deadline or node.process is None or node.process.poll() is not None:
                raise NoServer(f"{node.host.name} did not join the Galera cluster:\n{node.log[-3000:]}")
            time.sleep(0.1)
