"""Asking the engine about containers, as seldom as can be: where many start at once, questions are most of the work.

Owns which of its calls is made, and that one answer serves all who ask at the same time. Keeps no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from agent.runtimes.engine.client import Declined, Engine


class Looking:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def at(self, container: str) -> dict[str, Any]:
        """What the engine says of a container, as of now or later. Raises Away, Declined.

        All who ask in the same turn of the loop share the answer: of a container that was just started its end, its
        output and its address are asked after at once.
        """
        if container not in self._asked:
            asked = self._asked[container] = asyncio.ensure_future(self._ask(container))
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())  # they may all have gone
        return await asyncio.shield(self._asked[container])

    async def find(self, name: str, labels: Iterable[str]) -> dict[str, Any] | None:
        """The container of that name, if it has these labels (`name=value`). By its name, for a list by labels is the
        engine's dearest answer. Raises Away, Declined."""
        try:
            found = await self.at(name)
        except Declined as error:
            if error.status == 404:
                return None
            raise
        has = {f"{label}={value}" for label, value in (found["Config"]["Labels"] or {}).items()}
        return found if has.issuperset(labels) else None

    async def list(self, labels: Iterable[str]) -> list[dict[str, Any]]:
        """Every container with these labels, whether it runs or not. Raises Away, Declined."""
        filters = {"label": list(labels)}
        return await self._engine.call(lambda client: client.containers(all=True, filters=filters))

    async def _ask(self, container: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        del self._asked[container]  # who comes from now on may want to know of something later
        return await self._engine.call(lambda client: client.inspect_container(container))
