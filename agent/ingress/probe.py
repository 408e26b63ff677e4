"""Which instance addresses take a TCP connection right now.

Owns the probing and its verdict per address. Drops nobody for good: what refuses is left out of answers until it takes
connections again, and a host whose instances all refuse keeps them all (better a try than a certain error). The agent's
health checks decide what is healthy; this only bridges the time until the control plane has heard of a death, or
for as long as there is no control plane.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterable

from agent.ingress.names import IPAddress
from agent.routing import Target

INTERVAL_S = 1.0
TIMEOUT_S = 1.0
MAX_PER_SECOND = 250  # a probe costs about 0.1 ms: at most some 2-3 % of a core, whatever the number of instances
SLOW_BEFORE_DEAD = 3  # time-outs in a row; one alone is a full accept queue, a refusal is a closed port
PARALLEL = 64

Endpoint = tuple[str, int]


class Prober:
    """Probes the targets that `targets` names, again and again; tells its listeners when a verdict turns."""

    def __init__(self, targets: Callable[[], Iterable[Target]]) -> None:
        self._targets = targets
        self._listeners: list[Callable[[], None]] = []
        self._refusing: set[Endpoint] = set()
        self._slow: dict[Endpoint, int] = {}
        self._resolved: dict[str, IPAddress] = {}

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def answering(self, targets: list[Target]) -> list[Target]:
        """Those of `targets` that do not refuse, or all of them when all do."""
        if not self._refusing:
            return targets
        alive = [target for target in targets if (target.address, target.port) not in self._refusing]
        return alive or targets

    def ip_of(self, address: str) -> IPAddress | None:
        """The address as an IP; a host name's is known after the first probe."""
        known = self._resolved.get(address)
        if known is None:
            with contextlib.suppress(ValueError):
                known = self._resolved[address] = ipaddress.ip_address(address)
        return known

    async def run(self) -> None:
        while True:
            endpoints = {(target.address, target.port) for target in self._targets()}
            started = asyncio.get_running_loop().time()
            await self.sweep(endpoints)
            spent = asyncio.get_running_loop().time() - started
            await asyncio.sleep(max(INTERVAL_S, len(endpoints) / MAX_PER_SECOND) - min(spent, INTERVAL_S * 0.9))

    async def sweep(self, endpoints: set[Endpoint]) -> None:
        """Probe each endpoint once; forget what is no longer routed to."""
        before = set(self._refusing)
        resolved_before = len(self._resolved)
        self._refusing &= endpoints
        self._slow = {endpoint: count for endpoint, count in self._slow.items() if endpoint in endpoints}
        gate = asyncio.Semaphore(PARALLEL)

        async def one(endpoint: Endpoint) -> None:
            async with gate:
                await self._probe(endpoint)

        await asyncio.gather(*(one(endpoint) for endpoint in endpoints))
        if before != self._refusing or resolved_before != len(self._resolved):
            for listener in self._listeners:
                listener()

    async def _probe(self, endpoint: Endpoint) -> None:
        loop = asyncio.get_running_loop()
        address, port = endpoint
        try:
            async with asyncio.timeout(TIMEOUT_S):
                ip = self.ip_of(address) or await self._resolve(address, port)
                family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
                with socket.socket(family, socket.SOCK_STREAM) as sock:
                    sock.setblocking(False)
                    await loop.sock_connect(sock, (str(ip), port))
        except TimeoutError:
            self._slow[endpoint] = self._slow.get(endpoint, 0) + 1
            if self._slow[endpoint] >= SLOW_BEFORE_DEAD:
                self._refusing.add(endpoint)
            return
        except OSError:
            self._refusing.add(endpoint)
            return
        self._slow.pop(endpoint, None)
        self._refusing.discard(endpoint)

    async def _resolve(self, address: str, port: int) -> IPAddress:
        found = await asyncio.get_running_loop().getaddrinfo(address, port, type=socket.SOCK_STREAM)
        ip: IPAddress = ipaddress.ip_address(found[0][4][0])
        self._resolved[address] = ip
        return ip
