"""A control plane for tests: speaks the protocol over real HTTP, keeps everything in memory, fails on demand.

Owns what a real one would store, and checks what a real one could not: that no line of log is lost or comes twice.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from agent import plain, protocol
from agent.protocol import Assignment, Assignments, HealthCheck, Observed, ReleaseRef


def package(files: dict[str, bytes]) -> tuple[str, bytes]:
    """An uncompressed tar of these files: its digest and its bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    data = out.getvalue()
    return hashlib.sha256(data).hexdigest(), data


class _QuietServer(ThreadingHTTPServer):
    """Agents are killed in mid-call here: a broken connection is no news."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class FakePlane:
    """Knobs: `down` answers 503 to everything; `log_faults` lets that many posts of logs be stored but not answered."""

    def __init__(self, node: str = "127.0.0.1-8000") -> None:
        self.node = node
        self.epoch, self.index, self.cluster_id = 1, 1, "test"
        self.wanted: dict[int, Assignment] = {}
        self.packages: dict[str, bytes] = {}
        self.observed: dict[int, Observed] = {}
        self.history: dict[int, list[Observed]] = {}
        self.gone: set[int] = set()
        self.facts: dict[str, Any] | None = None
        self.incarnations: set[int] = set()
        self.reports = 0
        self.samples: list[dict[str, Any]] = []
        self.lines: dict[int, list[tuple[int, str]]] = {}
        self.acked: dict[int, int] = {}
        self.unknown: set[int] = set()
        self.down = False
        self.log_faults = 0
        self.gaps: list[str] = []
        self._changed = threading.Condition()
        self._server = _QuietServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def release(self, files: dict[str, bytes], version: str = "1") -> ReleaseRef:
        digest, data = package(files)
        self.packages[digest] = data
        return ReleaseRef(1, version, digest, len(data))

    def want(self, *assignments: Assignment) -> None:
        """These are in the list from now on (others stay)."""
        with self._changed:
            self.wanted.update({assignment.id: assignment for assignment in assignments})
            self.index += 1
            self._changed.notify_all()

    def unwant(self, *ids: int) -> None:
        with self._changed:
            for instance_id in ids:
                self.wanted.pop(instance_id, None)
            self.index += 1
            self._changed.notify_all()

    def wait(self, condition: Callable[[], Any], seconds: float = 15.0, what: str = "") -> Any:
        """The condition's value as soon as it is true; AssertionError after the deadline."""
        deadline = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what or condition}; observed {self.observed}")
            time.sleep(0.02)

    def status(self, instance_id: int, *wanted: str, seconds: float = 15.0) -> Observed:
        def reached() -> Observed | None:
            observed = self.observed.get(instance_id)
            return observed if observed is not None and observed.status in wanted else None

        found: Observed = self.wait(reached, seconds, f"instance {instance_id} in {wanted}")
        return found

    def texts(self, instance_id: int, stream: int | None = None) -> list[str]:
        return [text for which, text in self.lines.get(instance_id, []) if stream in (None, which)]

    # What the handler calls.

    def assignments(self, index: int, wait: float) -> dict[str, Any]:
        with self._changed:
            self._changed.wait_for(lambda: self.index > index, timeout=min(wait, 5.0))
            listed = list(self.wanted.values())
            return plain.to_json(Assignments(self.cluster_id, self.epoch, self.index, self.node, listed))

    def report(self, data: dict[str, Any]) -> dict[str, Any]:
        report = plain.from_json(protocol.Report, data)
        self.reports += 1
        self.incarnations.add(report.incarnation)
        for observed in report.instances:
            self.observed[observed.id] = observed
            self.history.setdefault(observed.id, []).append(observed)
        self.gone.update(report.gone)
        if report.facts is not None:
            self.facts = plain.to_json(report.facts)
        known = [observed.id for observed in report.instances]
        unknown = sorted(self.unknown)
        return plain.to_json(protocol.ReportAnswer(self.index, self.epoch, known, unknown, self.facts is None))

    def log(self, data: dict[str, Any]) -> dict[str, Any]:
        answer = {}
        for batch in data["batches"]:
            instance_id, first, rows = batch["instance_id"], batch["first_seq"], batch["lines"]
            held = self.acked.get(instance_id, 0)
            if first > held + 1:
                self.gaps.append(f"{instance_id}: {first} after {held}")
            else:
                fresh = rows[held - first + 1 :]
                self.lines.setdefault(instance_id, []).extend((row[1], row[2]) for row in fresh)
                held = max(held, first + len(rows) - 1)
                self.acked[instance_id] = held
            answer[str(instance_id)] = held
        return {"acked": answer}


def assignment(instance_id: int, release: ReleaseRef, command: str, **changes: Any) -> Assignment:
    """An assignment with quick timings."""
    values: dict[str, Any] = {
        "app_id": 7,
        "app": "hello",
        "org": "default",
        "slot": 0,
        "desired": "run",
        "health_check": HealthCheck(type="process"),
        "memory_mb": 64,
        "stop_timeout_s": 2.0,
        "drain_s": 0.1,
        **changes,
    }
    return Assignment(id=instance_id, release=release, command=command, **values)


def _handler(plane: FakePlane) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if plane.down:
                self._answer(503, b"{}")
            elif parts.path == "/agent/assignments":
                query = parse_qs(parts.query)
                body = plane.assignments(int(query["index"][0]), float(query["wait"][0]))
                self._answer(503 if plane.down else 200, json.dumps(body).encode())
            elif parts.path.startswith("/agent/packages/"):
                data = plane.packages.get(parts.path.rsplit("/", 1)[1])
                self._answer(404 if data is None else 200, data or b"{}")
            else:
                self._answer(404, b"{}")

        def do_POST(self) -> None:
            data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if plane.down:
                self._answer(503, b"{}")
            elif self.path == "/agent/report":
                self._answer(200, json.dumps(plane.report(data)).encode())
            elif self.path == "/agent/logs":
                body = json.dumps(plane.log(data)).encode()
                if plane.log_faults > 0:
                    plane.log_faults -= 1
                    self.close_connection = True  # stored, but the answer is lost
                    return
                self._answer(200, body)
            elif self.path == "/agent/samples":
                plane.samples.append(data)
                self._answer(200, b"{}")
            else:
                self._answer(404, b"{}")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
