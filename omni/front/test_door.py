"""The members' door: who gets through, and what gets through it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from consensus import identity
from omni.front.door import Door

SECRET, HERE = "s" * 40, "127.0.0.1"
MINE = identity.make(SECRET, "127.0.0.1-8000", HERE)


def client(of: identity.Identity | None = None) -> ssl.SSLContext:
    context = identity.client_context(of or identity.make(SECRET, "127.0.0.1-8001"))
    context.check_hostname = True
    return context


@contextlib.asynccontextmanager
async def open_door(serve: Callable[..., Awaitable[None]]) -> AsyncIterator[Door]:
    inner = await asyncio.start_server(serve, HERE, 0)
    door = Door(identity.server_context(MINE), HERE, 0, (HERE, inner.sockets[0].getsockname()[1]))
    await door.open()
    try:
        yield door
    finally:
        await door.close()
        inner.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def tell(story: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(story(), 30)

    return asyncio.run(bounded())


def test_what_comes_through_the_door_arrives_and_so_does_the_answer() -> None:
    data = bytes(range(256)) * 40_000  # 10 MB

    async def story() -> bytes:
        async with open_door(echo) as door:
            reader, writer = await asyncio.open_connection(HERE, door.port, ssl=client())

            async def send() -> None:
                writer.write(data)
                await writer.drain()

            sending = asyncio.create_task(send())
            got = await reader.readexactly(len(data))
            await sending
            writer.close()
            return got

    assert tell(story) == data


def test_an_answer_that_ends_with_the_connection_arrives_whole() -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 3_000_000)
        await writer.drain()
        writer.close()

    async def story() -> int:
        async with open_door(answer) as door:
            reader, writer = await asyncio.open_connection(HERE, door.port, ssl=client())
            got = await reader.read()
            writer.close()
            return len(got)

    assert tell(story) == 3_000_000


@pytest.mark.parametrize("stranger", ["plain", "no certificate", "another cluster's"])
def test_a_stranger_does_not_get_through(stranger: str) -> None:
    came: list[int] = []

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(1)
        writer.close()

    def context() -> ssl.SSLContext | None:
        if stranger == "plain":
            return None
        if stranger == "no certificate":
            bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            bare.load_verify_locations(cadata=MINE.authority_pem.decode())
            return bare
        other = client(identity.make("o" * 40, "127.0.0.1-8000", HERE))
        other.load_verify_locations(cadata=MINE.authority_pem.decode())
        return other

    async def story() -> bytes:
        async with open_door(serve) as door:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(HERE, door.port, ssl=context())
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                await writer.drain()
                got = await asyncio.wait_for(reader.read(), 10)
                writer.close()
                return got
            return b""

    tell(story)
    assert came == []


def test_a_member_of_another_address_cannot_pose_as_this_one() -> None:
    async def story() -> None:
        posing = identity.make(SECRET, "10.0.0.9-8000", "10.0.0.9")
        door = Door(identity.server_context(posing), HERE, 0, (HERE, 1))
        await door.open()
        try:
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection(HERE, door.port, ssl=client())
        finally:
            await door.close()

    tell(story)


def test_a_client_that_hangs_up_takes_the_inner_connection_along() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(100):
                pass
        ended.set()

    async def story() -> None:
        async with open_door(serve) as door:
            _, writer = await asyncio.open_connection(HERE, door.port, ssl=client())
            writer.write(b"hello")
            await writer.drain()
            writer.transport.abort()
            await asyncio.wait_for(ended.wait(), 10)

    tell(story)


def test_closing_the_door_ends_what_is_open() -> None:
    async def story() -> None:
        async with open_door(echo) as door:
            reader, writer = await asyncio.open_connection(HERE, door.port, ssl=client())
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            await door.close()
            with contextlib.suppress(OSError):
                assert await asyncio.wait_for(reader.read(), 10) == b""

    tell(story)
