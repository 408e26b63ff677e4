"""What a browser or a program is told when no instance answers: unknown host, no instance, maintenance, too many.

Owns the little loopback server that Caddy is sent to for those (and falls back to), and the wording. Caddy asks it two
questions besides: may one more request of a limited host pass, and may a certificate be had for a name. Speaks as much
HTTP/1.1 as Caddy's transport needs; must never be reachable from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import json
import uuid
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qs

from agent.ingress.limits import TokenBuckets
from agent.routing import HostRoute

ASK_LIMIT, ASK_CERTIFICATE = "/.omni/limit", "/.omni/certificate"
HEADER_LIMIT = 65536
READ_S = 30.0
DRAIN_BYTES = 4 * 1024 * 1024  # of an upload nobody takes, so that Caddy sees the answer before a reset
DRAIN_S = 2.0
RETRY_AFTER_S = 5
TYPE = "urn:omni:error"  # no platform page lies under an app's own host name


@dataclass(frozen=True, slots=True)
class Page:
    status: int
    code: str
    title: str
    detail: str
    next: str
    retry_after_s: int | None = None


class Table(Protocol):
    """What the pages need of the route table."""

    @property
    def position(self) -> tuple[int, int] | None: ...

    def lookup(self, host: str) -> HostRoute | None: ...


def page_for(host: str, table: Table) -> Page:
    """Which page a request for `host` gets."""
    route = table.lookup(host)
    if route is None and table.position is None:
        return Page(
            503,
            "no_routes",
            "The platform is starting",
            "This ingress has not yet heard which apps there are.",
            "Try again in a moment.",
            1,
        )
    if route is None:
        return Page(
            404,
            "unknown_host",
            "No app has this host name",
            f"No app on this platform answers to {host or 'a request without a host name'}.",
            "omni apps list",
        )
    if route.maintenance:
        return Page(
            503,
            "maintenance",
            "Down for maintenance",
            f"{host} is under maintenance and will be back.",
            "Try again later.",
            RETRY_AFTER_S,
        )
    return Page(
        503,
        "no_instance",
        "No instance is running",
        f"{host} exists, but none of its instances can take requests right now.",
        f"omni ps {host.split('.')[0]}",
        1 if route.targets else RETRY_AFTER_S,
    )


def limited(host: str, wait_s: int) -> Page:
    """What a client beyond the limit is told; `wait_s` 0: it may pass."""
    if not wait_s:
        return Page(200, "passes", "Passes", f"{host} takes one more request.", "")
    detail = f"{host} takes no more requests for a moment: its limit is reached."
    return Page(429, "too_many_requests", "Too many requests", detail, "Slow down and try again.", wait_s)


def render(page: Page, *, as_html: bool, request_id: str, method: str = "GET", close: bool = False) -> bytes:
    """The whole response."""
    problem = {
        "type": f"{TYPE}:{page.code}",
        "title": page.title,
        "status": page.status,
        "detail": page.detail,
        "code": page.code,
        "request_id": request_id,
        "next": page.next,
    }
    body = (_html(page, request_id) if as_html else json.dumps(problem)).encode()
    reason = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 503: "Service Unavailable"}[page.status]
    head = [
        f"HTTP/1.1 {page.status} {reason}",
        f"Content-Type: {'text/html; charset=utf-8' if as_html else 'application/problem+json'}",
        f"Content-Length: {len(body)}",
        f"Request-Id: {request_id}",
        "Cache-Control: no-store",
        "Vary: Accept",
    ]
    if page.retry_after_s is not None:
        head.append(f"Retry-After: {page.retry_after_s}")
    if close:
        head.append("Connection: close")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else body)


def _html(page: Page, request_id: str) -> str:
    title, detail = html.escape(page.title), html.escape(page.detail)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{page.status} {title}</title>'
        '<meta name="viewport" content="width=device-width">'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color:#222}"
        "small{color:#777}@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}}</style>"
        f"<h1>{title}</h1><p>{detail}</p><small>{page.status} {page.code} · request {request_id}</small></html>\n"
    )


class PageServer:
    """The loopback listener."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._buckets = TokenBuckets()
        self._server: asyncio.Server | None = None

    async def start(self, port: int) -> int:
        """Listen on loopback `port` (0: any); raises OSError when it is taken. Returns the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=HEADER_LIMIT, backlog=1024)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                async with asyncio.timeout(READ_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                method, target, fields = _parse(head)
                has_body = "transfer-encoding" in fields or fields.get("content-length", "0") != "0"
                host = fields.get("host", "").rsplit(":", 1)[0].lower()
                page = self._page(host, target)
                as_html = "text/html" in fields.get("accept", "")
                request_id = fields.get("x-request-id") or uuid.uuid4().hex
                writer.write(render(page, as_html=as_html, request_id=request_id, method=method, close=has_body))
                await writer.drain()
                if has_body:
                    await _drain(reader)
                    break
        writer.close()

    def _page(self, host: str, target: str) -> Page:
        path, _, query = target.partition("?")
        if path == ASK_CERTIFICATE:
            name = parse_qs(query).get("domain", [""])[0].lower()
            known = self._table.lookup(name) is not None
            return Page(200, "known", "Known", name, "") if known else page_for(name, self._table)
        route = self._table.lookup(host)
        if path == ASK_LIMIT and route is not None:
            return limited(host, self._buckets.take(route, asyncio.get_running_loop().time()))
        return page_for(host, self._table)


async def _drain(reader: asyncio.StreamReader) -> None:
    left = DRAIN_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while left > 0 and (chunk := await reader.read(65536)):
                left -= len(chunk)


def _parse(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, request target, fields."""
    lines = head.decode("latin-1").split("\r\n")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip().lower()] = value.strip()
    method, _, rest = lines[0].partition(" ")
    return method, rest.partition(" ")[0], fields
