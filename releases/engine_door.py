"""What a build worker may ask a container engine, and nothing else: a door of its own in front of the engine's socket.

Whoever reaches the engine's socket is root on the host, and the worker is not to be: it runs beside other people's
code. So the door stays with root when the worker steps down; it passes on pulling, loading, building, saving, looking
at and removing images, and no call that makes, starts or enters a container. One request per connection; when the
worker hangs up, the engine hears it and gives the build up.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import socketserver
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

log = logging.getLogger("omni.worker.door")

VARIABLE = "OMNI_WORKER_ENGINE"  # how the worker is told of it
_HEAD_BYTES = 64 * 1024
_BLOCK = 256 * 1024
_HEAD_S = 20.0
_SOCKET_PATH = 100  # what the system takes is 107
_VERSION = re.compile(r"/v\d+\.\d+(?=/)")
_CALLS: tuple[tuple[str, re.Pattern[str], frozenset[str]], ...] = (
    ("GET", re.compile(r"/_ping|/version"), frozenset()),
    ("GET", re.compile(r"/images/.+/json"), frozenset()),
    ("GET", re.compile(r"/images/sha256:[0-9a-f]{64}/get"), frozenset()),
    ("DELETE", re.compile(r"/images/.+"), frozenset({"force", "noprune"})),
    ("POST", re.compile(r"/images/create"), frozenset({"fromImage", "tag"})),
    ("POST", re.compile(r"/images/load"), frozenset({"quiet"})),
    (
        "POST",
        re.compile(r"/build"),
        frozenset(
            {"t", "dockerfile", "q", "nocache", "rm", "forcerm", "pull", "labels", "memory", "memswap", "cpushares"}
        ),
    ),
)


def refusal(method: str, target: str, headers: bytes = b"") -> str | None:
    """Why this call is not passed on; None when it is. Pure."""
    parts = urlsplit(target)
    path = _VERSION.sub("", parts.path, count=1)
    if ".." in path or "%2e" in path.lower() or re.search(rb"(?im)^upgrade\s*:", headers):
        return "no such call"
    for verb, pattern, keys in _CALLS:
        if verb == method and pattern.fullmatch(path):
            unknown = set(parse_qs(parts.query, keep_blank_values=True)) - keys
            return f"not with {', '.join(sorted(unknown))}" if unknown else None
    return "a build worker has no such call"


class _Door(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, path: str, engine: str) -> None:
        self.engine = engine
        super().__init__(path, _Request)


class _Request(socketserver.BaseRequestHandler):
    server: _Door

    def handle(self) -> None:
        client: socket.socket = self.request
        client.settimeout(_HEAD_S)
        try:
            head, rest = _head(client)
            first, _, headers = head.partition(b"\r\n")
            method, target, _ = first.decode("ascii").split(" ", 2)
            length = body_length(headers)
        except (OSError, ValueError):
            return
        if (why := refusal(method, target, headers)) is not None:
            log.warning("refused: %s %s: %s", method, target.split("?")[0], why)
            _say(client, 403, why)
            return
        try:
            engine = _connect(self.server.engine)
        except OSError as error:
            _say(client, 503, f"no answer from the engine: {error.strerror or error}")
            return
        with engine:
            client.settimeout(None)
            engine.sendall(head + b"\r\n\r\n")
            _both_ways(client, engine, length, rest)


def _head(peer: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = peer.recv(_BLOCK)
        data += piece
        if not piece or len(data) > _HEAD_BYTES + _BLOCK:
            raise ValueError("no request")
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def body_length(headers: bytes) -> int:
    """How much follows the head. Raises ValueError where that is not said plainly, once: nothing may hide behind it."""
    found = [line.partition(b":") for line in headers.split(b"\r\n")]
    lengths = [value.strip() for name, _, value in found if name.strip().lower() == b"content-length"]
    if any(name.strip().lower() == b"transfer-encoding" for name, _, _ in found) or len(lengths) > 1:
        raise ValueError("one Content-Length is wanted")
    if lengths and not lengths[0].isdigit():
        raise ValueError("no length")
    return int(lengths[0]) if lengths else 0


def _say(client: socket.socket, status: int, text: str) -> None:
    body = b'{"message":"' + text.encode("ascii", "replace").replace(b'"', b"'") + b'"}'
    head = f"HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with contextlib.suppress(OSError):
        client.sendall(head.encode("ascii") + b"Connection: close\r\n\r\n" + body)


def _connect(engine: str) -> socket.socket:
    parts = urlsplit(engine)
    if parts.scheme == "unix":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(_HEAD_S)
        made.connect(parts.path)
    else:
        made = socket.create_connection((parts.hostname or "", parts.port or 2375), _HEAD_S)
    made.settimeout(None)
    return made


def _both_ways(client: socket.socket, engine: socket.socket, length: int, rest: bytes) -> None:
    """One request and its answer; when either side hangs up, the other hears it.

    The engine is not told that the connection is for one request: it would then not notice a worker that hangs up. The
    worker is, and whatever it sends beyond its request ends the connection.
    """

    def up() -> None:
        with contextlib.suppress(OSError):
            left, data = length, rest
            while len(data) <= left:
                engine.sendall(data)
                left -= len(data)
                if not (data := client.recv(_BLOCK)):
                    break
        _hang_up(client, engine)

    thread = threading.Thread(target=up, daemon=True)
    thread.start()
    with contextlib.suppress(OSError, ValueError):
        head, more = _head(engine)
        client.sendall(head + b"\r\nConnection: close\r\n\r\n" + more)
        while data := engine.recv(_BLOCK):
            client.sendall(data)
    _hang_up(client, engine)
    thread.join(_HEAD_S)


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def folder_for(directory: Path) -> Path:
    """Where the door's socket lies: beside the worker's own files, or in a short place when that path is too long."""
    wanted = directory / "door"
    if len(str(wanted / "engine")) <= _SOCKET_PATH:
        shutil.rmtree(wanted, ignore_errors=True)
        wanted.mkdir(parents=True, mode=0o710)
        return wanted
    return Path(tempfile.mkdtemp(prefix="omni-door-"))


def keep(folder: Path, group: int, engine: str) -> str:
    """Leave a process behind that serves the door as long as this one lives; answers the door's URL.

    Only members of `group` reach the socket. To be called before the worker steps down.
    """
    path = folder / "engine"
    os.chown(folder, 0, group)
    folder.chmod(0o710)
    door = _Door(str(path), engine)
    os.chown(path, 0, group)
    path.chmod(0o660)
    parent = os.getpid()
    if os.fork():
        door.server_close()
        return f"unix://{path}"
    threading.Thread(target=door.serve_forever, daemon=True).start()
    while os.getppid() == parent:
        time.sleep(1.0)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
