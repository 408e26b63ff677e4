"""The engine's two endless answers, output and events, read without a thread for each.

Owns just as much of HTTP/1.1 as those two need: one GET per connection, the answer chunked. A connection that ends
before the answer does raises `Away`, because that is how an engine that dies looks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from urllib.parse import urlencode, urlsplit

from agent.runtimes.engine.client import Away, Declined

CONNECT_S = 5.0
_LINE = 16 * 1024
_BLOCK = 64 * 1024


async def get(url: str, path: str, query: dict[str, str]) -> AsyncGenerator[bytes, None]:
    """An empty piece when the engine has begun to answer, then the body as it comes. Raises Away and Declined."""
    reader, writer = await opened(url)
    try:
        head = f"GET {path}?{urlencode(query)} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("ascii"))
        await writer.drain()
        async with asyncio.timeout(CONNECT_S * 2):
            status, headers = await answered(reader)
        if status != 200:
            raise Declined(status, f"the engine answered {status}")
        yield b""
        async for piece in _body(reader, headers):
            yield piece
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise Away(f"the engine at {url} ended its answer: {type(error).__name__}") from error
    finally:
        with contextlib.suppress(OSError):
            writer.transport.abort()


async def opened(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection of its own to the engine. Raises Away."""
    try:
        async with asyncio.timeout(CONNECT_S):
            return await _connect(url)
    except (OSError, TimeoutError, ValueError) as error:
        raise Away(f"no answer from the engine at {url}: {error}") from error


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    if parts.scheme in ("unix", "http+unix"):
        return await asyncio.open_unix_connection(parts.path, limit=_BLOCK)
    if parts.scheme in ("tcp", "http") and parts.hostname and parts.port:
        return await asyncio.open_connection(parts.hostname, parts.port, limit=_BLOCK)
    raise ValueError("unix:// or tcp:// is wanted")


async def answered(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer; what follows them stays unread. Raises OSError, ValueError, EOFError."""
    words = (await reader.readuntil(b"\r\n")).split(b" ", 2)
    headers: dict[str, str] = {}
    while (line := (await reader.readuntil(b"\r\n")).rstrip(b"\r\n")) and len(headers) < 100:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip().lower()
    return int(words[1]), headers


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") != "chunked":
        length = int(headers.get("content-length", "0"))
        if length:
            yield await reader.readexactly(length)
        return
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        while size:
            piece = await reader.read(min(size, _BLOCK))
            if not piece:
                raise OSError("cut off")
            size -= len(piece)
            yield piece
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
