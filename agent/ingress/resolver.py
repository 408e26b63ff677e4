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
import logging
import struct
from collections.abc import Callable
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.rrset

from agent.ingress import names
from agent.protocol import HostRoute, Target

log = logging.getLogger(__name__)

LOOPBACK = ipaddress.IPv4Address("127.0.0.1")
UDP_SIZE = 1232
MAX_ANSWERS = 8192  # remembered; beyond it the memory starts anew
TCP_IDLE_S = 10.0


class Answers:
    """From query bytes to answer bytes, remembered until a route or a verdict of the prober changes.

    Remembering matters: Caddy keeps 100 names, so with more apps than that many requests wait for an answer.
    """

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
        self._remembered: dict[tuple[bytes, bool], bytes] = {}

    def forget(self) -> None:
        """Something changed: work every answer out anew."""
        self._remembered.clear()

    def answer(self, query: bytes, *, udp: bool) -> bytes | None:
        """The answer to `query`, or None when it deserves none (not DNS, or an answer itself)."""
        key = (query[2:], udp)
        known = self._remembered.get(key)
        if known is not None:
            return query[:2] + known
        try:
            message = dns.message.from_wire(query)
        except (dns.exception.DNSException, struct.error, ValueError):
            return None
        if message.flags & dns.flags.QR or len(message.question) != 1:
            return None
        response = self._respond(message)
        # What does not fit is cut and marked so. Caddy asks for SRV by TCP: 64 KiB hold some 1,700 instances.
        wire = response.to_wire(max_size=UDP_SIZE if udp else 65535, prefer_truncation=True)
        if len(self._remembered) >= MAX_ANSWERS:
            self._remembered.clear()
        self._remembered[key] = wire[2:]
        return wire

    def _respond(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        response.flags |= dns.flags.AA
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        if not name.endswith(f".{names.ZONE}"):
            response.set_rcode(dns.rcode.REFUSED)
            return response
        records: list[Any] = []
        if question.rdtype == dns.rdatatype.SRV:
            records = self._srv(name.removesuffix(f".{names.ZONE}"))
        elif question.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
            records = _addresses(name, question.rdtype)
        if records:
            response.answer.append(dns.rrset.from_rdata(question.name, 0, *records))
        return response

    def _srv(self, host: str) -> list[Any]:
        route = self._lookup(host)
        if route is None or route.maintenance:
            return [self._page(route.app_id if route else 0)]
        found = []
        for target in self._answering(route.targets):
            ip = self._ip_of(target.address)
            if ip is not None:
                found.append(_record(names.encode(target.instance_id, route.app_id, ip), target.port))
        return found or [self._page(route.app_id)]

    def _page(self, app_id: int) -> Any:
        return _record(names.encode(0, app_id, LOOPBACK), self._page_port)


def _record(target: str, port: int) -> Any:
    kind: Any = dns.rdtypes.IN.SRV.SRV
    return kind(dns.rdataclass.IN, dns.rdatatype.SRV, 0, 0, port, dns.name.from_text(target))


def _addresses(name: str, rdtype: int) -> list[Any]:
    label = names.decode(name)
    if label is None or (label.ip.version == 4) != (rdtype == dns.rdatatype.A):
        return []
    kind: Any = dns.rdtypes.IN.A.A if label.ip.version == 4 else dns.rdtypes.IN.AAAA.AAAA
    return [kind(dns.rdataclass.IN, dns.rdatatype.RdataType(rdtype), str(label.ip))]


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
                    answer = self._answers.answer(await reader.readexactly(size), udp=False)
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
        answer = self._answers.answer(data, udp=True)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)
