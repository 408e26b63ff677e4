"""Event streams (SSE): a list endpoint, asked again and again from where it stopped.

Owns the stream's form and pace. Each item's `cursor` (or `id` of an event) is the stream's id, so `Last-Event-ID`
resumes without a gap or a repeat, on any member. Build logs end with the build.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson

from omni.front.requests import Answer, Request
from omni.front.watching import Ask, IndexWatch

ROUTES = re.compile(r"/events|/app/[^/]+/logs|/app/[^/]+/instances/\d+/logs|/app/[^/]+/builds/\d+/logs")
_FIRST_LINES = 100
_PACE_S = (0.25, 1.0)
_HEARTBEAT_S = 15.0
_RECHECK_S = 3600.0  # a stream ends after an hour; the client resumes, and its rights are read again from scratch


def is_stream(request: Request) -> bool:
    accepts = "text/event-stream" in request.headers.get("accept", "")
    return request.method == "GET" and accepts and ROUTES.fullmatch(request.path) is not None


@dataclass(slots=True)
class Following:
    ask: Ask
    watch: IndexWatch

    async def stream(self, request: Request) -> Answer:
        """The stream's answer; a refusal of the list endpoint is the refusal of the stream."""
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        last = request.headers.get("last-event-id", "")
        if last:
            query["cursor"] = last
            query.pop("tail", None)
        elif "cursor" not in query and "since" not in query and "tail" not in query:
            query["tail"] = str(_FIRST_LINES)
        first = await self._page(request, query)
        if first.status != 200:
            return first
        headers = [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
        headers += [(name, value) for name, value in first.headers if name.lower() in ("request-id", "omni-node")]
        return Answer(200, headers, stream=self._events(request, query, first))

    async def _events(self, request: Request, query: dict[str, str], page: Answer) -> AsyncIterator[bytes]:
        started = beat = time.monotonic()
        pace = _PACE_S[0]
        yield b"retry: 1000\n\n"
        while time.monotonic() - started < _RECHECK_S:
            if page.status != 200:
                yield b"event: problem\ndata: " + page.body + b"\n\n"
                return
            body: dict[str, Any] = orjson.loads(page.body)
            items = body["items"]
            for item in items:
                position = str(item.get("cursor") or item.get("id"))
                yield b"id: " + position.encode() + b"\ndata: " + orjson.dumps(item) + b"\n\n"
                query = {**{name: value for name, value in query.items() if name not in ("tail", "since")},
                         "cursor": position}  # fmt: skip
            if not items and body.get("ended"):
                yield b"event: end\ndata: " + orjson.dumps(body["ended"]) + b"\n\n"
                return
            pace = _PACE_S[0] if items else min(pace * 1.5, _PACE_S[1])
            if time.monotonic() - beat > _HEARTBEAT_S:
                beat = time.monotonic()
                yield b": still here\n\n"
            if not body.get("next") or not items:
                await self._pause(request, page, pace)
            page = await self._page(request, query)

    async def _pause(self, request: Request, page: Answer, pace: float) -> None:
        if request.path == "/events":
            await self.watch.beyond(int(page.header("omni-index") or 0), _HEARTBEAT_S)
        else:
            await asyncio.sleep(pace)

    async def _page(self, request: Request, query: dict[str, str]) -> Answer:
        headers = {name: value for name, value in request.headers.items() if name in ("authorization", "cookie")}
        query = {"limit": "500", **query, "follow": "true"}
        page = replace(request, query=urlencode(query), headers=headers, extra={})
        return await self.ask(page)
