"""One HTTP request and one answer, as plain data between the parts of the front.

Owns reading a bounded body and sending an answer over ASGI. Knows neither Django nor the platform.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from string import punctuation
from typing import Any
from urllib.parse import quote

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class BodyTooLarge(Exception):
    """More came than the limit allows."""


class ClientGone(Exception):
    """The client hung up, or sent less than it announced."""


class ClientIdle(Exception):
    """The client sent nothing for too long."""


@dataclass(slots=True)
class Request:
    """What came in. Header names are lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    client: str
    scheme: str
    server: tuple[str, int]
    receive: Receive
    extra: dict[str, Any] = field(default_factory=dict)  # WSGI environ entries for Django
    body_ended: bool = False

    @classmethod
    def of(cls, scope: Scope, receive: Receive) -> Request:
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers and name != "cookie" else value
        client, server = scope.get("client"), scope.get("server")
        return cls(
            method=scope["method"],
            path=scope["path"],
            query=quote(scope.get("query_string", b""), safe=punctuation),  # ASCII, so that it can be forwarded
            headers=headers,
            client=client[0] if client else "",
            scheme=scope.get("scheme", "http"),
            server=(server[0], server[1] or 0) if server else ("", 0),
            receive=receive,
        )

    @property
    def is_routable(self) -> bool:
        """False for a path that no route has and that another program would read as another path."""
        return self.path.isprintable() and not {".", ".."} & set(self.path.split("/"))

    @property
    def is_write(self) -> bool:
        return self.method not in ("GET", "HEAD", "OPTIONS")

    async def chunks(self, idle_s: float) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ClientGone, ClientIdle."""
        while True:
            try:
                message = await asyncio.wait_for(self.receive(), idle_s)
            except TimeoutError:
                raise ClientIdle from None
            gone = message["type"] == "http.disconnect"
            self.body_ended = gone or not message.get("more_body", False)
            if gone:
                raise ClientGone
            body = message.get("body", b"")
            if body:
                yield body
            if self.body_ended:
                return

    async def gone(self) -> None:
        """Returns when the client has hung up. Reads the body away, if there is any."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def discard(self, limit: int, time_s: float) -> None:
        """Read what is left of a refused body, within bounds.

        A connection that is closed on a client in the middle of its sending takes the answer with it. A client that
        waits for `100 Continue` has sent nothing yet.
        """
        if self.body_ended or not self.is_write or "expect" in self.headers:
            return
        with contextlib.suppress(ClientGone, ClientIdle, TimeoutError):
            async with asyncio.timeout(time_s):
                async for chunk in self.chunks(time_s):
                    limit -= len(chunk)
                    if limit <= 0:
                        return

    async def body(self, limit: int, idle_s: float) -> bytes:
        """The whole body, at most `limit` bytes. Raises BodyTooLarge, ClientGone, ClientIdle."""
        if self.method in ("GET", "HEAD"):
            return b""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks(idle_s):
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge
            parts.append(chunk)
        announced = self.headers.get("content-length", "")
        if announced.isdigit() and int(announced) != size:
            raise ClientGone
        return b"".join(parts)


@dataclass(slots=True)
class Answer:
    """What goes out: a body, or a stream of it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None

    def header(self, name: str) -> str:
        lower = name.lower()
        return next((value for key, value in self.headers if key.lower() == lower), "")

    async def send(self, send: Send, *, head: bool = False) -> None:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if self.stream is None or head:
            await send({"type": "http.response.body", "body": b"" if head else self.body})
            return
        try:
            async for chunk in self.stream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:  # a client that is gone ends what the stream holds at once
            if isinstance(self.stream, AsyncGenerator):
                await self.stream.aclose()
        await send({"type": "http.response.body", "body": b""})
