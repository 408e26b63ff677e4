"""The DNS responder that tells Caddy where each host's instances are.

Owns the answers (SRV for `<host>.omni.`, A and AAAA for the names in them) and the two sockets, UDP and TCP on one
loopback port. Must not decide routing: host, targets and liveness come from the table and the prober. Every name under
`omni.` has an SRV answer, an unknown host's being the page listener: on a name without one Caddy waits out all its
retry time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
from collections.abc import Callable
from typing import Any, cast

from agent.ingress import names, wire
from agent.routing import HostRoute, Target

LOOPBACK = ipaddress.IPv4Address("127.0.0.1")
TCP_SIZE = 65535
MAX_ANSWERS = 50_000  # remembered, some 10 MB; beyond it the memory starts anew
TCP_IDLE_S = 10.0


class Answers:
    """From query bytes to answer bytes, remembered until a route or a verdict of the prober changes."""

    def __init__(
        self,
        lookup: Callable[[str], HostRoute | None],
        answering: Callable[[list[Target]], list[Target]],
        ip_of: Callable[[str], names.IPAddress | None],
        page_port: int,
    ) -> None:
        self._lookup = lookup
        self._answering = answering
        self._ip_of = ip_of
        self._page_port = page_port
        self._remembered: dict[tuple[bytes, int], bytes] = {}

    def forget(self) -> None:
        """Something changed: work every answer out anew."""
        self._remembered.clear()

    def answer(self, packet: bytes, room: int) -> bytes | None:
        """The answer of at most `room` bytes to `packet`, or None when it deserves none."""
        key = (packet[2:], room)
        known = self._remembered.get(key)
        if known is not None:
            return packet[:2] + known
        query = wire.parse(packet)
        if query is None:
            return None
        whole, response = self._respond(query, room)
        if whole:
            if len(self._remembered) >= MAX_ANSWERS:
                self._remembered.clear()
            self._remembered[key] = response
        return packet[:2] + response

    def _respond(self, query: wire.Query, room: int) -> tuple[bool, bytes]:
        """The response, and whether it is all there is to say (then it may be remembered)."""
        host, dot, zone = query.name.rpartition(".")
        if not dot or zone != names.ZONE:
            return True, wire.refused(query)
        if query.kind == wire.SRV:
            services = self._services(host)
            records = wire.service_records(query, services, room)
            if len(records) == len(services):
                return True, wire.answer(query, records)
            # More instances than a datagram holds: Caddy asks again every second, and each time others take part.
            return False, wire.answer(query, wire.service_records(query, random.sample(services, len(services)), room))
        label = names.decode(query.name)
        wanted = {wire.A: 4, wire.AAAA: 6}.get(query.kind)
        matches = label is not None and label.ip.version == wanted
        return True, wire.answer(query, [wire.address_record(label)] if label is not None and matches else [])

    def _services(self, name: str) -> list[wire.Service]:
        """`<host>`, or while a canary is under way `<host>.stable` and `<host>.canary`."""
        route, pool = self._lookup(name), ""
        if route is None:
            host, _, pool = name.rpartition(".")
            route = self._lookup(host) if pool in names.POOLS else None
        found = []
        if route is not None and not route.maintenance:
            # A pool that is empty for a moment leaves its share to the other.
            chosen = [target for target in route.targets if target.pool == pool] if pool else []
            for target in self._answering(chosen or route.targets):
                ip = self._ip_of(target.address)
                if ip is not None:
                    found.append(wire.Service(names.Label(target.instance_id, route.app_id, ip), target.port))
        page = names.Label(0, route.app_id if route else 0, LOOPBACK)
        return found or [wire.Service(page, self._page_port)]


class Responder:
    """The UDP and the TCP socket, on the same loopback port."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> int:
        """Bind both sockets on `port` (0: any); raises OSError when it is taken. Returns the port."""
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, str(LOOPBACK), port, backlog=1024)
        bound: int = server.sockets[0].getsockname()[1]
        try:
            self._transport, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self._answers), local_addr=(str(LOOPBACK), bound)
            )
        except OSError:
            server.close()
            raise
        self._server = server
        return bound

    async def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            while True:
                async with asyncio.timeout(TCP_IDLE_S):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    answer = self._answers.answer(await reader.readexactly(size), TCP_SIZE)
                    if answer is None:
                        break
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        answer = self._answers.answer(data, wire.UDP_SIZE)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)
