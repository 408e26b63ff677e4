"""Event streams (SSE): a list endpoint, asked again and again from where it stopped.

Owns the stream's form and pace. Each item's `cursor` (or `id` of an event) is the stream's id, so `Last-Event-ID`
resumes without a gap or a repeat, on any member. What many follow is read once for all of them (`sharing.py`); each
follower's own rights are asked for again every half minute. Logs of builds and tasks end with them.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from omni.front.requests import Answer, Request
from omni.front.sharing import Hub, Listener, shown
from omni.front.watching import Ask
from omni.kernel import measures

ROUTES = re.compile(r"/events|/app/[^/]+/logs|/app/[^/]+/(instances|builds|tasks)/\d+/logs")
STREAM = "omni-stream"
_FIRST_LINES = 100
_PACE_S = (0.25, 1.0)
_HEARTBEAT_S = 15.0
_RIGHTS_S = 30.0  # how long a right that was taken away may still be used on an open stream
_RECHECK_S = 3600.0  # a stream ends after an hour; the client resumes, and its rights are read again from scratch
_UNAVAILABLE_S = 1.0


def is_stream(request: Request) -> bool:
    accepts = "text/event-stream" in request.headers.get("accept", "")
    return request.method == "GET" and accepts and ROUTES.fullmatch(request.path) is not None


@dataclass(slots=True)
class Following:
    ask: Ask
    hub: Hub

    async def stream(self, request: Request) -> Answer:
        """The stream's answer; a refusal of the list endpoint is the refusal of the stream."""
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        last = request.headers.get("last-event-id", "")
        if last:
            query["cursor"] = last
            query.pop("tail", None)
            query.pop("since", None)
        elif "cursor" not in query and "since" not in query and "tail" not in query:
            query["tail"] = str(_FIRST_LINES)
        first = await self._page(request, query)
        if first.status != 200:
            return first
        headers = [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
        headers += [(name, value) for name, value in first.headers if name.lower() in ("request-id", "omni-node")]
        return Answer(200, headers, stream=self._counted(self._events(request, query, first)))

    async def _counted(self, events: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
        measures.streams.inc()
        try:
            async with aclosing(events):  # with us and not some time later: it holds a place in a channel
                async for chunk in events:
                    yield chunk
        finally:
            measures.streams.dec()

    async def _events(self, request: Request, query: dict[str, str], page: Answer) -> AsyncGenerator[bytes, None]:
        """Alone until everything that was there at the start is sent; then with the others, where others can be."""
        until = time.monotonic() + _RECHECK_S
        yield b"retry: 1000\n\n"
        beat, pace = time.monotonic(), _PACE_S[0]
        while time.monotonic() < until:
            if _is_away(page):
                await asyncio.sleep(_UNAVAILABLE_S)
            elif page.status != 200:
                yield _problem(page)
                return
            else:
                body: dict[str, Any] = orjson.loads(page.body)
                items, name = body["items"], page.header(STREAM)
                if items:
                    yield b"".join(shown(item)[1] for item in items)
                query = _on(query, _reached(body))
                if name and not body.get("next"):
                    async with aclosing(self._shared(request, query, name, until)) as shared:
                        async for chunk in shared:
                            yield chunk
                    return
                if not items and body.get("ended"):
                    yield b"event: end\ndata: " + orjson.dumps(body["ended"]) + b"\n\n"
                    return
                pace = _PACE_S[0] if items else min(pace * 1.5, _PACE_S[1])
                if not body.get("next"):
                    await asyncio.sleep(pace)
            if time.monotonic() - beat > _HEARTBEAT_S:
                beat = time.monotonic()
                yield b": still here\n\n"
            page = await self._page(request, query)

    async def _shared(
        self, request: Request, query: dict[str, str], name: str, until: float
    ) -> AsyncGenerator[bytes, None]:
        """On from the query's cursor with everybody who follows the same."""
        position = query.get("cursor", "")
        listener = Listener(lambda at: self._page(request, _on(query, at)))
        channel = self.hub.join(name, position, listener)
        ask_rights_at = time.monotonic() + _RIGHTS_S * random.uniform(0.7, 1.0)  # noqa: S311 - not all at once
        try:
            while (now := time.monotonic()) < until and listener.refusal is None:
                found = channel.after(position)
                if found is None:  # this client is slower than the ring is long: a page of its own
                    page = await listener.page(position)
                    found = await self._own(listener, page, position)
                chunk, position = found
                if chunk:
                    yield chunk
                elif not await channel.change(_HEARTBEAT_S):
                    yield b": still here\n" + (b"id: " + position.encode() + b"\n\n" if position else b"\n")
                if now > ask_rights_at:
                    ask_rights_at = now + _RIGHTS_S
                    answer = await self._page(request, {**_on(query, position), "limit": "1"})
                    if answer.status != 200 and not _is_away(answer):
                        listener.refusal = answer
            if listener.refusal is not None:
                yield _problem(listener.refusal)
        finally:
            self.hub.leave(name, listener)

    async def _own(self, listener: Listener, page: Answer, position: str) -> tuple[bytes, str]:
        if _is_away(page):
            await asyncio.sleep(_UNAVAILABLE_S)
            return b"", position
        if page.status != 200:
            listener.refusal = page
            return b"", position
        body = orjson.loads(page.body)
        return b"".join(shown(item)[1] for item in body["items"]), _reached(body) or position

    async def _page(self, request: Request, query: dict[str, str]) -> Answer:
        headers = {name: value for name, value in request.headers.items() if name in ("authorization", "cookie")}
        query = {"limit": "500", **query, "follow": "true"}
        page = replace(request, query=urlencode(query), headers=headers, extra={})
        return await self.ask(page)


def _on(query: dict[str, str], position: str) -> dict[str, str]:
    """The query for what comes behind `position`."""
    if not position:
        return query
    return {**{name: value for name, value in query.items() if name not in ("tail", "since")}, "cursor": position}


def _reached(body: dict[str, Any]) -> str:
    """Where reading goes on: what was looked at, else the last item; a search that found nothing moves on, too."""
    if body.get("seen"):
        return str(body["seen"])
    items = body["items"]
    return str(items[-1].get("cursor") or items[-1].get("id")) if items else ""


def _is_away(answer: Answer) -> bool:
    """Nobody can tell now; the stream stays open."""
    return answer.status >= 500 or answer.status == 429


def _problem(answer: Answer) -> bytes:
    return b"event: problem\ndata: " + answer.body + b"\n\n"
