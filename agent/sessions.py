"""Commands that somebody runs in an instance of this node and talks to, over a WebSocket to the member where he waits.

Owns each talk from the order to its end, and its limits of time. What travels is binary messages, whose first byte
says which stream the rest belongs to (0 in, 1 out, 2 errors), and JSON in text messages: `{"type": "resize", "columns",
"rows"}` and `{"type": "eof"}` come in, `{"type": "exit", "code", "reason", "detail"}` goes out last. Nothing of what is
said is kept or logged. A talk does not survive the agent: what it ran dies with it, and the next agent says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent import clock, tls
from agent.config import Config
from agent.instance import Instance
from agent.protocol import SessionOrder, SessionSeen
from agent.runtimes.base import RuntimeFault
from agent.runtimes.entering import Entered, Entry

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

log = logging.getLogger(__name__)

MOST = 32  # at once; the control plane's own limit is lower
MESSAGE_BYTES = 1 << 20
_STDIN = 0
_FIND_S = 15.0  # how long the member may take to be found: it may have several processes, of which one is right
_AGAIN_S = 0.05
_DRAIN_S = 1.0  # what a command left behind may hold its output for longer than the command lived
_LOOK_S = 1.0
_SAY_S = 5.0


class Sessions:
    """`report` is told what runs and how it ended."""

    def __init__(
        self, config: Config, instances: Mapping[int, Instance], report: Callable[[SessionSeen], None]
    ) -> None:
        self._config = config
        self._instances = instances
        self._report = report
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def apply(self, orders: Sequence[SessionOrder]) -> None:
        """The whole list: what it does not name any more ends."""
        listed = {order.id for order in orders}
        for session_id, task in list(self._tasks.items()):
            if session_id not in listed:
                del self._tasks[session_id]
                task.cancel()
        for order in orders:
            if order.id in self._tasks:
                continue
            if order.running:
                self._report(SessionSeen(order.id, True, None, "agent_restarted"))
            elif sum(not task.done() for task in self._tasks.values()) >= MOST:
                self._report(SessionSeen(order.id, True, None, "refused", f"{MOST} sessions are open on this node"))
            else:
                self._tasks[order.id] = asyncio.create_task(self._run(order), name=f"session {order.id}")

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, order: SessionOrder) -> None:
        try:
            seen = await self._talk(order)
        except asyncio.CancelledError:
            raise
        except Exception:  # one talk must not end the others
            log.exception("session %s failed", order.id)
            seen = SessionSeen(order.id, True, None, "failed", "something went wrong on the node")
        log.info("session %s of instance %s ended: %s", order.id, order.instance_id, seen.reason)
        self._report(seen)

    async def _talk(self, order: SessionOrder) -> SessionSeen:
        connection = await self._dial(order)
        if connection is None:
            return SessionSeen(order.id, True, None, "nobody_there", "whoever asked was not found at his member")
        async with connection:
            try:
                instance = self._instances.get(order.instance_id)
                if instance is None:
                    raise RuntimeFault("the instance is not on this node")
                entered = await instance.enter(Entry(tuple(order.argv), order.tty, order.columns, order.rows))
            except RuntimeFault as fault:
                seen = SessionSeen(order.id, True, None, "refused", str(fault)[:300])
            else:
                self._report(SessionSeen(order.id))
                try:
                    seen = await Talk(order, connection, entered).run()
                finally:
                    await entered.end()
            await _say(connection, seen)
            return seen

    async def _dial(self, order: SessionOrder) -> ClientConnection | None:
        from websockets.asyncio.client import connect  # large: loaded by nodes that need it
        from websockets.exceptions import WebSocketException

        known = {url.rstrip("/") for url in self._config.control_plane}
        url = next((url for url in order.urls if url in known), None)
        if url is None:
            log.warning("session %s: no member of ours is at %s", order.id, order.urls)
            return None
        target = f"ws{url.removeprefix('http')}/agent/exec/{order.id}"
        headers = {"Authorization": f"Bearer {self._config.token}"}
        context = tls.context(self._config.tls) if url.startswith("https") else None
        until = clock.monotonic() + _FIND_S
        while clock.monotonic() < until:
            with contextlib.suppress(OSError, TimeoutError, WebSocketException):
                return await connect(
                    target, additional_headers=headers, ssl=context,
                    max_size=MESSAGE_BYTES, compression=None, open_timeout=5, close_timeout=2,
                    ping_timeout=60, proxy=None,
                )  # fmt: skip
            await asyncio.sleep(_AGAIN_S)
        return None


class Talk:
    """One talk, from the command's start to the first reason to end it."""

    def __init__(self, order: SessionOrder, connection: ClientConnection, entered: Entered) -> None:
        self._order, self._connection, self._entered = order, connection, entered
        self._heard_at = clock.monotonic()

    async def run(self) -> SessionSeen:
        outward = asyncio.create_task(self._outward())
        inward = asyncio.create_task(self._inward())
        ended = asyncio.create_task(self._entered.wait())
        watch = asyncio.create_task(self._watch())
        tasks = [outward, inward, ended, watch]
        try:
            await asyncio.wait([inward, ended, watch], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                await asyncio.wait([outward, inward], timeout=_DRAIN_S, return_when=asyncio.FIRST_COMPLETED)
                return SessionSeen(self._order.id, True, ended.result(), "exited")
            if watch.done():
                return SessionSeen(self._order.id, True, None, watch.result())
            return SessionSeen(self._order.id, True, None, "closed")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> str:
        """Why the time is over, when it is."""
        until = clock.monotonic() + self._order.max_s
        while True:
            now = clock.monotonic()
            if now >= until:
                return "too_long"
            if now - self._heard_at >= self._order.idle_s:
                return "idle"
            await asyncio.sleep(min(_LOOK_S, until - now, self._order.idle_s))

    async def _outward(self) -> None:
        while (piece := await self._entered.read()) is not None:
            self._heard_at = clock.monotonic()
            await self._connection.send(bytes([piece[0]]) + piece[1])

    async def _inward(self) -> None:
        """Until the other side leaves."""
        async for message in self._connection:
            self._heard_at = clock.monotonic()
            if isinstance(message, bytes):
                if message[:1] == bytes([_STDIN]):
                    await self._entered.write(message[1:])
                continue
            await self._told(_object(message))

    async def _told(self, message: dict[str, Any]) -> None:
        if message.get("type") == "eof":
            await self._entered.end_input()
        elif message.get("type") == "resize":
            size = [message.get(name) for name in ("columns", "rows")]
            if all(isinstance(number, int) and 0 < number < 10_000 for number in size):
                await self._entered.resize(int(size[0] or 80), int(size[1] or 24))


async def _say(connection: ClientConnection, seen: SessionSeen) -> None:
    from websockets.exceptions import WebSocketException

    text = json.dumps({"type": "exit", "code": seen.code, "reason": seen.reason, "detail": seen.detail})
    with contextlib.suppress(OSError, TimeoutError, WebSocketException):
        async with asyncio.timeout(_SAY_S):
            await connection.send(text)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
