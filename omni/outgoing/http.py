"""One HTTP call to an address that a user named, under the policy, the clock and a size limit.

Owns the socket: the name is resolved once and the connection goes to the address that was allowed; the certificate is
checked against the name. Follows no redirect, keeps no connection, reads no proxy variable. One deadline covers all
of it, a server that drips bytes included.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlsplit

from omni.outgoing import policy as policies
from sandbox.addresses import AddressPolicy, Refused

ANSWER_BYTES = 64 * 1024


class CallFailed(Exception):
    """No complete answer came. `refused`: the policy or the URL forbids the call, repeating it cannot help."""

    def __init__(self, why: str, *, refused: bool = False) -> None:
        super().__init__(why)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is the first part of what came, at most the limit."""

    status: int
    headers: dict[str, str]
    body: bytes
    took_s: float


def send(call: Call, timeout_s: float, *, policy: AddressPolicy | None = None, limit: int = ANSWER_BYTES) -> Answer:
    """Make the call. Raises CallFailed."""
    begun = time.monotonic()
    parts = urlsplit(call.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise CallFailed("the URL must be http(s)://host… without a user", refused=True)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        addresses = policies.resolve(parts.hostname, port, timeout_s)
        address = (policy or policies.configured()).first_allowed(parts.hostname, addresses)
    except ValueError as error:
        raise CallFailed(f"the URL has no port that is one: {error}", refused=True) from error
    except policies.Unresolved as error:
        raise CallFailed(str(error)) from error
    except Refused as error:
        raise CallFailed(str(error), refused=True) from error
    left = timeout_s - (time.monotonic() - begun)
    connection = _Pinned(parts.hostname, port, address, secure=parts.scheme == "https", timeout_s=max(left, 0.001))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with _deadline(connection, max(left, 0.001)) as late:
        try:
            status, headers, body = _exchange(connection, call, target, limit)
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = f"no answer within {timeout_s:g} s" if late.is_set() else _reason(error)
            raise CallFailed(f"{parts.hostname}: {why}") from error
        finally:
            connection.close()
        if late.is_set():  # the cut may look like the end of the answer
            raise CallFailed(f"{parts.hostname}: no answer within {timeout_s:g} s")
    return Answer(status, headers, body, time.monotonic() - begun)


def _exchange(
    connection: http.client.HTTPConnection, call: Call, target: str, limit: int
) -> tuple[int, dict[str, str], bytes]:
    headers = {"User-Agent": "omni", "Accept-Encoding": "identity", "Connection": "close", **call.headers}
    connection.request(call.method, target, body=call.body or None, headers=headers)
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read(limit)


class _Pinned(http.client.HTTPConnection):
    """Connects to `address`, speaks as if to `host`."""

    def __init__(self, host: str, port: int, address: str, *, secure: bool, timeout_s: float) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._address, self._secure, self._timeout_s = address, secure, timeout_s
        self.default_port = 443 if secure else 80

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self._timeout_s)
        self.sock = plain
        if self._secure:
            self.sock = _tls().wrap_socket(plain, server_hostname=self.host)

    def abort(self) -> None:
        """From another thread: whoever reads or writes gets an error now."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _deadline(connection: _Pinned, seconds: float) -> Iterator[threading.Event]:
    """A socket's own time-out starts anew with every byte; this one does not."""
    late = threading.Event()

    def end() -> None:
        late.set()
        connection.abort()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return str(error)[:200] or type(error).__name__
