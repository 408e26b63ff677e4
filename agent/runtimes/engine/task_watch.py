"""Waking who waits for a change of a Swarm service's tasks: one list for all of them.

Owns no knowledge, as `ends` does not: a change only says when to look again. Swarm's events tell nothing of
tasks, so the list is asked for every `LOOK_S` while somebody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from agent.runtimes.engine import launching, tasks
from agent.runtimes.engine.client import Engine, EngineError

LOOK_S = 0.4
RESYNC_S = 30.0


class TaskWatch:
    def __init__(self, engine: Engine, platform: str, node: str) -> None:
        self._engine = engine
        self._labels = launching.labels_of(platform, node)
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._known: dict[str, tuple[tuple[str, str, str], ...]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def of(self, service: str) -> AsyncIterator[asyncio.Event]:
        """Set when it is time to look at this service; take it before the first look."""
        event = asyncio.Event()
        self._waiting.setdefault(service, set()).add(event)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(), name="swarm tasks")
        try:
            yield event
        finally:
            waiting = self._waiting[service]
            waiting.discard(event)
            if not waiting:
                del self._waiting[service]
                self._known.pop(service, None)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while self._waiting:
            with contextlib.suppress(EngineError):  # nobody knows now: who waits goes on waiting
                found = await self._engine.call(lambda client: client.tasks(filters={"label": self._labels}))
                self._compare(found)
            await asyncio.sleep(LOOK_S)

    def _compare(self, found: list[tasks.Task]) -> None:
        by_service: dict[str, list[tasks.Task]] = {service: [] for service in self._waiting}
        for task in found:
            by_service.setdefault(str(task["ServiceID"]), []).append(task)
        for service, waiting in self._waiting.items():
            now = tasks.digest(by_service[service])
            if self._known.get(service) != now:
                self._known[service] = now
                for event in waiting:
                    event.set()
