"""Waking who waits for a container's end: one stream of events for all of them.

Owns no knowledge: an event only says when to look again, and looking is the waiter's. Whenever the stream begins anew,
after the engine was away, everybody looks; and everybody looks now and then, whatever the stream says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator

from agent.runtimes.engine import stream
from agent.runtimes.engine.client import Engine, EngineError
from agent.runtimes.engine.launching import PLATFORM

log = logging.getLogger(__name__)

RESYNC_S = 30.0
AGAIN_S = 0.5


class Ends:
    def __init__(self, engine: Engine, platform: str) -> None:
        self._engine = engine
        self._platform = platform
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self._connected = False

    @contextlib.asynccontextmanager
    async def of(self, container: str) -> AsyncIterator[asyncio.Event]:
        """Set when it is time to look at this container; take it before the first look."""
        event = asyncio.Event()
        self._waiting.setdefault(container, set()).add(event)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow(), name="engine events")
        try:
            yield event
        finally:
            waiting = self._waiting[container]
            waiting.discard(event)
            if not waiting:
                del self._waiting[container]

    @property
    def pause_s(self) -> float:
        """How long to rely on the stream before looking without being told."""
        return RESYNC_S if self._connected else AGAIN_S

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        told = False
        while self._waiting:
            try:
                await self._read()
            except EngineError as error:
                if not told:
                    log.warning("no events: %s", error)
                told = True
            else:
                told = False
            self._connected = False
            self._wake_all()
            await asyncio.sleep(AGAIN_S)

    async def _read(self) -> None:
        ends = ["die", "died"]  # the second is what Podman takes; each leaves out what it does not know
        filters = {"type": ["container"], "event": ends, "label": [f"{PLATFORM}={self._platform}"]}
        rest = b""
        pieces = stream.get(self._engine.url, "/events", {"filters": json.dumps(filters)})
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if not self._connected:
                    self._connected = True
                    self._wake_all()  # what ended until now was told to nobody
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    self._told(line)

    def _told(self, line: bytes) -> None:
        try:
            container = json.loads(line)["Actor"]["ID"]
        except (ValueError, KeyError, TypeError):
            return
        for event in self._waiting.get(container, ()):
            event.set()

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for event in waiting:
                event.set()
