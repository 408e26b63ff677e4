"""A stand-in control plane: serves routes with a waiting read and keeps the request counts it is sent."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from agent.plain import to_json
from agent.routing import HostRoute, Routes


class ControlPlane:
    """Set `hosts` by `publish`; every token but "secret" is refused."""

    def __init__(self, port: int = 0, cluster_id: str = "cluster-a") -> None:
        self.cluster_id = cluster_id
        self.routes = Routes(cluster_id, 1, 1, [])
        self.rows: list[dict[str, Any]] = []
        self.drained: list[int] = []
        self.reads = 0
        self._changed = threading.Condition()
        self._closed = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                self._answer(200, to_json(outer._wait(int(query["index"][0]), float(query["wait"][0]))))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/agent/drained":
                    outer.drained.extend(body["instances"])
                else:
                    outer.rows.extend(body["rows"])
                self._answer(200, {})

            def _answer(self, status: int, data: Any) -> None:
                if outer._closed:
                    self.close_connection = True
                    return
                if self.headers["Authorization"] != "Bearer secret":
                    status, data = 401, {}
                body = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _wait(self, index: int, wait: float) -> Routes:
        deadline = time.monotonic() + wait
        with self._changed:
            self.reads += 1
            while not self._closed and self.routes.index <= index and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return self.routes

    def publish(
        self,
        hosts: list[HostRoute],
        *,
        epoch: int | None = None,
        index: int | None = None,
        leaving: tuple[int, ...] = (),
    ) -> None:
        with self._changed:
            now = self.routes
            self.routes = Routes(
                self.cluster_id,
                now.epoch if epoch is None else epoch,
                now.index + 1 if index is None else index,
                hosts,
                list(leaving),
            )
            self._changed.notify_all()

    def close(self) -> None:
        """Dead for everybody: open connections get no answer any more either."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
