"""One overlay network for each app: its instances reach each other by name on whichever node of the swarm they are.

Owns the networks of this platform in the swarm. Their addresses are the swarm's own choice (`docker swarm init
--default-addr-pool`).
"""

from __future__ import annotations

import contextlib
from typing import Any

from agent.runtimes.engine.client import Declined, Engine, EngineError

LABEL = "omni.swarm"  # those of the docker runtime carry another: each runtime removes its own


class Overlays:
    def __init__(self, engine: Engine, platform: str) -> None:
        self._engine = engine
        self._platform = platform

    def name(self, app_id: int) -> str:
        return f"{self._platform}-swarm-{app_id}"

    async def ensure(self, app_id: int) -> str:
        """The id of the app's network, made if need be. Raises Away, Declined."""
        name = self.name(app_id)
        found = await self._find(name)
        if not found:
            try:
                await self._engine.call(lambda client: self._make(client, name))
            except Declined as error:
                if error.status != 409:  # another agent was quicker
                    raise
            found = await self._find(name)
        if not found:
            raise Declined(500, f"the swarm did not make the network {name}")
        return str(found[0]["Id"])

    async def _find(self, name: str) -> list[dict[str, Any]]:
        filters = {"scope": "swarm"}  # Swarm takes a name for a word, and knows no "^"
        found = await self._engine.call(lambda client: client.networks(names=[name], filters=filters))
        return [one for one in found if one["Name"] == name]

    def _make(self, client: Any, name: str) -> None:
        client.create_network(name, driver="overlay", labels={LABEL: self._platform}, check_duplicate=True)

    async def leave(self, app_id: int) -> None:
        """Remove the app's network when nothing is in it any more; whoever is keeps it."""
        await self._remove(self.name(app_id))

    async def leave_all(self) -> None:
        with contextlib.suppress(EngineError):
            labels = [f"{LABEL}={self._platform}"]
            for network in await self._engine.call(lambda client: client.networks(filters={"label": labels})):
                await self._remove(str(network["Id"]))

    async def _remove(self, network: str) -> None:
        with contextlib.suppress(Declined):
            await self._engine.call(lambda client: client.remove_network(network))
