"""Followers of the same thing share one reading of it: a channel.

Owns channels: what was read last (a bounded ring of ready-made events), who listens, and when to read again. One look
at two cheap numbers (the write index; the newest batch of each followed app) serves all channels of the process, so
that a thousand idle followers cost what one costs. A channel reads with the credentials of one of its listeners: a
refusal ends that listener, and the next one asks. Knows positions only as far as they can be compared.
"""

from __future__ import annotations

import asyncio
import logging
import re
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from omni.front.requests import Answer

LOOK_S = 0.1
_AFTER_FAILURE_S = 1.0
RING_ITEMS, RING_BYTES = 4_000, 8 << 20
_NUMBERS = re.compile(r"\d+")
_log = logging.getLogger("omni.front")

Key = tuple[int, ...]
Page = Callable[[str], Awaitable[Answer]]  # a list's page behind this position, asked as one listener may ask


def order(position: str) -> Key:
    """Positions of one channel compare by it. An instance's line (time.instance.sequence) counts by its sequence."""
    parts = tuple(int(part) for part in _NUMBERS.findall(position))
    return parts[-1:] if len(parts) == 3 else parts


def shown(item: dict[str, Any]) -> tuple[str, bytes]:
    """An item's position, and the item as an event of the stream."""
    position = str(item.get("cursor") or item.get("id"))
    return position, b"id: " + position.encode() + b"\ndata: " + orjson.dumps(item) + b"\n\n"


@dataclass(slots=True, eq=False)
class Listener:
    page: Page
    refusal: Answer | None = None  # set: this listener may not read on


@dataclass(slots=True, eq=False)
class Channel:
    """`position`: everything up to there has been read. `floor`: what lies behind it is in the ring."""

    kind: str
    number: int
    position: str
    floor: Key
    mark: int = -1  # of the last look: the number that said that there was something to read
    listeners: list[Listener] = field(default_factory=list)
    _keys: list[Key] = field(default_factory=list)
    _events: list[bytes] = field(default_factory=list)
    _bytes: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _joined: tuple[Key, Key, bytes] | None = None

    def after(self, position: str) -> tuple[bytes, str] | None:
        """The events behind `position` and where they end; None when the ring does not reach back so far."""
        at = order(position)
        if at < self.floor:
            return None
        first = bisect_right(self._keys, at)
        if first == len(self._keys):
            return b"", max(position, self.position, key=order)
        known = self._joined
        if known is None or known[:2] != (self._keys[first], self._keys[-1]):
            known = self._joined = (self._keys[first], self._keys[-1], b"".join(self._events[first:]))
        return known[2], max(position, self.position, key=order)

    async def change(self, timeout_s: float) -> bool:
        """Whether something came within that time. Ask `after` again either way."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def pull(self) -> None:
        """Read on, to the end. Raises Unavailable when nobody can read now."""
        while self.listeners:
            speaker = self.listeners[0]
            answer = await speaker.page(self.position)
            if answer.status >= 500 or answer.status == 429:
                raise Unavailable
            if answer.status != 200:
                speaker.refusal = answer
                self.leave(speaker)
                self._wake()
                continue
            body = orjson.loads(answer.body)
            self._take(body["items"], body.get("seen"))
            if not body.get("next"):
                return

    def leave(self, listener: Listener) -> None:
        if listener in self.listeners:
            self.listeners.remove(listener)

    def _take(self, items: Sequence[dict[str, Any]], seen: str | None) -> None:
        for item in items:
            position, event = shown(item)
            self._keys.append(order(position))
            self._events.append(event)
            self._bytes += len(event)
            self.position = position
        if seen is not None and order(seen) > order(self.position):
            self.position = seen
        if len(self._keys) > RING_ITEMS or self._bytes > RING_BYTES:
            self._shrink()
        if items:
            self._wake()

    def _shrink(self) -> None:
        """To half, so that it happens seldom."""
        gone = 0
        while gone < len(self._keys) - 1 and (
            len(self._keys) - gone > RING_ITEMS // 2 or self._bytes > RING_BYTES // 2
        ):
            self._bytes -= len(self._events[gone])
            gone += 1
        self.floor = self._keys[gone - 1] if gone else self.floor
        del self._keys[:gone], self._events[:gone]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Unavailable(Exception):
    """The database, or what else a page needs, does not answer now."""


@dataclass(slots=True)
class Hub:
    """`newest(kind, ids)`: for each id the number that grows with what its channels show."""

    newest: Callable[[str, list[int]], Awaitable[dict[int, int]]]
    _channels: dict[str, Channel] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None
    _pulls: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def join(self, name: str, position: str, listener: Listener) -> Channel:
        """The channel of that name (`kind id rest`), begun at `position` when there is none."""
        channel = self._channels.get(name)
        if channel is None:
            kind, number, _ = name.split(" ", 2)
            channel = self._channels[name] = Channel(kind, int(number), position, order(position))
        channel.listeners.append(listener)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return channel

    def leave(self, name: str, listener: Listener) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        channel.leave(listener)
        if not channel.listeners:
            del self._channels[name]

    async def _run(self) -> None:
        while self._channels:
            try:
                await self._look()
            except Exception as error:  # the database is away: the listeners' heartbeats go on
                _log.info("streams wait: %s", error)
                await asyncio.sleep(_AFTER_FAILURE_S)
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        for kind in sorted({channel.kind for channel in self._channels.values()}):
            some = {name: channel for name, channel in self._channels.items() if channel.kind == kind}
            newest = await self.newest(kind, sorted({channel.number for channel in some.values()}))
            for name, channel in some.items():
                mark = newest.get(channel.number, 0)
                if mark != channel.mark and name not in self._pulls:
                    self._pulls[name] = asyncio.create_task(self._pull(name, channel, mark))

    async def _pull(self, name: str, channel: Channel, mark: int) -> None:
        try:
            await channel.pull()
            channel.mark = mark
        except Unavailable:
            await asyncio.sleep(_AFTER_FAILURE_S)
        except Exception:
            _log.exception("a stream could not be read on: %s", name)
            await asyncio.sleep(_AFTER_FAILURE_S)
        finally:
            self._pulls.pop(name, None)
