"""Which leaving instances have no open request at this ingress any more, and telling the control plane.

Owns the wait (until Caddy has refreshed its answers, so that nothing new is sent there) and the report. Caddy counts
the open requests of each upstream; upgraded connections and streams are among them. Says nothing about an instance
that it cannot count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

import httpx
import orjson

from agent.ingress import names
from agent.ingress.follow import CONNECT_S, Members
from agent.routing import Drained

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
SETTLE_S = 2.2  # Caddy's refresh (1 s), a look-up that was under way then, and a second of margin (DECISIONS 27)
SEND_S = 5.0
REPEAT_S = 5.0  # a report that the control plane took and forgot is sent again
BATCH = 500


def open_requests(upstreams: bytes) -> dict[int, int]:
    """Open requests by instance, from the answer of Caddy's `/reverse_proxy/upstreams`. Raises ValueError."""
    found: dict[int, int] = {}
    for entry in orjson.loads(upstreams):
        label = names.decode(str(entry["address"]).rpartition(":")[0])
        if label is not None and label.instance_id:
            # The same instance stands in the list once for each configuration that is still alive: the highest counts.
            found[label.instance_id] = max(found.get(label.instance_id, 0), int(entry["num_requests"]))
    return found


class Draining:
    """`leaving` names the instances asked about; `upstreams` asks Caddy and raises OSError when it does not answer."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        members: Members,
        node: str,
        leaving: Callable[[], Iterable[int]],
        upstreams: Callable[[], Awaitable[bytes]],
    ) -> None:
        self._client, self._members, self._node = client, members, node
        self._leaving, self._upstreams = leaving, upstreams
        self._since: dict[int, float] = {}
        self._reported: dict[int, float] = {}

    async def run(self) -> None:
        while True:
            await self.look(asyncio.get_running_loop().time())
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, now: float) -> None:
        """One look: report whoever has left for long enough and has nothing open."""
        leaving = set(self._leaving())
        self._since = {instance: self._since.get(instance, now) for instance in leaving}
        self._reported = {instance: at for instance, at in self._reported.items() if instance in leaving}
        ripe = [
            instance for instance, since in self._since.items()
            if now - since >= SETTLE_S and now - self._reported.get(instance, -REPEAT_S) >= REPEAT_S
        ]  # fmt: skip
        if not ripe:
            return
        try:
            counts = open_requests(await self._upstreams())
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("caddy does not say what is open: %s", error)
            return
        done = sorted(instance for instance in ripe if not counts.get(instance))[:BATCH]
        if done and await self._send(done):
            self._reported.update(dict.fromkeys(done, now))

    async def _send(self, instances: list[int]) -> bool:
        try:
            response = await self._client.post(
                f"{self._members.current}/agent/drained",
                content=orjson.dumps(Drained(self._node, instances)),
                headers={"Content-Type": "application/json"},
                timeout=httpx.Timeout(SEND_S, connect=CONNECT_S),
            )
            response.raise_for_status()
        except httpx.HTTPError as error:
            log.debug("drained instances wait to be told: %s", error)
            self._members.next()
            return False
        return True
