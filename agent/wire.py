"""A small HTTP/1.1 client for the event loop: one request, one connection, one deadline for all of it.

Owns the bytes. Made for two uses, calls to the control plane and health checks, where a whole client library would
cost the agent half of its memory. It follows no redirects and keeps nothing between calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_HEAD_LIMIT = 64 * 1024
_BLOCK = 256 * 1024


class WireError(Exception):
    """No complete answer came: refused, cut off, not HTTP, too long, or too late."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunks: AsyncIterator[bytes] | None = None  # in place of a body whose length nobody knows yet


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


async def fetch(
    request: Request,
    timeout_s: float,
    limit: int = 64 * 1024 * 1024,
    sink: Callable[[bytes], None] | None = None,
    connect_s: float = 2.0,
    tls: ssl.SSLContext | None = None,
    connect_to: str = "",
    head_only: bool = False,
) -> Response:
    """The whole answer, or WireError. With a `sink`, a 200's body goes there block by block instead of to memory.

    `tls` is for https; without it the system's authorities count. `connect_to` is the address to connect to in place
    of the URL's host, whose name everything else goes by. With `head_only` no body is read.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reached = _open(request.url, min(connect_s, timeout_s), tls, connect_to)
            return await _exchange(request, limit, sink, reached, head_only)
    except TimeoutError as error:
        raise WireError(f"no answer from {request.url} within {timeout_s:g} s") from error
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise WireError(f"{request.url}: {error or type(error).__name__}") from error


async def _open(
    url: str, connect_s: float, tls: ssl.SSLContext | None, connect_to: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    opening = asyncio.open_connection(
        connect_to or parts.hostname, port, ssl=(tls or True) if secure else None, limit=_HEAD_LIMIT,
        server_hostname=parts.hostname if secure and connect_to else None,
    )  # fmt: skip
    return await asyncio.wait_for(opening, connect_s)


async def _exchange(
    request: Request,
    limit: int,
    sink: Callable[[bytes], None] | None,
    reached: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
    head_only: bool,
) -> Response:
    parts = urlsplit(request.url)
    reader, writer = await reached
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        writer.write(_head(request, target, parts.netloc))
        writer.write(request.body)
        await writer.drain()
        if request.chunks is not None:
            await _send_chunks(writer, request.chunks)
        status, headers = await _read_head(reader)
        if head_only:
            return Response(status, headers, b"")
        body = await _read_body(reader, request.method, status, headers, limit, sink if status == 200 else None)
        return Response(status, headers, body)
    finally:
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            writer.transport.abort()


def _head(request: Request, target: str, host: str) -> bytes:
    headers = {"Host": host, "Connection": "close", "Accept-Encoding": "identity", **request.headers}
    if request.chunks is not None:
        headers["Transfer-Encoding"] = "chunked"
    elif request.body or request.method in ("POST", "PUT"):
        headers["Content-Length"] = str(len(request.body))
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break in a header")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _send_chunks(writer: asyncio.StreamWriter, chunks: AsyncIterator[bytes]) -> None:
    """A server that refuses early reads no more; what it said is read all the same."""
    try:
        async for chunk in chunks:
            if chunk:
                writer.write(b"%x\r\n" % len(chunk))
                writer.write(chunk)
                writer.write(b"\r\n")
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    except ConnectionError:
        return


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise ValueError(f"not an HTTP answer: {first[:80]!r}")
        status = int(words[1])
        if status >= 200:
            break
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return status, headers


async def _read_body(
    reader: asyncio.StreamReader,
    method: str,
    status: int,
    headers: dict[str, str],
    limit: int,
    sink: Callable[[bytes], None] | None,
) -> bytes:
    kept: list[bytes] = []
    total = 0

    def take(block: bytes) -> None:
        nonlocal total
        total += len(block)
        if total > limit:
            raise ValueError(f"an answer of more than {limit} bytes")
        (sink or kept.append)(block)

    if method == "HEAD" or status in (204, 304):
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        await _read_chunks(reader, take)
    elif "content-length" in headers:
        await _read_exactly(reader, int(headers["content-length"]), take)
    else:
        while block := await reader.read(_BLOCK):
            take(block)
    return b"".join(kept)


async def _read_chunks(reader: asyncio.StreamReader, take: Callable[[bytes], None]) -> None:
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return
        await _read_exactly(reader, size, take)
        await reader.readexactly(2)


async def _read_exactly(reader: asyncio.StreamReader, size: int, take: Callable[[bytes], None]) -> None:
    while size > 0:
        block = await reader.read(min(size, _BLOCK))
        if not block:
            raise ValueError(f"the answer broke off with {size} bytes missing")
        size -= len(block)
        take(block)
