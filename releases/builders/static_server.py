"""The web server of static sites; copied into their releases, hence the standard library only.

Serves one directory on $PORT: right content types, index.html, 404.html, HEAD, ETag, one byte range. Never a file
whose name starts with a dot, never one outside the directory. One line per request on stdout.
"""

from __future__ import annotations

import email.utils
import mimetypes
import os
import re
import shutil
import signal
import sys
import threading
import time
import urllib.parse
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")
_COMPRESSED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_TEXT = ("text/", "application/javascript", "application/json", "image/svg+xml")
for _kind, _ending in (
    ("text/javascript", ".js"), ("text/javascript", ".mjs"), ("application/wasm", ".wasm"), ("font/woff2", ".woff2"),
    ("image/webp", ".webp"), ("image/avif", ".avif"), ("application/manifest+json", ".webmanifest"),
    ("text/markdown", ".md"),
):  # fmt: skip
    mimetypes.add_type(_kind, _ending)


def locate(url_path: str) -> Path | None:
    """The file or directory for a request path, or None when there is none to show."""
    try:
        text = urllib.parse.unquote(url_path, errors="strict")
    except UnicodeDecodeError:
        return None
    parts = [part for part in text.split("/") if part]
    if any(part.startswith(".") or "\0" in part or "\\" in part for part in parts):
        return None
    path = ROOT.joinpath(*parts)
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return path if real == ROOT or ROOT in real.parents else None


def content_type(path: Path) -> str:
    kind, encoding = mimetypes.guess_type(path.name)
    if encoding:
        return _COMPRESSED.get(encoding, "application/octet-stream")
    kind = kind or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith(_TEXT) else kind


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte asked for; None for the whole. ValueError when it cannot be met."""
    match = _RANGE.match(header or "")
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last), size - 1) if last else size - 1
    if start >= size or start > end:
        raise ValueError(header)
    return start, end


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "omni-static"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        found = locate(path.partition("#")[0])
        if found is not None and found.is_dir():
            if not path.endswith("/"):
                # One slash only: two would name another host.
                place = "/" + urllib.parse.quote(urllib.parse.unquote(path).strip("/")) + "/"
                self._plain(HTTPStatus.MOVED_PERMANENTLY, Location=place + (f"?{query}" if query else ""))
                return
            found = locate(f"{path}index.html")
        if found is not None and found.is_file():
            self._file(found, HTTPStatus.OK)
            return
        missing = locate("/404.html")
        if missing is not None and missing.is_file():
            self._file(missing, HTTPStatus.NOT_FOUND)
        else:
            self._plain(HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815

    def _file(self, path: Path, status: HTTPStatus) -> None:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            tag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}-{os.environ.get("OMNI_RELEASE", "")}"'
            common = {
                "ETag": tag,
                "Last-Modified": email.utils.formatdate(facts.st_mtime, usegmt=True),
                "Cache-Control": "no-cache",
            }
            if status == HTTPStatus.OK and self._is_known(tag):
                self._head(HTTPStatus.NOT_MODIFIED, common)
                return
            start, end = 0, facts.st_size - 1
            try:
                part = byte_range(self.headers.get("Range"), facts.st_size) if status == HTTPStatus.OK else None
            except ValueError:
                self._plain(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, **{"Content-Range": f"bytes */{facts.st_size}"})
                return
            if part:
                start, end = part
                status = HTTPStatus.PARTIAL_CONTENT
                common["Content-Range"] = f"bytes {start}-{end}/{facts.st_size}"
            body = {
                "Content-Type": content_type(path),
                "Content-Length": str(end - start + 1),
                "Accept-Ranges": "bytes",
            }
            self._head(status, common | body)
            if self.command != "HEAD":
                self._send(file, start, end - start + 1)

    def _is_known(self, tag: str) -> bool:
        tags = [part.strip().removeprefix("W/") for part in self.headers.get("If-None-Match", "").split(",")]
        return tag in tags or "*" in tags

    def _send(self, file: Any, start: int, length: int) -> None:
        file.seek(start)
        if length == os.fstat(file.fileno()).st_size:
            shutil.copyfileobj(file, self.wfile, 256 * 1024)
            return
        while length > 0 and (piece := file.read(min(length, 256 * 1024))):
            self.wfile.write(piece)
            length -= len(piece)

    def _plain(self, status: HTTPStatus, **headers: str) -> None:
        text = f"{status.value} {status.phrase}\n".encode()
        self._head(status, {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(text)), **headers})
        if self.command != "HEAD":
            self.wfile.write(text)

    def _head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"X-Content-Type-Options": "nosniff", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, form: str, *values: Any) -> None:
        line = (form % values).encode("unicode_escape").decode("ascii")
        sys.stdout.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")
        sys.stdout.flush()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    server = Server((os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000"))), Handler)  # noqa: S104
    stop = threading.Thread(target=server.shutdown)
    signal.signal(signal.SIGTERM, lambda *_: stop.start())
    sys.stdout.write(f"serving {ROOT} on port {server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever(poll_interval=0.2)
    server.server_close()


if __name__ == "__main__":
    main()
