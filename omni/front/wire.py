"""A small HTTP/1.1 client for calls to the leader: connections that are kept, bodies and answers that are streamed.

Owns the bytes on the way to one member, and when a connection may be used again. Knows neither leaders nor retries.
Own code because every forwarded write pays for it: httpcore took 1.0 ms of processor time for a call, this 0.25.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CONNECTIONS = 200
IDLE_S = 5.0  # less than servers keep an idle connection open
_BLOCK = 1 << 18
_HEAD_LIMIT = 1 << 16


_LAST_WORDS_S = 1.0  # how long an answer is looked for on a connection that takes no more
_Head = tuple[int, list[tuple[str, str]]]


class ConnectFailed(Exception):
    """No connection came about: nothing was sent."""


class Broken(Exception):
    """The connection broke, was silent for too long, or did not speak HTTP: what was sent may have arrived."""


class _NotHttp(Exception):
    """The other side speaks something else."""


_BREAKS = (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, _NotHttp)


@dataclass(slots=True)
class Response:
    """`body` streams; its end gives the connection back. Read it, or close it."""

    status: int
    headers: list[tuple[str, str]]
    body: AsyncIterator[bytes]


@dataclass(slots=True, eq=False)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_since: float = 0.0

    @property
    def usable(self) -> bool:
        """Not closed by the other side, as far as this one has heard, and not idle for so long that it may be soon."""
        fresh = time.monotonic() - self.idle_since < IDLE_S
        return fresh and not self.reader.at_eof() and not self.writer.is_closing()

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass(slots=True)
class Wire:
    """Calls to one base URL. `silence_s`: the longest wait for the next bytes."""

    base: str
    context: ssl.SSLContext | None
    connect_s: float
    silence_s: float
    _idle: list[_Connection] = field(default_factory=list)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTIONS))
    _closed: bool = False

    async def call(
        self, method: str, target: str, headers: list[tuple[str, str]], body: AsyncIterator[bytes] | bytes
    ) -> Response:
        """Raises ConnectFailed, Broken, and whatever `body` raises. `headers` say how long the body is, or chunked."""
        chunked = any(name == "transfer-encoding" for name, _ in headers)
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
        if any("\r" in line or "\n" in line for line in lines):
            raise ValueError("a line break in a header")
        connection = await self._take()
        try:
            (status, answered), early = await self._exchange(
                connection, "\r\n".join(lines).encode("latin-1"), body, chunked
            )
            return Response(status, answered, self._body(connection, method, status, answered, early))
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, _BREAKS):
                raise Broken(f"{type(error).__name__}: {error}") from error
            raise

    async def close(self) -> None:
        """Idle connections now, the others when their answers end."""
        self._closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _take(self) -> _Connection:
        try:
            await asyncio.wait_for(self._places.acquire(), self.connect_s)
        except TimeoutError:
            raise ConnectFailed(f"{CONNECTIONS} calls to {self.base} are under way") from None
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.close()
        parts = urlsplit(self.base)
        secure = self.context if parts.scheme == "https" else None
        try:
            opening = asyncio.open_connection(parts.hostname, parts.port, ssl=secure, limit=_BLOCK)
            return _Connection(*await asyncio.wait_for(opening, self.connect_s))
        except BaseException as error:
            self._places.release()
            if isinstance(error, (OSError, TimeoutError)):
                raise ConnectFailed(f"{type(error).__name__}: {error}") from error
            raise

    async def _exchange(
        self, connection: _Connection, head: bytes, body: AsyncIterator[bytes] | bytes, chunked: bool
    ) -> tuple[_Head, bool]:
        """Status and headers; and whether they came before all of the body was out, so that its rest is not wanted."""
        if isinstance(body, bytes):
            connection.writer.write(head + body)
            async with asyncio.timeout(self.silence_s):
                return await _read_head(connection.reader), False
        connection.writer.write(head)
        answering = asyncio.create_task(_read_head(connection.reader))
        sending = asyncio.create_task(_stream(connection, body, chunked, self.silence_s))
        try:
            await asyncio.wait((sending, answering), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                return answering.result(), not sending.done()
            broken = isinstance(sending.exception(), OSError)
            if not broken:
                sending.result()  # raises what the body raised
            async with asyncio.timeout(_LAST_WORDS_S if broken else self.silence_s):
                return await answering, broken
        finally:
            for task in (sending, answering):
                task.cancel()
            await asyncio.gather(sending, answering, return_exceptions=True)

    async def _body(
        self, connection: _Connection, method: str, status: int, headers: list[tuple[str, str]], early: bool
    ) -> AsyncIterator[bytes]:
        named = dict(headers)
        again = not early and named.get("connection", "").lower() != "close"
        try:
            if method == "HEAD" or status in (204, 304):
                pass
            elif "chunked" in named.get("transfer-encoding", "").lower():
                async for block in self._chunks(connection):
                    yield block
            elif "content-length" in named:
                left = int(named["content-length"])
                while left > 0:
                    block = await self._read(connection, min(left, _BLOCK))
                    left -= len(block)
                    yield block
            else:
                again = False
                while block := await self._some(connection, _BLOCK):
                    yield block
        except _BREAKS as error:
            again = False
            raise Broken(f"{type(error).__name__}: {error}") from error
        except BaseException:
            again = False
            raise
        finally:
            self._give_back(connection) if again else self._drop(connection)

    async def _chunks(self, connection: _Connection) -> AsyncIterator[bytes]:
        while True:
            async with asyncio.timeout(self.silence_s):
                left = int((await connection.reader.readuntil(b"\r\n")).split(b";")[0], 16)
            last = left == 0
            while left > 0:
                block = await self._read(connection, min(left, _BLOCK))
                left -= len(block)
                yield block
            async with asyncio.timeout(self.silence_s):
                while await connection.reader.readuntil(b"\r\n") != b"\r\n":
                    pass  # trailers
            if last:
                return

    async def _read(self, connection: _Connection, most: int) -> bytes:
        block = await self._some(connection, most)
        if not block:
            raise OSError("the answer broke off")
        return block

    async def _some(self, connection: _Connection, most: int) -> bytes:
        async with asyncio.timeout(self.silence_s):
            return await connection.reader.read(most)

    def _give_back(self, connection: _Connection) -> None:
        self._places.release()
        if self._closed:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def _drop(self, connection: _Connection) -> None:
        self._places.release()
        connection.close()


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit() or len(head) > _HEAD_LIMIT:
            raise _NotHttp(first[:80])
        if int(words[1]) >= 200:
            parted = (line.partition(":") for line in lines)
            return int(words[1]), [(name.strip().lower(), value.strip()) for name, _, value in parted]


async def _stream(connection: _Connection, body: AsyncIterator[bytes], chunked: bool, silence_s: float) -> None:
    async for block in body:
        if not block:
            continue
        connection.writer.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
        async with asyncio.timeout(silence_s):
            await connection.writer.drain()
    if chunked:
        connection.writer.write(b"0\r\n\r\n")
