"""A control plane for the build worker's tests: the internal API over real HTTP on loopback, with fault knobs.

Keeps what it is told in memory and checks nothing that a test does not ask for. Not used outside tests.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Plane:
    """What the control plane knows of one build, and how it misbehaves."""

    artifact: bytes = b""
    claim: dict[str, Any] = field(default_factory=dict)
    lease_s: float = 30.0
    cancel: bool = False
    lost: bool = False
    unavailable_until: float = 0.0  # monotonic: 503 for everything
    mute: bool = False  # connections are dropped without an answer
    heartbeats: list[dict[str, Any]] = field(default_factory=list)
    lines: dict[int, tuple[int, str]] = field(default_factory=dict)  # sequence -> (stream, text)
    packages: dict[str, bytes] = field(default_factory=dict)
    finished: list[dict[str, Any]] = field(default_factory=list)
    claims: int = 0
    calls: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, bearer
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def log(self) -> str:
        return "\n".join(text for _, (_, text) in sorted(self.lines.items()))

    def wait_for(self, condition: Any, seconds: float = 20.0) -> None:
        with self.changed:
            if not self.changed.wait_for(condition, seconds):
                raise AssertionError(f"waited in vain; log so far:\n{self.log}")

    def claim_for(self, build_id: int) -> dict[str, Any]:
        sha256 = hashlib.sha256(self.artifact).hexdigest()
        return {
            "build_id": build_id, "app": "shop", "app_id": 7, "version": "1.0", "attempt": 1, "token": "t-1",
            "lease_s": self.lease_s, "runtime": "process", "limits": {},
            "artifact": {"sha256": sha256, "size": len(self.artifact), "media_type": "application/gzip"},
            **self.claim,
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    plane: Plane

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        found = re.fullmatch(r"/internal/builds/(\d+)/(claim|heartbeat|logs|finish)", self.path)
        if self._odd() or found is None:
            return
        with self.plane.changed:
            getattr(self, f"_{found[2]}")(int(found[1]), json.loads(body))
            self.plane.changed.notify_all()

    def do_GET(self) -> None:
        if self._odd():
            return
        data = self.plane.artifact
        if self.path != f"/internal/artifacts/{hashlib.sha256(data).hexdigest()}":
            self._json(404, {"code": "not_found", "detail": "no such artifact"})
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self) -> None:
        length = int(self.headers["Content-Length"])
        data = self.rfile.read(length)
        if len(data) < length:  # the worker was told to stop in the middle
            self.close_connection = True
            return
        if self._odd():
            return
        sha256 = self.path.partition("?")[0].rpartition("/")[2]
        if hashlib.sha256(data).hexdigest() != sha256:
            self._json(422, {"code": "digest_mismatch", "detail": "not what it says"})
            return
        with self.plane.changed:
            self.plane.packages[sha256] = data
        self._json(201, {})

    def _claim(self, build_id: int, _: dict[str, Any]) -> None:
        self.plane.claims += 1
        if self.plane.claims > 1:
            self._json(409, {"code": "not_claimable", "detail": "it is building"})
        else:
            self._json(200, self.plane.claim_for(build_id))

    def _heartbeat(self, _: int, body: dict[str, Any]) -> None:
        if self.plane.lost:
            self._json(409, {"code": "lease_lost", "detail": "somebody else has it"})
            return
        self.plane.heartbeats.append(body)
        self._json(200, {"lease_s": self.plane.lease_s, "cancel": self.plane.cancel})

    def _logs(self, _: int, body: dict[str, Any]) -> None:
        for number, (at_us, stream, text) in enumerate(body["lines"], body["first_seq"]):
            if at_us < 10**15:
                raise AssertionError("times of log lines are microseconds since the epoch")
            self.plane.lines[number] = (stream, text)
        self._json(200, {"acked": max(self.plane.lines, default=0)})

    def _finish(self, _: int, body: dict[str, Any]) -> None:
        if self.plane.lost:
            self._json(409, {"code": "lease_lost", "detail": "somebody else has it"})
            return
        self.plane.finished.append(body)
        self._json(200, {"release": 1})

    def _odd(self) -> bool:
        plane = self.plane
        plane.calls.append((self.command, self.path, self.headers.get("Authorization", "")))
        if plane.mute:
            self.close_connection = True
            return True
        if time.monotonic() < plane.unavailable_until:
            self._json(503, {"code": "no_leader", "detail": "electing"})
            return True
        return False

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        return


class Server:
    """`with Server(plane) as url`: one member."""

    def __init__(self, plane: Plane) -> None:
        handler = type("BoundHandler", (Handler,), {"plane": plane})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
