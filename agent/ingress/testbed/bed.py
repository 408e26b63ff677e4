"""Starts and stops the real things: backends, the ingress with its Caddy; and asks them like a strict client."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from agent.ingress.caddy_admin import admin_call
from agent.ingress.caddy_record import alive, read_record
from agent.ingress.draining import open_requests
from agent.routing import HostRoute, Target

ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def until(condition: Callable[[], Any], seconds: float = 15.0, what: str = "") -> Any:
    """Wait for `condition` to be true; an error of a refused connection counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if value := condition():
                return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.01)


def exactly(sock: socket.socket, count: int) -> bytes:
    """That many bytes, in however many pieces they come; fewer only at the end of the stream."""
    found = b""
    while len(found) < count and (piece := sock.recv(count - len(found))):
        found += piece
    return found


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class BackendProcess:
    def __init__(self, number: int) -> None:
        self.number = number
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.ingress.testbed.backend", f"b{number}"], stdout=subprocess.PIPE, cwd=ROOT
        )
        self.port = int((self.process.stdout or sys.stdin.buffer).readline())

    @property
    def target(self) -> Target:
        return Target(self.number, "127.0.0.1", self.port)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Bed:
    """One ingress under `directory`, with as many backends as asked for."""

    def __init__(self, directory: Path, control_plane: Sequence[str], **settings: Any) -> None:
        self.port = free_port()
        self.state = directory / "ingress"
        self.config = directory / "ingress.json"
        self.backends: list[BackendProcess] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "ingress.log"
        self.log.touch()
        values = {
            "node": "127.0.0.1-8000",
            "control_plane": list(control_plane),
            "token": "secret",
            "state_dir": str(self.state),
            "address": "127.0.0.1",
            "port": self.port,
            "domain": "localhost",
            "log_level": "info",
            **settings,
        }
        self.config.write_text(json.dumps(values))

    def start(self, **environment: str) -> None:
        before = self.log.read_text().count("ingress serves on")
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent.ingress", "--config", str(self.config)],
                cwd=ROOT,
                stderr=out,
                env={**os.environ, **environment},
            )
        until(lambda: self.log.read_text().count("ingress serves on") > before, what="the ingress to start")

    def kill(self) -> None:
        """As kill -9: Caddy stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        stop = [sys.executable, "-m", "agent.ingress", "--config", str(self.config), "--stop"]
        subprocess.run(stop, cwd=ROOT, timeout=30, check=True)
        for backend in self.backends:
            backend.kill()

    def caddy_pid(self) -> int:
        record = read_record(self.state)
        if record is None or not alive(record):
            raise AssertionError("no caddy runs")
        return record.pid

    def has_connection_to(self, backend: BackendProcess) -> bool:
        """Whether Caddy keeps a connection to it."""
        connections = psutil.Process(self.caddy_pid()).net_connections("tcp")
        return any(found.raddr and found.raddr.port == backend.port for found in connections)

    def backend(self) -> BackendProcess:
        backend = BackendProcess(len(self.backends) + 1)
        self.backends.append(backend)
        return backend

    def ask(self, host: str, path: str = "/", method: str = "GET", **options: Any) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            headers = {"Host": host, **options.pop("headers", {})}
            connection.request(method, path, headers=headers, **options)
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers.items()), response.read())
        finally:
            connection.close()

    def configure(self, **settings: Any) -> None:
        """Change ingress.json before the start."""
        self.config.write_text(json.dumps({**json.loads(self.config.read_text()), **settings}))

    def open_requests(self, backend: BackendProcess) -> int:
        """As Caddy counts them."""
        record = read_record(self.state)
        if record is None:
            return 0
        _, answer = admin_call(record.socket, "GET", "/reverse_proxy/upstreams")
        return open_requests(answer).get(backend.number, 0)

    @contextlib.contextmanager
    def websocket(self, host: str) -> Iterator[Callable[[bytes], bytes]]:
        """An upgraded connection that the backend echoes on."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as sock:
            request = f"GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            sock.sendall(request.encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += sock.recv(1)

            def talk(data: bytes) -> bytes:
                sock.sendall(data)
                return exactly(sock, len(data))

            yield talk

    def ask_securely(self, port: int, host: str) -> bytes:
        """GET / over TLS, trusting the ingress's own authority only."""
        root = self.state / "caddy" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        until(root.exists, what="the internal authority")
        context = ssl.create_default_context(cafile=str(root))
        with (
            socket.create_connection(("127.0.0.1", port), timeout=15) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while chunk := secure.recv(65536):
                answer += chunk
        return answer.partition(b"\r\n\r\n")[2]

    def until_served(self, host: str, by: str | None = None) -> None:
        until(
            lambda: (a := self.ask(host)).status == 200 and (by is None or a.body.decode() == by),
            what=f"{host} to be served",
        )


def route(host: str, app_id: int, *backends: BackendProcess) -> HostRoute:
    return HostRoute(host, app_id, False, [backend.target for backend in backends])


@dataclass
class Load:
    """Strict clients that never retry: `clients` threads, keep-alive or one connection a request."""

    port: int
    host: str
    keep_alive: bool
    clients: int = 4
    path: str = "/"
    method: str = "GET"
    think_s: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    last_at: dict[str, float] = field(default_factory=dict)  # when each backend answered last, monotonic

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def total(self) -> int:
        return sum(self.answers.values()) + len(self.errors)

    def quiet_s(self, name: str) -> float:
        """For how long backend `name` has not answered while others did."""
        return max(self.last_at.values()) - self.last_at[name]

    def _run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            if connection is None or not self.keep_alive:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
            try:
                connection.request(self.method, self.path, headers={"Host": self.host})
                response = connection.getresponse()
                body = response.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                self.errors.append(repr(error))
                connection = None
                continue
            if response.status == 200:
                self.answers[body] += 1
                self.last_at[body] = time.monotonic()
            else:
                self.errors.append(f"{response.status} {body[:200]}")
            if not self.keep_alive:
                connection.close()
            self._stop.wait(self.think_s)
