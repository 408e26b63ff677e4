"""Releases that are images, for every node of a swarm: by way of a registry that all of them reach.

Owns what this platform has put into that registry. An image is named by its digest there, so that no node can run
another one. Without a registry an image is on the manager's own node alone.
"""

from __future__ import annotations

from typing import Any

from agent.runtimes.engine.client import LONG_CALL_S, Declined, Engine


class Spread:
    """`registry` is `host:port`, or `host/prefix`; "" when there is none."""

    def __init__(self, engine: Engine, platform: str, registry: str) -> None:
        self._engine = engine
        self._repository = f"{registry}/{platform}" if registry else ""

    @property
    def everywhere(self) -> bool:
        return bool(self._repository)

    async def reference(self, image: dict[str, Any]) -> str:
        """What a task is to name: the id, where the image need not travel, else the registry's digest of it. Raises
        Away, Declined."""
        if not self._repository:
            return str(image["Id"])
        known = self._known(image)
        if not known:
            await self._engine.call(lambda client: self._push(client, str(image["Id"])), LONG_CALL_S, lane="change")
            image = await self._engine.call(lambda client: client.inspect_image(image["Id"]))
            known = self._known(image)
        if not known:
            raise Declined(500, f"the registry took {self._repository} and named no digest")
        return known

    def _known(self, image: dict[str, Any]) -> str:
        ours = (name for name in image.get("RepoDigests") or () if name.startswith(f"{self._repository}@"))
        return next(ours, "")

    def _push(self, client: Any, image: str) -> None:
        tag = image.removeprefix("sha256:")
        client.tag(image, self._repository, tag)
        for event in client.push(self._repository, tag, stream=True, decode=True):
            if "error" in event:
                raise Declined(502, f"the registry of the swarm refuses the image: {str(event['error'])[:500]}")
