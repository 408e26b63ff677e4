"""What `bench.watch` has watched: five internal services of the real kind, whoever hears of their alerts, ten apps.

Owns their start, their end, and what is true of them: `up` says since when each of them serves or does not.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import json
import socket
import socketserver
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from omni.testing.mariadb import PrivateMariaDB

SECRET = "a secret of the watch"


@dataclass
class Truth:
    """What each service really is, as the one who breaks it knows: (since, state) by name. `state` is healthy, degraded
    or unhealthy as its check must find it; None while that is not to be judged."""

    now: dict[str, tuple[float, str | None]] = field(default_factory=dict)

    def say(self, name: str, state: str | None) -> None:
        self.now[name] = (time.monotonic(), state)


class Database:
    """A real MariaDB on a port."""

    def __init__(self, port: int) -> None:
        options = ("--skip-networking=0", "--bind-address=127.0.0.1", f"--port={port}")
        self._server = PrivateMariaDB(options=options)
        self._server.__enter__()

    def kill(self) -> None:
        self._server.stop(kill=True)

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._server.stop()


class Cache:
    """A real Valkey, in memory only."""

    def __init__(self, port: int, binary: str) -> None:
        self._command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.start()

    def start(self) -> None:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                quiet = subprocess.DEVNULL
                self._process = subprocess.Popen(self._command, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/tmp")

    def kill(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()


class Web:
    """An HTTP server that cannot do without the database, and can be told to fail."""

    def __init__(self, port: int, database_port: int) -> None:
        outer, self.broken = self, False

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    socket.create_connection(("127.0.0.1", database_port), 1).close()
                    well = not outer.broken
                except OSError:
                    well = False
                body = b"ready" if well else b"no database"
                self.send_response(200 if well else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _serve(ThreadingHTTPServer(("127.0.0.1", port), Handler))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Certificate:
    """A TLS endpoint whose certificate can be made to expire in so many days."""

    def __init__(self, port: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="omni-watch-tls-")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.renew(90)
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.settimeout(5)
                with contextlib.suppress(OSError), outer._context.wrap_socket(self.request, server_side=True) as one:
                    one.recv(1)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        self._server = _serve(server)

    def renew(self, days: float) -> None:
        key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "watched.example")])
        built = x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - dt.timedelta(days=1),
            now + dt.timedelta(days=days),
        )  # fmt: skip
        pem = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                   serialization.NoEncryption())  # fmt: skip
        file = Path(self._folder.name, "both.pem")
        file.write_bytes(secret + pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        self._context = context

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()


class Job:
    """A job that says that it lives, through whichever member answers."""

    def __init__(self, members: list[str], token: Callable[[], str]) -> None:
        self.beats, self._over = True, threading.Event()
        self._members, self._token = members, token
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(2):
            for member in self._members if self.beats else ():
                with contextlib.suppress(httpx.HTTPError):
                    headers = {"Authorization": f"Bearer {self._token()}"}
                    url = f"{member}/services/job/heartbeat"
                    if httpx.post(url, headers=headers, timeout=3, trust_env=False).status_code == 200:
                        break

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)


class Receiver:
    """Hears of alerts and of remedies by webhook, checks the signature, and refuses each message's first try."""

    def __init__(self, port: int, mend: Callable[[], None]) -> None:
        self.told: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.forged = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer._take(self.path, dict(self.headers.items()), body, self.answer, mend)

            def answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _serve(ThreadingHTTPServer(("127.0.0.1", port), Handler))

    def _take(
        self, path: str, headers: dict[str, str], body: bytes, answer: Callable[[int], None], mend: Callable[[], None]
    ) -> None:
        given = {name.lower(): value for name, value in headers.items()}
        id, at = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
        digest = hmac.new(SECRET.encode(), f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
        if given.get("webhook-signature") != "v1," + base64.b64encode(digest).decode():
            self.forged += 1
            return answer(401)
        if path == "/mend":
            mend()
            return answer(200)
        self.ids.append(id)
        if self.ids.count(id) == 1:  # so that a repetition is seen, too
            return answer(503)
        self.told.append(json.loads(body))
        return answer(200)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class MailServer:
    """As much of SMTP as taking a mail needs; `mails` are their subjects."""

    def __init__(self, port: int) -> None:
        self.mails: list[str] = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    self._talk()

            def _talk(self) -> None:
                self.wfile.write(b"220 watch\r\n")
                while line := self.rfile.readline():
                    word = line[:4].upper().strip()
                    if word == b"DATA":
                        self.wfile.write(b"354 go on\r\n")
                        lines = iter(self.rfile.readline, b".\r\n")
                        text = b"".join(lines).decode("utf-8", "replace")
                        outer.mails.append(next((one for one in text.splitlines() if one.startswith("Subject:")), ""))
                    elif word == b"QUIT":
                        self.wfile.write(b"221 bye\r\n")
                        return
                    self.wfile.write(b"250 fine\r\n")

        server = socketserver.ThreadingTCPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        self._server = _serve(server)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _serve(server: Any) -> Any:
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    return server


def definitions(ports: dict[str, int], interval_s: float) -> list[dict[str, Any]]:
    """The five, as `POST /services` takes them; the first one is meant for config.json."""
    often = {"interval_s": interval_s, "timeout_s": min(3.0, interval_s), "unhealthy_threshold": 3,
             "healthy_threshold": 2, "start_period_s": 0.0}  # fmt: skip
    soon = {"backoff_s": 20.0, "max_per_hour": 10}
    here = "127.0.0.1"
    return [
        {"name": "orders-db", "check": {"type": "tcp", "host": here, "port": ports["database"]}, "severity": "critical",
         **often},
        {"name": "cache", "check": {"type": "tcp", "host": here, "port": ports["cache"]}, **often,
         "remedy": {"type": "webhook", "url": f"http://{here}:{ports['receiver']}/mend", "secret": SECRET, **soon}},
        {"name": "front", "check": {"type": "http", "url": f"http://{here}:{ports['web']}/", "contains": "ready"},
         "depends_on": ["orders-db"], "owner": "web team", **often,
         "remedy": {"type": "restart_app", "app": "good-1", **soon}},
        {"name": "site", "check": {"type": "tls", "host": here, "port": ports["tls"], "verify": False,
                                   "warn_days": 30.0, "fail_days": 7.0}, **often},
        {"name": "job", "check": {"type": "heartbeat"}, **often,
         "remedy": {"type": "run_task", "app": "good-2", "command": ["python", "-c", "print('mended')"],
                    "timeout_s": 60.0, **soon}},
    ]  # fmt: skip
