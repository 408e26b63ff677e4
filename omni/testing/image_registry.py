"""A small image registry for tests: takes what `docker push` sends, gives it back, and may want a password.

Owns one HTTP server, on loopback unless told otherwise, and everything in memory. No deletion, no ranges, no tokens:
basic authentication only.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class ImageRegistry:
    """`login` is `user:password`, or "" for everybody. `with ImageRegistry() as registry`."""

    def __init__(self, login: str = "", address: str = "127.0.0.1") -> None:
        self.login = login
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self._server = ThreadingHTTPServer((address, 0), type("Handler", (_Handler,), {"registry": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def host(self) -> str:
        return "{}:{}".format(*self._server.server_address[:2])

    def __enter__(self) -> ImageRegistry:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    registry: ImageRegistry
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def _say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Docker-Distribution-Api-Version": "registry/2.0", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _open(self) -> bool:
        wanted = "Basic " + base64.b64encode(self.registry.login.encode()).decode()
        if not self.registry.login or self.headers.get("Authorization") == wanted:
            return True
        self._say(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', WWW_Authenticate='Basic realm="test"')
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._open():
            return
        if path == "/v2/":
            self._say(200, b"{}")
        elif "/blobs/" in path and (blob := self.registry.blobs.get(path.rpartition("/")[2])) is not None:
            self._say(200, blob, Docker_Content_Digest=path.rpartition("/")[2])
        elif "/manifests/" in path and (found := self.registry.manifests.get(path)) is not None:
            digest = "sha256:" + hashlib.sha256(found[1]).hexdigest()
            self._say(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest)
        else:
            self._say(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        self._body()
        if self._open():
            self._say(202, Location=f"{self.path.rstrip('/')}/{uuid.uuid4().hex}", Range="0-0")

    def do_PATCH(self) -> None:
        data = self._body()
        if self._open():
            path = urlsplit(self.path).path
            self.registry.uploads[path] = self.registry.uploads.get(path, b"") + data
            self._say(202, Location=path, Range=f"0-{len(self.registry.uploads[path]) - 1}")

    def do_PUT(self) -> None:
        data, parts = self._body(), urlsplit(self.path)
        if not self._open():
            return
        if "/manifests/" in parts.path:
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            kept = self.headers.get("Content-Type", ""), data
            self.registry.manifests[parts.path] = kept
            self.registry.manifests[f"{parts.path.rpartition('/')[0]}/{digest}"] = kept
        else:
            data = self.registry.uploads.pop(parts.path, b"") + data
            digest = parse_qs(parts.query)["digest"][0]
            self.registry.blobs[digest] = data
        self._say(201, Docker_Content_Digest=digest, Location=parts.path)
