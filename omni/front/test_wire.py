"""The client of forwarded requests, against servers that behave, misbehave and break off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from omni.front.wire import Broken, ConnectFailed, Wire

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def raw(*answers: bytes, close: bool = False) -> Serve:
    """Answers request after request with these bytes, whatever was asked; reads bodies by their content-length."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while left:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"content-length: " in head:
                    await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(left.pop(0))
                await writer.drain()
        if close:
            writer.close()

    return serve


@contextlib.asynccontextmanager
async def wire_to(serve: Serve, silence_s: float = 5.0) -> AsyncIterator[Wire]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = Wire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, 1.0, silence_s)
    try:
        yield wire
    finally:
        await wire.close()
        server.close()


async def ask(wire: Wire, body: bytes | AsyncIterator[bytes] = b"x", length: int = 1) -> tuple[int, bytes]:
    headers = [("host", "h"), ("content-length", str(length)) if length >= 0 else ("transfer-encoding", "chunked")]
    answer = await wire.call("POST", "/x", headers, body)
    return answer.status, b"".join([block async for block in answer.body])


def tell(story: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(story(), 15)

    return asyncio.run(bounded())


def plain(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body


@pytest.mark.parametrize(
    ("answer", "close", "expected"),
    [
        (plain(b"hello"), False, b"hello"),
        (plain(b"") * 1, False, b""),
        (b"HTTP/1.1 204 x\r\n\r\n", False, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + plain(b"after"), False, b"after"),
        (
            b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: t\r\n\r\n",
            False,
            b"abcde",
        ),
        (b"HTTP/1.1 200 x\r\n\r\nuntil the end", True, b"until the end"),
    ],
)
def test_every_form_of_an_answer_is_read(answer: bytes, close: bool, expected: bytes) -> None:
    async def story() -> bytes:
        async with wire_to(raw(answer, close=close)) as wire:
            return (await ask(wire))[1]

    assert tell(story) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 x\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 x\r\ncontent-length: many\r\n\r\n",
        b"",
        b"HTTP/1.1 200 x\r\n" + b"a: b\r\n" * 100_000,
    ],
)
def test_what_is_no_whole_answer_is_broken(answer: bytes) -> None:
    async def story() -> None:
        async with wire_to(raw(answer, close=True)) as wire:
            with pytest.raises(Broken):
                await ask(wire)
            assert wire._idle == []

    tell(story)


def test_a_connection_is_used_again_and_not_after_the_other_side_closed_it() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1)
            writer.write(plain(b"ok"))
        await writer.drain()
        writer.close()

    async def story() -> int:
        async with wire_to(serve) as wire:
            for _ in range(4):
                assert await ask(wire) == (200, b"ok")
                await asyncio.sleep(0.05)
        return connections

    assert tell(story) == 2


def test_a_server_that_says_close_is_not_asked_on_that_connection_again() -> None:
    async def story() -> None:
        answer = b"HTTP/1.1 200 x\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
        async with wire_to(raw(answer)) as wire:
            await ask(wire)
            assert wire._idle == []

    tell(story)


def test_nobody_there_is_told_apart_from_a_broken_connection() -> None:
    async def story() -> None:
        async with wire_to(raw()) as wire:
            pass
        with pytest.raises(ConnectFailed):
            await ask(wire)

    tell(story)


def test_silence_is_a_broken_connection() -> None:
    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(10)

    async def story() -> None:
        async with wire_to(silent, silence_s=0.2) as wire:
            with pytest.raises(Broken):
                await ask(wire)

    tell(story)


async def blocks(count: int, size: int = 100_000) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"y" * size


@pytest.mark.parametrize("announced", [True, False])
def test_a_streamed_body_arrives_whole(announced: bool) -> None:
    got = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert (b"chunked" in head) is not announced
        wanted = 1_000_000 if announced else -1
        while announced and len(got) < wanted:
            got.extend(await reader.read(65536))
        while not announced and (size := int(await reader.readuntil(b"\r\n"), 16)):
            got.extend(await reader.readexactly(size))
            await reader.readexactly(2)
        writer.write(plain(b"thanks"))
        await writer.drain()

    async def story() -> bytes:
        async with wire_to(serve) as wire:
            return (await ask(wire, blocks(10), 1_000_000 if announced else -1))[1]

    assert tell(story) == b"thanks"
    assert bytes(got) == b"y" * 1_000_000


def test_a_refusal_before_the_end_of_a_long_body_is_heard() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(plain(b"too large", 413))
        await writer.drain()
        await asyncio.sleep(5)

    async def story() -> tuple[int, bytes]:
        async with wire_to(serve) as wire:
            said = await ask(wire, blocks(1000), 100_000_000)
            assert wire._idle == [], "half a body is on its way there"
            return said

    assert tell(story) == (413, b"too large")


def test_what_the_body_raises_is_raised_and_ends_the_connection() -> None:
    class Gone(Exception):
        pass

    async def breaking() -> AsyncIterator[bytes]:
        yield b"y"
        raise Gone

    async def story() -> None:
        async with wire_to(raw(plain(b"never"))) as wire:
            with pytest.raises(Gone):
                await ask(wire, breaking(), 10)

    tell(story)


def test_a_line_break_in_a_header_goes_nowhere() -> None:
    async def story() -> None:
        async with wire_to(raw(plain(b"x"))) as wire:
            with pytest.raises(ValueError, match="line break"):
                await wire.call("POST", "/x", [("a", "b\r\nc: d")], b"")

    tell(story)


def test_as_many_calls_as_there_are_places_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omni.front.wire.CONNECTIONS", 2)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(5)

    async def story() -> None:
        async with wire_to(slow, silence_s=3.0) as wire:
            wire.connect_s = 0.2
            busy = [asyncio.create_task(ask(wire)) for _ in range(2)]
            await asyncio.sleep(0.05)
            with pytest.raises(ConnectFailed, match="under way"):
                await ask(wire)
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
            assert not wire._places.locked(), "a call that is given up gives its place back"

    tell(story)
