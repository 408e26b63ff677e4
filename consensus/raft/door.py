"""Connections until both sides have proved who they are: accepted and dialled, on threads of their own.

Owns the listening socket, name lookups, handshakes and their time-outs, so that no stranger and no slow peer costs the
Raft thread a moment. What comes out is a TLS connection and the member at its other end. Strangers are bounded: the
oldest of too many unproven connections goes first, and a process out of file descriptors still answers and closes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable

from consensus.tls import member_of

HANDSHAKE_S = 2.0
UNPROVEN_MAX = 32
PATIENCE_S = 1.5
RETRY_S = (0.02, 0.05, 0.1, 0.2, 0.4, 0.5)
_CONNECT_S = 1.0
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_log = logging.getLogger("omni.raft")

Proven = Callable[[str, ssl.SSLSocket], None]  # called on one of the threads here


def tune(connection: socket.socket) -> None:
    """No waiting for more to send; a peer that takes nothing for two seconds is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (("TCP_USER_TIMEOUT", 2000), ("TCP_SYNCNT", 2)):
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Door:
    """The listener. Raises OSError when the address cannot be bound."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, proven: Proven) -> None:
        self._context, self._proven = context, proven
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = socket.create_server(address, family=family, backlog=128)
        self._listener.setblocking(False)
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._waiting: dict[ssl.SSLSocket, float] = {}  # in the order in which they came
        self._wake_read, self._wake_write = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="raft-door", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        self._closing = True
        os.write(self._wake_write, b"x")
        self._thread.join(2.0)

    def _run(self) -> None:
        while not self._closing:
            first = next(iter(self._waiting.values()), None)
            pause = None if first is None else max(0.0, first - time.monotonic())
            for key, _ in self._selector.select(pause):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, ssl.SSLSocket):
                    self._shake(key.fileobj)
            self._expire()
        for connection in list(self._waiting):
            self._forget(connection)
        self._listener.close()
        self._selector.close()
        for fd in (self._spare, self._wake_read, self._wake_write):
            os.close(fd)

    def _accept(self) -> None:
        for _ in range(16):  # then the others get their turn
            try:
                raw, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_FILES:
                    raise
                self._turn_one_away()
                return
            self._begin(raw)

    def _turn_one_away(self) -> None:
        """Without a free descriptor the connection would stay in the queue, and we would be told of it for ever."""
        while self._waiting and len(self._waiting) > UNPROVEN_MAX // 2:
            self._forget(next(iter(self._waiting)))
        os.close(self._spare)
        with contextlib.suppress(OSError):
            raw, _address = self._listener.accept()
            raw.close()
        for _ in range(100):
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                return
            time.sleep(0.01)

    def _begin(self, raw: socket.socket) -> None:
        try:
            raw.setblocking(False)
            tune(raw)
            connection = self._context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
        except (OSError, ValueError):
            raw.close()
            return
        while len(self._waiting) >= UNPROVEN_MAX:
            self._forget(next(iter(self._waiting)))
        self._waiting[connection] = time.monotonic() + HANDSHAKE_S
        self._selector.register(connection, selectors.EVENT_READ)
        self._shake(connection)

    def _shake(self, connection: ssl.SSLSocket) -> None:
        if connection not in self._waiting:
            return
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(connection, selectors.EVENT_READ)
            return
        except ssl.SSLWantWriteError:
            self._selector.modify(connection, selectors.EVENT_WRITE)
            return
        except (OSError, ValueError):
            self._forget(connection)
            return
        member = member_of(connection)
        self._selector.unregister(connection)
        del self._waiting[connection]
        if member is None:
            connection.close()
        else:
            self._proven(member, connection)

    def _expire(self) -> None:
        now = time.monotonic()
        for connection, deadline in list(self._waiting.items()):
            if deadline > now:
                return
            self._forget(connection)

    def _forget(self, connection: ssl.SSLSocket) -> None:
        self._waiting.pop(connection, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        connection.close()


class Dialler:
    """Dials one peer whenever it is asked to, again and again until somebody answers who proves to be that peer.

    A `patient` one first gives the peer, which is to dial us, the time to do so; `needed` tells whether it has.
    """

    def __init__(
        self,
        peer: str,
        address: str,
        context: ssl.SSLContext,
        proven: Proven,
        needed: Callable[[], bool],
        *,
        patient: bool,
    ) -> None:
        self._peer, self._context, self._proven, self._needed, self._patient = peer, context, proven, needed, patient
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._said = ""
        self._thread = threading.Thread(target=self._run, name=f"raft-dial-{peer}", daemon=True)
        self._thread.start()
        self.dial()

    def dial(self) -> None:
        """The connection is lost, or there never was one."""
        self._wanted.set()

    def close(self) -> None:
        """A call under way ends by its own time-out."""
        self._closing.set()
        self._wanted.set()

    def _run(self) -> None:
        reached = -HANDSHAKE_S
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if time.monotonic() - reached < 1.0:
                self._closing.wait(RETRY_S[-1])  # they let us in and closed: no member to them, perhaps
            if self._patient:
                self._closing.wait(PATIENCE_S)
            failures = 0
            while not self._closing.is_set() and self._needed() and not self._once():
                self._closing.wait(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
            if self._closing.is_set():
                return
            reached = time.monotonic()

    def _once(self) -> bool:
        raw = None
        try:
            raw = self._connect()
            connection = self._context.wrap_socket(raw, do_handshake_on_connect=False)
            raw = connection
            connection.settimeout(HANDSHAKE_S)
            connection.do_handshake()
            member = member_of(connection)
            if member != self._peer:
                raise ConnectionError(f"{member or 'somebody'} answers there")
            connection.setblocking(False)
        except (OSError, ValueError) as error:
            if raw is not None:
                raw.close()
            self._say(str(error))
            return False
        self._said = ""
        self._proven(self._peer, connection)
        return True

    def _connect(self) -> socket.socket:
        found = socket.getaddrinfo(*self._address, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        raw = socket.socket(family, kind, protocol)
        try:
            tune(raw)
            raw.settimeout(_CONNECT_S)
            raw.connect(address)
        except OSError:
            raw.close()
            raise
        return raw

    def _say(self, problem: str) -> None:
        """Each kind of problem once; a wrong certificate is worth more than a refused connection."""
        if problem != self._said:
            level = logging.WARNING if "CERTIFICATE" in problem.upper() or "answers there" in problem else logging.DEBUG
            _log.log(level, "no connection to %s: %s", self._peer, problem)
        self._said = problem
