"""The members' door: the same HTTP over TLS, on a port of its own, for the other hosts of the cluster.

Owns the listener that nobody passes without a certificate of this cluster (`consensus.identity`), and hands what comes
through it on to this member's own HTTP port, byte by byte. Opened only where there are several hosts. It reads no
request: who may do what is decided behind it, by tokens and signed hops as ever.

In the web process and not a second server of the same app: that one costs 75 MiB for each node, this 2
(docs/decisions/0006-the-members-door.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from dataclasses import dataclass, field

_BLOCK = 1 << 18
_HANDSHAKE_S = 5.0
_CONNECT_S = 2.0
_CONNECTIONS = 512
_BACKLOG = 256
_log = logging.getLogger("omni.front")


@dataclass(slots=True)
class Door:
    """Listens on `address`:`port`, passes on to `inside` (host, port). `shared`: several workers listen on the port."""

    context: ssl.SSLContext
    address: str
    port: int
    inside: tuple[str, int]
    shared: bool = False
    _server: asyncio.Server | None = None
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        """Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(
            self._came, self.address, self.port, ssl=self.context, limit=_BLOCK, backlog=_BACKLOG,
            ssl_handshake_timeout=_HANDSHAKE_S, reuse_port=self.shared or None,
        )  # fmt: skip
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """No more connections; those that are open end."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._open) >= _CONNECTIONS:
            writer.transport.abort()
            return
        self._open.add(task)
        _keep_alive(writer)
        try:
            await self._pass_on(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # either side left, or the member is closing
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = asyncio.open_connection(*self.inside, limit=_BLOCK)
        inner_reader, inner_writer = await asyncio.wait_for(opening, _CONNECT_S)
        asking = asyncio.create_task(_pump(reader, inner_writer))
        answering = asyncio.create_task(_pump(inner_reader, writer))
        try:
            # HTTP ends a connection by the server's close; a client that hangs up is gone for good.
            await asyncio.wait((asking, answering), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (asking, answering):
                task.cancel()
            await asyncio.gather(asking, answering, return_exceptions=True)
            inner_writer.transport.abort()
            with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
                writer.close()
                await asyncio.wait_for(writer.wait_closed(), _CONNECT_S)


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """A host that lost its power says no good-bye: the kernel asks after it."""
    end = writer.get_extra_info("socket")
    if end is not None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end of what comes; never more than a block or two in memory."""
    while data := await reader.read(_BLOCK):
        writer.write(data)
        await writer.drain()
