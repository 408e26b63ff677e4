"""The platform on several hosts of this machine: `./start.sh` in one network namespace for each.

    .venv/bin/python -m omni.testing.several_hosts --hosts 3     starts it, says where, stops it at Ctrl-C

Owns one config.json for all hosts, a state directory for each, and a private MariaDB that all reach by its socket.
Stops what it started. Speaks to the platform over HTTP only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from omni.launch import proc
from omni.testing.hosts import Host, Hosts
from omni.testing.mariadb import PrivateMariaDB

PROJECT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 40.0
READY = "admin token"  # the last lines that start.sh prints


class NotStarted(Exception):
    """A host's start.sh ended or did not get ready; the message has its output."""


@dataclass
class Started:
    """`start.sh` on one host."""

    host: Host
    state: Path
    output: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    @property
    def is_ready(self) -> bool:
        return READY in self.text


@dataclass
class SeveralHosts:
    """`with SeveralHosts(folder, hosts=3) as cluster`. `keys` go into config.json, `environment` to every start.sh."""

    folder: Path
    hosts: int = 3
    per_host: int = 1
    name: str = "omnih"
    environment: dict[str, str] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    database_url: str = ""
    port: int = 8000
    secret: str = field(default_factory=lambda: secrets.token_hex(32))
    started: list[Started] = field(default_factory=list)
    _closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> SeveralHosts:
        try:
            self.net = self._closing.enter_context(Hosts(self.name, self.hosts))
            if not self.database_url:
                server = self._closing.enter_context(PrivateMariaDB())
                self.database_url = server.create("omni")
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o711)  # apps and builds run under users of their own
            self._write_config()
            self.started = [
                Started(host, self.folder / f"host{number}", self.folder / f"host{number}.out")
                for number, host in enumerate(self.net.hosts, 1)
            ]
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self._closing.close()

    @property
    def config_file(self) -> Path:
        return self.folder / "config.json"

    @property
    def members(self) -> list[str]:
        """Base URLs, in the order of `instances`."""
        nodes = json.loads(self.config_file.read_text())["instances"]
        return [f"http://{node['address']}:{node['port']}" for node in nodes]

    @property
    def token(self) -> str:
        return (self.started[0].state / "admin.token").read_text().strip()

    def _write_config(self) -> None:
        nodes = [
            {"port": self.port + number, "address": host.address}
            for host in self.net.hosts
            for number in range(self.per_host)
        ]
        config = {"instances": nodes, **self.keys}
        self.config_file.write_text(json.dumps(config, indent=1))

    def launch(self, number: int, *options: str) -> Started:
        """Start `start.sh` on one host (from 0); does not wait for it."""
        started = self.started[number]
        command = ["./start.sh", "--config", str(self.config_file), "--state", str(started.state), *options]
        given = {"OMNI_DATABASE_URL": self.database_url, "OMNI_CLUSTER_SECRET": self.secret, "OMNI_ENV": "development"}
        environment = {**os.environ, **given, **self.environment}
        with started.output.open("wb") as out:
            started.process = started.host.popen(
                command, cwd=PROJECT, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=environment, start_new_session=True,
            )  # fmt: skip
        return started

    def start(self, *options: str) -> SeveralHosts:
        """All hosts at once; returns when every one of them is ready."""
        for number in range(self.hosts):
            self.launch(number, *options)
        for started in self.started:
            wait_until_ready(started)
        return self

    def kill(self, number: int) -> None:
        """The whole platform of one host at once, as a power cut would; its apps' instances end as well."""
        started = self.started[number]
        if started.process:
            started.process.kill()
        for found in proc.left_of(str(started.state)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
        self._sweep(started)
        if started.process:
            started.process.wait(STOP_TIMEOUT_S)

    def freeze(self, number: int) -> Callable[[], None]:
        """Stop every process of one host without ending it; what to call for them to go on."""
        pids = [found.pid for found in proc.left_of(str(self.started[number].state))]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

        def thaw() -> None:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        return thaw

    def _sweep(self, started: Started) -> None:
        argv = [sys.executable, "-m", "agent.sweep", "--state", str(started.state)]
        started.host.run(argv, timeout_s=STOP_TIMEOUT_S, cwd=PROJECT)

    def stop(self) -> None:
        """SIGTERM to every start.sh, and wait for their ends; nothing of a host that was killed is left either."""
        launched = [started.process for started in self.started if started.process]
        running = [process for process in launched if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(STOP_TIMEOUT_S)
        for started in self.started:
            left = proc.left_of(str(started.state))
            if left:
                proc.end([found.pid for found in left], grace_s=2.0)
                self._sweep(started)


def wait_until_ready(started: Started, timeout_s: float = START_TIMEOUT_S) -> None:
    """Raises NotStarted."""
    deadline = time.monotonic() + timeout_s
    while not started.is_ready:
        ended = started.process.poll() if started.process else 0
        if ended is not None or time.monotonic() > deadline:
            what = "is not ready" if ended is None else f"ended with {ended}"
            raise NotStarted(f"start.sh on {started.host.name} {what}:\n{started.text[-4000:]}")
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m omni.testing.several_hosts")
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--per-host", type=int, default=1)
    parser.add_argument("--name", default="omnih")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="omnih-") as folder:
        cluster = SeveralHosts(Path(folder), arguments.hosts, arguments.per_host, arguments.name)
        with cluster, contextlib.suppress(KeyboardInterrupt):
            cluster.start()
            print(cluster.started[0].text, "TOKEN=" + cluster.token, *cluster.members, sep="\n", flush=True)  # noqa: T201
            signal.pause()


if __name__ == "__main__":
    main()
