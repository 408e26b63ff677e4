"""One network for each app: its instances on this host reach each other by name, and no other app's.

Owns the networks of this platform on the engine, their names, bridges and addresses. The engine's own pool holds about
thirty networks; ours are cut out of `agent.docker_subnets`, 253 instances of an app on a host.
"""

from __future__ import annotations

import hashlib
import ipaddress
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agent import clock
from agent.runtimes.engine.client import Declined, Engine

if TYPE_CHECKING:
    from docker import APIClient

LABEL = "omni.platform"
BRIDGE_PREFIX = "omd"
_SIZE = 24
_TRIES = 64
SEEN_S = 2.0  # where many start at once one question is enough; another agent of this host may remove it any time


class Networks:
    def __init__(self, engine: Engine, platform: str, pool: str) -> None:
        self._engine = engine
        self._platform = platform
        self._pool = ipaddress.IPv4Network(pool)
        self._seen: dict[int, float] = {}  # app → when its network was there

    def name(self, app_id: int) -> str:
        return f"{self._platform}-app-{app_id}"

    def bridge(self, app_id: int) -> str:
        """A name that says whose it is: the packet filter knows our bridges by the prefix."""
        return BRIDGE_PREFIX + hashlib.sha256(self.name(app_id).encode()).hexdigest()[:10]

    def is_here(self, app_id: int) -> bool:
        """Whether the bridge is one of this very host: then its containers can be reached at their own addresses."""
        return Path("/sys/class/net", self.bridge(app_id)).exists()

    async def ensure(self, app_id: int) -> str:
        """The app's network, made if need be. Raises Away, Declined."""
        name = self.name(app_id)
        if clock.monotonic() - self._seen.get(app_id, -SEEN_S) < SEEN_S:
            return name
        if not await self._engine.call(lambda client: client.networks(names=[f"^{name}$"])):
            await self._engine.call(lambda client: self._make(client, app_id))
        self._seen[app_id] = clock.monotonic()
        return name

    def forget(self, app_id: int) -> None:
        """A start failed: perhaps for want of it."""
        self._seen.pop(app_id, None)

    def _make(self, client: APIClient, app_id: int) -> None:
        from docker.errors import APIError
        from docker.types import IPAMConfig, IPAMPool

        for subnet in itertools.islice(self._subnets(app_id), _TRIES):
            try:
                client.create_network(
                    self.name(app_id),
                    driver="bridge",
                    ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet))]),
                    options={"com.docker.network.bridge.name": self.bridge(app_id)},
                    labels={LABEL: self._platform},
                    check_duplicate=True,
                )
                return
            except APIError as error:
                text = str(error.explanation or error).lower()
                if "already exists" in text and "bridge name" not in text and "overlap" not in text:
                    return  # another agent of this host was quicker
                if not any(word in text for word in ("overlap", "conflict", "already used", "in use")):
                    raise
        raise Declined(409, f"no free /{_SIZE} for a network of app {app_id} in {self._pool} (agent.docker_subnets)")

    def _subnets(self, app_id: int) -> Iterator[ipaddress.IPv4Network]:
        """Each app begins at its own number, so that most find theirs free at once. What this host has a way to is
        somebody's already: the engine itself looks only at its own networks."""
        count = 2 ** (_SIZE - self._pool.prefixlen)
        first = int(self._pool.network_address)
        routed = _routes()
        for offset in range(count):
            address = first + ((app_id + offset) % count) * 2 ** (32 - _SIZE)
            subnet = ipaddress.IPv4Network((address, _SIZE))
            if not any(subnet.overlaps(route) for route in routed):
                yield subnet

    async def leave(self, app_id: int) -> None:
        """Remove the app's network when nothing of it runs here any more; whoever is still in it keeps it."""
        self.forget(app_id)
        try:
            await self._engine.call(lambda client: client.remove_network(self.name(app_id)))
        except Declined:
            return


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("localhost", "::1")


def _routes() -> list[ipaddress.IPv4Network]:
    """Where this host sends packets by a route of its own; the way to everywhere else is none."""
    try:
        lines = Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    found = []
    for words in map(str.split, lines):
        address, mask = (int.from_bytes(bytes.fromhex(words[column]), "little") for column in (1, 7))
        if mask:
            found.append(ipaddress.IPv4Network((address, mask.bit_count())))
    return found
