"""The platform of `bench.watch`, and the five services beside it: started, killed in parts, asked over HTTP.

Owns processes, ports and the state directory, and ends them all.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import httpx

from bench.harness import PROJECT, wait_for
from bench.watch_things import (
    SECRET,
    Cache,
    Certificate,
    Database,
    Job,
    MailServer,
    Receiver,
    Truth,
    Web,
    definitions,
)
from omni.kernel.config import load
from omni.launch import proc
from omni.launch.plan import valkey_binary
from omni.testing.mariadb import PrivateMariaDB

INTERVAL_S = 4.0


def free_block() -> int:
    """The first of 300 ports, below the range that connections are given."""
    for first in random.sample(range(20_000, 31_000, 300), 30):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + 50):
                probe = stack.enter_context(socket.socket())
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
            return first
    raise RuntimeError("no free ports")


class Insisting(httpx.HTTPTransport):
    """Asks again, under the same key, for as long as it is said that another try may help."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "GET":
            request.headers.setdefault("Idempotency-Key", secrets.token_hex(8))
        for tries in range(60):
            try:
                answer = super().handle_request(request)
                if answer.status_code not in (409, 502, 503, 504) or tries == 59:
                    return answer
                answer.read()
            except httpx.TransportError:
                if tries == 59:
                    raise
            time.sleep(1)
        raise AssertionError("unreachable")


class WatchedPlatform:
    """`with WatchedPlatform(first_port) as platform`: three nodes that run, and what they are to watch."""

    def __init__(self, first: int) -> None:
        self.first, self.truth = first, Truth()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="omni-watch-")))
        self.state = self.folder / "state"
        names = ("database", "cache", "web", "tls", "receiver", "mail")
        self.ports = {name: self.first + 30 + number for number, name in enumerate(names)}
        self.members = [f"http://127.0.0.1:{self.first + number}" for number in range(3)]
        self.platform_db = self._stack.enter_context(PrivateMariaDB(durable=True))
        self.database = Database(self.ports["database"])
        self._stack.callback(self.database.close)
        config = self._config()
        self.cache = Cache(self.ports["cache"], valkey_binary(load(config, {"OMNI_STATE": str(self.state)})))
        self._stack.callback(self.cache.kill)
        self.web = Web(self.ports["web"], self.ports["database"])
        self._stack.callback(self.web.close)
        self.tls = Certificate(self.ports["tls"])
        self._stack.callback(self.tls.close)
        self.receiver = Receiver(self.ports["receiver"], self._mend)
        self._stack.callback(self.receiver.close)
        self.mail = MailServer(self.ports["mail"])
        self._stack.callback(self.mail.close)
        self._launch(config)
        self.job = Job(self.members, lambda: self.token)
        self._stack.callback(self.job.close)

    def _config(self) -> Path:
        given = {
            "port": self.first, "address": "127.0.0.1", "raft_port_offset": 10, "environment": "development",
            "instances": [{"port": self.first + number, "address": "127.0.0.1"} for number in range(3)],
            "ingress": {"port": self.first + 20}, "agent": {"port_base": self.first + 100, "port_count": 150},
            "outgoing": {"allow": "127.0.0.0/8"},
            "alerts": {"webhook_url": f"http://127.0.0.1:{self.ports['receiver']}/alerts", "webhook_secret": SECRET,
                       "mail_to": "ops@watched.example", "smtp_host": "127.0.0.1", "smtp_port": self.ports["mail"],
                       "smtp_security": "none"},
            "services": definitions(self.ports, INTERVAL_S)[:1],
        }  # fmt: skip
        file = self.folder / "config.json"
        file.write_text(json.dumps(given))
        return file

    def _launch(self, config: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMNI_", "DJANGO_"))}
        environment["OMNI_DATABASE_URL"] = self.platform_db.create("omni")
        command = [sys.executable, "-m", "omni.launch", "--config", str(config), "--state", str(self.state)]
        self.output = self.folder / "start.out"
        with self.output.open("wb") as out:
            self.launcher = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=out, stderr=out,
                                             start_new_session=True)  # fmt: skip
        self._stack.callback(self._end)
        wait_for(self._is_up, "the platform", self.output.read_text, 600)

    def _is_up(self) -> bool:
        said = self.output.read_text()
        if self.launcher.poll() is not None:
            raise RuntimeError(said)
        return "admin token" in said

    def _end(self) -> None:
        self.launcher.send_signal(signal.SIGCONT)
        self.launcher.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.launcher.wait(40)
        self.launcher.kill()
        proc.end([found.pid for found in proc.marked(str(self.state), lambda _mark: True)], grace_s=3.0)

    @property
    def token(self) -> str:
        return (self.state / "admin.token").read_text().strip()

    def client(self, member: int = 0, *, insist: bool = False) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        transport = Insisting() if insist else None
        return httpx.Client(base_url=self.members[member], headers=headers, timeout=60, trust_env=False,
                            transport=transport)  # fmt: skip

    def kill_node(self, member: int, seconds: float) -> None:
        """Every process of it, and nobody starts it again for so long."""
        mark = f"node-{self.first + member}"
        self.launcher.send_signal(signal.SIGSTOP)
        proc.kill([one.pid for one in proc.marked(str(self.state), lambda m: m == mark or m.startswith(mark + "/"))])
        time.sleep(seconds)
        self.launcher.send_signal(signal.SIGCONT)

    def says(self, name: str) -> str:
        for member in range(3):
            with contextlib.suppress(httpx.HTTPError, KeyError), self.client(member) as client:
                return str(client.get(f"/services/{name}", timeout=5).json()["state"])
        return ""

    def leader(self) -> int:
        def look() -> list[int]:
            for member in range(3):
                with contextlib.suppress(httpx.HTTPError, ValueError, KeyError), self.client(member) as client:
                    named = str(client.get("/cluster/status", timeout=5).json()["leader"])
                    return [int(named.rpartition(":")[2]) - self.first]
            return []

        found: list[int] = wait_for(look, "a leader")
        return found[0]

    def ready(self, member: int) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.members[member]}/health/ready", timeout=3, trust_env=False).status_code == 200
        return False

    def remedies(self, name: str) -> list[dict[str, Any]]:
        for member in range(3):
            with contextlib.suppress(httpx.HTTPError, KeyError), self.client(member) as client:
                return list(client.get(f"/services/{name}/remedies", timeout=5).json()["items"])
        return []

    def _mend(self) -> None:
        self.cache.start()
        self.truth.say("cache", "healthy")
