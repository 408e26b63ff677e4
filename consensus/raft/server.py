"""The process's half of its unix socket: newline JSON, answered on the Raft thread.

Owns connections, their bounds and the form of requests and replies (`client` has the other half). What a request means
is the business of whoever is passed as `handle`. Nothing here blocks: a client that does not read is dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

CLIENTS_MAX = 64
LINE_MAX = 256 << 10
_UNSENT_MAX = 8 << 20
_READ, _WRITE, _ERROR = 1, 2, 4


class Reply(Protocol):
    """Answers one request, at once or later, at most once."""

    @property
    def client(self) -> object: ...
    def __call__(self, reply: dict[str, Any], /) -> None: ...


Handle = Callable[[dict[str, Any], Reply], None]


def done(result: dict[str, Any]) -> dict[str, Any]:
    return {"ok": True, "result": result}


def failed(code: str, message: str) -> dict[str, Any]:
    """`unavailable`: it did not happen; `unknown`: nobody knows; anything else: refused."""
    return {"ok": False, "error": code, "message": message}


class SocketServer:
    """Listens at `path`, mode 0600. `gone` hears of each client that leaves."""

    def __init__(self, path: str, poller: Any, handle: Handle, gone: Callable[[object], None]) -> None:
        self._path, self._poller, self._handle, self._gone = Path(path), poller, handle, gone
        self._clients: set[_Client] = set()
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._listener.bind(path)
        finally:
            os.umask(before)
        self._listener.listen(CLIENTS_MAX)
        self._listener.setblocking(False)
        poller.subscribe(self._listener.fileno(), self._accept, _READ)

    def close(self) -> None:
        for client in list(self._clients):
            client.close()
        self._poller.unsubscribe(self._listener.fileno())
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _accept(self, _fd: int, _events: int) -> None:
        with contextlib.suppress(OSError):
            accepted, _ = self._listener.accept()
            accepted.setblocking(False)
            if len(self._clients) >= CLIENTS_MAX:
                accepted.close()
                return
            self._clients.add(_Client(accepted, self._poller, self._handle, self._left))

    def _left(self, client: _Client) -> None:
        self._clients.discard(client)
        self._gone(client)


@dataclass(frozen=True, slots=True)
class _Answer:
    client: _Client
    number: object

    def __call__(self, reply: dict[str, Any], /) -> None:
        self.client.send({"id": self.number, **reply})


class _Client:
    def __init__(self, accepted: socket.socket, poller: Any, handle: Handle, left: Callable[[_Client], None]) -> None:
        self._socket, self._poller, self._handle, self._left = accepted, poller, handle, left
        self._fd = accepted.fileno()
        self._received = b""
        self._unsent = bytearray()
        self._open = True
        poller.subscribe(self._fd, self._event, _READ | _ERROR)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._poller.unsubscribe(self._fd)
            self._socket.close()
            self._left(self)

    def _event(self, fd: int, events: int) -> None:
        if not self._open or fd != self._fd:
            return
        if events & _WRITE:
            self._flush()
        if self._open and events & (_READ | _ERROR):
            self._read()

    def _read(self) -> None:
        try:
            received = self._socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            received = b""
        if not received:
            self.close()
            return
        self._received += received
        while self._open and b"\n" in self._received:
            line, _, self._received = self._received.partition(b"\n")
            self._request(line)
        if len(self._received) > LINE_MAX:
            self.close()

    def _request(self, line: bytes) -> None:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError):
            self.close()
            return
        self._handle(request, _Answer(self, request.get("id")))

    def send(self, reply: dict[str, Any]) -> None:
        if not self._open:
            return
        self._unsent += json.dumps(reply).encode() + b"\n"
        if len(self._unsent) > _UNSENT_MAX:
            self.close()
        else:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            self._poller.subscribe(self._fd, self._event, _READ | _WRITE | _ERROR)
        except OSError:
            self.close()
        else:
            self._poller.subscribe(self._fd, self._event, _READ | _ERROR)
