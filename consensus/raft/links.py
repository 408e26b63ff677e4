"""The proven connections to the other members: frames of messages, in both directions, inside core's poll.

Owns one connection to each other member (the one with the greater id dials, the other one when that does not happen:
a member may not know us yet), the cap on what a frame may hold, the pings that keep idle connections alive and carry
what members tell each other, and the end of silent ones. Runs on the
Raft thread, except for what `door` hands over. Must not know what a message means.
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from consensus.raft.door import Dialler, Door
from consensus.raft.messages import FRAME_MAX, BadMessage, Message, decode, encode
from consensus.tls import Identity, client_context, server_context
from omni.kernel import clock

PING_S = 1.0
SILENCE_S = 2.5
VISITORS_MAX = 16  # members that our log does not know, or not any more
_READ, _WRITE, _ERROR = 1, 2, 4
_LENGTH = struct.Struct(">I")
_UNSENT_MAX = 16 << 20
_READ_AT_ONCE = 1 << 20
_log = logging.getLogger("omni.raft")


class Link:
    """One TLS connection, non-blocking. `heard` and `lost` are called at most once an event, never after `close`."""

    def __init__(
        self, connection: ssl.SSLSocket, poller: Any, heard: Callable[[Message], None], lost: Callable[[str], None]
    ) -> None:
        self._connection, self._poller = connection, poller
        self._heard, self._lost = heard, lost
        self._received = bytearray()
        self._unsent = bytearray()
        self._fd = connection.fileno()
        self._watching = False
        self.deaf = False  # tests: a cut network
        self.read_at = self.pinged_at = clock.monotonic()
        self.open = True
        poller.subscribe(self._fd, self._event, _READ | _ERROR)

    def send(self, message: Message) -> None:
        if not self.open or self.deaf:
            return
        frame = encode(message)
        self._unsent += _LENGTH.pack(len(frame)) + frame
        if len(self._unsent) > _UNSENT_MAX:
            self._end("it takes nothing any more")
        else:
            self._flush()

    def receive(self) -> None:
        """What TLS has already taken from the socket when the connection was handed over tells nobody."""
        self._event(self._fd, _READ)

    def close(self) -> None:
        if self.open:
            self.open = False
            self._poller.unsubscribe(self._fd)
            self._connection.close()

    def _event(self, fd: int, events: int) -> None:
        if not self.open or fd != self._fd:
            return
        if events & _WRITE:
            self._flush()
        if self.open and events & (_READ | _ERROR):
            self._read()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._connection.send(self._unsent)]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self._watch_room(True)
        except OSError as error:
            self._end(str(error))
        else:
            self._watch_room(False)

    def _watch_room(self, wanted: bool) -> None:
        if wanted != self._watching:
            self._watching = wanted
            self._poller.subscribe(self._fd, self._event, _READ | _ERROR | (_WRITE if wanted else 0))

    def _read(self) -> None:
        ended = ""
        try:
            for _ in range(_READ_AT_ONCE // 65536):
                received = self._connection.recv(65536)
                if not received:
                    ended = "closed by the other side"
                    break
                self._received += received
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            ended = str(error)
        try:
            self._take_frames()
        except BadMessage as bad:
            ended = str(bad)
        if ended and self.open:
            self._end(ended)

    def _take_frames(self) -> None:
        start = 0
        while self.open and len(self._received) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received, start)
            if length > FRAME_MAX:
                raise BadMessage(f"a frame of {length} bytes")
            end = start + _LENGTH.size + length
            if end > len(self._received):
                break
            frame = bytes(self._received[start + _LENGTH.size : end])
            start = end
            if not self.deaf:
                self.read_at = clock.monotonic()
                self._heard(decode(frame))
        del self._received[:start]

    def _end(self, reason: str) -> None:
        self.close()
        self._lost(reason)


class Links:
    """Core's network. `ping` makes the message that is sent to each member every second."""

    def __init__(self, identity: Identity, listen: tuple[str, int], ping: Callable[[], Message]) -> None:
        self._me, self._listen, self._ping = identity.member, listen, ping
        self._server, self._client = server_context(identity), client_context(identity)
        self._addresses: dict[str, str] = {}
        self._links: dict[str, Link] = {}
        self._diallers: dict[str, Dialler] = {}
        self._proven: deque[tuple[str, ssl.SSLSocket]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._lock = threading.Lock()
        self._closed = False
        self._poller: Any = None
        self._door: Door | None = None
        self._cut: set[str] = set()

    def listen(
        self, heard: Callable[[str, Message], None], up: Callable[[str], None], down: Callable[[str], None]
    ) -> None:
        self._heard, self._up, self._down = heard, up, down

    def start(self, poller: Any) -> None:
        """Open the port and dial. Raises OSError when the port is taken."""
        self._poller = poller
        self._door = Door(self._listen, self._server, self._hand_over)
        poller.subscribe(self._wake_read, self._take_over, _READ)
        for peer in self._addresses:
            self._dial(peer)

    def add(self, peer: str, address: str) -> None:
        self._addresses[peer] = address
        if self._poller is not None:
            self._dial(peer)

    def drop(self, peer: str) -> None:
        self._addresses.pop(peer, None)
        if (dialler := self._diallers.pop(peer, None)) is not None:
            dialler.close()
        if (link := self._links.pop(peer, None)) is not None:
            link.send({"type": "bye", "reason": "you are no member any more"})
            link.close()

    def send(self, peer: str, message: Message) -> None:
        if (link := self._links.get(peer)) is not None:
            link.send(message)

    def connected(self) -> set[str]:
        return set(self._links)

    def ping(self) -> None:
        """To everybody, now: something that all should know has changed."""
        message = self._ping()
        for link in list(self._links.values()):
            link.pinged_at = clock.monotonic()
            link.send(message)

    def look_after(self, now: float) -> None:
        """A few times a second: ping who has not been pinged, end what has gone silent."""
        for peer, link in list(self._links.items()):
            if now - link.read_at > SILENCE_S:
                link.close()
                self._lost(peer, link, f"silent for {SILENCE_S:g} s")
            elif now - link.pinged_at >= PING_S:
                link.pinged_at = now
                link.send(self._ping())
        if self._door is not None and not self._door.alive:
            raise RuntimeError("the thread that accepts connections has died")

    def cut(self, peers: set[str]) -> None:
        """Tests: neither hear nor reach these, without closing anything."""
        self._cut = peers
        for peer, link in self._links.items():
            link.deaf = peer in peers

    def close(self) -> None:
        with self._lock:
            self._closed = True
        if self._door is not None:
            self._door.close()
        for dialler in self._diallers.values():
            dialler.close()
        for link in self._links.values():
            link.close()
        for _, connection in self._proven:
            connection.close()
        self._links, self._diallers = {}, {}

    def _dial(self, peer: str) -> None:
        if peer not in self._diallers:
            self._diallers[peer] = Dialler(
                peer,
                self._addresses[peer],
                self._client,
                self._hand_over,
                lambda: peer not in self._links,
                patient=self._me < peer,
            )

    def _hand_over(self, peer: str, connection: ssl.SSLSocket) -> None:
        """From the threads of `door` to this one."""
        with self._lock:
            if self._closed:
                connection.close()
                return
            self._proven.append((peer, connection))
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _take_over(self, _fd: int, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._proven:
            peer, connection = self._proven.popleft()
            visitors = self._links.keys() - self._addresses.keys()
            if peer in self._cut or (peer not in self._addresses and len(visitors) >= VISITORS_MAX):
                connection.close()
                if peer in self._diallers:
                    self._diallers[peer].dial()
            else:
                self._welcome(peer, connection)

    def _welcome(self, peer: str, connection: ssl.SSLSocket) -> None:
        """A new connection takes the place of an older one: the other side has given that one up."""
        if (old := self._links.pop(peer, None)) is not None:
            old.close()
            self._down(peer)
        link = Link(connection, self._poller, lambda message: self._heard(peer, message), lambda reason: None)
        link._lost = lambda reason: self._lost(peer, link, reason)
        self._links[peer] = link
        link.send(self._ping())
        if link.open:
            self._up(peer)
            link.receive()

    def _lost(self, peer: str, link: Link, reason: str) -> None:
        if self._links.get(peer) is not link:
            return
        del self._links[peer]
        _log.info("connection to %s lost: %s", peer, reason)
        self._down(peer)
        if (dialler := self._diallers.get(peer)) is not None:
            dialler.dial()
